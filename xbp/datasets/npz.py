"""A user's own data, in NumPy's archive format."""

from io import SEEK_END
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from xbp.errors import DataError
from xbp.files import as_path

_NAMES = ("x_train", "t_train", "x_test", "t_test")
# No compression of the format makes anything smaller than that.
_LARGEST_RATIO = 1100


def load_npz(path: str | Path) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return the data in an ``.npz`` file, on the host.

    Parameters
    ----------
    path
        An archive that holds ``x_train`` and ``t_train``, and for testing, if wanted, ``x_test``
        and ``t_test``. Make one with ``numpy.savez(path, x_train=..., t_train=...)``.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        NumPy arrays; None in place of the last two if the file has none.

    Raises
    ------
    DataError
        If the file cannot be read, is no such archive, holds objects instead of numbers, or lacks
        an array.
    """
    try:
        with as_path(path).open("rb") as file:
            _check_sizes(file)
            file.seek(0)
            # Objects would need pickle, and a pickle from a stranger can run anything.
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds a single array without a name")
            arrays = {name: archive[name] for name in _NAMES if name in archive}
            found = ", ".join(archive.files) or "nothing"
    except Exception as error:  # whatever a damaged archive leads to
        raise DataError(
            f"{path}: cannot be read ({_reason(error)}): give an .npz file of numbers, made by "
            "numpy.savez"
        ) from error
    missing = {"x_train", "t_train"} - arrays.keys()
    if len(arrays.keys() & {"x_test", "t_test"}) == 1:
        missing |= {"x_test", "t_test"} - arrays.keys()
    if missing:
        raise DataError(
            f"{path}: lacks {' and '.join(sorted(missing))}, holds {found}: save them with "
            "numpy.savez(path, x_train=..., t_train=...)"
        )
    x_train, t_train, x_test, t_test = (arrays.get(name) for name in _NAMES)
    return (x_train, t_train), (x_test, t_test)


def _check_sizes(file: IO[bytes]) -> None:
    """Raise ValueError if an array of an archive is not as large as its header says.

    NumPy makes room for what is announced before it reads.
    """
    # Takes long to import, and few calls need it.
    import zipfile  # noqa: PLC0415

    largest = _LARGEST_RATIO * file.seek(0, SEEK_END)
    file.seek(0)
    if not zipfile.is_zipfile(file):
        return  # NumPy says what it is instead
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.filename.removesuffix(".npy") not in _NAMES:
                continue
            if info.file_size > largest:
                raise ValueError(f"{info.filename} claims to be larger than it can be")
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                reader = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, _, dtype = reader(member)
                if dtype.hasobject:
                    raise ValueError(f"{info.filename} holds objects, not numbers")
                if member.tell() + prod(shape) * dtype.itemsize != info.file_size:
                    raise ValueError(f"{info.filename} is not as large as its header says")


def _reason(error: Exception) -> str:
    # NumPy advises to load a strange file in an unsafe way; xbp does not pass that on.
    return "it is no archive of numbers" if "pickle" in str(error) else str(error)
