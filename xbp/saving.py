"""What a training leaves in files: the parameters, and what was seen."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import safetensors.numpy

from xbp.errors import CheckpointError, SettingError
from xbp.files import as_path, write_file
from xbp.namespace import dtype_name
from xbp.networks import Network


def save_parameters(network: Network, path: str | Path) -> None:
    """Write a network's parameters in the safetensors format, whole or not at all.

    Raises
    ------
    DataError
        If the file cannot be written; what was there before is still there.
    """
    write_file(path, to_safetensors(network))


def to_safetensors(network: Network) -> bytes:
    """Return a network's parameters in the safetensors format."""
    _require_network(network)
    to_numpy = network.backend.to_numpy
    return safetensors.numpy.save({key: to_numpy(value) for key, value in network.params.items()})


def load_parameters(network: Network, path: str | Path) -> None:
    """Replace a network's parameters by those in a file, all of them or none.

    The file may come from a network on another backend.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or its arrays have other names, shapes or dtypes.
    """
    _require_network(network)
    try:
        arrays = safetensors.numpy.load(as_path(path).read_bytes())
    except Exception as error:  # whatever a damaged file leads to
        raise CheckpointError(
            f"{path}: cannot be read ({error}): give a file that save_parameters or --out made"
        ) from error
    found = {key: (array.shape, str(array.dtype)) for key, array in arrays.items()}
    needed = {
        key: (tuple(value.shape), dtype_name(value.dtype)) for key, value in network.params.items()
    }
    if found != needed:
        raise CheckpointError(
            f"{path}: holds {_described(found)}, but the network has {_described(needed)}: build "
            "it with the same sizes and dtype"
        )
    asarray = network.backend.asarray
    network.params.update({key: asarray(array) for key, array in arrays.items()})


def save_result(result: Mapping[str, Any], path: str | Path) -> None:
    """Write figures as JSON, whole or not at all.

    Raises
    ------
    DataError
        If the file cannot be written; what was there before is still there.
    """
    write_file(path, to_json(result, indent=2).encode())


def to_json(result: Mapping[str, Any], indent: int | None = None) -> str:
    """Return figures as JSON; it has no NaN and no infinity, they become null."""
    return json.dumps(_finite(result), indent=indent, allow_nan=False)


def _require_network(network: Any) -> None:
    if not isinstance(network, Network):
        raise SettingError(f"first a network, then a path: {network!r} is no network")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _described(arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{key} {dtype}{shape}" for key, (shape, dtype) in sorted(arrays.items()))
