"""Every error a user can meet.

Each derives from `XbpError` and from the builtin that a Python user would catch. A message says
what was wrong, where, and what to do.
"""

from traceback import extract_tb


class XbpError(Exception):
    """Base of all errors that xbp raises on purpose."""


class BackendNotFoundError(XbpError, LookupError):
    """No backend has that name."""


class BackendUnavailableError(XbpError, ImportError):
    """The backend exists, but cannot be used here: library or device missing, or plugin broken."""


class ParameterNotFoundError(XbpError, KeyError):
    """A network or layer has no parameter of that name."""

    # KeyError would show the message in quotes, as a key.
    __str__ = Exception.__str__


class ShapeError(XbpError, ValueError):
    """An array has the wrong shape."""


class DTypeError(XbpError, TypeError):
    """An array has the wrong dtype, or is no array at all."""


class MixedBackendError(XbpError, TypeError):
    """Arrays of two libraries, or of two devices, met in one operation."""


class DataError(XbpError, ValueError):
    """Data cannot be read, or cannot be learned from."""


class UndefinedOutputError(DataError):
    """A network gives NaN for a sample, or no finite score, so it cannot be evaluated."""


class DivergenceError(XbpError, ArithmeticError):
    """A training has gone astray: a loss is NaN or infinite."""


class SettingError(XbpError, ValueError):
    """A setting has a value that makes no sense."""


class TracingError(XbpError, TypeError):
    """A layer, loss or optimizer that is declared traceable does what cannot be traced."""


class CheckpointError(XbpError, ValueError):
    """A saved model cannot be read, or does not fit."""


class CallOrderError(XbpError, RuntimeError):
    """`backward` was called before `forward`."""


def described(error: BaseException) -> str:
    """Return the type and the text of any error, and the file and the line that it comes from."""
    *_, where = [None, *extract_tb(error.__traceback__)]
    place = f" ({where.filename}, line {where.lineno})" if where else ""
    return f"{type(error).__name__}: {error}{place}"
