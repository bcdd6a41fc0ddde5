"""The IDX format of the MNIST files: a header with type and shape, then the numbers.

The header has two zero bytes, a byte for the type, a byte for the number of dimensions, and a
big-endian 32-bit size for each dimension. The data follow in row-major order (Y. LeCun, C. Cortes,
C. J. C. Burges, "The MNIST database of handwritten digits").
"""

import gzip
import zlib
from collections.abc import Callable
from io import SEEK_END, BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xbp.errors import DataError
from xbp.files import open_regular

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
# Deflate compresses no content by more than this factor.
_LARGEST_RATIO = 1100
# A gzip file ends with the size of its content modulo 2**32, in 4 bytes.
_TRAILER, _TRAILER_BITS = 4, 32


def read_idx(path: str | Path, *, memory_map: bool = False) -> np.ndarray[Any, Any]:
    """Return the array in an IDX file, compressed by gzip or not.

    Its dtype, as in the header, is uint8, int8, int16, int32, float32 or float64. The size in the
    header is compared with that of the file before memory is allocated.

    Parameters
    ----------
    path
        The file. Its first bytes tell whether it is compressed, not its name.
    memory_map
        Whether to map the file into memory instead of reading it, for files larger than the memory.
        The file must not be compressed. The array is read-only, and numbers of more than a byte are
        big-endian, as in the file.

    Raises
    ------
    DataError
        If it cannot be read, is not an IDX file, or is shorter or longer than its header says.
    """
    try:
        with open_regular(path) as file:
            return _mapped(file, path) if memory_map else read_open(file, str(path))
    except OSError as error:
        raise _cannot_read(path, error) from error


def read_open(
    file: BinaryIO,
    source: str,
    *,
    size: int | None = None,
    digest: Callable[[bytes | memoryview], object] | None = None,
) -> np.ndarray[Any, Any]:
    """Return the array in an open file.

    Parameters
    ----------
    file
        A file opened in binary mode that can seek, compressed by gzip or not.
    source
        The name of the file, for messages.
    size
        The number of bytes that the uncompressed content must have, if known.
    digest
        A function called with the uncompressed content, one part after the other.

    Raises
    ------
    DataError
        As in `read_idx`, or if the content has another size.
    OSError
        If it cannot be read.
    """
    length = file.seek(0, SEEK_END)
    file.seek(0)
    is_packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    try:
        if not is_packed:
            return _read(file, source, length, size, digest)
        with gzip.open(file) as content:
            start = content.read(_LARGEST_HEADER)
            announced = _size(start)
            if announced is not None and (size is None or announced == size):
                length = _unpacked_length(file, content, length, announced)
                content.seek(0)
                return _read(content, source, length, size, digest)
        # Not the wanted array: _read raises the error, without unpacking the rest.
        return _read(BytesIO(start), source, announced or len(start), size, digest)
    except (EOFError, zlib.error, MemoryError) as error:
        raise _cannot_read(source, error) from error


def _unpacked_length(
    file: BinaryIO, content: gzip.GzipFile, packed_length: int, announced: int
) -> int:
    """Return the length of a gzip file's content, or more than announced if it is longer.

    Neither header nor trailer can be trusted. If they do not agree, or the ratio is impossible, the
    content is unpacked in chunks and counted, without being kept.
    """
    place = file.tell()
    file.seek(max(packed_length - _TRAILER, 0))
    trailer = int.from_bytes(file.read(_TRAILER), "little")
    file.seek(place)
    if trailer == announced % 2**_TRAILER_BITS and announced <= _LARGEST_RATIO * packed_length:
        return announced
    length = content.seek(0)
    while length <= announced and (chunk := content.read(_CHUNK)):
        length += len(chunk)
    return length


def _read(
    file: BinaryIO | gzip.GzipFile,
    source: str,
    length: int,
    size: int | None,
    digest: Callable[[bytes | memoryview], object] | None,
) -> np.ndarray[Any, Any]:
    """Return the array in a content of that length; raise `DataError` unless its header agrees."""
    start = file.read(_LARGEST_HEADER)
    header, shape = _checked_header(start, source, length)
    if size not in (None, length):
        raise DataError(f"{source}: has {length:,} bytes, but {size:,} are expected: replace it")
    dtype = _DTYPES[start[2]]
    try:
        array = np.empty(shape, dtype)
    except ValueError as error:
        raise _no_array(source, error) from error
    memory = array.reshape(-1).view(np.uint8).data
    if digest:
        digest(start[:header])
    head = start[header : header + len(memory)]
    memory[: len(head)] = head
    place = len(head)
    while place < len(memory):
        chunk = file.read(min(len(memory) - place, _CHUNK))
        if not chunk:
            raise DataError(f"{source}: has become shorter while it was read: fetch it again")
        memory[place : place + len(chunk)] = chunk
        place += len(chunk)
    if digest:
        digest(memory)
    # Reading to the end makes gzip compare the checksum.
    if len(start) > header + len(memory) or file.read(1):
        raise DataError(f"{source}: has more bytes than its header announces: fetch it again")
    native = dtype.newbyteorder("=")
    return array if native == dtype else array.byteswap(inplace=True).view(native)


def _checked_header(start: bytes, source: str, length: int) -> tuple[int, tuple[int, ...]]:
    """Return the header's length in bytes and the shape; raise `DataError` unless they fit."""
    magic, expected = start[:_FIXED_HEADER], _size(start)
    if expected is None:
        raise DataError(
            f"{source}: no IDX file: it begins with {magic.hex(' ') or 'nothing'}, not with 00 00, "
            "a type and a number of dimensions"
        )
    header = _FIXED_HEADER + 4 * magic[3]
    if len(start) < header:
        raise DataError(f"{source}: ends within its header: fetch the file again")
    shape = _shape(start, header)
    if length != expected:
        more = " or more" if length > expected else ""
        raise DataError(
            f"{source}: has {length:,} bytes{more}, but its header announces {expected:,} "
            f"(shape {shape}): fetch the file again"
        )
    return header, shape


def _mapped(file: BinaryIO, path: str | Path) -> np.ndarray[Any, Any]:
    start = file.read(_LARGEST_HEADER)
    if start.startswith(_GZIP_MAGIC):
        raise DataError(f"{path}: is compressed, so it cannot be mapped: unpack it by gunzip")
    header, shape = _checked_header(start, str(path), file.seek(0, SEEK_END))
    try:
        return np.memmap(file, _DTYPES[start[2]], "r", header, shape)
    except (ValueError, OSError) as error:
        raise _no_array(str(path), error) from error


def _cannot_read(path: str | Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read ({error}): check the path, or fetch the file again")


def _no_array(source: str, error: Exception) -> DataError:
    # NumPy limits the number of dimensions, and the sizes even of empty arrays.
    return DataError(f"{source}: its header announces what is no array here ({error})")


def _size(content: bytes) -> int | None:
    """Return the length, in bytes, of a file with this beginning; None if it is not IDX."""
    magic = content[:_FIXED_HEADER]
    if len(magic) < _FIXED_HEADER or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        return None
    header = _FIXED_HEADER + 4 * magic[3]
    if len(content) < header:
        return header
    return header + prod(_shape(content, header)) * _DTYPES[magic[2]].itemsize


def _shape(content: bytes, header: int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.frombuffer(content[_FIXED_HEADER:header], ">u4"))
