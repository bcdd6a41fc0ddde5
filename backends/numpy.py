"""NumPy, on the CPU: the default backend."""

from collections.abc import Callable, Mapping
from functools import partial
from mmap import mmap
from typing import Any, ClassVar

import array_api_compat.numpy
import numpy

from xbp.backend import Backend
from xbp.namespace import Array, DType
from xbp.recording import ELEMENTWISE, Writer, noted, values
from xbp.windows import Window

from .images import image, write_image
from .numpy_convolution import convolution, convolution_dW, convolution_dx

Call = Callable[[], object]


def _elementwise(function: Any) -> Writer:
    def write(*args: Any, out: Array) -> Call:
        # Otherwise NumPy converts a number to an array at each call: slow beside small arrays.
        dtype = numpy.result_type(*args)
        operands = (x if hasattr(x, "shape") else numpy.asarray(x, dtype) for x in args)
        if function in (numpy.maximum, numpy.minimum):  # which take out by its name alone
            return partial(function, *operands, out=out)
        return partial(function, *operands, out)

    return write


def _reduction(function: Any) -> Writer:
    def write(x: Array, *, axis: Any = None, keepdims: bool = False, out: Array) -> Call:
        return partial(function, x, axis, None, out, keepdims)

    return write


# In a step of a small network, the next two and a positional out save 2 to 4% each.


def _sum(x: Array, *, axis: Any = None, keepdims: bool = False, out: Array) -> Call:
    if axis == 0 and x.ndim == 2 and not keepdims and x.dtype in (numpy.float32, numpy.float64):  # noqa: PLR2004
        # A product with ones has less overhead.
        return partial(numpy.ones(x.shape[0], x.dtype).dot, x, out)
    return _reduction(numpy.add.reduce)(x, axis=axis, keepdims=keepdims, out=out)


def _matmul(x: Array, y: Array, *, out: Array) -> Call:
    # For vectors and matrices, dot computes the same with less overhead.
    if max(x.ndim, y.ndim) <= 2 and out.flags.c_contiguous:  # noqa: PLR2004
        return partial(x.dot, y, out)
    return partial(numpy.matmul, x, y, out)


def _take(x: Array, indices: Array, *, axis: int | None = None, out: Array) -> Call:
    return partial(numpy.take, x, indices, axis, out)


def _rows(x: Array, numbers: Array, *, out: Array) -> Call:
    # All numbers are valid indices. In the mode "raise", NumPy would buffer the result, so as to
    # leave out unchanged after an error.
    return partial(numpy.take, x, numbers, 0, out, "wrap")


def _where(condition: Array, x: Any, y: Any, *, out: Array) -> Call:
    is_mask = type(y) in (int, float) and y == 0 and getattr(x, "shape", None) == out.shape
    is_mask = is_mask and condition.dtype == bool
    if is_mask and x.dtype == out.dtype and out.itemsize in _INTEGERS:
        # Multiplying the bits of a number by 1 or 0 is faster than choosing the number or 0.
        integer = _INTEGERS[out.itemsize]
        factor = numpy.empty(out.shape, integer)
        return partial(_multiply_bits, condition, x.view(integer), factor, out.view(integer))
    return partial(_choose, condition, x, y, out)


_INTEGERS = {4: numpy.int32, 8: numpy.int64}


def _multiply_bits(condition: Array, x: Array, factor: Array, out: Array) -> None:
    numpy.copyto(factor, condition)
    numpy.multiply(x, factor, out)


def _choose(condition: Array, x: Any, y: Any, out: Array) -> None:
    numpy.copyto(out, y)
    numpy.copyto(out, x, where=condition)


def _astype(x: Array, dtype: DType, *, out: Array) -> Call:
    return partial(numpy.copyto, out, x, "unsafe")


WRITERS: dict[str, Writer] = {
    **{name: _elementwise(getattr(numpy, name)) for name in ELEMENTWISE},
    # The reductions of ufuncs have less overhead than numpy.sum and numpy.max, which call them.
    "sum": _sum,
    "max": _reduction(numpy.maximum.reduce),
    "min": _reduction(numpy.minimum.reduce),
    "matmul": _matmul,
    "take": _take,
    "rows": _rows,
    "where": _where,
    "astype": _astype,
    "convolution": convolution,
    "convolution_dx": convolution_dx,
    "convolution_dW": convolution_dW,
    "image": write_image,
}


def _convolution(x: Array, W: Array, b: Array, window: Window) -> Array:
    out = numpy.empty((len(x), len(W), *window.grid(x.shape)), W.dtype)
    convolution(x, W, b, window, out=out)()
    return out


def _convolution_dx(dout: Array, W: Array, window: Window, shape: tuple[int, ...]) -> Array:
    out = numpy.empty(shape, W.dtype)
    convolution_dx(dout, W, window, shape, out=out)()
    return out


def _convolution_dW(dout: Array, x: Array, window: Window) -> Array:
    out = numpy.empty((dout.shape[1], x.shape[1], *window.size), x.dtype)
    convolution_dW(dout, x, window, out=out)()
    return out


class NumpyBackend(Backend):
    """NumPy arrays."""

    name = "numpy"
    library = numpy
    xp = array_api_compat.numpy
    writers = WRITERS
    operations: ClassVar[Mapping[str, Callable[..., Array]]] = {
        "convolution": _convolution,
        "convolution_dx": _convolution_dx,
        "convolution_dW": _convolution_dW,
        "image": image,
    }

    def row_major(self, x: Array) -> Array:
        """Return x in row-major order; an array mapped from a file is returned as it is."""
        return x if _is_mapped(x) else numpy.asarray(x, order="C")

    def rows(self, x: Array, numbers: Array) -> Array:
        """Return samples; not with take if x is not row-major, since take would copy all of x."""
        if not values(x).flags.c_contiguous:
            return x[numbers]
        return noted("rows", partial(numpy.take, axis=0), x, numbers)

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Return the array itself."""
        return numpy.asarray(x)


def _is_mapped(x: Any) -> bool:
    """Tell whether an array, or the array that it is a view of, is mapped from a file."""
    while isinstance(x, numpy.ndarray):
        x = x.base
    return isinstance(x, mmap)
