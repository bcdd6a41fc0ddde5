"""The test whether a value is immutable, so that an attribute changes by assignment only."""

from dis import get_instructions
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType, NoneType
from typing import Any

_NUMBERS_AND_TEXT = (int, float, complex, str, bytes, NoneType)
_NAMED_ONCE = (type, ModuleType, Enum)


def is_immutable(value: Any, within: tuple[FunctionType, ...] = ()) -> bool:
    """Tell whether a value has no state that can change, as far as can be seen from outside.

    Parameters
    ----------
    value
        Any object. Classes, modules and members of enumerations count as immutable.
    within
        The functions that are being examined, since a function may capture itself.
    """
    if isinstance(value, FunctionType):
        return any(value is function for function in within) or _is_stateless(value, within)
    if isinstance(value, BuiltinFunctionType):
        return is_immutable(value.__self__, within)  # a module, or the object of a method
    if isinstance(value, _NAMED_ONCE):
        return True
    if isinstance(value, tuple | frozenset) and not hasattr(value, "__dict__"):
        return all(is_immutable(part, within) for part in value)
    return isinstance(value, _NUMBERS_AND_TEXT) and not hasattr(value, "__dict__")


def _is_stateless(function: FunctionType, within: tuple[FunctionType, ...]) -> bool:
    try:
        captures = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a variable that has no value yet
        return False
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return not (vars(function) or _assigns_nonlocal(function.__code__)) and all(
        is_immutable(part, (*within, function)) for part in [*captures, *defaults]
    )


def _assigns_nonlocal(code: CodeType) -> bool:
    """Tell whether code assigns to a ``nonlocal`` variable."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return any(
        instruction.opname in ("STORE_DEREF", "DELETE_DEREF")
        and instruction.argval in code.co_freevars
        for instruction in get_instructions(code)
    ) or any(map(_assigns_nonlocal, inner))
