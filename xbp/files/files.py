"""What others call: paths, folders and files, with errors that say what to do."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from xbp.errors import DataError
from xbp.files.descriptors import open_to_read, sync_folder
from xbp.files.transaction import WritingError, put_in_order, write_together, write_trial


def as_path(path: Any) -> Path:
    """Return a path, or raise `DataError` if a value cannot be one."""
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise DataError(f"{path!r} is no file's or folder's name")
    return Path(path)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading, if it is one: no device, no FIFO, no folder.

    Opening does not wait: not for somebody who would write into a FIFO either.

    Raises
    ------
    DataError
        If the path cannot be one.
    OSError
        If it cannot be opened, or is no regular file.
    """
    return open_to_read(as_path(path))


def prepare_folder(folder: str | Path) -> Path:
    """Return the folder, made if it is not there, and seen to be writable.

    Raises
    ------
    DataError
        If it cannot be made or written to.
    """
    folder = as_path(folder)
    with _as_data_error():
        try:
            missing = [place for place in (folder, *folder.parents) if not place.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            for place in missing:
                sync_folder(place.parent)
        except OSError as error:
            raise WritingError(folder, error.strerror or str(error)) from error
        write_trial(folder, b"")
    return folder


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    A link is followed, and a file's mode stays.

    Raises
    ------
    DataError
        If it cannot be written, or is a device, a FIFO or a socket; what was there before is still
        there.
    """
    path = as_path(path)
    if not path.name:
        raise DataError(f"{path} is a folder: give a file's name")
    write_files(path.parent, {path.name: content})


def write_files(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    """Write files of a folder, all of them or none, even if the process is killed meanwhile.

    What was there is then put back by the next start: by `recover`, or when files are written
    there.

    Raises
    ------
    DataError
        If one cannot be written; what was there before is still there.
    """
    with _as_data_error():
        write_together(as_path(folder), contents)


def try_out(folder: Path, content: bytes) -> None:
    """See that there is room for a file.

    Raises
    ------
    DataError
        If there is none.
    """
    with _as_data_error():
        write_trial(folder, content)


def recover(folder: Path) -> None:
    """Put a folder in order after a process that was killed: no half of a result, no leftover.

    What another process is writing there now stays, and so does what others have made.

    Raises
    ------
    DataError
        If it cannot be.
    """
    with _as_data_error():
        put_in_order(folder)


@contextmanager
def _as_data_error() -> Iterator[None]:
    try:
        yield
    except WritingError as error:
        raise DataError(
            f"{error.path}: cannot be written ({error.reason}): choose another place"
        ) from error
