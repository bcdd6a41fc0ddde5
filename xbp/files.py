"""Files, written whole or not at all."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from xbp.errors import DataError


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
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error}): choose another place")
