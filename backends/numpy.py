"""NumPy, on the CPU: the embedded default."""

from collections.abc import Callable
from functools import partial
from mmap import mmap
from typing import Any

import array_api_compat.numpy
import numpy

from xbp.backend import Backend
from xbp.namespace import Array, DType
from xbp.recording import ELEMENTWISE, Writer, noted, values

Call = Callable[[], object]


def _elementwise(function: Any) -> Writer:
    def write(*args: Any, out: Array) -> Call:
        # A number is an array in the end: it takes longer to make one than to compute.
        dtype = numpy.result_type(*args)
        return partial(
            function,
            *(x if hasattr(x, "shape") else numpy.asarray(x, dtype) for x in args),
            out,
        )

    return write


def _extremum(function: Any) -> Writer:
    def write(*args: Any, out: Array) -> Call:
        # NumPy compares with a row of equal numbers two times faster than with a single one.
        dtype = numpy.result_type(*args)
        operands = (
            x if hasattr(x, "shape") else numpy.full(out.shape[-1:], x, dtype) for x in args
        )
        return partial(function, *operands, out=out)

    return write


def _reduction(function: Any) -> Writer:
    def write(x: Array, *, axis: Any = None, keepdims: bool = False, out: Array) -> Call:
        return partial(function, x, axis, None, out, keepdims)

    return write


def _sum(x: Array, *, axis: Any = None, keepdims: bool = False, out: Array) -> Call:
    if axis == 0 and x.ndim == 2 and not keepdims and x.dtype in (numpy.float32, numpy.float64):  # noqa: PLR2004
        # A product with ones is the faster sum.
        return partial(numpy.ones(x.shape[0], x.dtype).dot, x, out)
    return _reduction(numpy.add.reduce)(x, axis=axis, keepdims=keepdims, out=out)


def _matmul(x: Array, y: Array, *, out: Array) -> Call:
    # For vectors and matrices it is the same, and sooner begun.
    if max(x.ndim, y.ndim) <= 2 and out.flags.c_contiguous:  # noqa: PLR2004
        return partial(x.dot, y, out)
    return partial(numpy.matmul, x, y, out)


def _take(x: Array, indices: Array, *, axis: int | None = None, out: Array) -> Call:
    return partial(numpy.take, x, indices, axis, out)


def _rows(x: Array, numbers: Array, *, out: Array) -> Call:
    # They are all there. In its mode "raise" NumPy would buffer the result, in case that it has to
    # raise.
    return partial(numpy.take, x, numbers, 0, out, "wrap")


def _where(condition: Array, x: Any, y: Any, *, out: Array) -> Call:
    is_mask = type(y) in (int, float) and y == 0 and getattr(x, "shape", None) == out.shape
    is_mask = is_mask and condition.dtype == bool
    if is_mask and x.dtype == out.dtype and out.itemsize in _INTEGERS:
        # A choice between numbers and 0 is a product of their bits with 1 and 0, which is faster.
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
    "maximum": _extremum(numpy.maximum),
    "minimum": _extremum(numpy.minimum),
    # The reductions themselves: numpy.sum and numpy.max look at their arguments first.
    "sum": _sum,
    "max": _reduction(numpy.maximum.reduce),
    "min": _reduction(numpy.minimum.reduce),
    "matmul": _matmul,
    "take": _take,
    "rows": _rows,
    "where": _where,
    "astype": _astype,
}


class NumpyBackend(Backend):
    """NumPy arrays."""

    name = "numpy"
    library = numpy
    xp = array_api_compat.numpy
    writers = WRITERS

    def row_major(self, x: Array) -> Array:
        """Return a copy in row-major order, if x is not; what is mapped from a file stays there."""
        return x if _is_mapped(x) else numpy.asarray(x, order="C")

    def rows(self, x: Array, numbers: Array) -> Array:
        """Return samples; of an array that is not in row-major order, take would copy it whole."""
        if not values(x).flags.c_contiguous:
            return x[numbers]
        return noted("rows", partial(numpy.take, axis=0), x, numbers)

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Return the array itself: it is on the host already."""
        return numpy.asarray(x)


def _is_mapped(x: Any) -> bool:
    """Tell whether an array's memory is a file's: its own, or that of what it is a view of."""
    while isinstance(x, numpy.ndarray):
        x = x.base
    return isinstance(x, mmap)
