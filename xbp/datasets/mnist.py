"""MNIST: 70,000 handwritten digits of 28 × 28 pixels, downloaded or read from a folder.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits". Pixels are
integers from 0 to 255.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbp.backend import Backend
from xbp.datasets.data_set import DataSet
from xbp.datasets.idx import read_open
from xbp.datasets.prepare import Split, prepare
from xbp.errors import DataError
from xbp.files import as_path, open_regular

DATA_DIR_VARIABLE = "XBP_DATA_DIR"

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

BRIGHTEST = 255

# Where the files may be in a user's folder, including where other libraries put them.
_FOLDERS = ("", "mnist", "MNIST/raw", "raw")


@dataclass(frozen=True)
class _File:
    """A published file.

    Attributes
    ----------
    name : str
        The name without ``.gz``.
    md5 : str
        The digest of the gzip file on the mirrors.
    sha256 : str
        The digest of its uncompressed content.
    packed_size, size : int
        The number of bytes of the gzip file, and of its content.
    """

    name: str
    md5: str
    sha256: str
    packed_size: int
    size: int

    def names(self) -> list[str]:
        """Return the names that the file may have in a user's folder."""
        dotted = self.name.replace("-idx", ".idx")  # some tools name the unpacked file so
        return [self.name, f"{self.name}.gz", dotted, f"{dotted}.gz"]


FILES = {
    "x_train": _File(
        "train-images-idx3-ubyte",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        9_912_422,
        47_040_016,
    ),
    "t_train": _File(
        "train-labels-idx1-ubyte",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        28_881,
        60_008,
    ),
    "x_test": _File(
        "t10k-images-idx3-ubyte",
        "9fb629c4189551a2d022fa330f9573f3",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        1_648_877,
        7_840_016,
    ),
    "t_test": _File(
        "t10k-labels-idx1-ubyte",
        "ec29112dd5afa0611ce80d1b7f02629c",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        4_542,
        10_008,
    ),
}


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    backend: str | Backend | None = None,
    dtype: str | None = None,
    data_dir: str | Path | None = None,
) -> tuple[Split, Split]:
    """Return MNIST: 60,000 digits for training and 10,000 for testing.

    Parameters
    ----------
    normalize
        Whether to scale pixels to 0.0 ... 1.0; else they are integers 0 ... 255.
    flatten
        Whether an image is a row of 784 pixels; else it has the shape (1, 28, 28).
    one_hot_label
        Whether labels are one-hot rows of 10; else they are integers 0 ... 9.
    backend
        The backend of the arrays; None takes the selected backend.
    dtype
        The dtype of normalized pixels and one-hot labels: ``"float64"``, or ``"float32"`` or None.
    data_dir
        A folder with the four IDX files, compressed by gzip or not, in itself or in its subfolder
        ``mnist``, ``MNIST/raw`` or ``raw``. None takes the environment variable ``XBP_DATA_DIR``;
        if that is not set, the files are downloaded once into the user's cache.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        Arrays of that backend.

    Raises
    ------
    DataError
        If a file is missing, damaged or not the published one, if no mirror sends it, or if the
        cache cannot be written.
    DTypeError
        If dtype is another one, or the backend lacks it.
    """
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE) or None
    raw = {part: _read(file, data_dir) for part, file in FILES.items()}
    train, test = (
        prepare(
            raw[f"x_{part}"],
            raw[f"t_{part}"],
            largest=BRIGHTEST,
            normalize=normalize,
            flatten=flatten,
            one_hot_label=one_hot_label,
            backend=backend,
            dtype=dtype,
        )
        for part in ("train", "test")
    )
    return train, test


def _read(file: _File, data_dir: str | Path | None) -> np.ndarray[Any, Any]:
    """Return the array in a file; raise `DataError` unless its content is the published one."""
    # Imported here, since it is slow and few calls need it.
    import hashlib  # noqa: PLC0415

    if data_dir is None:
        # Imported here, since its libraries take longer than all of xbp, and few calls need them.
        from xbp.datasets.download import download  # noqa: PLC0415

        urls = [f"{mirror}{file.name}.gz" for mirror in MIRRORS]
        path = download(urls, f"md5:{file.md5}", file.packed_size, folder="mnist")
    else:
        path = _find(file, as_path(data_dir))
    digest = hashlib.sha256()
    try:
        with open_regular(path) as content:
            array = read_open(content, str(path), size=file.size, digest=digest.update)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error}): check the path, or fetch the file again"
        ) from error
    if digest.hexdigest() != file.sha256:
        raise DataError(
            f"{path}: its content is not that of MNIST's {file.name} (SHA-256 differs): remove it, "
            "or point --data-dir or XBP_DATA_DIR elsewhere"
        )
    return array


def _find(file: _File, data_dir: Path) -> Path:
    for folder in _FOLDERS:
        for name in file.names():
            candidate = data_dir / folder / name
            try:
                candidate.stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise DataError(
                    f"{data_dir}: cannot be read ({error.strerror}): point --data-dir or "
                    f"{DATA_DIR_VARIABLE} to a folder that can"
                ) from error
            return candidate
    raise DataError(
        f"{data_dir}: holds neither {file.name} nor {file.name}.gz, nor do its folders mnist, "
        f"MNIST/raw and raw: put the four MNIST files there; without --data-dir and "
        f"{DATA_DIR_VARIABLE} they are downloaded"
    )


def data_set(data_dir: str | None = None) -> DataSet:
    """Return MNIST as it comes, from a folder, or downloaded, with the chapter's settings."""
    if data_dir is not None:
        as_path(data_dir)
    return DataSet(
        "mnist",
        *load_mnist(normalize=False, backend="numpy", data_dir=data_dir),
        BRIGHTEST,
        (28, 28),
        task="classification",
        steps=10_000,
        weight_init_std=0.01,
    )
