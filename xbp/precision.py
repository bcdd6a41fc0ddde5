"""Dtypes wide enough for a computation, as the backend that owns an array knows them."""

from typing import Any

from xbp.backend import Backend
from xbp.errors import DTypeError
from xbp.namespace import (
    Array,
    DType,
    device_of,
    dtype_name,
    is_floating,
    namespace_of,
    require_real,
)
from xbp.registry import owner_of


def widest_float(x: Array, backend: Backend | None = None) -> DType:
    """Return float64 if the device of an array has it, else the array's floating-point dtype.

    For an array of other numbers that is the device's default floating-point dtype.

    Parameters
    ----------
    x
        An array of any library.
    backend
        Whose array it is; None asks `xbp.registry.owner_of`, or else the library itself.
    """
    if backend := backend or owner_of(x):
        if backend.has_float64:
            return backend.dtype("float64")
        return x.dtype if is_floating(x) else backend.dtype(backend.default_float)
    info = _info_of(x)
    dtypes = info.dtypes(device=device_of(x))
    if "float64" in dtypes:
        return dtypes["float64"]
    return x.dtype if is_floating(x) else info.default_dtypes(device=device_of(x))["real floating"]


def widened(x: Array, where: str) -> Array:
    """Return real numbers in a dtype wide enough for arithmetic.

    Integers narrower than the device's default integer dtype are converted to it, since they
    overflow early. Others, and floating-point numbers, are returned as they are.

    Parameters
    ----------
    x
        An array of any library.
    where
        The name of the calling layer or function, for error messages.

    Raises
    ------
    DTypeError
        If the array holds no real numbers, or unsigned integers that are not narrower: the
        difference of two may be negative.
    """
    require_real(x, where)
    if is_floating(x):
        return x
    xp = namespace_of(x)
    limits, wide = xp.iinfo(x.dtype), _default_integer(x)
    if limits.bits < xp.iinfo(wide).bits:
        return xp.astype(x, wide)
    if limits.min < 0:
        return x
    name = dtype_name(wide)
    raise DTypeError(
        f"{where}: {dtype_name(x.dtype)} holds numbers that {name} does not, and no sign: where "
        f"they are smaller, convert with the backend's asarray(x, dtype={name!r})"
    )


def _default_integer(x: Array) -> DType:
    if backend := owner_of(x):
        return backend.dtype(backend.default_integer)
    return _info_of(x).default_dtypes(device=device_of(x))["integral"]


def _info_of(x: Array) -> Any:
    return namespace_of(x).__array_namespace_info__()
