"""The embedded digits: 1,797 images of 8 × 8 pixels.

They are the test set of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak,
UCI Machine Learning Repository, 1998, doi:10.24432/C50P49, licensed under CC BY 4.0. A pixel
counts, 0 to 16, the dark points in a square of 4 × 4 of the scan.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xbp.backend import Backend
from xbp.datasets.data_set import DataSet
from xbp.datasets.idx import read_idx
from xbp.datasets.prepare import CLASSES, Split, prepare

DARKEST = 16
# Every fifth image of each digit is for testing, so that both parts have images of all writers.
_TEST_EVERY = 5


def load_digits(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    backend: str | Backend | None = None,
    dtype: str | None = None,
) -> tuple[Split, Split]:
    """Return the embedded digits: 1,442 for training and 355 for testing.

    Parameters
    ----------
    normalize
        Whether to scale pixels to 0.0 ... 1.0; else they are integers 0 ... 16.
    flatten
        Whether an image is a row of 64 pixels; else it has the shape (1, 8, 8).
    one_hot_label
        Whether labels are one-hot rows of 10; else they are integers 0 ... 9.
    backend
        The backend of the arrays; None takes the selected backend.
    dtype
        The dtype of normalized pixels and one-hot labels: ``"float64"``, or ``"float32"`` or None.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        Arrays of that backend.

    Raises
    ------
    DTypeError
        If dtype is another one, or the backend lacks it.
    """
    images, labels = _embedded("digits-images.idx.gz"), _embedded("digits-labels.idx.gz")
    is_test = _count_so_far(labels) % _TEST_EVERY == 0
    train, test = (
        prepare(
            images[part],
            labels[part],
            largest=DARKEST,
            normalize=normalize,
            flatten=flatten,
            one_hot_label=one_hot_label,
            backend=backend,
            dtype=dtype,
        )
        for part in (~is_test, is_test)
    )
    return train, test


def data_set(data_dir: str | None = None) -> DataSet:
    """Return the digits as they come; ``data_dir`` is not used."""
    parts = load_digits(normalize=False, backend="numpy")
    return DataSet("digits", *parts, DARKEST, (8, 8), task="classification")


def _count_so_far(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return for each image its number, from 1, among the images of the same digit."""
    counts = np.cumsum(labels[:, None] == np.arange(CLASSES), axis=0)
    return np.take_along_axis(counts, labels[:, None].astype(np.int64), axis=1)[:, 0]


@cache
def _embedded(name: str) -> np.ndarray[Any, Any]:
    return read_idx(Path(__file__).with_name(name))
