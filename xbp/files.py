"""Files, written whole or not at all."""

import os
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile

from xbp.errors import DataError

_UNFINISHED = ".unfinished"


def prepare_folder(folder: str | Path) -> Path:
    """Return the folder, made if it is not there, and seen to be writable.

    Raises
    ------
    DataError
        If it cannot be made or written to.
    """
    folder = Path(folder)
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
    path = Path(path)
    # A name that is nobody else's: after a crash another process may have this one's number.
    unfinished = path.with_name(f".{path.name}.{token_hex(8)}{_UNFINISHED}")
    try:
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(path.parent)
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
