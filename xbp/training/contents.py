"""All that a value holds, however nested: to compare two values, or to find a change."""

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

# Types whose values can be compared with ==.
COMPARABLE = (
    *(bool, int, float, complex, str, bytes, frozenset, type(None)),
    *(type, ModuleType, BuiltinFunctionType, CodeType, Enum),
)

# Types whose contents are compared elsewhere.
_WHOLE = (Traced, Backend, Network, Optimizer)


# The path to a part: names of attributes, keys, and indices.
Path: TypeAlias = tuple[Any, ...]


def contents(value: Any) -> dict[Path, Any]:
    """Return what a value holds by path, each object once.

    A container or other object is represented by its type. The parameters, gradients and state of
    layers within it are left out: a step changes them.

    Returns
    -------
    dict
        Numbers, texts, arrays, types, and what cannot be taken apart.
    """
    items: dict[Path, Any] = {}
    stack: list[tuple[Path, Any]] = [((), value)]
    objects: dict[int, Any] = {}
    while stack:
        path, value = stack.pop()
        if isinstance(value, COMPARABLE + _WHOLE) or is_array(value):
            items[path] = value
        elif id(value) not in objects:
            # This reference keeps the id from being used again.
            objects[id(value)] = value
            try:
                parts = _parts(value)
            except Exception:  # a lock, a file, a generator: it cannot be taken apart
                items[path] = value
            else:
                items[path] = type(value)
                stack += [((*path, name), part) for name, part in reversed(parts.items())]
    return items


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
    """Return the parts into which Python takes an object apart to copy it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about types that a later Python will not copy so
        reduced: Any = value.__reduce_ex__(4)
    if isinstance(reduced, str):  # Python looks it up by its name
        return [reduced]
    # Elements, and pairs of key and value, come as iterators.
    return [list(part) if isinstance(part, Iterator) else part for part in reduced]


def on_host(x: Any, backend: Backend) -> HostArray:
    """Return a number or an array on the host, in a dtype that NumPy has."""
    if not backend.owns(x):
        return np.asarray(x)
    wide = namespace_of(x).astype(x, widest_float(x, backend)) if is_floating(x) else x
    return np.asarray(backend.to_numpy(wide))
