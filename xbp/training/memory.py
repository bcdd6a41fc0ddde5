"""What an optimizer remembers: Python numbers between the steps, arrays in compiled ones."""

from collections.abc import Callable, Mapping
from typing import Any

from xbp.errors import TracingError
from xbp.namespace import Array, is_array, kind_of
from xbp.optimizers import Optimizer
from xbp.recording import flatten
from xbp.sources import places_of

# From here on, an integer may be too large for a library.
_LARGE = 2**31


def put_back(optimizer: Optimizer, memory: Mapping[str, Any]) -> None:
    """Set all attributes of an optimizer; an optimizer that it wraps stays the same object."""
    now = vars(optimizer).copy()
    vars(optimizer).clear()
    for name, value in memory.items():
        inner = now.get(name)
        if isinstance(inner, Optimizer) and type(inner) is type(value):
            put_back(inner, vars(value))
            vars(optimizer)[name] = inner
        else:
            vars(optimizer)[name] = value


def take_numbers_of_python(optimizer: Optimizer) -> None:
    """Make Python numbers of NumPy's scalars: no other library computes with those."""
    for name, value in (optimizer.state or {}).items():
        leaves, rebuild = flatten(value)
        are_scalars = [type(leaf).__module__ == "numpy" and not is_array(leaf) for leaf in leaves]
        if any(are_scalars):
            pairs = zip(leaves, are_scalars, strict=True)
            numbers = [leaf.item() if is_scalar else leaf for leaf, is_scalar in pairs]
            optimizer.remember({name: rebuild(numbers)})


def can_be_traced(leaf: Any) -> bool:
    """Tell whether it is an array, or a number that fits into every library."""
    if isinstance(leaf, int):
        return abs(leaf) < _LARGE
    return is_array(leaf) or isinstance(leaf, float)


def with_python_numbers(value: Any, before: Any, asarray: Callable[[Any], Array]) -> Any:
    """Return a memory with a number wherever there was one before."""
    if isinstance(value, Mapping):
        old = before if isinstance(before, Mapping) else {}
        return {
            name: with_python_numbers(part, old.get(name), asarray) for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        others = before if isinstance(before, list | tuple) else ()
        pairs = zip(value, [*others, *[None] * len(value)], strict=False)
        return type(value)([with_python_numbers(part, other, asarray) for part, other in pairs])
    if is_array(before):
        return value if is_array(value) or not hasattr(value, "dtype") else asarray(value)
    if not hasattr(value, "dtype") or (is_array(value) and (value.ndim or before is None)):
        return value
    if before is not None and bool(value == before):
        return before  # if it has not changed, keep all its digits
    return value.item() if not is_array(value) else _PYTHON_TYPES.get(kind_of(value), float)(value)


# Python's types of numbers, by the kind of a dtype.
_PYTHON_TYPES: dict[str, Callable[[Any], Any]] = {"bool": bool, "integral": int}


def require_same(before: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Raise `TracingError` if an update has changed what state_names does not name."""
    after = optimizer.unnamed
    for name in [*before, *after]:
        if not (name in before and name in after and _is_unchanged(before[name], after[name])):
            method = "step" if optimizer.is_stepwise else "update"
            raise TracingError(
                f"{places_of([optimizer])}: {type(optimizer).__name__}.{method} changes "
                f"self.{name}, which state_names does not name: name it there, so that it is "
                "traced and saved, or say state_names = None"
            )


def _is_unchanged(before: Any, after: Any) -> bool:
    return after is before or bool(not hasattr(after, "dtype") and after == before)
