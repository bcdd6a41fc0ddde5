"""Values as text: what can be read beside an arrow."""

from math import isfinite, prod
from typing import Any

from xbp.namespace import is_floating, namespace_of


def text_of(value: Any, *, with_shape: bool = False) -> str:
    """Return a number, or the norm of an array; empty for None. This waits for the device."""
    if value is None:
        return ""
    if _is_number(value):
        return f"{_as_float(value):.5g}"
    shape = "×".join(map(str, value.shape))
    if not is_floating(value):
        return f"{shape} integers"
    norm = f"norm {norm_of(value):.3g}"
    return f"{shape}, {norm}" if with_shape else norm


def norm_of(value: Any) -> float | None:
    """Return the Euclidean norm of all elements of an array; None for a number, or no value."""
    if value is None or _is_number(value):
        return None
    xp = namespace_of(value)
    # Squares of large numbers would overflow.
    largest = _as_float(xp.max(xp.abs(value)))
    if not (isfinite(largest) and largest > 0):
        return largest
    scaled = value / largest
    return largest * _as_float(xp.sqrt(xp.sum(scaled * scaled)))


def _is_number(value: Any) -> bool:
    return prod(getattr(value, "shape", ())) == 1


def _as_float(value: Any) -> float:
    if isinstance(value, int | float):
        return float(value)
    return float(namespace_of(value).reshape(value, ()))
