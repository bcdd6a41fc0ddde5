"""A user's own data, in NumPy's archive format."""

from io import SEEK_END, BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from xbp.datasets.data_set import DataSet
from xbp.errors import DataError
from xbp.files import open_regular

# The largest byte.
_BRIGHTEST = 255

_NAMES = ("x_train", "t_train", "x_test", "t_test")
# The compression of NumPy's archives makes no content smaller by more than this factor.
_LARGEST_RATIO = 1100
# In bytes; NumPy reads no longer header of an array.
_LARGEST_HEADER = 10_000
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_npz(path: str | Path) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return the data in an ``.npz`` file as NumPy arrays.

    Parameters
    ----------
    path
        An archive with the arrays ``x_train`` and ``t_train``, and optionally ``x_test`` and
        ``t_test``. Make one with ``numpy.savez(path, x_train=..., t_train=...)``.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        NumPy arrays; the last two are None if the file has no test data.

    Raises
    ------
    DataError
        If the file cannot be read, is not such an archive, contains Python objects, or lacks an
        array.
    """
    try:
        with open_regular(path) as file:
            arrays, names = _read(file)
            holdings = ", ".join(names) or "nothing"
    except Exception as error:  # a damaged archive may cause any error
        raise DataError(
            f"{path}: cannot be read ({_reason(error)}): give an .npz file of numbers, made by "
            "numpy.savez"
        ) from error
    missing = {"x_train", "t_train"} - arrays.keys()
    if len(arrays.keys() & {"x_test", "t_test"}) == 1:
        missing |= {"x_test", "t_test"} - arrays.keys()
    if missing:
        raise DataError(
            f"{path}: lacks {' and '.join(sorted(missing))}, holds {holdings}: save them with "
            "numpy.savez(path, x_train=..., t_train=...)"
        )
    x_train, t_train, x_test, t_test = (arrays.get(name) for name in _NAMES)
    return (x_train, t_train), (x_test, t_test)


def _read(file: IO[bytes]) -> tuple[dict[str, np.ndarray[Any, Any]], list[str]]:
    """Return the arrays of `_NAMES` in an archive, and the names of all its members.

    NumPy allocates memory for what a header announces. So all headers are checked first.
    """
    # Imported here, since it is slow and few calls need it.
    import zipfile  # noqa: PLC0415

    length = file.seek(0, SEEK_END)
    file.seek(0)
    if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
        raise ValueError("it holds a single array without a name")
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        infos = {name: archive.getinfo(members[name]) for name in _NAMES if name in members}
        if sum(info.compress_size for info in infos.values()) > length:
            raise ValueError("it claims to hold more than it has")
        for info in infos.values():
            ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _LARGEST_RATIO
            if info.file_size > ratio * info.compress_size:
                raise ValueError(f"{info.filename} claims to be larger than it can be")
            with archive.open(info) as member:
                _check_header(member.read(_LARGEST_HEADER), info.filename, info.file_size)
        arrays = {}
        for name, info in infos.items():
            with archive.open(info) as member:
                # Objects would need pickle, and loading a pickle can run any code.
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    return arrays, list(members)


def _check_header(start: bytes, name: str, size: int) -> None:
    """Raise ValueError unless a member holds numbers, and is as large as its header says."""
    content = BytesIO(start)
    version = np.lib.format.read_magic(content)
    if version not in _HEADERS:
        raise ValueError(f"{name} is of a version that is not known here")
    shape, _, dtype = _HEADERS[version](content, max_header_size=_LARGEST_HEADER)
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects, not numbers")
    if content.tell() + prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name} is not as large as its header says")


def _reason(error: Exception) -> str:
    # NumPy's own message suggests allow_pickle=True, which is unsafe.
    is_none = "pickle" in str(error) or "not a zip file" in str(error)
    return "it is no archive of numbers" if is_none else str(error)


def data_set(path: str) -> DataSet:
    """Return the data in an ``.npz`` file; bytes are pixels, which a network divides by 255.

    Raises
    ------
    DataError
        If the file cannot be read, or samples and targets do not belong together.
    """
    (x, t), test = load_npz(path)
    for kind, samples, targets in (("training", x, t), ("test", *test)):
        # Before a network is built for them.
        if samples is not None and (0 in samples.shape or samples.shape[:1] != targets.shape[:1]):
            raise DataError(
                f"{path}: {kind} data: as many targets as samples are needed, and one of them "
                f"at least, got shapes {samples.shape} and {targets.shape}"
            )
    if test[0] is not None and (x.dtype == "uint8") != (test[0].dtype == "uint8"):
        raise DataError(
            f"{path}: x_train is of {x.dtype}, x_test of {test[0].dtype}: bytes are divided by "
            "255, and nothing else is: give both as bytes, or both as other numbers"
        )
    # (N, H, W), or (N, 1, H, W).
    is_image = x.ndim > 2 and prod(x.shape[1:]) == prod(x.shape[-2:])  # noqa: PLR2004
    return DataSet(
        str(Path(path).resolve()),
        (x, t),
        test,
        divisor=_BRIGHTEST if x.dtype == "uint8" else None,
        image_shape=x.shape[-2:] if is_image else None,
    )
