"""The namespace, dtype and device of an array: they decide where a computation runs.

Every operation of every layer looks up the namespace, so it is cached by array type.
"""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeAlias

import array_api_compat

from xbp.errors import DTypeError, MixedBackendError

# The standard has no static types for arrays of any library: these names are for readers.
Array: TypeAlias = Any
DType: TypeAlias = Any
Namespace: TypeAlias = Any

_namespaces: dict[type, Namespace] = {}
_kinds: dict[tuple[type, DType], str] = {}


class ToldArrays(NamedTuple):
    """What a backend tells of arrays that do not report it as the standard does.

    Attributes
    ----------
    xp
        Their namespace.
    device
        A function that returns the device of one.
    library
        If they do report a namespace, it is this, and `xp` completes it.
    """

    xp: Namespace
    device: Callable[[Array], Any]
    library: Any


_array_types: dict[type, ToldArrays] = {}
_dtype_names: dict[DType, str] = {}


def tell_arrays(kind: type, told: ToldArrays) -> None:
    """Register what a backend tells of the arrays of a type.

    Raises
    ------
    DTypeError
        If the type has another namespace already.
    """
    known = _array_types[kind].xp if kind in _array_types else _namespaces.get(kind, told.xp)
    reports = hasattr(kind, "__array_namespace__")
    if known is not told.xp or (reports and _package_of(kind) != _package_of(told.library)):
        raise DTypeError(f"array_types names {_name_of(kind)}, which has a namespace already")
    _array_types[kind] = told


def _package_of(thing: Any) -> str:
    name = getattr(thing, "__module__", None) or getattr(thing, "__name__", "")
    return str(name).partition(".")[0]


def tell_dtype(dtype: DType, name: str) -> None:
    """Register the name that a dtype has in the standard, ``"float32"``."""
    if dtype_name(dtype) != name:
        _dtype_names[dtype] = name


def namespace_of(array: Array, *others: Array, where: str = "array") -> Namespace:
    """Return the array API namespace that all the arrays share.

    Parameters
    ----------
    array, *others
        Arrays of one library on one device. JAX tracers count as arrays of JAX.
    where
        The name of the calling layer or function, for error messages.

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
        # Almost always true, and called often, so it is tested first.
        if type(other) is kind and getattr(other, "device", None) == device:
            continue
        other_xp = _namespaces.get(type(other)) or _look_up(other, where)
        if other_xp is not xp:
            _require_one_library(xp, other_xp, kind, type(other), where)
            xp = other_xp if hasattr(other_xp, "traces") else xp
        _require_one_device(device, _place(other), where)
    return xp


def array_packages() -> set[str]:
    """Return the names of the packages that arrays and namespaces seen so far come from."""
    seen = (*_namespaces, *_namespaces.values(), array_api_compat)
    return {_package_of(thing) for thing in seen}


# Subclasses of NumPy's array for which its functions have another meaning.
_ODD_KINDS = {"MaskedArray", "matrix"}


def _look_up(array: Array, where: str) -> Namespace:
    try:
        if _ODD_KINDS & {kind.__name__ for kind in type(array).__mro__}:
            raise TypeError
        xp = array_api_compat.array_namespace(array)
        if type(array) in _array_types:
            if _array_types[type(array)].library is xp:
                xp = _array_types[type(array)].xp
            else:  # no backend takes the arrays of another library
                del _array_types[type(array)]
    except TypeError:
        if type(array) not in _array_types:
            raise DTypeError(
                f"{where}: expected an array, got {_describe(array)}: make it one with "
                "xbp.get_backend().asarray(...)"
            ) from None
        xp = _array_types[type(array)].xp
    _namespaces[type(array)] = xp
    return xp


def _place(array: Array) -> Any:
    """Return an array's device; None if the array is being traced."""
    return getattr(array, "device", None)


def _require_one_library(
    xp: Namespace, other: Namespace, kind: type, other_kind: type, where: str
) -> None:
    # A traced array may be used with arrays of the library that it stands for.
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
    """Raise an error unless an array can be used with arrays of this type on this device.

    Raises
    ------
    DTypeError, MixedBackendError
        As in `namespace_of`.
    """
    xp = namespace_of(array, where=where)
    if xp is not _namespaces[kind]:
        _require_one_library(_namespaces[kind], xp, kind, type(array), where)
    _require_one_device(_place(array), device, where)


def _describe(thing: object) -> str:
    return _name_of(type(thing))


def _name_of(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def is_array(value: Any) -> bool:
    """Tell whether a value is an array, not a scalar."""
    kind = type(value)
    return kind in _array_types or (hasattr(value, "__dlpack__") and not isinstance(value, type))


def kind_of(array: Array) -> str:
    """Return the standard's kind of an array's dtype; ``""`` for other dtypes, such as text."""
    key = (type(array), array.dtype)
    try:
        return _kinds[key]
    except KeyError:
        isdtype = namespace_of(array).isdtype
        kinds = ("bool", "integral", "real floating", "complex floating")
        try:
            name = next((kind for kind in kinds if isdtype(array.dtype, kind)), "")
        except TypeError:  # NumPy's isdtype refuses some of its own dtypes, such as text
            name = ""
        return _kinds.setdefault(key, name)


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


def is_number(x: Any) -> bool:
    """Tell whether x is a real number of Python or a scalar of NumPy, not an array."""
    return isinstance(x, Real)


def python_number(x: Any) -> int | float:
    """Return a number as a Python int or float."""
    return int(x) if isinstance(x, Integral) else float(x)


def as_float(x: int | float, where: str) -> float:
    """Return a number as a float; raise `DTypeError` if it is too large."""
    try:
        return float(x)
    except OverflowError as error:
        raise too_large(where) from error


def too_large(where: str) -> DTypeError:
    """Return the error for an integer that is too large to become a float."""
    return DTypeError(f"{where}: an integer is too large for a floating-point number")


def number_like(array: Array, x: Any, where: str) -> int | float:
    """Return a number as a Python number, after a check that it fits an array's dtype.

    Raises
    ------
    DTypeError
        If the array holds integers, and the number is not an integer or does not fit; or if an
        integer is too large to become a float.
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
    """Return x in the dtype of another array; x itself if it has that dtype."""
    return x if x.dtype == like.dtype else namespace_of(x).astype(x, like.dtype)


def dtype_name(dtype: DType) -> str:
    """Return the standard's name of a dtype, ``"float32"`` for ``torch.float32``."""
    try:
        name = _dtype_names.get(dtype)
    except TypeError:  # it has no hash
        name = None
    return name or str(dtype).rpartition(".")[2]


def epsilon_of(array: Array) -> float:
    """Return the machine epsilon of a floating-point array's dtype."""
    return float(namespace_of(array).finfo(array.dtype).eps)


def device_of(array: Array) -> Any:
    """Return the device of an array; None if the array is being traced."""
    known = _array_types.get(type(array))
    return known.device(array) if known else array_api_compat.device(array)
