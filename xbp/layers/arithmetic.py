"""The layers of graphs: the four arithmetic operations, exponential and reciprocal.

They take numbers, of Python or of NumPy, as well as arrays. From numbers alone they return numbers.
A number is broadcast to the shape of an array, so its derivative is a sum over the elements.

Integers narrower than the library's default are converted to it: for uint8, 200 · 2 is 400, and
3 - 5 is -2. Results too large for the default dtype wrap around, as they do in the library.
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
)
from xbp.precision import widened

# An array or a number.
Operand: TypeAlias = Any


class _Binary(Layer):
    takes_numbers = True

    def _store_operands(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        """Store the operands, converted for the computation, and return them."""
        self.x, self.y = self._operands(x, y)
        return self.x, self.y

    def _operands(self, x: Operand, y: Operand) -> tuple[Operand, Operand]:
        """Return the operands as Python numbers and widened arrays; raise unless they fit."""
        arrays = [operand for operand in (x, y) if not is_number(operand)]
        if not arrays:
            x, y = python_number(x), python_number(y)
            if isinstance(x, float) or isinstance(y, float):
                for number in (x, y):
                    as_float(number, self.name)  # Python will convert an integer to a float
            return x, y
        namespace_of(*arrays, where=self.name)
        if arrays[0].shape != arrays[-1].shape:
            raise ShapeError(
                f"{self.name}: two arrays of one shape are needed, or numbers, got "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )
        # The standard does not define promotion of integers with floating-point numbers.
        if any(map(is_floating, arrays)):
            for array in arrays:
                require_floating(array, self.name)
        x, y = (x if is_number(x) else widened(x, self.name) for x in (x, y))
        if is_number(x):
            return number_like(y, x, self.name), y
        if is_number(y):
            return x, number_like(x, y, self.name)
        return x, y

    def _store_output(self, out: Operand) -> Operand:
        """Store the output and return it."""
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
        """Return a product; integers are cast to the dtype of a floating-point operand."""
        x, y = self._operands(*_alike(dout, factor))
        return x * y

    def _over(self, dout: Operand, divisor: Operand) -> Operand:
        """Return a quotient; integers are cast as in `_times`."""
        x, y = self._operands(*_alike(dout, divisor))
        try:
            return x / y
        except OverflowError as error:  # of two integers
            raise too_large(self.name) from error


class MulLayer(_Binary):
    """Multiplication: ``backward`` multiplies the upstream derivative by the *other* input."""

    symbol = "×"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x * y``.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x and y are arrays that do not fit together, or a number does not fit an array.
        """
        x, y = self._store_operands(x, y)
        return self._store_output(x * y)

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout * y`` and ``dy = dout * x``."""
        dout = self._upstream(dout)
        return _like(self.x, self._times(dout, self.y)), _like(self.y, self._times(dout, self.x))


class DivLayer(_Binary):
    """Division: the derivative with respect to the divisor is minus quotient over divisor."""

    symbol = "÷"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x / y``.

        Raises
        ------
        ZeroDivisionError
            If y is the number 0 and x is a number. If x or y is an array, a divisor of 0 gives
            infinity or NaN.
        ShapeError, DTypeError, MixedBackendError
            As in `MulLayer`, or if an array holds integers.
        """
        x, y = self._store_operands(x, y)
        for operand in (x, y):
            if not is_number(operand):
                require_floating(operand, self.name)
        return self._store_output(self._over(x, y))

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout / y`` and ``dy = -dout * x / y²``."""
        dout = self._upstream(dout)
        dx = self._over(dout, self.y)
        # Not -dout * x / y²: y² may underflow or overflow.
        dy = -self._times(dx, self.out)
        return _like(self.x, dx), _like(self.y, dy)


class AddLayer(_Binary):
    """Addition: ``backward`` passes the upstream derivative unchanged to both inputs."""

    symbol = "+"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x + y``; errors are those of `MulLayer`."""
        x, y = self._store_operands(x, y)
        return self._store_output(x + y)

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout`` and ``dy = dout``."""
        dout = self._upstream(dout)
        return _like(self.x, dout * 1), _like(self.y, dout * 1)


class SubLayer(_Binary):
    """Subtraction: ``backward`` passes the upstream derivative to x, and its negative to y."""

    symbol = "−"
    traceable = True

    def forward(self, x: Operand, y: Operand) -> Operand:
        """Return ``x - y``; errors are those of `MulLayer`."""
        x, y = self._store_operands(x, y)
        return self._store_output(x - y)

    def backward(self, dout: Operand) -> tuple[Operand, Operand]:
        """Return ``dx = dout`` and ``dy = -dout``."""
        dout = self._upstream(dout)
        return _like(self.x, dout * 1), _like(self.y, -dout)


class _Unary(Layer):
    """A function of one operand, whose derivative can be computed from its output."""

    takes_numbers = True

    def _functions(self, x: Operand) -> tuple[Operand, Namespace]:
        """Return x and its namespace; for a number, a Python number and ``math``."""
        if is_number(x):
            return python_number(x), math
        require_floating(x, self.name)
        return x, namespace_of(x)

    def _store_output(self, out: Operand, x: Operand) -> Operand:
        """Store the output and return it."""
        self.out = _as_array(out, x)
        return self.out

    def _upstream(self, dout: Operand) -> Operand:
        """Return dout in the dtype of the output; a number as a float."""
        if is_number(dout):
            return as_float(python_number(dout), f"{self.name}.backward")
        return dout if is_number(self.out) else cast_like(dout, like=self.out)


class ExpLayer(_Unary):
    """The exponential function: its derivative is its output."""

    symbol = "exp"
    traceable = True
    samplewise = True

    def forward(self, x: Operand) -> Operand:
        """Return ``exp(x)``; infinity on overflow.

        Raises
        ------
        DTypeError
            If x is neither a number nor an array of floating-point numbers.
        """
        x, functions = self._functions(x)
        try:
            return self._store_output(functions.exp(x), x)
        except OverflowError:  # from math.exp, or an integer too large for a float
            return self._store_output(math.inf if x > 0 else 0.0, x)

    def backward(self, dout: Operand) -> Operand:
        """Return ``dx = dout * exp(x)``."""
        return _like(self.out, self._upstream(dout) * self.out)


class ReciprocalLayer(_Unary):
    """One divided by x: its derivative is minus the square of its output."""

    symbol = "/"
    traceable = True
    samplewise = True

    def forward(self, x: Operand) -> Operand:
        """Return ``1 / x``.

        Raises
        ------
        ZeroDivisionError
            If x is the number 0; zeros of an array give infinity.
        DTypeError
            If x is neither a number nor an array of floating-point numbers.
        """
        x, _ = self._functions(x)
        return self._store_output(1 / x, x)

    def backward(self, dout: Operand) -> Operand:
        """Return ``dx = -dout / x²``."""
        return _like(self.out, -self._upstream(dout) * self.out * self.out)


def _as_array(out: Operand, *operands: Operand) -> Operand:
    """Return a result of arrays as an array, also where NumPy returned a scalar for 0-d arrays."""
    if not is_number(out):
        return out
    arrays = [operand for operand in operands if not is_number(operand)]
    return namespace_of(arrays[0]).asarray(out) if arrays else out


def _alike(x: Operand, y: Operand) -> tuple[Operand, Operand]:
    """Return two operands, with integer arrays cast to the dtype of a floating-point array."""
    if not (is_number(x) or is_number(y)):
        if is_floating(x) and not is_floating(y):
            return x, cast_like(y, like=x)
        if is_floating(y) and not is_floating(x):
            return cast_like(x, like=y), y
    return x, y


def _like(operand: Operand, gradient: Operand) -> Operand:
    """Return the gradient with respect to an operand; for a number, the sum over all elements."""
    if not is_number(operand):
        return _as_array(gradient, operand)
    return gradient if is_number(gradient) else namespace_of(gradient).sum(gradient)
