"""The parts of a network: which are xbp's own, and what they hold beside parameters and state."""

from contextlib import suppress
from hashlib import blake2b
from inspect import signature
from typing import Any, TypeAlias

from xbp.backend import Backend
from xbp.layers import Layer
from xbp.namespace import is_array, is_number
from xbp.networks import Network
from xbp.training.contents import COMPARABLE, on_host

Part: TypeAlias = Layer | Network


def parts_of(network: Network) -> dict[str, Part]:
    """Return the layers, the loss, and the network itself, by name."""
    return {**network.all_layers, type(network).__name__: network}


def strange_parts(network: Network) -> dict[str, Part]:
    """Return the parts that are not xbp's own, by name."""
    return {name: part for name, part in parts_of(network).items() if is_strange(part)}


def is_strange(part: Part) -> bool:
    """Tell whether a part is not xbp's own, or has a method of its own."""
    kind = type(part)
    return not kind.__module__.startswith(("xbp.layers.", "xbp.networks.")) or any(
        callable(getattr(kind, name, None)) for name in vars(part)
    )


def attributes_of(part: Part) -> dict[str, Any]:
    """Return what a part of a network holds beside parameters, state and other parts."""
    own = (*part.param_names, *part.state_names) if isinstance(part, Layer) else _OF_A_NETWORK
    others = {*own, *_OF_ANY_LAYER}
    return {name: value for name, value in vars(part).items() if name not in others}


_OF_A_NETWORK = ("layers", "last_layer", "_structure", "backend")
# What is noted of each call.
_OF_ANY_LAYER = ("_call",)


def methods_of(kind: type) -> tuple[Any, ...]:
    """Return the functions of a class and its bases: they may have been replaced."""
    return tuple(value for base in kind.__mro__ for value in vars(base).values() if callable(value))


def settings_of(layer: Layer) -> list[tuple[str, type, Any]]:
    """Return what a layer of xbp's own holds beside arrays, other layers, and what a pass leaves.

    What a pass leaves is None in the class. A 0-d array counts as a number, since NumPy makes one
    of it.
    """
    return [
        (name, type(value), value)
        for name, value in attributes_of(layer).items()
        if not ((is_array(value) and value.ndim) or isinstance(value, Layer | dict))
        and getattr(type(layer), name, layer) is not None
    ]


def description_of(layer: Layer) -> str:
    """Return the kind of a layer and its settings: the arguments of its class that it stored."""
    kind, attributes = type(layer), vars(layer)
    text = kind.__name__ if layer.param_names else repr(layer)
    settings = {}
    with suppress(ValueError, TypeError):  # a class without a signature
        for name in signature(kind).parameters:
            value = _plain(attributes.get(name, attributes.get(f"_{name}")))
            if value is not None and name not in (*layer.param_names, *layer.state_names):
                settings[name] = value
    return f"{text} {settings}" if settings else text


def _plain(value: Any) -> Any:
    """Return a number as a float, a text, the name of a function or a class, or a tuple of such.

    None for anything else.
    """
    if isinstance(value, tuple):
        parts = tuple(map(_plain, value))
        return None if None in parts else parts
    if is_number(value):
        return float(value)
    return str(value) if isinstance(value, str) else getattr(value, "__qualname__", None)


def comparable(value: Any, backend: Backend) -> tuple[Any, ...]:
    """Return a key, equal for equal values; for what cannot be compared, by identity."""
    if isinstance(value, COMPARABLE):
        return type(value), value
    if is_array(value):
        host = on_host(value, backend)
        return host.dtype.str, host.shape, blake2b(host.tobytes()).digest()
    return id(value), value
