"""Descriptions of backends, each computed in a process of its own.

A plugin can do anything when it is imported or called: print, never return, end the process. It is
then listed as unusable, and the other backends are not affected.
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

# How many processes run at once: importing a library may take much memory and many threads.
_AT_ONCE = 2

# Limits on what a plugin's texts and devices add to the output.
_LONGEST_TEXT = 2_000
_MOST_DEVICES = 100

_CODE = "import sys; sys.path[:] = sys.argv[2:]; from xbp.probe import answer; answer(sys.argv[1])"


def descriptions(names: Iterable[str], seconds: float) -> list[dict[str, Any]]:
    """Return the results of `xbp.registry.describe` for backends, in the order of names.

    Parameters
    ----------
    names
        The names of installed backends.
    seconds
        How many seconds to wait for each.
    """
    pool = ThreadPoolExecutor(_AT_ONCE)
    running: set[subprocess.Popen[bytes]] = set()
    try:
        return list(pool.map(lambda name: _description(name, seconds, running), names))
    finally:
        # After Ctrl-C, no process is left behind.
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
    record: dict[str, Any] = json.loads(output)
    return record


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and on POSIX its process group."""
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
    """Print the description of a backend as JSON, and nothing else, and end the process."""
    # Standard output is redirected, since a plugin may print.
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    record = describe(BackendRecord(name))
    record["devices"] = [_shortened(device) for device in record["devices"][:_MOST_DEVICES]]
    record["reason"] = _shortened(record["reason"])
    record["version"] = record["version"] and _shortened(record["version"])
    with os.fdopen(channel, "wb") as file:
        file.write(json.dumps(record).encode())
    # At once, without waiting for the plugin's threads and exit handlers.
    os._exit(0)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} ..."
