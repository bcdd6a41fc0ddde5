"""Arrays in files of the safetensors format.

Such a file has eight bytes for the size of the header, the header as JSON, and the bytes of one
array after the other. The library safetensors writes it. This module reads it, from a file that is
already open, and checks the header before memory is allocated for the arrays.
"""

import json
from collections.abc import Iterator, Mapping
from io import SEEK_END
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from xbp.errors import CheckpointError, DTypeError

HostArray = np.ndarray[Any, Any]

_DTYPES = {
    "BOOL": "bool",
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint"))
       for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
}  # fmt: skip

# In bytes; the library has the same limit.
_LARGEST_HEADER = 100_000_000
_LENGTH_OF_SIZE = 8
_MOST_DIMENSIONS = 64  # as in NumPy
_CHUNK = 2**20


def storable_dtype(name: str, dtype: str) -> str:
    """Return the name of an array's dtype, without its byte order.

    Raises
    ------
    DTypeError
        If NumPy or the format has no such dtype.
    """
    try:
        plain = np.dtype(dtype).name
    except TypeError:  # NumPy has none of that name
        plain = dtype
    if plain not in _DTYPES.values():
        raise DTypeError(
            f"{name} is of dtype {dtype}, which is not saved: saved are bool, integers, float16, "
            "float32 and float64; convert it to one of them by astype"
        )
    return plain


def dense(arrays: Mapping[str, HostArray]) -> dict[str, HostArray]:
    """Return arrays that are C-contiguous and in this machine's byte order.

    Only arrays with another layout or byte order are copied.

    Raises
    ------
    DTypeError
        If the format has no dtype of one of them.
    """
    return {
        name: np.asarray(array, dtype=storable_dtype(name, str(array.dtype)), order="C")
        for name, array in arrays.items()
    }


def as_bytes(array: HostArray) -> HostArray:
    """Return a view of a C-contiguous array as a flat array of bytes."""
    return array.reshape(-1).view(np.uint8)


def to_bytes(arrays: Mapping[str, HostArray], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a file with these arrays, whatever their layout in memory.

    Raises
    ------
    DTypeError
        If the format has no dtype of one of them.
    """
    # Imported here, since few calls need it.
    import safetensors.numpy  # noqa: PLC0415

    return safetensors.numpy.save(dense(arrays), None if metadata is None else dict(metadata))


class Tensor(NamedTuple):
    """The header's entry of an array; start, from the file's beginning, and size are in bytes."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    size: int


class TensorFile:
    """A safetensors file whose header has been read and checked, but not its arrays.

    Parameters
    ----------
    file
        A file opened in binary mode that can seek.
    largest_header
        The largest number of bytes of the header.

    Attributes
    ----------
    metadata : dict of str to str
        The texts that the file holds beside the arrays.
    tensors : dict of str to Tensor
        The arrays in the header, in order of their names; together they fill the file.

    Raises
    ------
    CheckpointError
        If it is not such a file, or is longer or shorter than its header says.
    """

    def __init__(self, file: BinaryIO, largest_header: int = _LARGEST_HEADER) -> None:
        self._file = file
        length = file.seek(0, SEEK_END)
        file.seek(0)
        size = int.from_bytes(file.read(_LENGTH_OF_SIZE), "little")
        start = _LENGTH_OF_SIZE + size
        if not 1 < size <= largest_header or start > length:
            raise CheckpointError(f"{length:,} bytes are no file of the safetensors format")
        try:
            header = json.loads(_text(file, size), object_pairs_hook=_without_duplicates)
            self.metadata = _metadata(header.pop("__metadata__", {}))
            tensors = {name: _tensor(entry, start) for name, entry in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"its header is none of the safetensors format ({error})") from (
                error
            )
        end = start
        for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.size)):
            if tensor.start != end:
                raise CheckpointError("its header announces arrays that overlap or leave gaps")
            end += tensor.size
        if end != length:
            raise CheckpointError(f"has {length:,} bytes, but its header announces {end:,}")
        self.tensors = dict(sorted(tensors.items()))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an array in chunks."""
        tensor = self.tensors[name]
        self._file.seek(tensor.start)
        rest = tensor.size
        while rest:
            chunk = self._file.read(min(rest, _CHUNK))
            if not chunk:
                raise CheckpointError("it has become shorter while it was read")
            rest -= len(chunk)
            yield chunk

    def read(self) -> dict[str, HostArray]:
        """Return the arrays by name; each is writable and has its own memory."""
        return {name: self._read(name) for name in self.tensors}

    def _read(self, name: str) -> HostArray:
        tensor = self.tensors[name]
        dtype = np.dtype(tensor.dtype)
        try:
            array = np.empty(tensor.shape, dtype.newbyteorder("<"))
        except ValueError as error:  # one size is 0, and another too large for NumPy
            raise CheckpointError(f"its header announces what is no array here ({error})") from (
                error
            )
        memory, place = as_bytes(array), 0
        for chunk in self.chunks(name):
            memory[place : place + len(chunk)] = np.frombuffer(chunk, np.uint8)
            place += len(chunk)
        return array.astype(dtype, copy=False)


def _text(file: BinaryIO, size: int) -> str:
    """Return the header; a NUL ends the reading, since a sparse file may claim a huge header."""
    header = bytearray()
    while len(header) < size:
        chunk = file.read(min(size - len(header), _CHUNK))
        if not chunk or b"\0" in chunk:
            raise ValueError("it is no text")
        header += chunk
    return header.decode()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name is there twice")
    return entries


def _metadata(entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(text, str) for text in entry.values()):
        raise ValueError("its metadata are no text")
    return entry


def _tensor(entry: Any, origin: int) -> Tensor:
    """Return a header's entry as a `Tensor`; raise ValueError unless it is consistent."""
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("an array lacks dtype, shape or offsets")
    dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _DTYPES:
        raise ValueError(f"no arrays of dtype {dtype} are read here")
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"an array has {len(shape):,} dimensions")
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
        raise ValueError("a size is no integer from 0")
    size = prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if end - start != size:
        raise ValueError("an array has other sizes than its place")
    return Tensor(tuple(shape), _DTYPES[dtype], origin + start, size)
