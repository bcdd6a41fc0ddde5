"""A disk that is full and a folder that is read-only: no earlier result is lost, none is mixed."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support import backend

from xbp.cli import main
from xbp.errors import DataError
from xbp.files import write_files
from xbp.graphs import Graph, Variable

RESULTS = {"model.safetensors", "result.json", "metrics.csv", "curves.svg", "curves.png"}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as if the disk were full then."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def train(*arguments: str) -> Result:
    spec = f"--backend={backend.name}:{backend.device}"
    return CliRunner().invoke(main, ["train", "--steps=5", spec, *arguments])


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": b"old", "b": b"old"})
    with (
        largest_file(1_000),
        pytest.raises(DataError, match=r"b: cannot be written \(File too large\)"),
    ):
        write_files(tmp_path, {"a": b"new", "b": b"." * 2_000})
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"c: cannot be written \(Is a directory\)"):
        write_files(tmp_path, {"a": b"new", "c": b"new"})
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}
    write_files(tmp_path, {"a": b"new", "b": b"new"})
    assert contents(tmp_path) == {"a": b"new", "b": b"new"}


def test_a_picture_without_a_place_for_temporary_files() -> None:
    pytest.importorskip("pygraphviz")
    picture = Graph(Variable("a", 2) * Variable("b", 3)).picture()
    before = picture.svg()  # its fonts are found once
    with largest_file(10), pytest.raises(DataError, match=r"temporary file .* TMPDIR"):
        picture.svg()
    assert picture.svg() == before


@pytest.mark.skipif(backend.name not in ("numpy", "torch"), reason="is about files")
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_a_full_disk_keeps_the_earlier_result(form: list[str], tmp_path: Path) -> None:
    folder = f"--out={tmp_path}"
    assert train(folder).exit_code == 0
    earlier = contents(tmp_path)
    assert earlier.keys() > RESULTS
    # Model and checkpoint have place, what is written after them has not.
    with largest_file(30_000):
        result = train(folder, "--seed=5", *form)
    assert result.exit_code == 1
    assert "cannot be written (File too large): choose another place" in result.stderr
    assert f"--resume {tmp_path} writes it" in result.stderr
    assert contents(tmp_path) == earlier
    assert json.loads(result.stdout)["seed"] == 5 if form else "training accuracy" in result.stdout
    assert "report.html are in" not in result.stdout
    result = CliRunner().invoke(main, ["train", f"--resume={tmp_path}"])
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "result.json").read_text())["seed"] == 5


@pytest.mark.skipif(backend.name != "numpy", reason="is about files")
def test_a_disk_without_room_for_a_checkpoint_is_found_out_before_the_training(
    tmp_path: Path,
) -> None:
    with largest_file(1_000):
        result = train(f"--out={tmp_path}")
    assert result.exit_code == 1
    assert "training accuracy" not in result.stdout
    assert "checkpoints: cannot be written (File too large)" in result.stderr
    assert contents(tmp_path) == {}
    assert not list((tmp_path / "checkpoints").glob("*.safetensors"))


@pytest.mark.skipif(backend.name != "numpy", reason="is about files")
def test_nothing_to_resume_is_promised_when_no_checkpoint_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbp.training.Checkpoints.save", lambda *_: None)
    with largest_file(30_000):
        result = train(f"--out={tmp_path}")
    assert result.exit_code == 1
    assert "training accuracy" in result.stdout
    assert "cannot be written (File too large)" in result.stderr
    assert "--resume" not in result.stderr
    assert contents(tmp_path) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc here")
def test_a_read_only_place_is_found_out_before_the_training() -> None:
    result = train("--out=/proc/self/results")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "/proc/self/results: cannot be written" in result.stderr
    assert "choose another place" in result.stderr


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only to this user"
)
def test_a_folder_that_became_read_only_keeps_its_results(tmp_path: Path) -> None:
    assert train(f"--out={tmp_path}").exit_code == 0
    earlier = contents(tmp_path)
    tmp_path.chmod(0o500)
    try:
        result = train(f"--out={tmp_path}", "--seed=5")
    finally:
        tmp_path.chmod(0o700)
    assert result.exit_code == 1
    assert "cannot be written (Permission denied)" in result.stderr
    assert contents(tmp_path) == earlier
