"""The nth call to the file system fails, or the process is killed there: all of a result or none.

XBP_FILE_FAULTS says how many faults; `nox -s file_faults` plants 750.
"""

import errno
import hashlib
import json
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support import backend

import xbp
from xbp.cli import main
from xbp.datasets import load_digits
from xbp.errors import DataError, XbpError
from xbp.files import descriptors, prepare_folder, recover, write_files
from xbp.reports import Report
from xbp.saving import load_parameters, save_parameters
from xbp.training import Checkpoints

pytestmark = [
    pytest.mark.skipif(backend.name != "numpy", reason="is about files"),
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc whose descriptor"),
]

FAULTS = int(os.environ.get("XBP_FILE_FAULTS", "40"))
OPERATIONS = ["write", "fsync", "replace", "unlink", "mkdir", "link", "open", "ftruncate"]
ERRORS = [errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS]
HOWS = ["fails", "stays broken", "is killed before", "is killed after"]
KILLED = 99


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: no test here stops the machine."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Fault:
    """Lets the nth call of a kind in a folder fail, or end the process."""

    def __init__(self, folder: Path, operation: str, number: int, how: str, code: int) -> None:
        self.folder, self.operation, self.number = str(folder), operation, number
        self.how, self.code, self.calls = how, code, 0

    def plant(self) -> None:
        original = getattr(os, self.operation)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._is_ours(args[0]):
                return original(*args, **kwargs)
            self.calls += 1
            late = self.how == "stays broken" and self.calls > self.number
            if self.calls != self.number and not late:
                return original(*args, **kwargs)
            if self.how == "is killed after":
                original(*args, **kwargs)
            if self.how.startswith("is killed"):
                os._exit(KILLED)
            raise OSError(self.code, os.strerror(self.code), str(args[0]))

        setattr(os, self.operation, call)

    def _is_ours(self, what: Any) -> bool:
        try:
            place = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
        except OSError:
            return False
        return place.startswith(self.folder)

    def __repr__(self) -> str:
        return f"{self.operation} {self.number} {self.how} ({errno.errorcode[self.code]})"


def in_a_child(work: Callable[[], int], fault: Fault) -> tuple[int, int]:
    """Return how a process that meets a fault ended, and how many such calls it made."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons advise against it where there are threads
        child = os.fork()
    if not child:
        code = 98
        try:
            fault.plant()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                code = work()
        finally:
            os.fdopen(writing, "wb", closefd=True).write(str(fault.calls).encode())
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        calls = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(calls or 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def run(*arguments: str) -> int:
    """Return the exit status of the command: 97 if it ended in a traceback."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(main, ["train", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        return 97
    return result.exit_code


def train(folder: Path, seed: int) -> int:
    small = ["--hidden=3", "--batch-size=300", "--checkpoint-steps=2"]
    return run("--steps=6", *small, f"--seed={seed}", f"--out={folder}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    """What a training that nothing disturbs leaves, by its seed."""
    found = {}
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("whole")
        assert train(folder, seed) == 0
        found[seed] = contents(folder)
    return found


def faults(folder: Path, chance: random.Random, most: dict[str, int]) -> Iterator[Fault]:
    """Yield faults, each kind in turn, at calls that were seen to happen."""
    while True:
        operation = chance.choice([name for name in OPERATIONS if most.get(name, 1)])
        number = chance.randint(1, most.get(operation, 12))
        yield Fault(folder, operation, number, chance.choice(HOWS), chance.choice(ERRORS))


def assert_whole(folder: Path, before: dict[str, bytes]) -> int:
    """Return the seed of the result in a folder, once it is seen to be of one training."""
    found = contents(folder)
    assert not [name for name in found if name.startswith(".")]
    if not found:
        return 0
    same = {name for name in before if found.get(name) == before[name]}
    assert same in (set(before), set()), f"of the earlier result: {same}"
    result = json.loads(found["result.json"])
    assert hashlib.sha256(found["model.safetensors"]).hexdigest() == result["model_sha256"]
    return int(result["seed"])


@pytest.mark.parametrize("earlier", [True, False], ids=["over an earlier result", "anew"])
def test_a_training_that_meets_a_fault(
    earlier: bool, tmp_path: Path, models: dict[int, dict[str, bytes]]
) -> None:
    chance = random.Random(earlier)
    seen, most = {"met": 0, "killed": 0, "failed": 0}, {}
    for operation in OPERATIONS:
        _, most[operation] = in_a_child(
            lambda: train(tmp_path / "trial", 1), Fault(tmp_path, operation, 10**9, HOWS[0], 5)
        )
    count = 0
    for fault in faults(tmp_path, chance, most):
        count += 1
        if count > FAULTS // 10:
            break
        folder = tmp_path / str(count)
        before: dict[str, bytes] = {}
        if earlier:
            assert train(folder, 1) == 0
            before = contents(folder)
        fault.folder = str(folder)
        code, calls = in_a_child(lambda folder=folder: train(folder, 2), fault)  # type: ignore[misc]
        assert code in (0, 1, KILLED), (fault, code)
        seen["met"] += code == KILLED or calls >= fault.number
        seen["killed"] += code == KILLED
        seen["failed"] += code == 1
        # The next start.
        if folder.exists():
            recover(folder)
            found = assert_whole(folder, before)
            assert found == 2 if code == 0 else found in ((1, 2) if earlier else (0, 2)), fault
        # Goes on with what was stopped, or begins: it ends as if nothing had happened.
        last = Checkpoints(folder / "checkpoints").latest()
        assert last is not None or not earlier, fault
        if code == 0 and last is None:
            continue  # no checkpoint could be written, and the command said so
        if last is None:
            assert train(folder, 2) == 0, fault
            seed = 2
        else:
            seed = last.state["settings"]["seed"]
            assert run(f"--resume={folder}") == 0, fault
        assert contents(folder)["model.safetensors"] == models[seed]["model.safetensors"], fault
        assert contents(folder).keys() == models[seed].keys(), fault
        others = [path.name for path in (folder / "checkpoints").iterdir()]
        assert len(others) <= 3 + 3 + 1, (fault, others)
        assert all(name.startswith("checkpoint-") or name == ".in-use" for name in others), others
        assert_whole(folder, {})
    print(f"{count - 1} faults in trainings: {seen}")
    assert seen["killed"] + seen["failed"] > 0


def test_a_training_that_is_made_longer_meets_a_fault(
    tmp_path: Path, models: dict[int, dict[str, bytes]]
) -> None:
    chance, count, ended = random.Random(2), 0, 0
    whole = tmp_path / "whole"
    assert train(whole, 1) == 0
    assert run(f"--resume={whole}", "--steps=10") == 0
    longer = contents(whole)["model.safetensors"]
    for fault in faults(tmp_path, chance, {}):
        count += 1
        if count > FAULTS // 20:
            break
        folder = tmp_path / str(count)
        assert train(folder, 1) == 0
        before = contents(folder)
        fault.folder = str(folder)
        code, _ = in_a_child(lambda folder=folder: run(f"--resume={folder}", "--steps=10"), fault)  # type: ignore[misc]
        assert code in (0, 1, KILLED), (fault, code)
        ended += code != 0
        recover(folder)
        assert_whole(folder, before)
        assert run(f"--resume={folder}", "--steps=10") == 0, fault
        assert contents(folder)["model.safetensors"] == longer, fault
        assert contents(folder).keys() == before.keys(), fault
    print(f"{count - 1} faults in trainings made longer, {ended} ended there")


def small_writes() -> dict[str, Callable[[Path, int], None]]:
    """Return what is written: of each a first and a second version."""
    (x, t), _ = load_digits(backend="numpy")
    networks = [
        xbp.Network.fully_connected([64, 3, 10], backend="numpy", dtype="float32", seed=seed)
        for seed in (0, 1)
    ]
    reports = [
        Report(network, xbp.Trainer(network, xbp.SGD(0.1), seed=0).fit(x, t, steps=3), x, t, {})
        for network in networks
    ]
    files = [report.files() for report in reports]
    for report, made in zip(reports, files, strict=True):
        object.__setattr__(report, "files", lambda made=made: made)

    def write_three(folder: Path, version: int) -> None:
        write_files(folder, {name: bytes([version]) * 5000 for name in ("a", "b", "c")})

    return {
        "save_parameters": lambda folder, version: save_parameters(
            networks[version], folder / "model"
        ),
        "Report.write": lambda folder, version: reports[version].write(folder),
        "write_files": write_three,
    }


def test_what_is_written_meets_a_fault(tmp_path: Path) -> None:
    chance, number, seen = random.Random(3), 0, {"met": 0, "new": 0, "old": 0, "killed": 0}
    writes = small_writes()
    (tmp_path / "trial").mkdir()
    writes["Report.write"](tmp_path / "trial", 0)
    most = {
        operation: in_a_child(
            lambda: writes["Report.write"](tmp_path / "trial", 1) or 0,
            Fault(tmp_path, operation, 10**9, HOWS[0], 5),
        )[1]
        for operation in OPERATIONS
    }
    while seen["met"] < FAULTS:
        number += 1
        name = sorted(writes)[number % len(writes)]
        folder = tmp_path / str(number)
        folder.mkdir()
        # Some files are there before, not all.
        writes[name](folder, 0)
        if chance.random() < 0.4:
            gone = chance.choice(sorted(folder.iterdir()))
            gone.unlink()
        if chance.random() < 0.3:
            elsewhere = tmp_path / f"{number}-elsewhere"
            elsewhere.mkdir()
            moved = next((path for path in sorted(folder.iterdir())), None)
            if moved:
                moved.rename(elsewhere / moved.name)
                moved.symlink_to(elsewhere / moved.name)
        before = contents(folder)
        fault = next(faults(tmp_path, chance, most))

        def work(name: str = name, folder: Path = folder) -> int:
            try:
                writes[name](folder, 1)
            except XbpError:
                return 1
            return 0

        code, calls = in_a_child(work, fault)
        assert code in (0, 1, KILLED), (fault, code)
        seen["met"] += code == KILLED or calls >= fault.number
        if code == KILLED or fault.how == "stays broken":
            recover(folder)
        after = contents(folder)
        if fault.operation == "unlink":  # what could not be removed goes with the next start
            after = {name: content for name, content in after.items() if name[0] != "."}
        writes[name](folder, 1)
        new = contents(folder)
        assert after in (before, new), (name, fault, code)
        assert not (code == 0 and after != new), (name, fault)
        assert not (code == 1 and after != before), (name, fault)
        seen["killed"] += code == KILLED
        seen["new" if after == new else "old"] += 1
        leftovers = [*tmp_path.glob("*/.*")]
        assert not leftovers, (name, fault, leftovers)
    print(f"faults while files were written: {seen}")
    assert min(seen.values()) > 0


# One after the other --------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_the_nth_renaming_fails(nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a": b"old", "c": b"old"})
    ordinary, calls = os.replace, []

    def replace(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == nth:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        ordinary(source, target)

    monkeypatch.setattr("os.replace", replace)
    named = ["a", "b", "c"][nth - 1]
    with pytest.raises(DataError, match=rf"{named}: cannot be written \(Operation not permitted\)"):
        write_files(tmp_path, {"a": b"new", "b": b"new", "c": b"new"})
    assert contents(tmp_path) == {"a": b"old", "c": b"old"}


def test_what_cannot_be_put_back_now_is_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"a": b"old", "b": b"old"})
    ordinary, calls = os.replace, []

    def replace(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) > 1:
            raise OSError(errno.EROFS, "Read-only file system")
        ordinary(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace)
        with pytest.raises(DataError, match="nor can all that was there be put back now"):
            write_files(tmp_path, {"a": b"new", "b": b"new"})
    recover(tmp_path)
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}


def test_a_process_is_killed_while_it_puts_back_what_was_almost_done(tmp_path: Path) -> None:
    """The last step was noted, but not safely: so it never was."""
    write_files(tmp_path, {"a": b"old", "b": b"old"})
    fault = Fault(tmp_path, "replace", 4, "is killed before", errno.EIO)

    def work() -> int:
        def fsync(descriptor: int) -> None:
            if b"done" in (tmp_path / ".xbp-journal").read_bytes():
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.fsync", fsync)
            write_files(tmp_path, {"a": b"new", "b": b"new"})
        return 0

    code, _ = in_a_child(work, fault)
    assert code == KILLED
    # One of the two has been put back.
    assert sorted(path.read_bytes() for path in (tmp_path / "a", tmp_path / "b")) == [
        b"new",
        b"old",
    ]
    recover(tmp_path)
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}


@pytest.mark.parametrize(
    "code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.ENOSYS]
)
def test_a_file_system_that_does_not_sync_folders_is_used(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(code, os.strerror(code))
        ordinary(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    write_files(tmp_path, {"a": b"1", "b": b"1"})
    write_files(tmp_path, {"c": b"1"})
    assert contents(tmp_path) == dict.fromkeys("abc", b"1")


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["new"], ["a", "new"]])
def test_a_folder_that_cannot_be_synced_for_good(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"a": b"old", "b": b"old"})
    ordinary, synced = os.fsync, []

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            synced.append(descriptor)
            if any(
                path.read_bytes() == b"new" for path in tmp_path.iterdir() if path.name in names
            ):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        ordinary(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        with pytest.raises(DataError, match=r"cannot be written \(Input/output error"):
            write_files(tmp_path, dict.fromkeys(names, b"new"))
    assert synced
    recover(tmp_path)
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First all contents, then the folder, then the names, then the folder again."""
    order: list[str] = []

    def note(operation: str) -> None:
        ordinary = getattr(os, operation)

        def call(what: Any, *args: Any) -> Any:
            place = Path(f"/proc/self/fd/{what}").resolve() if isinstance(what, int) else Path(what)
            kind = "folder" if place.is_dir() else place.suffix or place.name
            order.append(f"{operation} {kind}")
            return ordinary(what, *args)

        monkeypatch.setattr(f"os.{operation}", call)

    write_files(tmp_path, {"a": b"old"})
    for operation in ("write", "fsync", "replace"):
        note(operation)
    write_files(tmp_path, {"a": b"new", "b": b"new"})
    journal = ["write .xbp-journal", "fsync .xbp-journal"]
    content = ["write .unfinished", "fsync .unfinished"]
    names = ["replace .unfinished"] * 2
    assert order == [
        *journal, *content * 2, "fsync folder", *journal, *names, "fsync folder", *journal,
    ]  # fmt: skip
    order.clear()
    write_files(tmp_path, {"c": b"new"})
    assert order == [*content, "replace .unfinished", "fsync folder"]


def test_what_is_put_back_is_on_the_disk_before_the_journal_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"a": b"old", "b": b"old"})
    replace, fsync, unlink = os.replace, os.fsync, os.unlink
    order: list[str] = []

    def noted_replace(source: Any, target: Any) -> None:
        if Path(target).name == "b" and Path(source).suffix == ".unfinished":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        order.append(f"{Path(target).name} from {Path(source).suffix}")
        replace(source, target)

    def noted_fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            order.append("folder")
        fsync(descriptor)

    def noted_unlink(path: Any) -> None:
        if Path(path).name == ".xbp-journal":
            order.append("no journal")
        unlink(path)

    monkeypatch.setattr("os.replace", noted_replace)
    monkeypatch.setattr("os.fsync", noted_fsync)
    monkeypatch.setattr("os.unlink", noted_unlink)
    with pytest.raises(DataError, match="cannot be written"):
        write_files(tmp_path, {"a": b"new", "b": b"new"})
    assert order == ["folder", "a from .unfinished", "a from .former", "folder", "no journal"]
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}


def test_a_journal_that_another_removed_before_it_was_held_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody finds by its name puts nothing back."""
    write_files(tmp_path, {"a": b"old"})
    replace, hold, journal = os.replace, descriptors.hold, tmp_path / ".xbp-journal"
    noted: list[bytes] = []

    def late_hold(descriptor: int) -> bool | None:
        if not noted and journal.exists():
            noted.append(b"")
            journal.unlink()
        return hold(descriptor)

    def noted_replace(source: Any, target: Any) -> None:
        noted.append(journal.read_bytes())
        replace(source, target)

    monkeypatch.setattr("xbp.files.transaction.hold", late_hold)
    monkeypatch.setattr("os.replace", noted_replace)
    write_files(tmp_path, {"a": b"new"})
    first, prepared = noted
    assert (first, prepared.splitlines()[-1]) == (b"", b"prepared")
    assert contents(tmp_path) == {"a": b"new"}


def test_what_was_there_is_kept_as_a_copy_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is on the disk before anything is renamed."""
    content, safe = os.urandom(1000), []  # a buffer holds more

    def link(*_: object) -> None:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    def fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").resolve()
        if place.suffix == ".former":
            safe.append(place.read_bytes() == content and (tmp_path / "a").read_bytes() == content)

    write_files(tmp_path, {"a": content, "b": content})
    (tmp_path / "a").chmod(0o640)
    monkeypatch.setattr("os.link", link)
    monkeypatch.setattr("os.fsync", fsync)
    write_files(tmp_path, {"a": b"new", "b": b"new"})
    assert safe == [True, True]
    assert contents(tmp_path) == {"a": b"new", "b": b"new"}


def test_new_folders_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(
        "os.fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())
    )
    prepare_folder(tmp_path / "a" / "b")
    assert {tmp_path, tmp_path / "a"} <= set(synced)


# What a path may be ------------------------------------------------------------------------------


def test_a_link_is_followed_and_a_mode_is_kept(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "file").write_bytes(b"old")
    (real / "file").chmod(0o640)
    for name, target in (("link", real / "file"), ("dangling", real / "new")):
        (tmp_path / name).symlink_to(target)
    write_files(tmp_path, {"link": b"1", "dangling": b"2"})
    assert contents(real) == {"file": b"1", "new": b"2"}
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "dangling").is_symlink()
    assert (real / "file").stat().st_mode & 0o777 == 0o640
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"loop: cannot be written \(Too many levels"):
        write_files(tmp_path, {"loop": b"3"})


def test_only_files_are_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/null")
    for name in ("fifo", "device"):
        with pytest.raises(DataError, match=r"cannot be written \(it is no regular file but"):
            write_files(tmp_path, {name: b"1", "other": b"1"})
    assert {path.name for path in tmp_path.iterdir()} == {"fifo", "device"}
    assert Path("/dev/null").is_char_device()


def test_only_our_own_leftovers_are_swept(tmp_path: Path) -> None:
    mine = [".notes.unfinished", "a.unfinished", ".0123.unfinished", ".xbp-notes", ".former"]
    for name in mine:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / ".xbp-0123456789abcdef.unfinished").mkdir()
    for clean in (recover, lambda folder: write_files(folder, {"a.unfinished": b"mine"})):
        for left in (".xbp-fedcba9876543210.unfinished", ".fedcba9876543210.unfinished"):
            (tmp_path / left).write_bytes(b"half")
        clean(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {
            *mine,
            ".xbp-0123456789abcdef.unfinished",
        }


def test_what_a_process_is_still_writing_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, seen = os.replace, []

    def replace(source: Any, target: Any) -> None:
        recover(tmp_path)
        seen.append(Path(source).exists())
        ordinary(source, target)

    write_files(tmp_path, {"a": b"old"})
    monkeypatch.setattr("os.replace", replace)
    write_files(tmp_path, {"a": b"new", "b": b"new"})
    write_files(tmp_path, {"c": b"new"})
    assert seen == [True] * 3
    assert contents(tmp_path) == dict.fromkeys("abc", b"new")


@pytest.mark.parametrize(
    "plan",
    [
        [{"name": "../victim", "token": "0" * 16, "existed": False}],
        [{"name": "victim", "token": "../../x", "existed": False}],
        [{"name": "link", "token": "0" * 16, "existed": False}],
        [{"name": 3}],
        {"a": 1},
        "x",
    ],
    ids=str,
)
def test_a_journal_of_a_stranger_harms_nothing(plan: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "victim").write_bytes(b"mine")
    (folder / "link").symlink_to(tmp_path / "victim")
    for entry in plan if isinstance(plan, list) else []:
        entry["sha256"] = hashlib.sha256(b"mine").hexdigest()
    (folder / ".xbp-journal").write_bytes(json.dumps(plan).encode() + b"\nprepared\n")
    recover(folder)
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert not (folder / ".xbp-journal").exists()
    (folder / ".xbp-journal").symlink_to(tmp_path / "victim")
    with pytest.raises(DataError):
        recover(folder)
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_a_model_is_read_from_a_file_and_from_nothing_else(tmp_path: Path) -> None:
    network = xbp.TwoLayerNet(2, 3, 2, seed=0)
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(XbpError, match=r"cannot be read \("):
            load_parameters(network, place)
    assert np.isfinite(network.params["W1"]).all()
