"""The nodes of graphs: the four operations of arithmetic, exponential and reciprocal.

They take numbers, of Python or of NumPy, as well as arrays. Of numbers alone they give numbers
back; a number that meets an array counts for each of its elements, so its derivative is a sum.

Integers of a narrow dtype, or of one without a sign, are computed in the library's default: of
bytes, 200 · 2 is 400, and 3 - 5 is -2. Beyond that default they wrap round, as the library has it.
"""

import math
from typing import Any, TypeAlias

from xbp.errors import ShapeError
from xbp.layers.layer import Layer
from xbp.namespace import (
    Namespace,
    as_float,
    cast_like,
    is_floating,
    is_number,
    namespace_of,
    number_like,
    python_number,
    require_floating,
    too_large,
    widened,
)

# An array or a number.
Operand: TypeAlias = Any


class _OfTwo(Layer):
    takes_numbers = True

    def _keep(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        """Return the operands as they are computed with, and keep them."""
        self.x, self.y = self._fitting(x, y)
        return self.x, self.y

    def _fitting(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        """Return two operands that fit together: Python's numbers, and arrays that are wide."""
        arrays = [operand for operand in (x, y) if not is_number(operand)]
        if not arrays:
            x, y = python_number(x), python_number(y)
            if isinstance(x, float) or isinstance(y, float):
                for number in (x, y):
                    as_float(number, self.name)  # Python makes one of an integer
            return x, y
        namespace_of(*arrays, where=self.name)
        if arrays[0].shape != arrays[-1].shape:
            raise ShapeError(
                f"{self.name}: two arrays of one shape are needed, or numbers, got "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )
        # The standard does not say what integers and floating-point numbers give together.
        if any(map(is_floating, arrays)):
            for array in arrays:
                require_floating(array, self.name)
        x, y = (x if is_number(x) else widened(x, self.name) for x in (x, y))
        if is_number(x):
            return number_like(y, x, self.name), y
        if is_number(y):
            return x, number_like(x, y, self.name)
        return x, y

    def _given(self, out: Operand) -> Operand:
        """Return the output, and keep it."""
        self.out = _as_array(out, self.x, self.y)
        return self.out

    def _upstream(self, dout: Operand) -> Operand:
        """Return dout in the shape of the output."""
        where = f"{self.name}.backward"
        if not is_number(dout):
            return widened(dout, where)
        if is_number(self.out):
            return python_number(dout)
        return namespace_of(self.out).full_like(self.out, number_like(self.out, dout, where))

    def _times(self, dout: Operand, factor: Operand) -> Operand:
        """Return a product in ``backward``, where integers may meet floating-point numbers."""
        x, y = self._fitting(*_alike(dout, factor))
        return x * y

    def _over(self, dout: Operand, divisor: Operand) -> Operand:
        """Return a quotient, likewise."""
        x, y = self._fitting(*_alike(dout, divisor))
        try:
            return x / y
        except OverflowError as error:  # of two integers
            raise too_large(self.name) from error


class MulLayer(_OfTwo):
    """Multiplication: ``backward`` sends the upstream derivative back times the *other* input."""

    symbol = "×"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x * y``.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x and y are arrays that do not fit together, or a number does not fit an array.
        """
        x, y = self._keep(x, y)
        return self._given(x * y)

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout * y`` and ``dy = dout * x``."""
        dout = self._upstream(dout)
        return _like(self.x, self._times(dout, self.y)), _like(self.y, self._times(dout, self.x))


class DivLayer(_OfTwo):
    """Division: with respect to the divisor, the derivative is minus quotient over divisor."""

    symbol = "÷"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x / y``.

        Raises
        ------
        ZeroDivisionError
            If y is the number 0 and x a number; of an array's zeros, or an array over 0, the
            library makes infinity or NaN.
        ShapeError, DTypeError, MixedBackendError
            As `MulLayer`, or if an array holds integers.
        """
        x, y = self._keep(x, y)
        for operand in (x, y):
            if not is_number(operand):
                require_floating(operand, self.name)
        return self._given(self._over(x, y))

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout / y`` and ``dy = -dout * x / y²``."""
        dout = self._upstream(dout)
        dx = self._over(dout, self.y)
        # The square of a small or a large divisor would be no number any more.
        dy = -self._times(dx, self.out)
        return _like(self.x, dx), _like(self.y, dy)


class AddLayer(_OfTwo):
    """Addition: ``backward`` sends the upstream derivative back unchanged, to both inputs."""

    symbol = "+"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x + y``; errors are those of `MulLayer`."""
        x, y = self._keep(x, y)
        return self._given(x + y)

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout`` and ``dy = dout``."""
        dout = self._upstream(dout)
        return _like(self.x, dout * 1), _like(self.y, dout * 1)


class SubLayer(_OfTwo):
    """Subtraction: ``backward`` sends the upstream derivative back, and its negative."""

    symbol = "−"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x - y``; errors are those of `MulLayer`."""
        x, y = self._keep(x, y)
        return self._given(x - y)

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout`` and ``dy = -dout``."""
        dout = self._upstream(dout)
        return _like(self.x, dout * 1), _like(self.y, -dout)


class _OfOne(Layer):
    """A function of one operand, whose derivative is told by its output."""

    takes_numbers = True

    def _functions(self, x: Operand) -> tuple[Operand, Namespace]:
        """Return x as it is computed with, and its functions: Python's for a number."""
        if is_number(x):
            return python_number(x), math
        require_floating(x, self.name)
        return x, namespace_of(x)

    def _given(self, out: Operand, x: Operand) -> Operand:
        """Return the output, and keep it."""
        self.out = _as_array(out, x)
        return self.out

    def _fitting(self, dout: Operand) -> Operand:
        """Return dout in the dtype of the output, if that has one."""
        if is_number(dout):
            return as_float(python_number(dout), f"{self.name}.backward")
        return dout if is_number(self.out) else cast_like(dout, like=self.out)


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
        x, functions = self._functions(x)
        try:
            return self._given(functions.exp(x), x)
        except OverflowError:  # of a number
            return self._given(math.inf if x > 0 else 0.0, x)

    def backward(self, dout: Operand) -> Operand:
        """Return ``dx = dout * exp(x)``."""
        return _like(self.out, self._fitting(dout) * self.out)


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
            If x is the number 0; of an array's zeros the library makes infinity.
        DTypeError
            If x is neither a number nor an array of floating-point numbers.
        """
        x, _ = self._functions(x)
        return self._given(1 / x, x)

    def backward(self, dout: Operand) -> Operand:
        """Return ``dx = -dout / x²``."""
        return _like(self.out, -self._fitting(dout) * self.out * self.out)


def _as_array(out: Operand, *operands: Operand) -> Operand:
    """Return what arrays gave as an array: of arrays without dimensions NumPy makes scalars."""
    if not is_number(out):
        return out
    arrays = [operand for operand in operands if not is_number(operand)]
    return namespace_of(arrays[0]).asarray(out) if arrays else out


def _alike(x: Operand, y: Operand) -> tuple[Operand, Operand]:
    """Return two operands; an array of integers that meets one of floating point is as that."""
    if not (is_number(x) or is_number(y)):
        if is_floating(x) and not is_floating(y):
            return x, cast_like(y, like=x)
        if is_floating(y) and not is_floating(x):
            return cast_like(x, like=y), y
    return x, y


def _like(operand: Operand, gradient: Operand) -> Operand:
    """Return the gradient of an operand: one number has a part in every element."""
    if not is_number(operand):
        return _as_array(gradient, operand)
    return gradient if is_number(gradient) else namespace_of(gradient).sum(gradient)
