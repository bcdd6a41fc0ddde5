"""A network's parameters and state in files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xbp.errors import CheckpointError, SettingError, XbpError
from xbp.files import open_regular, write_file
from xbp.layers import Layer, Rescale
from xbp.namespace import Array, cast_like, dtype_name
from xbp.networks import Network
from xbp.tensors import TensorFile, storable_dtype, to_bytes

# In bytes, the largest header of a model's file: far more than xbp writes, and quick to read.
_HEADER, _HEADER_PER_NAME = 2**20, 2**10

# The prefix of the names of state arrays, which are not parameters.
_STATE = "state."

# The only metadata entry of a model: the order of several would differ from file to file.
_LAYERS = "xbp.layers"

# How many arrays, and how many characters of the layers' kinds, a message shows.
_MOST_DESCRIBED, _MOST_LETTERS = 20, 500


def save_parameters(network: Network, path: str | Path) -> None:
    """Write a network's parameters and state to a safetensors file, completely or not at all.

    State arrays have names such as ``state.mean1``. `load_parameters` restores all arrays bit for
    bit. The classes of the layers are written too, in order, but not their settings.

    Raises
    ------
    DataError
        If the file cannot be written; an existing file is then unchanged.
    DTypeError
        If an array's dtype cannot be saved, such as bfloat16.
    SettingError
        If network is not a `Network`.
    """
    write_file(path, to_safetensors(network))


def to_safetensors(network: Network) -> bytes:
    """Return the content of the file that `save_parameters` writes.

    Raises
    ------
    DTypeError, SettingError
        As in `save_parameters`.
    """
    _require_network(network)
    _expected(network)  # raises DTypeError before to_numpy meets a dtype that NumPy lacks
    to_numpy = network.backend.to_numpy
    arrays = {key: to_numpy(value) for key, value in _arrays(network).items()}
    return to_bytes(arrays, {_LAYERS: _kinds(network)})


def load_parameters(network: Network, path: str | Path) -> None:
    """Replace a network's parameters and state by those in a file, all of them or none.

    The file may come from a network on another backend. Names, shapes and dtypes in its header are
    compared with the network before any array is read. The classes of the layers are compared, too,
    if the file has them, as all files of `save_parameters` do.

    Raises
    ------
    CheckpointError
        If the file cannot be read, its arrays have other names, shapes or dtypes, or its network
        has other layers, another loss, or another divisor in a `Rescale`.
    DTypeError
        If an array of the network has a dtype that cannot be saved.
    SettingError
        If network is not a `Network`.
    """
    _require_network(network)
    expected, kinds = _expected(network), _kinds(network)
    names = len(expected) + len(network.all_layers)
    try:
        with open_regular(path) as file:
            content = TensorFile(file, _HEADER + _HEADER_PER_NAME * names)
            header = {key: (tensor.shape, tensor.dtype) for key, tensor in content.tensors.items()}
            layers = content.metadata.get(_LAYERS, kinds)
            arrays = content.read() if header == expected else {}
    except (XbpError, OSError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}): give a file that save_parameters or --out made"
        ) from error
    if header != expected:
        raise CheckpointError(
            f"{path}: holds {_described(header)}, but the network has {_described(expected)}: "
            "build it with the same sizes and dtype"
        )
    if layers != kinds:
        raise CheckpointError(
            f"{path}: is of a network of {layers:.{_MOST_LETTERS}}, but this one is of "
            f"{kinds:.{_MOST_LETTERS}}: build it of the same layers, with the same loss and divisor"
        )
    asarray = network.backend.asarray
    # cast_like restores the byte order of the network's array, which the file does not record.
    values = {
        key: cast_like(asarray(arrays[key]), like=value) for key, value in _arrays(network).items()
    }
    network.params.update({key: values[key] for key in network.params})
    network.state.update({key: values[f"{_STATE}{key}"] for key in network.state})


def _arrays(network: Network) -> dict[str, Array]:
    """Return a network's parameters and state by their names in a file."""
    return {**network.params, **{f"{_STATE}{key}": value for key, value in network.state.items()}}


def _expected(network: Network) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shapes and dtypes of a network's arrays; raise `DTypeError` if one cannot be saved."""
    return {
        key: (tuple(value.shape), storable_dtype(key, dtype_name(value.dtype)))
        for key, value in _arrays(network).items()
    }


def _kinds(network: Network) -> str:
    """Return the class names of a network's layers, from the first to the loss, as text."""
    return ", ".join(map(_kind, (*network.layers.values(), network.last_layer)))


def _kind(layer: Layer) -> str:
    if type(layer) is Rescale:  # its divisor is in no parameter, so no other check would see it
        return f"Rescale({layer.divisor!r})"
    within = ", ".join(map(_kind, layer._children().values()))
    return f"{type(layer).__name__}({within})" if within else type(layer).__name__


def _require_network(network: Any) -> None:
    if not isinstance(network, Network):
        raise SettingError(f"first a network, then a path: {network!r} is no network")


def _described(arrays: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    items = sorted(arrays.items())[:_MOST_DESCRIBED]
    more = f", and {len(arrays) - len(items):,} more" if len(arrays) > len(items) else ""
    return ", ".join(f"{key} {dtype}{shape}" for key, (shape, dtype) in items) + more
