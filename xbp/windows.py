"""Windows that slide over images, for convolution and pooling: what they show, and the way back."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add
from typing import Any

from xbp.errors import SettingError, ShapeError
from xbp.namespace import Array, device_of, namespace_of
from xbp.operations import operation
from xbp.settings import is_integer

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A window of some height and width, the steps that it moves in, and the edge around the image.

    Attributes
    ----------
    size, stride, pad : (int, int)
        Along the height and along the width.
    """

    size: Pair
    stride: Pair
    pad: Pair

    @property
    def count(self) -> int:
        """The number of elements of a window."""
        return prod(self.size)

    def grid(self, shape: Sequence[int]) -> Pair:
        """Return how many windows there are along the height and the width of images.

        Parameters
        ----------
        shape
            That of the images, ``(N, C, H, W)``.
        """
        rows, columns = (
            (length + 2 * pad - size) // stride + 1
            for length, size, stride, pad in zip(
                shape[2:], self.size, self.stride, self.pad, strict=True
            )
        )
        return rows, columns

    def require_fit(self, x: Array, name: str) -> None:
        """Raise `ShapeError` unless x holds images ``(N, C, H, W)`` that the window fits into."""
        if x.ndim != 4:  # noqa: PLR2004
            raise ShapeError(
                f"{name}: images (N, C, H, W) are needed, got shape {tuple(x.shape)}"
                + (": one image is a batch of one, x[None, ...]" if x.ndim == 3 else "")  # noqa: PLR2004
            )
        if min(self.grid(x.shape)) < 1:
            padded = tuple(n + 2 * pad for n, pad in zip(x.shape[2:], self.pad, strict=True))
            around = f", {padded} with its edge of {self.pad}" if any(self.pad) else ""
            raise ShapeError(
                f"{name}: a window of {self.size} is larger than an image of "
                f"{tuple(x.shape[2:])}{around}: use a smaller window, or a larger pad"
            )

    def shifts(self, x: Array, edge: float = 0.0) -> list[Array]:
        """Return, for each place in a window, what all windows show there.

        Parameters
        ----------
        x
            Images, ``(N, C, H, W)``.
        edge
            What is around them.

        Returns
        -------
        list of Array
            An array ``(N, C, OH, OW)`` for each place, row by row.
        """
        for axis, pad in zip((2, 3), self.pad, strict=True):
            x = _extended(x, pad, pad, axis, edge)
        return self.views(x)

    def views(self, x: Array) -> list[Array]:
        """Return the shifts of images that have their edge already."""
        (height, width), (down, right) = self.size, self.stride
        rows, columns = ((x.shape[2] - height) // down + 1, (x.shape[3] - width) // right + 1)
        return [
            x[:, :, i : i + down * (rows - 1) + 1 : down, j : j + right * (columns - 1) + 1 : right]
            for i in range(height)
            for j in range(width)
        ]

    def columns(self, x: Array) -> Array:
        """Return the windows as columns, ``(N, C KH KW, OH OW)``: "im2col"."""
        xp, shifts = namespace_of(x), self.shifts(x)
        samples, channels, rows, columns = shifts[0].shape
        return xp.reshape(
            xp.stack(shifts, axis=2), (samples, channels * self.count, rows * columns)
        )

    def image_of_columns(self, columns: Array, shape: Sequence[int]) -> Array:
        """Return images whose elements sum what the columns hold for them: "col2im"."""
        xp = namespace_of(columns)
        parts = xp.reshape(columns, (*shape[:2], self.count, *self.grid(shape)))
        return image([parts[:, :, k, ...] for k in range(self.count)], self, shape)


@operation
def image(shifts: Sequence[Array], window: Window, shape: Sequence[int]) -> Array:
    """Return images whose elements sum what the shifts hold for them.

    Parameters
    ----------
    shifts
        An array ``(N, C, OH, OW)`` for each place in a window, as `Window.shifts` returns them.
    window
        The window.
    shape
        That of the images, ``(N, C, H, W)``.
    """
    height, width = window.size
    (down, right), (above, left) = window.stride, window.pad
    rows = [
        _overlapped(shifts[i * width : (i + 1) * width], right, left, shape[3], axis=3)
        for i in range(height)
    ]
    return _overlapped(rows, down, above, shape[2], axis=2)


def window(where: str, size: Any, stride: Any, pad: Any) -> Window:
    """Return a window, or raise `SettingError` unless each is an integer, or two of them."""
    return Window(
        _pair(f"{where}: size", size, least=1),
        _pair(f"{where}: stride", stride, least=1),
        _pair(f"{where}: pad", pad, least=0),
    )


def _pair(what: str, value: Any, least: int) -> Pair:
    pair = (value, value) if is_integer(value) else value
    if not (
        isinstance(pair, tuple | list)
        and len(pair) == 2  # noqa: PLR2004
        and all(is_integer(n) and n >= least for n in pair)
    ):
        raise SettingError(
            f"{what} is an integer ≥ {least}, or two, for height and width, not {value!r}"
        )
    return int(pair[0]), int(pair[1])


def _overlapped(parts: Sequence[Array], stride: int, pad: int, length: int, *, axis: int) -> Array:
    """Return the sum of parts along an axis of some length.

    The elements of a part are a stride apart. The first part begins at the edge, before the axis by
    the pad, and each other one place behind the one before.
    """
    xp = namespace_of(parts[0])
    steps = -(-len(parts) // stride)
    # Parts a stride apart fall on the same places; the sums of each such group alternate.
    sums = [
        reduce(add, (_extended(part, k, steps - 1 - k, axis) for k, part in enumerate(group)))
        for group in (parts[phase::stride] for phase in range(min(stride, len(parts))))
    ]
    sums = [_extended(total, 0, sums[0].shape[axis] - total.shape[axis], axis) for total in sums]
    sums += [xp.zeros_like(sums[0])] * (stride - len(sums))
    whole = sums[0]
    if stride > 1:
        shape = [*whole.shape]
        shape[axis] *= stride
        whole = xp.reshape(xp.stack(sums, axis=axis + 1), tuple(shape))
    whole = _extended(whole, 0, pad + length - whole.shape[axis], axis)
    within = (*[slice(None)] * axis, slice(pad, pad + length), ...)
    return whole[within] if whole.shape[axis] > length else whole


def _extended(x: Array, before: int, after: int, axis: int, value: float = 0.0) -> Array:
    """Return x with more elements of a value along an axis."""
    if before <= 0 and after <= 0:
        return x
    xp = namespace_of(x)

    def edge(count: int) -> list[Array]:
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        return [xp.full(shape, value, dtype=x.dtype, device=device_of(x))] if count > 0 else []

    return xp.concat([*edge(before), x, *edge(after)], axis=axis)
