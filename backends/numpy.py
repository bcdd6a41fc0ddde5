"""NumPy, on the CPU: the embedded default."""

from collections.abc import Callable
from functools import partial
from typing import Any

import array_api_compat.numpy
import numpy

from xbp.backend import Backend
from xbp.namespace import Array, DType
from xbp.recording import ELEMENTWISE, Writer

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


def _matmul(x: Array, y: Array, *, out: Array) -> Call:
    # For vectors and matrices it is the same, and sooner begun.
    if max(x.ndim, y.ndim) <= 2 and out.flags.c_contiguous:  # noqa: PLR2004
        return partial(x.dot, y, out)
    return partial(numpy.matmul, x, y, out)


def _take(x: Array, indices: Array, *, axis: int, out: Array) -> Call:
    # In its mode "raise" NumPy would buffer the result, in case that it has to raise.
    return partial(numpy.take, x, indices, axis, out, "wrap")


def _astype(x: Array, dtype: DType, *, out: Array) -> Call:
    return partial(numpy.copyto, out, x, "unsafe")


WRITERS: dict[str, Writer] = {
    **{name: _elementwise(getattr(numpy, name)) for name in ELEMENTWISE - {"round"}},
    "maximum": _extremum(numpy.maximum),
    "minimum": _extremum(numpy.minimum),
    # The reductions themselves: numpy.sum and numpy.max look at their arguments first.
    "sum": _reduction(numpy.add.reduce),
    "max": _reduction(numpy.maximum.reduce),
    "min": _reduction(numpy.minimum.reduce),
    "matmul": _matmul,
    "take": _take,
    "astype": _astype,
}


class NumpyBackend(Backend):
    """NumPy arrays."""

    name = "numpy"
    library = numpy
    xp = array_api_compat.numpy
    writers = WRITERS

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Return the array itself: it is on the host already."""
        return numpy.asarray(x)
