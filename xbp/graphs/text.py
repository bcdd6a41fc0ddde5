"""Values as text, for the arrows of a picture."""

from decimal import Decimal
from math import isfinite, prod
from typing import Any

from xbp.namespace import is_floating, is_number, namespace_of, python_number
from xbp.precision import widest_float


def text_of(value: Any, *, with_shape: bool = False) -> str:
    """Return the text of a number, or of an array's norm; empty for None. Waits for the device."""
    if value is None:
        return ""
    if is_number(value):
        return _text_of_number(python_number(value))
    if _is_single(value):
        return _text_of_number(_as_float(value))
    shape = "×".join(map(str, value.shape))
    if not is_floating(value):
        return f"{shape} integers"
    norm = f"norm {norm_of(value):.3g}"
    return f"{shape}, {norm}" if with_shape else norm


def norm_of(value: Any) -> float | None:
    """Return the Euclidean norm of an array; None for a number, a single element, or None."""
    if value is None or is_number(value) or _is_single(value):
        return None
    xp = namespace_of(value)
    if 0 in value.shape:
        return 0.0
    value = xp.astype(value, widest_float(value))
    # Scaled by the largest, since squares of large numbers would overflow.
    largest = _as_float(xp.max(xp.abs(value)))
    if not (isfinite(largest) and largest > 0):
        return largest
    scaled = value / largest
    return largest * _as_float(xp.sqrt(xp.sum(scaled * scaled)))


def _is_single(value: Any) -> bool:
    return bool(prod(value.shape) == 1)


def _text_of_number(value: int | float) -> str:
    try:
        return f"{value:.5g}"
    except OverflowError:  # an integer too large for a float
        digits, _, exponent = f"{Decimal(value):.4e}".partition("e")
        return f"{float(digits):g}e{exponent}"


def _as_float(value: Any) -> float:
    return float(namespace_of(value).reshape(value, ()))
