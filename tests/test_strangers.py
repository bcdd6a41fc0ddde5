"""Plugins that do anything, and names that a terminal would obey: each command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support import once
from test_registry import install

import xbp
from xbp.cli import main
from xbp.cli.common import complete_backend
from xbp.registry import describe

pytestmark = once

# What moves the cursor, names the window, turns what follows around, or rings.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\x00\x7f"
MARKUP = "[bold red]bold [blink]red [@click=beep]"

GOOD = "from xbp_backends.numpy import NumpyBackend\nclass Plugin(NumpyBackend):\n    "
AT_IMPORT = {
    "raising": "raise RuntimeError('it broke')",
    "leaving": "raise SystemExit(0)",
    "base": "class Odd(BaseException): pass\nraise Odd('odd')",
    "unspeakable": (
        "class Odd(Exception):\n    def __str__(self): raise SystemExit\n"
        "    __repr__ = __str__\nraise Odd"
    ),
    "looping": "raise RecursionError",
    "markup": f"raise RuntimeError({MARKUP!r})",
    "evil": f"raise ImportError({EVIL!r})",
    "generator": "raise GeneratorExit",
}
WHEN_ASKED = {
    "nothing": f"{GOOD}devices = classmethod(lambda cls: None)\n    default_device = classmethod("
    "lambda cls: 'cpu')\n    find_device = classmethod(lambda cls, name: name)",
    "odd_devices": f"{GOOD}devices = classmethod(lambda cls: [1, None])\n    default_device = "
    "classmethod(lambda cls: 'cpu')\n    find_device = classmethod(lambda cls, name: name)",
    "no_devices": f"{GOOD}devices = classmethod(lambda cls: 1 / 0)\n    default_device = "
    "classmethod(lambda cls: 'cpu')\n    find_device = classmethod(lambda cls, name: name)",
    "leaving_devices": f"{GOOD}devices = classmethod(lambda cls: exit())",
    "odd_version": f"{GOOD}library = type('L', (), {{'__version__': (1, 2)}})",
    "raising_version": f"import numpy\n{GOOD}library = type('M', (type,), {{'__version__': "
    "property(lambda cls: exit())})('L', (), {'__name__': 'l'})",
    "no_float": f"{GOOD}has_float64 = property(lambda self: exit())",
    "not_native": f"{GOOD}is_native = lambda self, x: exit()",
    "factory": "def Plugin(device): raise KeyError(device)",
    "returning": "class Odd:\n    def __repr__(self): raise SystemExit\ndef Plugin(device): "
    "return Odd()",
    "class_of_another": "class Plugin:\n    def __init__(self, device): pass",
}
ENDING = {
    "ending": "import os; os._exit(0)",
    "killing": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "interrupting": "raise KeyboardInterrupt",
    "waiting": "import time; time.sleep(1000)",
    "reading": "import sys; raise RuntimeError(repr(sys.stdin.read()))",
    "flooding": (
        "import sys, os\nfor _ in range(2000):\n"
        "    os.write(1, b'x' * 1000); os.write(2, b'y' * 1000); print('{}')\n" + GOOD + "pass"
    ),
    "at_the_end": "import atexit, time; atexit.register(time.sleep, 1000)\n" + GOOD + "pass",
    "threaded": (
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        + GOOD + "pass"
    ),
    "talkative": f"{GOOD}devices = classmethod(lambda cls: ['cpu'] + ['x' * 10**5] * 1000)",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_plugin_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(xbp.registry, "_instances", dict(xbp.registry._instances))
    yield
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]


def run(*arguments: str, **settings: Any) -> Result:
    return CliRunner().invoke(main, arguments, **settings)


@pytest.mark.parametrize("plugins", [AT_IMPORT, WHEN_ASKED], ids=["import", "asked"])
def test_a_record_survives_its_plugin(
    plugins: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in plugins.items():
        install(tmp_path, name, code)
    monkeypatch.syspath_prepend(tmp_path)
    records = xbp.available_backends()
    found = {name: describe(records[name]) for name in plugins}
    json.dumps(found)
    for name, record in found.items():
        assert record["version"] is None or isinstance(record["version"], str)
        assert all(isinstance(device, str) for device in record["devices"])
        assert isinstance(record["float64"], bool | None)
        assert bool(record["reason"]) != record["usable"], name
        assert record["usable"] == bool(record["devices"])
    assert not any(found[name]["usable"] for name in found.keys() & AT_IMPORT.keys())
    if plugins is WHEN_ASKED:
        assert {name for name, record in found.items() if record["usable"]} == {
            *("nothing", "odd_devices", "no_devices", "odd_version", "raising_version"),
            *("no_float", "not_native"),
        }
        assert found["odd_devices"]["devices"] == ["cpu"]
        assert "a Odd, not an xbp.Backend" in found["returning"]["reason"]
        with pytest.raises(xbp.errors.MixedBackendError):
            xbp.registry.backend_of(object())
    assert records["numpy"].usable


def test_ctrl_c_goes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "interrupting", ENDING["interrupting"])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _ = xbp.available_backends()["interrupting"].usable


def test_backends_lists_the_others_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in ENDING.items():
        install(tmp_path, name, code)
    monkeypatch.syspath_prepend(tmp_path)
    names = [*ENDING, "numpy", "array-api-strict"]
    monkeypatch.setattr("xbp.available_backends", lambda: dict.fromkeys(names))
    result = run("backends", "--json", "--timeout=15")
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)
    assert list(records) == names
    assert records["numpy"]["usable"]
    assert records["array-api-strict"]["usable"]
    for name in ("ending", "killing", "interrupting"):
        assert "ended its process, with status " in records[name]["reason"]
    assert "does not answer within 15 seconds" in records["waiting"]["reason"]
    assert "RuntimeError: ''" in records["reading"]["reason"]
    for name in ("flooding", "at_the_end", "threaded", "talkative"):
        assert records[name]["usable"], records[name]["reason"]
    assert len(result.stdout) < 500_000


def test_backends_shows_texts_as_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["markup", "evil"]
    for name in names:
        install(tmp_path, name, AT_IMPORT[name])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("xbp.available_backends", lambda: dict.fromkeys(names))
    result = run("backends", env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    assert MARKUP in result.stdout
    assert repr(EVIL)[1:-1] in result.stdout
    assert not {c for c in result.stdout if not c.isprintable()} - {"\n"}


def test_ctrl_c_leaves_no_plugin_behind(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    install(tmp_path, "aaa", code)
    # Where a test suite runs in the background the signal is ignored.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from xbp.cli import main; main(['backends'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() != 0
    while Path(f"/proc/{pid.read_text()}").exists():
        time.sleep(0.01)


def test_broken_metadata_hide_no_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "good", "from xbp_backends.numpy import NumpyBackend as Plugin")
    install(tmp_path, "bytes", "")
    (tmp_path / "plugin_bytes-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[x]\n\x80")
    install(tmp_path, "lines", "")
    (tmp_path / "plugin_lines-1.0.dist-info" / "entry_points.txt").write_text(
        "[xbp.backends]\nno equals sign\n"
    )
    install(tmp_path, "value", "")
    (tmp_path / "plugin_value-1.0.dist-info" / "entry_points.txt").write_text(
        "[xbp.backends]\nvalue = ???\n"
    )
    (tmp_path / "nameless-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    records = xbp.available_backends()
    assert {"good", "numpy", "value"} <= records.keys()
    assert records["good"].usable
    assert not records["value"].usable
    assert run("--version").exit_code == 0


# What reaches the terminal -----------------------------------------------------------------------


def evil_names(folder: Path) -> list[list[str]]:
    """Return commands that are given names as evil as the system takes them."""
    name = EVIL.replace("\x00", "") + MARKUP
    data = folder / f"{name}.npz"
    np.savez(folder / "own.npz", x_train=np.eye(3), t_train=[0, 1, 2])
    (folder / "own.npz").rename(data)
    out = folder / name
    out.mkdir()
    return [
        ["train", str(data), "--steps=2", f"--out={folder / 'run'}"],
        ["train", "--steps=2", f"--out={folder / 'new' / EVIL[:-2].replace('/', '')}"],
        ["train", f"{data}x"],
        ["train", f"{folder}/missing{name}.npz"],
        ["train", f"--resume={out}"],
        ["train", f"--data-dir={folder}/{name}", "mnist"],
        ["train", f"--init={name}"],
        ["train", f"--steps={name}"],
        ["train", f"--{name}"],
        ["train", "digits", name],
        [f"{name}"],
        [f"--{name}"],
        [f"-{name}"],
        ["graph", "apple", f"--out={out}/a.mmd"],
        ["graph", "apple", f"--out={out}.x"],
        ["graph", name],
        ["gradcheck", f"--backend={name}"],
        ["gradcheck", name],
        ["check", name],
        ["check", f"numpy:{name}"],
        ["bench", f"--backend={name}"],
        ["completion", name],
        ["backends", f"--timeout={name}"],
        ["backends", name],
    ]


def test_no_command_prints_what_a_terminal_obeys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in evil_names(tmp_path):
        result = run(*arguments)
        assert not isinstance(result.exception, OSError | ValueError), result.exception
        raw = {c for c in result.output if not c.isprintable()} - {"\n"}
        assert not raw, (arguments, raw)
        assert "Traceback" not in result.output
    monkeypatch.setenv("XBP_BACKEND", EVIL.replace("\x00", ""))
    for command in (["train"], ["gradcheck"], ["graph", "net"], ["bench"]):
        result = run(*command)
        assert result.exit_code == 2
        assert not {c for c in result.output if not c.isprintable()} - {"\n"}


def test_json_has_no_raw_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "own.npz", x_train=np.eye(3), t_train=[0, 1, 2])
    name = tmp_path / f"{EVIL.replace(chr(0), '')}.npz"
    (tmp_path / "own.npz").rename(name)
    result = run("train", str(name), "--steps=2", "--json")
    assert result.stdout.strip().isprintable()
    assert json.loads(result.stdout)["data"] == str(name)


def test_a_plugins_name_is_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a\x1b[31m", "b c", "d\x7fe", "[red]f[/]", "numpyx"]
    monkeypatch.setattr("xbp.available_backends", lambda: dict.fromkeys(names))
    result = run("backends")
    assert "\x1b" not in result.stdout
    assert "[red]f[/]" in result.stdout
    assert complete_backend(None, None, "") == ["[red]f[/]", "numpyx"]  # type: ignore[arg-type]


def test_a_warning_is_shown_as_text() -> None:
    import warnings  # noqa: PLC0415

    @main.command("warn")
    def warn() -> None:
        warnings.simplefilter("always")
        warnings.warn(EVIL, RuntimeWarning, stacklevel=1)

    try:
        result = run("warn")
    finally:
        del main.commands["warn"]
    assert result.stderr == "Warning: " + repr(EVIL)[1:-1] + "\n"


def test_what_a_check_meets_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"{GOOD}def synchronize(self): exit({EVIL!r})"
    install(tmp_path, "exiting", code)
    monkeypatch.syspath_prepend(tmp_path)
    result = run("check", "exiting", "--examples=1")
    assert result.exit_code == 1
    assert "SystemExit: \\x1b]0;owned" in result.stdout
    assert not {c for c in result.output if not c.isprintable()} - {"\n"}


@pytest.mark.parametrize("command", [["check", "numpy"], ["backends"]])
def test_without_assertions(command: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-O", "-m", "xbp", *command], capture_output=True, text=True, check=False
    )
    if command == ["backends"]:
        assert found.returncode == 0
    else:
        assert found.returncode == 2
        assert found.stderr.startswith("Error: xbp.testing proves by assertions, which python -O")


def test_the_kit_refuses_to_prove_without_assertions() -> None:
    code = "import xbp.testing"
    found = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False
    )
    assert "ImportError: xbp.testing proves by assertions, which python -O removes" in found.stderr
