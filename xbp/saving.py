"""What a training leaves in a folder: the parameters, and what was seen."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import safetensors.numpy

from xbp.errors import DataError
from xbp.networks import Network


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


def save(folder: Path, network: Network, result: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` and ``result.json``, each whole or not at all.

    Raises
    ------
    DataError
        If the folder cannot be written to; what was there before is still there.
    """
    arrays = {key: network.backend.to_numpy(value) for key, value in network.params.items()}
    _write(folder / "model.safetensors", safetensors.numpy.save(arrays))
    _write(folder / "result.json", json.dumps(result, indent=2).encode())


def _write(path: Path, content: bytes) -> None:
    try:
        with NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written ({error}): choose another folder with --out")
