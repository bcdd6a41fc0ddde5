"""Files that are replaced together: all of them or none, even if the process is killed meanwhile.

The new contents are first written to temporary files beside the targets. A journal in the folder
records the progress. It begins with the *plan*, a list of the files. It is *prepared* when copies
of both the new and the former contents are beside the targets, and *done* when the new files have
the targets' names. Before that, the former files can be restored: at once after an error, or at the
next start after a kill.

A writer locks the journal and its temporary files. If nobody has the lock, the process that wrote
them has ended.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from errno import EBUSY, ELOOP
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from xbp.files.descriptors import (
    CAN_HOLD,
    close,
    hold,
    is_at,
    open_ours,
    open_to_read,
    require_regular,
    sync_folder,
    write_all,
)

JOURNAL = ".xbp-journal"
_PREPARED, _DONE = b"prepared\n", b"done\n"
_TOKEN = re.compile(r"[0-9a-f]{16}")
_UNFINISHED = re.compile(r"\.(xbp-)?[0-9a-f]{16}\.unfinished")

# Seconds that another process may take to write some files.
_PATIENCE = 30.0

# In bytes; each file takes a few hundred.
_LARGEST_JOURNAL = 2**24


class _File(NamedTuple):
    """A file that is to be written.

    Attributes
    ----------
    path : Path
        The path as the caller gave it, for messages.
    target : Path
        The path with links resolved.
    token : str
        A random part of the names of its temporary files.
    existed : bool
        Whether the file existed before.
    sha256 : str
        The hexadecimal digest of the new content.
    """

    path: Path
    target: Path
    token: str
    existed: bool
    sha256: str

    @property
    def unfinished(self) -> Path:
        # Not made from the file's name, which may already be as long as a name can be.
        return self.target.with_name(f".xbp-{self.token}.unfinished")

    @property
    def former(self) -> Path:
        return self.target.with_name(f".xbp-{self.token}.former")


class WritingError(OSError):
    """A file cannot be written.

    Attributes
    ----------
    path : Path
        The file.
    reason : str
        The reason, for a message.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files in a folder, all of them or none; see `xbp.files.write_files`.

    Raises
    ------
    WritingError
        If one cannot be written.
    """
    files = [_file(folder / name, content) for name, content in contents.items()]
    with suppress(OSError):  # a folder that cannot be listed may still be written to
        _sweep(folder)
    if len(files) == 1:
        (folder,) = (file.target.parent for file in files)
        if not files[0].existed:
            _write_new(files[0], contents[files[0].path.name])
            return
    with _writing_errors(files[0].path if len(files) == 1 else folder), _Journal(folder) as journal:
        journal.recover()
        try:
            journal.write(files, contents)
        except BaseException as error:
            try:
                journal.undo(files)
            except OSError as another:
                raise WritingError(
                    getattr(error, "path", folder),
                    f"{getattr(error, 'reason', error)}; nor can all that was there be put back "
                    f"now ({another.strerror or another}), but at the next start",
                ) from error
            raise
        journal.tidy(files)


def write_trial(folder: Path, content: bytes) -> None:
    """Write a temporary file with this content in a folder, and remove it.

    Raises
    ------
    WritingError
        If it cannot be written.
    """
    with _writing_errors(folder), _unfinished(_new(folder / "trial"), content):
        pass


def put_in_order(folder: Path) -> None:
    """Finish or undo what ended processes left in a folder; see `xbp.files.recover`.

    Raises
    ------
    WritingError
        If a former file cannot be restored.
    """
    with _writing_errors(folder):
        if os.path.lexists(folder / JOURNAL):
            with suppress(BlockingIOError), _Journal(folder, patience=0) as journal:
                journal.recover()
                journal.tidy([])
        _sweep(folder)


class _Journal:
    """The journal of a folder; the ``with`` block holds its lock.

    `patience` is how many seconds to wait for another process that holds it.
    """

    def __init__(self, folder: Path, patience: float = _PATIENCE) -> None:
        self._path = folder / JOURNAL
        self._patience = patience
        self._descriptor = -1

    def __enter__(self) -> "_Journal":
        limit = time.monotonic() + self._patience
        while True:
            descriptor = open_ours(self._path, os.O_CREAT)
            try:
                require_regular(os.fstat(descriptor).st_mode, self._path)
                if hold(descriptor) is not False and is_at(descriptor, self._path):
                    self._descriptor = descriptor
                    return self
            finally:
                if self._descriptor != descriptor:
                    os.close(descriptor)
            if time.monotonic() > limit:
                raise BlockingIOError(EBUSY, "another process is writing there")
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        close(self._descriptor)

    def recover(self) -> None:
        """Restore the former files if the journal is not done; remove temporary ones; empty it."""
        plan, steps = self._read()
        if not plan:
            return
        # A truncated plan is invalid, and gives no files: its writer had not begun to write them.
        files = _files_of(self._path.parent, plan)
        if steps.startswith(_PREPARED) and steps != _PREPARED + _DONE:
            # Anybody can make a journal: never remove a file elsewhere that a link leads to.
            _put_back([file for file in files if file.existed or not file.path.is_symlink()])
        for path in _helpers(files):
            os.unlink(path)
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)

    def write(self, files: list[_File], contents: Mapping[str, bytes]) -> None:
        """Write the new contents, and note each step in the journal."""
        plan = [
            {"name": file.path.name, **dict(zip(_FIELDS, file[2:], strict=True))} for file in files
        ]
        self._note(json.dumps(plan).encode() + b"\n")
        folders = {self._path.parent, *(file.target.parent for file in files)}
        with ExitStack() as unfinished:
            for file in files:
                with _writing_errors(file.path):
                    unfinished.enter_context(_unfinished(file, contents[file.path.name]))
                    if file.existed:
                        _keep(file)
            for folder in folders:
                sync_folder(folder)
            self._note(_PREPARED)
            for file in files:
                with _writing_errors(file.path):
                    os.replace(file.unfinished, file.target)
            for folder in folders:
                sync_folder(folder)
            self._note(_DONE)

    def undo(self, files: list[_File]) -> None:
        """Restore the former files, whatever step had been reached."""
        plan, steps = self._read()
        if steps.startswith(_PREPARED):
            # Remove "done" from the journal, so that a start after a kill restores the files.
            os.ftruncate(self._descriptor, len(plan) + 1 + len(_PREPARED))
            with suppress(OSError):  # if it is not synced, restoring now is all the more urgent
                os.fsync(self._descriptor)
            _put_back(files)
        self.tidy(files)

    def tidy(self, files: list[_File]) -> None:
        """Remove temporary files, then the journal; it stays as long as one cannot be removed."""
        for path in _helpers(files):
            with suppress(OSError):
                os.unlink(path)
        if not any(_helpers(files)):
            with suppress(OSError):
                os.unlink(self._path)

    def _read(self) -> tuple[bytes, bytes]:
        """Return the two parts of the journal: the plan, and the steps that have been reached."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with os.fdopen(self._descriptor, "rb", closefd=False) as file:
            plan, _, steps = file.read(_LARGEST_JOURNAL).partition(b"\n")
        return plan, steps

    def _note(self, step: bytes) -> None:
        write_all(self._descriptor, step)
        os.fsync(self._descriptor)


_FIELDS = ("token", "existed", "sha256")


def _files_of(folder: Path, plan: bytes) -> list[_File]:
    """Return the files of a plan, or none if it is invalid, since anybody may have written it."""
    try:
        files = []
        for entry in json.loads(plan):
            name, (token, existed, sha256) = entry["name"], (entry[key] for key in _FIELDS)
            if not name or Path(name).name != name or not _TOKEN.fullmatch(token):
                return []
            path = folder / name
            files.append(_File(path, _target(path), token, existed is True, str(sha256)))
        return files
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _put_back(files: list[_File]) -> None:
    """Restore former files where new ones have replaced them; raise the first error at the end.

    A target without the new content was not replaced, or has been changed since: it is left alone.
    """
    errors = []
    for file in files:
        try:
            if _sha256(file.target) != file.sha256:
                continue
            if not file.existed:
                os.unlink(file.target)
            elif file.former.exists():
                os.replace(file.former, file.target)
        except OSError as error:
            errors.append(error)
    for folder in {file.target.parent for file in files}:
        try:
            sync_folder(folder)
        except OSError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _helpers(files: list[_File]) -> Iterator[Path]:
    """Yield the temporary files that exist."""
    for file in files:
        for path in (file.unfinished, file.former):
            if os.path.lexists(path):
                yield path


def _file(path: Path, content: bytes) -> _File:
    with _writing_errors(path):
        target = _target(path)
        try:
            require_regular(path.stat().st_mode, path)
            existed = True
        except FileNotFoundError:
            existed = False
        digest = hashlib.sha256(content).hexdigest()
        return _File(path, target, token_hex(8), existed, digest)


def _new(path: Path) -> _File:
    return _File(path, path, token_hex(8), False, "")


def _target(path: Path) -> Path:
    """Return a path with links resolved; the target need not exist. A loop raises OSError."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(ELOOP, os.strerror(ELOOP))
    return target


def _write_new(file: _File, content: bytes) -> None:
    """Write a single file that does not exist: one renaming is atomic, and needs no journal."""
    with _writing_errors(file.path), _unfinished(file, content):
        os.replace(file.unfinished, file.target)
        try:
            sync_folder(file.target.parent)
        except OSError:
            os.unlink(file.target)
            raise


@contextmanager
def _unfinished(file: _File, content: bytes) -> Iterator[None]:
    """Write a new content to the temporary file, synced; remove it after the ``with`` block."""
    descriptor = _create(file.unfinished)
    try:
        if file.existed:
            before = file.target.stat()
            with suppress(OSError, AttributeError):  # a user who may write the file may not own it
                os.chown(file.unfinished, before.st_uid, before.st_gid)
            with suppress(OSError):
                os.chmod(file.unfinished, stat.S_IMODE(before.st_mode))
        write_all(descriptor, content)
        os.fsync(descriptor)
        if not CAN_HOLD:  # pragma: no cover
            descriptor = close(descriptor)  # an open file cannot be renamed there
        yield
    finally:
        close(descriptor)
        with suppress(OSError):
            os.unlink(file.unfinished)


def _create(path: Path) -> int:
    """Return the descriptor of a new file, locked so that no other process sweeps it."""
    while True:
        descriptor = open_ours(path, os.O_CREAT | os.O_EXCL)
        # Another process may have swept it before it was locked.
        if hold(descriptor) is not False and is_at(descriptor, path):
            return descriptor
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(path)


def _keep(file: _File) -> None:
    """Keep the former content beside the target, as a hard link or as a copy."""
    try:
        os.link(file.target, file.former)
    except OSError:  # the file system may have no hard links, or not allow one of this file
        with suppress(FileNotFoundError):
            os.unlink(file.former)
        with open_to_read(file.target) as source, file.former.open("xb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
        with suppress(OSError):
            shutil.copystat(file.target, file.former)


def _sweep(folder: Path) -> None:
    """Remove the unfinished files in a folder that no process has locked."""
    for path in [path for path in folder.iterdir() if _UNFINISHED.fullmatch(path.name)]:
        with suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                _remove_unless_held(path)


def _remove_unless_held(path: Path) -> None:
    descriptor = open_ours(path, 0)
    try:
        held_by_us = hold(descriptor)
        if not CAN_HOLD:  # pragma: no cover
            descriptor = close(descriptor)
        if held_by_us:
            os.unlink(path)
    finally:
        close(descriptor)


def _sha256(path: Path) -> str:
    """Return the digest of a file, or an empty text if there is no file."""
    try:
        with open_to_read(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


@contextmanager
def _writing_errors(path: Path) -> Iterator[None]:
    """Raise an OSError of the ``with`` block as a `WritingError` of this path."""
    try:
        yield
    except WritingError:
        raise
    except OSError as error:  # not str(error), which may name a temporary file
        raise WritingError(path, error.strerror or str(error)) from error
