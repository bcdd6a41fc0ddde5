"""Files, written whole or not at all."""

import os
from collections.abc import Mapping
from errno import EISDIR
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile
from typing import Any

from xbp.errors import DataError

_UNFINISHED = ".unfinished"


def as_path(path: Any) -> Path:
    """Return a path, or raise `DataError` if a value cannot be one."""
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise DataError(f"{path!r} is no file's or folder's name")
    return Path(path)


def prepare_folder(folder: str | Path) -> Path:
    """Return the folder, made if it is not there, and seen to be writable.

    Raises
    ------
    DataError
        If it cannot be made or written to.
    """
    folder = as_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise _cannot_write(folder, error) from error


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises
    ------
    DataError
        If it cannot be written; what was there before is still there.
    """
    path = as_path(path)
    if not path.name:
        raise DataError(f"{path} is a folder: give a file's name")
    write_files(path.parent, {path.name: content})


def write_files(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    """Write files of a folder, all of them or none.

    Raises
    ------
    DataError
        If one cannot be written; what was there before is still there.
    """
    paths = {Path(folder) / name: content for name, content in contents.items()}
    # Names that are nobody else's: after a crash another process may have this one's number. And
    # short ones: the name of the file itself may be as long as names can be.
    unfinished = {path: path.with_name(f".{token_hex(8)}{_UNFINISHED}") for path in paths}
    path = Path(folder)
    try:
        try:
            for path, content in paths.items():
                if path.is_dir():  # renaming would fail, when others are renamed already
                    raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
                with unfinished[path].open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for path in paths:
                unfinished[path].replace(path)
        finally:
            for leftover in unfinished.values():
                leftover.unlink(missing_ok=True)
        _sync_folder(Path(folder))
    except OSError as error:
        raise _cannot_write(path, error) from error


def remove_unfinished(folder: Path) -> None:
    """Remove from a folder what a process that was killed had not finished writing."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let a new name in it last, should the machine stop now."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> DataError:
    reason = error.strerror or error  # without the name of a temporary file
    return DataError(f"{path}: cannot be written ({reason}): choose another place")
