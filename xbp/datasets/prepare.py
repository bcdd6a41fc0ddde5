"""Conversion of images and labels from NumPy arrays to the arrays that a network takes."""

from typing import Any, TypeAlias

import numpy as np

from xbp.backend import Backend
from xbp.errors import DTypeError
from xbp.namespace import Array
from xbp.registry import get_backend

Split: TypeAlias = tuple[Array, Array]

CLASSES = 10


def prepare(
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    *,
    largest: int,
    normalize: bool,
    flatten: bool,
    one_hot_label: bool,
    backend: str | Backend | None,
    dtype: str | None,
) -> Split:
    """Return pixels and labels of images ``(N, H, W)`` as arrays of a backend.

    Pixels have the shape ``(N, H * W)``, or ``(N, 1, H, W)`` unless flatten; labels have the shape
    ``(N,)``, or ``(N, 10)`` if one-hot. To normalize is to divide pixels by largest.

    Raises
    ------
    DTypeError
        If dtype is neither ``"float32"`` nor ``"float64"``, or the backend lacks it.
    """
    backend = get_backend(backend)
    dtype = dtype or "float32"
    if dtype not in ("float32", "float64"):
        raise DTypeError(f"data are float32 or float64, not {dtype!r}")
    count, height, width = images.shape
    pixels = images.reshape((count, height * width) if flatten else (count, 1, height, width))
    x = np.divide(pixels, largest, dtype=dtype) if normalize else pixels
    t = np.eye(CLASSES, dtype=dtype)[labels] if one_hot_label else labels.astype(np.int64)
    return backend.asarray(x), backend.asarray(t)
