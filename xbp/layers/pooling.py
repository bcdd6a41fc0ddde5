"""Pooling layers: each window of an image becomes one number."""

from functools import reduce
from math import inf
from operator import add
from typing import Any

from xbp.errors import SettingError
from xbp.layers.layer import Layer
from xbp.namespace import Array, device_of, namespace_of
from xbp.windows import Window, image, window


class _Pooling(Layer):
    """The settings and checks of pooling."""

    window: Window

    def __init__(self, size: Any, *, stride: Any = None, pad: Any = 0) -> None:
        name = type(self).__name__
        self.window = window(name, size, size if stride is None else stride, pad)
        if any(pad >= size for pad, size in zip(self.window.pad, self.window.size, strict=True)):
            raise SettingError(
                f"{name}: pad is smaller than size, or a window would show no image, got a pad of "
                f"{pad!r} with a size of {size!r}"
            )

    def __repr__(self) -> str:
        return f"<{self.name}: size {self.window.size}, stride {self.window.stride}>"

    def _checked(self, x: Array) -> Array:
        self.window.require_fit(x, self.name)
        return x


class MaxPooling(_Pooling):
    """The largest number that each window shows.

    Chapter 7 of the book.

    Parameters
    ----------
    size
        Of the window: an integer, or two, for height and width.
    stride
        How far a window is from the next; None takes the size, so that none overlap.
    pad
        How far windows reach beyond an image on each side, less than size. What is there counts as
        smaller than all numbers.

    Raises
    ------
    SettingError
        If one of them is no such number.
    """

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return the maxima of images ``(N, C, H, W)``, as ``(N, C, OH, OW)``.

        Raises
        ------
        ShapeError
            If x holds no such images, or the window is larger.
        """
        self.x = self._checked(x)
        self.y = reduce(namespace_of(x).maximum, self.window.shifts(x, edge=-inf))
        return self.y

    def backward(self, dout: Array) -> Array:
        """Return dout where the maximum was; of equal ones, at the first, row by row."""
        xp = namespace_of(dout)
        shares, left = [], dout
        for shift in self.window.shifts(self.x, edge=-inf):
            shares.append(xp.where(shift == self.y, left, 0.0))
            left = left - shares[-1]
        return image(shares, self.window, self.x.shape)


class AveragePooling(_Pooling):
    """The mean of the numbers that each window shows.

    Parameters and errors are those of `MaxPooling`. What is beyond an image is not counted.
    """

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return the means of images ``(N, C, H, W)``, as ``(N, C, OH, OW)``.

        Raises
        ------
        ShapeError
            If x holds no such images, or the window is larger.
        """
        self.counts = _counts(self._checked(x), self.window)
        return reduce(add, self.window.shifts(x)) / self.counts

    def backward(self, dout: Array) -> Array:
        """Return the sum of the shares of dout, one for each number of a window."""
        shares = [dout / self.counts] * self.window.count
        return image(shares, self.window, self.input_shape)


def _counts(x: Array, window: Window) -> Any:
    """Return how many numbers of the image each window shows, ``(OH, OW)``, or one for all."""
    if window.pad == (0, 0):
        return window.count
    sides = []
    for length, count, size, stride, pad in zip(
        x.shape[2:], window.grid(x.shape), window.size, window.stride, window.pad, strict=True
    ):
        starts = range(-pad, count * stride - pad, stride)
        sides.append([min(start + size, length) - max(start, 0) for start in starts])
    counts = [[float(rows * columns) for columns in sides[1]] for rows in sides[0]]
    return namespace_of(x).asarray(counts, dtype=x.dtype, device=device_of(x))
