"""What is known of each backend, found out in a process of its own.

A plugin can do anything when it is imported or asked: print, wait for ever, end the process. Then
it is one that is not usable, and the others are listed all the same.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from xbp.registry import BackendRecord, describe

# Each may need as much memory and as many threads as a library takes when it is imported.
_AT_ONCE = 2

# More of a plugin's words than these nobody reads.
_LONGEST_TEXT = 2_000
_MOST_DEVICES = 100

_CODE = "import sys; sys.path[:] = sys.argv[2:]; from xbp.probe import answer; answer(sys.argv[1])"


def descriptions(names: Iterable[str], seconds: float) -> list[dict[str, Any]]:
    """Return what `xbp.registry.describe` says of backends, in the order of their names.

    Parameters
    ----------
    names
        Of backends that are installed.
    seconds
        How long to wait for each.
    """
    pool = ThreadPoolExecutor(_AT_ONCE)
    running: set[subprocess.Popen[bytes]] = set()
    try:
        return list(pool.map(lambda name: _description(name, seconds, running), names))
    finally:
        # Ctrl-C leaves no process behind.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in tuple(running):
            _kill(process)


def _description(
    name: str, seconds: float, running: set[subprocess.Popen[bytes]]
) -> dict[str, Any]:
    command = [sys.executable, "-P", "-c", _CODE, name, *sys.path]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return _unusable(name, f"cannot be asked ({error})")
    with process:
        running.add(process)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return _unusable(name, f"does not answer within {seconds:g} seconds")
        finally:
            running.discard(process)
    if not output:
        return _unusable(name, f"ended its process, with status {process.returncode}")
    found: dict[str, Any] = json.loads(output)
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process, and those that it has begun where the system knows them."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _unusable(name: str, what: str) -> dict[str, Any]:
    return {
        "name": name,
        "version": None,
        "devices": [],
        "float64": False,
        "usable": False,
        "reason": f"backend {name!r} {what}: tell its author, or uninstall the plugin",
    }


def answer(name: str) -> None:
    """Print what is known of a backend as JSON, and end the process: nothing else is printed."""
    # What a plugin prints is not the answer.
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    found = describe(BackendRecord(name))
    found["devices"] = [_shortened(device) for device in found["devices"][:_MOST_DEVICES]]
    found["reason"] = _shortened(found["reason"])
    found["version"] = found["version"] and _shortened(found["version"])
    with os.fdopen(channel, "wb") as file:
        file.write(json.dumps(found).encode())
    # Neither its threads nor what it does at the end are waited for.
    os._exit(0)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} ..."
