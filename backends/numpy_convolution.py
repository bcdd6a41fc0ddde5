"""Convolution on NumPy: blocks of samples that stay in the processor's cache, one after the other.

Each function takes what the operation of `xbp.convolution` takes, and ``out``; it returns a call
that writes the result there, on memory that is used again.
"""

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy

from xbp.windows import Window

HostArray = numpy.ndarray[Any, Any]
Call = Callable[[], object]

# The most elements of a block's columns; half of a cache of the second level holds them.
_MOST_ELEMENTS = 2**17


class _Block:
    """The windows of some samples as the columns of a matrix, ``(C KH KW, N OH width)``.

    There is a column for each place of a row, also where a window would reach beyond its end, and
    shows the next row instead. So a shift of all windows is one piece of memory for each channel,
    which is copied at once. Those columns are left out of each result.

    Windows that are a stride apart show only every so many rows and columns. So an image is first
    taken apart into such smaller images, its phases.
    """

    def __init__(self, shape: tuple[int, ...], window: Window, dtype: Any) -> None:
        samples, channels, height, width = shape
        (rows, columns), (down, right) = window.grid(shape), window.stride
        (above, left), size = window.pad, window.size
        self.rows, self.columns = rows, columns
        phase_height = max(rows + (size[0] - 1) // down, ceil((height + 2 * above) / down))
        self.width = max(columns + (size[1] - 1) // right, ceil((width + 2 * left) / right))
        length = rows * self.width
        self.samples = max(1, min(samples, _MOST_ELEMENTS // (channels * window.count * length)))
        self.slices = [
            slice(first, min(first + self.samples, samples))
            for first in range(0, samples, self.samples)
        ]
        # One row more, into which the windows at the end of the last row reach.
        phases = (channels, self.samples, down, right, phase_height + 1, self.width)
        self.phases = numpy.zeros(phases, dtype)
        flat = self.phases.reshape(*phases[:4], -1)
        parts = numpy.zeros((channels, *size, self.samples, length), dtype)
        self.matrix = parts.reshape(channels * window.count, -1)
        # For each place in a window: its part of the matrix, and that of the images.
        self.shifts = [
            (parts[:, i, j], flat[:, :, i % down, j % right, start : start + length])
            for i in range(size[0])
            for j in range(size[1])
            for start in [(i // down) * self.width + j // right]
        ]
        # For each phase: its part of the images, without their edge.
        self.places = []
        for i in range(down):
            for j in range(right):
                first_row, first_column = (i - above) % down, (j - left) % right
                inner = (slice(first_row, None, down), slice(first_column, None, right))
                y, x = (first_row + above) // down, (first_column + left) // right
                count = len(range(height)[inner[0]]), len(range(width)[inner[1]])
                place = self.phases[:, :, i, j, y : y + count[0], x : x + count[1]]
                self.places.append((place, (slice(None), slice(None), *inner)))

    def results(self, channels: int) -> tuple[HostArray, HostArray]:
        """Return memory for a number at each column: a matrix, and ``(samples, F, OH, OW)``."""
        shape = (channels, self.samples, self.rows, self.width)
        whole = numpy.zeros(shape, self.matrix.dtype)
        return whole.reshape(channels, -1), whole[..., : self.columns].transpose(1, 0, 2, 3)

    def show(self, images: HostArray) -> None:
        """Fill the matrix with the windows of images, ``(samples, C, H, W)``."""
        for place, inner in self.places:
            numpy.copyto(place[:, : len(images)], images[inner].transpose(1, 0, 2, 3))
        for part, shift in self.shifts:
            numpy.copyto(part, shift)

    def sum_into(self, images: HostArray) -> None:
        """Fill images with the sums of what the matrix holds for each of their elements."""
        self.phases[...] = 0
        for part, shift in self.shifts:
            numpy.add(shift, part, shift)
        for place, inner in self.places:
            numpy.copyto(images[inner], place[:, : len(images)].transpose(1, 0, 2, 3))


def convolution(
    x: HostArray, W: HostArray, b: HostArray, window: Window, *, out: HostArray
) -> Call:
    """Return a call that writes the convolution of images with filters."""
    block = _Block(x.shape, window, out.dtype)
    products, y = block.results(len(W))

    def call() -> None:
        filters, bias = W.reshape(len(W), -1), b[:, None, None]
        for samples in block.slices:
            block.show(x[samples])
            numpy.dot(filters, block.matrix, products)
            numpy.add(y[: len(x[samples])], bias, out[samples])

    return call


def convolution_dx(
    dout: HostArray, W: HostArray, window: Window, shape: tuple[int, ...], *, out: HostArray
) -> Call:
    """Return a call that writes the gradient with respect to images."""
    filters, channels = W.shape[:2]
    size, pad = window.size, window.pad
    if (
        window.stride == (1, 1)
        and filters <= 2 * channels
        and pad[0] < size[0]
        and pad[1] < size[1]
    ):
        # The convolution of dout with filters turned around copies more, but sums nothing.
        turned = numpy.empty((channels, filters, *size), out.dtype)
        edge = (size[0] - 1 - pad[0], size[1] - 1 - pad[1])
        convolve = convolution(
            dout, turned, numpy.zeros(channels, out.dtype), Window(size, (1, 1), edge), out=out
        )

        def call() -> None:
            numpy.copyto(turned, W[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
            convolve()

        return call
    block = _Block(shape, window, out.dtype)
    douts, place = block.results(filters)

    def call_and_sum() -> None:
        transposed = W.reshape(filters, -1).T
        for samples in block.slices:
            numpy.copyto(place[: len(dout[samples])], dout[samples])
            numpy.dot(transposed, douts, block.matrix)
            block.sum_into(out[samples])

    return call_and_sum


def convolution_dW(dout: HostArray, x: HostArray, window: Window, *, out: HostArray) -> Call:
    """Return a call that writes the gradient with respect to the filters."""
    block = _Block(x.shape, window, out.dtype)
    douts, place = block.results(dout.shape[1])
    # With the larger matrix first, the product is faster.
    products = numpy.empty((len(block.matrix), len(out)), out.dtype)
    total = out.reshape(len(out), -1).T

    def call() -> None:
        total[...] = 0
        for samples in block.slices:
            count = len(x[samples])
            block.show(x[samples])
            place[count:] = 0
            numpy.copyto(place[:count], dout[samples])
            numpy.dot(block.matrix, douts.T, products)
            numpy.add(total, products, total)

    return call
