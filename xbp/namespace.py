"""From an array to its namespace: the array decides where the work happens.

The look-up is asked for by every operation of every layer, so its answer is kept by array type.
"""

from numbers import Integral, Real
from typing import Any, TypeAlias

import array_api_compat

from xbp.errors import DTypeError, MixedBackendError

# The standard has no static type for "an array of any library": these names say what is meant.
Array: TypeAlias = Any
DType: TypeAlias = Any
Namespace: TypeAlias = Any

_namespaces: dict[type, Namespace] = {}
_kinds: dict[tuple[type, DType], str] = {}


def namespace_of(array: Array, *others: Array, where: str = "array") -> Namespace:
    """Return the array API namespace that all the arrays share.

    Parameters
    ----------
    array, *others
        Arrays of one library on one device. JAX tracers count as arrays of JAX.
    where
        The name of the layer or function that asks, for the message of an error.

    Raises
    ------
    DTypeError
        If one of them is not an array.
    MixedBackendError
        If they belong to different libraries or devices.
    """
    kind = type(array)
    xp = _namespaces.get(kind) or _look_up(array, where)
    if not others:
        return xp
    device = getattr(array, "device", None)
    for other in others:
        # Most arrays that meet live in one place: see that before all else, it is asked often.
        if type(other) is kind and getattr(other, "device", None) == device:
            continue
        found = _namespaces.get(type(other)) or _look_up(other, where)
        if found is not xp:
            _require_one_library(xp, found, kind, type(other), where)
            xp = found if hasattr(found, "traces") else xp
        _require_one_device(device, _place(other), where)
    return xp


# Subclasses of NumPy's array in which its functions mean something else.
_ODD_KINDS = {"MaskedArray", "matrix"}


def _look_up(array: Array, where: str) -> Namespace:
    try:
        if _ODD_KINDS & {kind.__name__ for kind in type(array).__mro__}:
            raise TypeError
        xp = array_api_compat.array_namespace(array)
    except TypeError:
        raise DTypeError(
            f"{where}: expected an array, got {_describe(array)}: make it one with "
            "xbp.get_backend().asarray(...)"
        ) from None
    _namespaces[type(array)] = xp
    return xp


def _place(array: Array) -> Any:
    """Return an array's device; None while the array is only being traced."""
    return getattr(array, "device", None)


def _require_one_library(
    xp: Namespace, other: Namespace, kind: type, other_kind: type, where: str
) -> None:
    # An array that is only being traced belongs with the arrays of its library.
    if getattr(xp, "traces", xp) is not getattr(other, "traces", other):
        raise MixedBackendError(
            f"{where}: {_name_of(kind)} and {_name_of(other_kind)} met: move one of them to the "
            "other's library with its backend's asarray(...)"
        )


def _require_one_device(device: Any, other: Any, where: str) -> None:
    if device is not None and other is not None and device != other:
        raise MixedBackendError(
            f"{where}: arrays on {device} and on {other} met: move one of them to the other's "
            "device with its backend's asarray(...)"
        )


def require_beside(array: Array, kind: type, device: Any, where: str) -> None:
    """Raise an error unless an array lives beside one of which type and device were kept.

    Raises
    ------
    DTypeError, MixedBackendError
        As `namespace_of` of the two.
    """
    xp = namespace_of(array, where=where)
    if xp is not _namespaces[kind]:
        _require_one_library(_namespaces[kind], xp, kind, type(array), where)
    _require_one_device(_place(array), device, where)


def _describe(thing: object) -> str:
    return _name_of(type(thing))


def _name_of(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def kind_of(array: Array) -> str:
    """Return the standard's kind of an array's dtype; empty for what it does not know: text ..."""
    key = (type(array), array.dtype)
    try:
        return _kinds[key]
    except KeyError:
        isdtype = namespace_of(array).isdtype
        kinds = ("bool", "integral", "real floating", "complex floating")
        try:
            found = next((kind for kind in kinds if isdtype(array.dtype, kind)), "")
        except TypeError:  # a dtype that NumPy itself does not take for one: of text
            found = ""
        return _kinds.setdefault(key, found)


def is_floating(array: Array) -> bool:
    """Tell whether the array holds real floating-point numbers of any precision."""
    return kind_of(array) == "real floating"


def require_floating(array: Array, where: str) -> None:
    """Raise `DTypeError` unless the array holds real floating-point numbers."""
    if not is_floating(array):
        raise DTypeError(
            f"{where}: real floating-point numbers are needed, got {dtype_name(array.dtype)}: "
            "convert with the backend's asarray(x, dtype='float32')"
        )


def require_real(array: Array, where: str) -> None:
    """Raise `DTypeError` unless the array holds real numbers, integers or floating-point ones."""
    if kind_of(array) not in ("integral", "real floating"):
        raise DTypeError(f"{where}: real numbers are needed, got {dtype_name(array.dtype)}")


def widened(x: Array, where: str) -> Array:
    """Return real numbers in a dtype that arithmetic is right in: a narrow integer overflows.

    Integers narrower than the default of their device become that; so do those without a sign,
    for a difference of two may be below 0.

    Raises
    ------
    DTypeError
        If the array holds no real numbers, or integers without a sign that are not narrower.
    """
    require_real(x, where)
    if is_floating(x):
        return x
    xp = namespace_of(x)
    found = xp.iinfo(x.dtype)
    wide = xp.__array_namespace_info__().default_dtypes(device=device_of(x))["integral"]
    if found.bits < xp.iinfo(wide).bits:
        return xp.astype(x, wide)
    if found.min < 0:
        return x
    name = dtype_name(wide)
    raise DTypeError(
        f"{where}: {dtype_name(x.dtype)} holds numbers that {name} does not, and no sign: where "
        f"they are smaller, convert with the backend's asarray(x, dtype={name!r})"
    )


def is_number(x: Any) -> bool:
    """Tell whether x is a real number, of Python or of NumPy, and no array."""
    return isinstance(x, Real)


def python_number(x: Any) -> int | float:
    """Return a number as one of Python's."""
    return int(x) if isinstance(x, Integral) else float(x)


def as_float(x: int | float, where: str) -> float:
    """Return a number as a float, or raise `DTypeError` if it is too large for that."""
    try:
        return float(x)
    except OverflowError as error:
        raise too_large(where) from error


def too_large(where: str) -> DTypeError:
    """Return the error that says so of an integer that would have to become a float."""
    return DTypeError(f"{where}: an integer is too large for a floating-point number")


def number_like(array: Array, x: Any, where: str) -> int | float:
    """Return a number as one that an array's dtype can hold: not every library looks.

    Raises
    ------
    DTypeError
        If the array holds integers and the number is none, or larger than they can be.
    """
    number = python_number(x)
    if is_floating(array):
        return as_float(number, where)
    if isinstance(number, float):
        require_floating(array, f"{where}, to which {number} was given")
    limits = namespace_of(array).iinfo(array.dtype)
    if not limits.min <= number <= limits.max:
        raise DTypeError(
            f"{where}: an integer of {int(number).bit_length()} bits does not fit into "
            f"{dtype_name(array.dtype)}: use smaller numbers, or floating-point ones"
        )
    return number


def cast_like(x: Array, like: Array) -> Array:
    """Return x in the dtype of another array: itself, if it has that already."""
    return x if x.dtype == like.dtype else namespace_of(x).astype(x, like.dtype)


def dtype_name(dtype: DType) -> str:
    """Return the standard's name of a dtype, ``"float32"`` for ``torch.float32``."""
    return str(dtype).rpartition(".")[2]


def epsilon_of(array: Array) -> float:
    """Return the machine epsilon of a floating-point array's dtype."""
    return float(namespace_of(array).finfo(array.dtype).eps)


def device_of(array: Array) -> Any:
    """Return the device an array lives on; None while the array is only being traced."""
    return array_api_compat.device(array)


def widest_float(array: Array) -> DType:
    """Return the dtype to be exact in: float64 where the array's device has it.

    Elsewhere it is the array's own, or the device's default for an array of integers.
    """
    xp, device = namespace_of(array), device_of(array)
    info = xp.__array_namespace_info__()
    if "float64" in info.dtypes(device=device):
        return xp.float64
    return (
        array.dtype if is_floating(array) else info.default_dtypes(device=device)["real floating"]
    )
