"""What a training leaves in files: the parameters, and what was seen."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from xbp.errors import CheckpointError, SettingError, XbpError
from xbp.files import open_regular, write_file
from xbp.layers import Layer, Rescale
from xbp.namespace import Array, cast_like, dtype_name
from xbp.networks import Network
from xbp.tensors import TensorFile, storable_dtype, to_bytes

# Of names and sizes in a model's header: far more than xbp writes, and no burden to read.
_HEADER, _HEADER_PER_NAME = 2**20, 2**10

# What stands before the names of arrays that are no parameters.
_STATE = "state."

# The one entry of a model's metadata: with several their order would differ from file to file.
_LAYERS = "xbp.layers"

# How many arrays, and letters of the layers' kinds, a message tells of.
_MOST_DESCRIBED, _MOST_LETTERS = 20, 500


def save_parameters(network: Network, path: str | Path) -> None:
    """Write a network's parameters in the safetensors format, whole or not at all.

    With them goes its state, as ``state.mean1``. They come back bit by bit, whatever their layout
    in memory. The kinds of the layers are written
    with them, in order: what else the network is, such as the settings of layers of your own, is
    not.

    Raises
    ------
    DataError
        If the file cannot be written; what was there before is still there.
    DTypeError
        If a parameter's dtype is one that such a file does not hold here, such as bfloat16.
    """
    write_file(path, to_safetensors(network))


def to_safetensors(network: Network) -> bytes:
    """Return a network's parameters and state in the safetensors format.

    Raises
    ------
    DTypeError
        As `save_parameters`.
    """
    _require_network(network)
    _needed(network)  # before NumPy is asked for a dtype that it lacks
    to_numpy = network.backend.to_numpy
    arrays = {key: to_numpy(value) for key, value in _arrays(network).items()}
    return to_bytes(arrays, {_LAYERS: _kinds(network)})


def load_parameters(network: Network, path: str | Path) -> None:
    """Replace a network's parameters and state by those in a file, all of them or none.

    The file may come from a network on another backend. Its header is compared with the network
    and with the file's size before anything else is read: names, shapes and dtypes, and the kinds
    of the layers where the file says them, as each does that `save_parameters` has written.

    Raises
    ------
    CheckpointError
        If the file cannot be read, its arrays have other names, shapes or dtypes, or it is of a
        network of other layers, of another loss, or with another divisor.
    DTypeError
        If a parameter of the network has a dtype that no file holds.
    """
    _require_network(network)
    needed, kinds = _needed(network), _kinds(network)
    names = len(needed) + len(network.all_layers)
    try:
        with open_regular(path) as file:
            content = TensorFile(file, _HEADER + _HEADER_PER_NAME * names)
            found = {key: (tensor.shape, tensor.dtype) for key, tensor in content.tensors.items()}
            saved = content.metadata.get(_LAYERS, kinds)
            arrays = content.read() if found == needed else {}
    except (XbpError, OSError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}): give a file that save_parameters or --out made"
        ) from error
    if found != needed:
        raise CheckpointError(
            f"{path}: holds {_described(found)}, but the network has {_described(needed)}: build "
            "it with the same sizes and dtype"
        )
    if saved != kinds:
        raise CheckpointError(
            f"{path}: is of a network of {saved:.{_MOST_LETTERS}}, but this one is of "
            f"{kinds:.{_MOST_LETTERS}}: build it of the same layers, with the same loss and divisor"
        )
    asarray = network.backend.asarray
    # In the array's own byte order, which no file has.
    values = {
        key: cast_like(asarray(arrays[key]), like=value) for key, value in _arrays(network).items()
    }
    network.params.update({key: values[key] for key in network.params})
    network.state.update({key: values[f"{_STATE}{key}"] for key in network.state})


def _arrays(network: Network) -> dict[str, Array]:
    """Return all that a file holds of a network, by name."""
    return {**network.params, **{f"{_STATE}{key}": value for key, value in network.state.items()}}


def _needed(network: Network) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shapes and dtypes of a network's arrays, if all of them can be in a file."""
    return {
        key: (tuple(value.shape), storable_dtype(key, dtype_name(value.dtype)))
        for key, value in _arrays(network).items()
    }


def _kinds(network: Network) -> str:
    """Return what a network's layers are, from the first to the loss."""
    return ", ".join(map(_kind, (*network.layers.values(), network.last_layer)))


def _kind(layer: Layer) -> str:
    if type(layer) is Rescale:  # it has no parameter from which its divisor could be seen
        return f"Rescale({layer.divisor!r})"
    within = ", ".join(map(_kind, layer._children().values()))
    return f"{type(layer).__name__}({within})" if within else type(layer).__name__


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
    told = sorted(arrays.items())[:_MOST_DESCRIBED]
    more = f", and {len(arrays) - len(told):,} more" if len(arrays) > len(told) else ""
    return ", ".join(f"{key} {dtype}{shape}" for key, (shape, dtype) in told) + more
