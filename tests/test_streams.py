"""The command's streams: closed, full, broken, or in an alphabet that lacks a letter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import once

pytestmark = once

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run what follows ``xbp`` in a shell."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m xbp {command}"],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["train --steps 5", "graph apple"])
def test_an_alphabet_that_lacks_letters(command: str) -> None:
    found = shell(command, PYTHONIOENCODING="ascii", COLUMNS="40")
    assert found.returncode == 0, found.stderr
    assert found.stdout.isascii()


@pytest.mark.parametrize("columns", ["0", "1", "-5", "wide"])
def test_a_narrow_terminal(columns: str) -> None:
    found = shell("train --steps 5", COLUMNS=columns)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    found = shell(f"train --steps 5 --out {tmp_path} {closed}")
    assert found.returncode == 0, found.stderr
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 5


@needs_full
def test_progress_that_nobody_can_read_does_not_end_a_training(tmp_path: Path) -> None:
    found = shell(f"train --steps 200 --out {tmp_path} --json 2>/dev/full")
    assert found.returncode == 0
    assert json.loads(found.stdout)["steps"] == 200
    assert (tmp_path / "report.html").exists()


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    found = shell(f"train --steps 2000 --out {tmp_path} 2>&1 >/dev/null | head -1")
    assert "step" in found.stdout
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 2_000
    found = shell("graph fruit --json | true")
    assert "Traceback" not in found.stderr
    assert "Errno" not in found.stderr


@needs_full
def test_results_that_cannot_be_printed_are_in_the_folder(tmp_path: Path) -> None:
    found = shell(f"train --steps 5 --out {tmp_path} --json >/dev/full")
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1] == "Error: the output: No space left on device"
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 5


def test_a_warning_is_one_line(tmp_path: Path) -> None:
    assert shell(f"train --steps 5 --out {tmp_path}").returncode == 0
    (path,) = (tmp_path / "checkpoints").glob("*.safetensors")
    path.write_bytes(b"")
    lines = shell(f"train --resume {tmp_path}").stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"Warning: {path} is damaged: it is no checkpoint of xbp")
    assert lines[1].startswith("Error: ")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    import numpy as np  # noqa: PLC0415

    own = tmp_path / os.fsdecode(b"\xff\xfe.npz")
    np.savez(tmp_path / "own.npz", x_train=np.eye(3), t_train=[0, 1, 2])
    (tmp_path / "own.npz").rename(own)
    found = subprocess.run(
        [sys.executable, "-m", "xbp", "train", str(own), "--steps=2", f"--out={tmp_path}/run"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "run" / "report.html").exists()
