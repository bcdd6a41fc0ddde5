"""All that a value holds, however nested: whether two are alike, or whether one has changed."""

import warnings
from collections.abc import Iterator
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np

from xbp.backend import Backend
from xbp.layers import Layer
from xbp.namespace import is_array, is_floating, namespace_of
from xbp.networks import Network
from xbp.optimizers import Optimizer
from xbp.precision import widest_float
from xbp.recording import Traced
from xbp.tensors import HostArray

# What can be compared as it is.
COMPARABLE = (
    *(bool, int, float, complex, str, bytes, frozenset, type(None)),
    *(type, ModuleType, BuiltinFunctionType, CodeType, Enum),
)

# What it holds is looked at elsewhere.
_WHOLE = (Traced, Backend, Network, Optimizer)


# The way to a part: names of attributes, keys, and numbers.
Path: TypeAlias = tuple[Any, ...]


def contents(value: Any) -> dict[Path, Any]:
    """Return what a value holds by the way to it, each object once.

    Containers and other objects stand there as their kind. Of layers that are within it parameters,
    gradients and state are left out: a step changes them.

    Returns
    -------
    dict
        Numbers, texts, arrays, kinds, and what cannot be looked into.
    """
    found: dict[Path, Any] = {}
    waiting: list[tuple[Path, Any]] = [((), value)]
    known: dict[int, Any] = {}
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, COMPARABLE + _WHOLE) or is_array(value):
            found[path] = value
        elif id(value) not in known:
            # Kept, so that nothing else is found at its place in memory.
            known[id(value)] = value
            try:
                parts = _parts(value)
            except Exception:  # a lock, a file, a generator: nobody can look into it
                found[path] = value
            else:
                found[path] = type(value)
                waiting += [((*path, name), part) for name, part in reversed(parts.items())]
    return found


def _parts(value: Any) -> dict[Any, Any]:
    if isinstance(value, Layer):
        gradients = (f"d{name}" for name in value.param_names)
        steps = {*value.param_names, *value.state_names, *gradients, "_call"}
        return {name: part for name, part in vars(value).items() if name not in steps}
    if type(value) is dict:
        return value
    if type(value) in (list, tuple):
        parts = value
    elif type(value) is set:
        parts = [frozenset(value)]
    else:
        parts = _cells(value) if isinstance(value, FunctionType) else _reduced(value)
    return dict(enumerate(parts))


def _cells(value: FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    return [value.__code__, *cells, value.__defaults__, value.__kwdefaults__, vars(value)]


def _reduced(value: Any) -> list[Any]:
    """Return what Python takes an object apart into, to copy it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what will not be copied so by a later Python
        reduced: Any = value.__reduce_ex__(4)
    if isinstance(reduced, str):  # found again by its name
        return [reduced]
    # Elements, and pairs of key and value, come as iterators.
    return [list(part) if isinstance(part, Iterator) else part for part in reduced]


def on_host(x: Any, backend: Backend) -> HostArray:
    """Return a number or an array on the host, in a dtype that NumPy has."""
    if not backend.owns(x):
        return np.asarray(x)
    wide = namespace_of(x).astype(x, widest_float(x, backend)) if is_floating(x) else x
    return np.asarray(backend.to_numpy(wide))
