"""Checks of a user's settings, which return them as values of Python."""

import json
from math import isfinite
from numbers import Integral, Real
from typing import Any

from xbp.errors import SettingError

# A smaller number is 0 on some devices.
SMALLEST_FLOAT32 = 2.0**-126


def is_number(value: Any) -> bool:
    """Tell whether a value is a real number, of Python or of NumPy; a bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    """Tell whether a value is a finite real number, of Python or of NumPy; a bool is none."""
    try:
        return is_number(value) and isfinite(value)
    except OverflowError:  # of an integer that is too large for a float
        return False


def is_integer(value: Any) -> bool:
    """Tell whether a value is an integer, of Python or of NumPy; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def finite_number(what: str, value: Any) -> float:
    """Return a setting as a float, or raise `SettingError` unless it is a finite number."""
    if not is_finite_number(value):
        raise SettingError(f"{what} is a number, not {value!r}")
    return float(value)


def positive_number(what: str, value: Any) -> float:
    """Return a setting as a float, or raise `SettingError` unless it is a positive number."""
    if not (is_finite_number(value) and value > 0):
        raise SettingError(f"{what} is a positive number, not {value!r}")
    return float(value)


def positive_integer(what: str, value: Any) -> int:
    """Return a setting as an int, or raise `SettingError` unless it is a positive integer."""
    if not (is_integer(value) and value > 0):
        raise SettingError(f"{what} is a positive integer, not {value!r}")
    return int(value)


def share(what: str, value: Any) -> float:
    """Return a setting as a float, or raise `SettingError` unless it is in ``[0, 1)``."""
    if not (is_finite_number(value) and 0 <= value < 1):
        raise SettingError(f"{what} is at least 0 and below 1, not {value!r}")
    return float(value)


def true_or_false(what: str, value: Any) -> bool:
    """Return a setting, or raise `SettingError` unless it is True or False."""
    if not isinstance(value, bool):
        raise SettingError(f"{what} is True or False, not {value!r}")
    return value


def without_base(thing: Any, base: type) -> str:
    """Return a text for the error that a thing is not derived from a class, with what to do."""
    if isinstance(thing, type):
        if issubclass(thing, base):
            return f"the class {thing.__name__}: make one of it, {thing.__name__}(...)"
        return f"the class {thing.__name__}: derive it from {base.__name__}, and make one of it"
    if isinstance(thing, int | float | str | list | tuple | dict | None):
        return repr(thing)
    kind = type(thing).__name__
    return f"{thing!r}: derive its class {kind} from {base.__name__}"


def seed_integer(what: str, value: Any) -> int:
    """Return a setting as an int, or raise `SettingError` unless it is an integer of 0 or more."""
    if not (is_integer(value) and value >= 0):
        raise SettingError(f"{what} is an integer ≥ 0, not {value!r}")
    return int(value)


def as_json(what: str, values: Any) -> Any:
    """Return a dictionary as JSON gives it back, or raise `SettingError` if it cannot hold it."""
    try:
        return json.loads(json.dumps(dict(values)))
    except (TypeError, ValueError) as error:
        raise SettingError(
            f"{what} are a dictionary of what JSON can hold, numbers, text and lists of them, not "
            f"{values!r} ({error})"
        ) from error
