"""The IDX format of the MNIST files: a header of sizes, then the numbers.

Two zero bytes, a byte for the type, a byte for the number of dimensions, a big-endian 32-bit size
for each dimension, and the data in row-major order (Y. LeCun, C. Cortes, C. J. C. Burges, "The
MNIST database of handwritten digits").
"""

import gzip
import zlib
from io import SEEK_END
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from xbp.errors import DataError
from xbp.files import as_path

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_FIXED_HEADER = 4
_GZIP_MAGIC = b"\x1f\x8b"
_LARGEST_HEADER = _FIXED_HEADER + 4 * 255
_CHUNK = 2**20


def read_idx(path: str | Path, *, memory_map: bool = False) -> np.ndarray[Any, Any]:
    """Return the array in an IDX file, compressed by gzip or not.

    Parameters
    ----------
    path
        The file. Whether it is compressed is seen from its first bytes, not from its name.
    memory_map
        Whether to leave the numbers in the file, and read them when they are asked for: for files
        larger than the memory. Such a file must not be compressed; its array cannot be written to,
        and numbers of more than a byte are big-endian, as in the file.

    Raises
    ------
    DataError
        If it cannot be read, is no IDX file, or is shorter or longer than its header says.
    """
    return _mapped(path) if memory_map else parse_idx(read_content(path), str(path))


def _mapped(path: str | Path) -> np.ndarray[Any, Any]:
    try:
        with as_path(path).open("rb") as file:
            start = file.read(_LARGEST_HEADER)
            length = file.seek(0, SEEK_END)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}): check the path") from error
    if start.startswith(_GZIP_MAGIC):
        raise DataError(f"{path}: is compressed, so it cannot be mapped: unpack it by gunzip")
    # A file of no such length ends in the error that it would end in without a map.
    if _size(start) != length:
        parse_idx(start[:length], str(path))
    header = _FIXED_HEADER + 4 * start[3]
    try:
        return np.memmap(path, _DTYPES[start[2]], "r", header, _shape(start, header))
    except (ValueError, OSError) as error:
        raise _no_array(str(path), error) from error


def read_content(path: str | Path) -> bytes:
    """Return the bytes of a file, uncompressed.

    Raises
    ------
    DataError
        If it cannot be read, or its compressed data are damaged.
    """
    try:
        with as_path(path).open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            file.seek(0)
            if not packed:
                return file.read()
            with gzip.open(file) as unpacked:
                return _read_no_more_than_announced(unpacked)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read ({error}): check the path, or fetch the file again"
        ) from error


def _read_no_more_than_announced(file: gzip.GzipFile) -> bytes:
    """Return a packed file's content, or a little more than its header announces.

    A small file may hold a thousand times its size, and its header promise anything.
    """
    content = bytearray(file.read(_LARGEST_HEADER))
    size = _size(content)
    while (size is None or len(content) <= size) and (more := file.read(_CHUNK)):
        content += more
    return bytes(content)


def _no_array(source: str, error: Exception) -> DataError:
    # NumPy has a limit of dimensions, and one of sizes even where another is 0.
    return DataError(f"{source}: its header announces what is no array here ({error})")


def _size(content: bytes | bytearray) -> int | None:
    """Return how long a file that begins so should be; None if it is no IDX file."""
    magic = content[:_FIXED_HEADER]
    if len(magic) < _FIXED_HEADER or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        return None
    header = _FIXED_HEADER + 4 * magic[3]
    if len(content) < header:
        return header
    return header + prod(_shape(content, header)) * _DTYPES[magic[2]].itemsize


def _shape(content: bytes | bytearray, header: int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.frombuffer(content[_FIXED_HEADER:header], ">u4"))


def parse_idx(content: bytes, source: str) -> np.ndarray[Any, Any]:
    """Return the array in the bytes of an IDX file; source names them in an error.

    Raises
    ------
    DataError
        If they are no IDX file, or fewer or more than the header says.
    """
    magic, expected = content[:_FIXED_HEADER], _size(content)
    if expected is None:
        raise DataError(
            f"{source}: no IDX file: it begins with {magic.hex(' ') or 'nothing'}, not with 00 00, "
            "a type and a number of dimensions"
        )
    dtype, header = _DTYPES[magic[2]], _FIXED_HEADER + 4 * magic[3]
    if len(content) < header:
        raise DataError(f"{source}: ends within its header: fetch the file again")
    shape = _shape(content, header)
    if len(content) != expected:
        more = " or more" if len(content) > expected else ""
        raise DataError(
            f"{source}: has {len(content):,} bytes{more}, but its header announces {expected:,} "
            f"(shape {shape}): fetch the file again"
        )
    try:
        array = np.frombuffer(content, dtype, offset=header).reshape(shape)
    except ValueError as error:
        raise _no_array(source, error) from error
    return array.astype(dtype.newbyteorder("="))
