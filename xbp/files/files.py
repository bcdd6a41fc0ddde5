"""The public functions for paths, folders and files; they raise `DataError`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from xbp.errors import DataError
from xbp.files.descriptors import open_to_read, sync_folder
from xbp.files.transaction import WritingError, put_in_order, write_together, write_trial


def as_path(path: Any) -> Path:
    """Return the value as a path; raise `DataError` if it cannot be one."""
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise DataError(f"{path!r} is no file's or folder's name")
    return Path(path)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, not a device, a FIFO or a folder.

    This never blocks, as opening a FIFO without a writer would.

    Raises
    ------
    DataError
        If the value is not a valid path.
    OSError
        If the file cannot be opened, or is not a regular file.
    """
    return open_to_read(as_path(path))


def prepare_folder(folder: str | Path) -> Path:
    """Create a folder and its parents where missing, check that it is writable, and return it.

    Raises
    ------
    DataError
        If it cannot be created or written to.
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
    """Write a file, completely or not at all.

    A symbolic link is followed. An existing file keeps its mode.

    Raises
    ------
    DataError
        If the file cannot be written, or is a device, a FIFO or a socket; it is then unchanged.
    """
    path = as_path(path)
    if not path.name:
        raise DataError(f"{path} is a folder: give a file's name")
    write_files(path.parent, {path.name: content})


def write_files(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    """Write contents, by file name, in an existing folder: all of them or none.

    If the process is killed meanwhile, the former files are restored by `recover`, or when files
    are next written there.

    Raises
    ------
    DataError
        If one cannot be written; the former files are then still there.
    """
    with _as_data_error():
        write_together(as_path(folder), contents)


def try_out(folder: Path, content: bytes) -> None:
    """Check that a file of this content can be written in a folder, and leave none there.

    Raises
    ------
    DataError
        If it cannot.
    """
    with _as_data_error():
        write_trial(folder, content)


def recover(folder: Path) -> None:
    """Restore a folder's former files, and remove temporary ones, after a process was killed.

    Files that another process is writing now, and files that are not xbp's, are left alone.

    Raises
    ------
    DataError
        If a former file cannot be restored.
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
