"""The nodes of the chapter's graphs: multiplication, addition, exponential and reciprocal.

They take Python numbers as well as arrays. Of numbers alone they give numbers back; a number that
meets an array counts for each of its elements, so its derivative is a sum.
"""

import math
from typing import Any, TypeAlias

from xbp.errors import ShapeError
from xbp.layers.layer import Layer
from xbp.namespace import (
    Namespace,
    cast_like,
    is_floating,
    namespace_of,
    require_floating,
    require_real,
)

# An array or a Python number.
Operand: TypeAlias = Any


class _OfTwo(Layer):
    x: Operand = None
    y: Operand = None

    def _keep(self, x: Operand, y: Operand) -> None:
        arrays = [operand for operand in (x, y) if not _is_number(operand)]
        if arrays:
            namespace_of(*arrays, where=self.name)
            # The standard does not say what integers and floating-point numbers give together.
            floating = any(map(is_floating, arrays)) or any(isinstance(n, float) for n in (x, y))
            for array in arrays:
                (require_floating if floating else require_real)(array, self.name)
            self.output_shape = arrays[0].shape
            if arrays[-1].shape != self.output_shape:
                raise ShapeError(
                    f"{self.name}: two arrays of one shape are needed, or numbers, got "
                    f"{tuple(x.shape)} and {tuple(y.shape)}"
                )
        self.x, self.y = x, y

    def _spread(self, dout: Operand) -> Operand:
        """Return dout in the shape of the output."""
        if self.x is None:
            raise self._call_order_error()
        output = self.y if _is_number(self.x) else self.x
        if _is_number(output):
            return dout
        xp = namespace_of(output)
        if _is_number(dout):
            if isinstance(dout, float):
                require_floating(output, f"{self.name}.backward, to which {dout} was given")
            return xp.full_like(output, dout)
        self._check_dout(dout, output)
        return dout


class MulLayer(_OfTwo):
    """Multiplication: ``backward`` sends the upstream derivative back times the *other* input."""

    symbol = "×"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x * y``.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x and y are arrays that do not fit together.
        """
        self._keep(x, y)
        return x * y

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout * y`` and ``dy = dout * x``.

        Raises
        ------
        CallOrderError, ShapeError
        """
        dout = self._spread(dout)
        return _like(self.x, dout * self.y), _like(self.y, dout * self.x)


class AddLayer(_OfTwo):
    """Addition: ``backward`` sends the upstream derivative back unchanged, to both inputs."""

    symbol = "+"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x + y``; errors are those of `MulLayer`."""
        self._keep(x, y)
        return x + y

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout`` and ``dy = dout``; errors are those of `MulLayer`."""
        dout = self._spread(dout)
        return _like(self.x, dout * 1), _like(self.y, dout * 1)


class _OfOne(Layer):
    """A function of one operand, whose derivative is told by its output."""

    out: Operand = None

    def _keep(self, x: Operand) -> Namespace:
        """Return the functions for x: of its namespace, or Python's for a number."""
        if _is_number(x):
            return math
        xp = namespace_of(x, where=self.name)
        require_floating(x, self.name)
        self.output_shape = x.shape
        return xp

    def _fitting(self, dout: Operand) -> Operand:
        """Return dout, once it is seen to fit the output, in its dtype."""
        if self.out is None:
            raise self._call_order_error()
        if _is_number(self.out):
            return dout
        self._check_dout(dout, self.out)
        return cast_like(dout, like=self.out)


class ExpLayer(_OfOne):
    """The exponential function: its derivative is its output."""

    symbol = "exp"
    traceable = True
    samplewise = True

    def forward(self, x: Operand) -> Operand:
        """Return ``exp(x)``; infinity where that is too large.

        Raises
        ------
        DTypeError
            If x is neither a number nor an array of floating-point numbers.
        """
        exp = self._keep(x).exp
        try:
            self.out = exp(x)
        except OverflowError:
            self.out = math.inf
        return self.out

    def backward(self, dout: Operand) -> Operand:
        """Return ``dx = dout * exp(x)``.

        Raises
        ------
        CallOrderError, ShapeError, MixedBackendError
        """
        return self._fitting(dout) * self.out


class ReciprocalLayer(_OfOne):
    """One divided by x: its derivative is minus the square of its output."""

    symbol = "/"
    traceable = True
    samplewise = True

    def forward(self, x: Operand) -> Operand:
        """Return ``1 / x``.

        Raises
        ------
        ZeroDivisionError
            If x is the Python number 0; of an array's zeros the library makes infinity.
        DTypeError
            If x is neither a number nor an array of floating-point numbers.
        """
        self._keep(x)
        self.out = 1 / x
        return self.out

    def backward(self, dout: Operand) -> Operand:
        """Return ``dx = -dout / x²``.

        Raises
        ------
        CallOrderError, ShapeError, MixedBackendError
        """
        return -self._fitting(dout) * self.out * self.out


def _is_number(operand: Any) -> bool:
    return isinstance(operand, int | float)


def _like(operand: Operand, gradient: Operand) -> Operand:
    """Return the gradient by an operand: one number has a part in every element."""
    if _is_number(operand) and not _is_number(gradient):
        return namespace_of(gradient).sum(gradient)
    return gradient
