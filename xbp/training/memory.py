"""What an optimizer remembers: Python's numbers between the steps, arrays in compiled ones."""

from collections.abc import Callable, Mapping
from typing import Any

from xbp.errors import TracingError
from xbp.namespace import Array, is_array, kind_of
from xbp.optimizers import Optimizer
from xbp.recording import flatten
from xbp.sources import places_of

# An integer from which on a library may have no room for it.
_LARGE = 2**31


def put_back(optimizer: Optimizer, memory: Mapping[str, Any]) -> None:
    """Let an optimizer have these attributes alone; one that it wraps stays the object it is."""
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
    """Let NumPy's numbers be Python's: no library but NumPy computes with those."""
    for name, value in (optimizer.state or {}).items():
        leaves, rebuild = flatten(value)
        is_numpys = [type(leaf).__module__ == "numpy" and not is_array(leaf) for leaf in leaves]
        if any(is_numpys):
            pairs = zip(leaves, is_numpys, strict=True)
            optimizer.remember({name: rebuild([x.item() if found else x for x, found in pairs])})


def can_be_traced(leaf: Any) -> bool:
    """Tell whether it is an array, or a number that each library has room for."""
    if isinstance(leaf, int):
        return abs(leaf) < _LARGE
    return is_array(leaf) or isinstance(leaf, float)


def with_python_numbers(value: Any, before: Any, asarray: Callable[[Any], Array]) -> Any:
    """Return what is remembered with a number in each place where there was one before."""
    if isinstance(value, Mapping):
        known = before if isinstance(before, Mapping) else {}
        return {
            name: with_python_numbers(part, known.get(name), asarray)
            for name, part in value.items()
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
        return before  # one that has not changed has not lost digits either
    return value.item() if not is_array(value) else _PYTHONS.get(kind_of(value), float)(value)


# The numbers of Python, by the kind of a dtype.
_PYTHONS: dict[str, Callable[[Any], Any]] = {"bool": bool, "integral": int}


def require_same(before: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Raise `TracingError` if an optimizer that says what it changes has changed something else."""
    after = optimizer.unnamed
    for name in [*before, *after]:
        if not (name in before and name in after and _is_kept(before[name], after[name])):
            method = "step" if optimizer.is_stepwise else "update"
            raise TracingError(
                f"{places_of([optimizer])}: {type(optimizer).__name__}.{method} changes "
                f"self.{name}, which state_names does not name: name it there, so that it is "
                "traced and saved, or say state_names = None"
            )


def _is_kept(before: Any, after: Any) -> bool:
    return after is before or bool(not hasattr(after, "dtype") and after == before)
