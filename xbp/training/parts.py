"""The parts of a network: whose they are, and what they hold beside parameters and state."""

from hashlib import blake2b
from typing import Any, TypeAlias

from xbp.backend import Backend
from xbp.layers import Layer
from xbp.namespace import is_array
from xbp.networks import Network
from xbp.training.contents import COMPARABLE, on_host

Part: TypeAlias = Layer | Network


def strange_parts(network: Network) -> dict[str, Part]:
    """Return what of a network is somebody else's than xbp's: layers, the loss, the network."""
    parts: dict[str, Part] = {**network.all_layers, type(network).__name__: network}
    return {name: part for name, part in parts.items() if _is_strange(part)}


def _is_strange(part: Part) -> bool:
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
    """Return the functions of a class and its bases: somebody may have put others there."""
    return tuple(value for base in kind.__mro__ for value in vars(base).values() if callable(value))


def settings_of(layer: Layer) -> list[tuple[str, type, Any]]:
    """Return what a layer of xbp's own holds beside arrays, other layers, and what a pass leaves.

    An array without dimensions is a number.

    What a pass leaves is None in the class; NumPy makes a number of an array without dimensions.
    """
    return [
        (name, type(value), value)
        for name, value in attributes_of(layer).items()
        if not ((is_array(value) and value.ndim) or isinstance(value, Layer | dict))
        and getattr(type(layer), name, layer) is not None
    ]


def comparable(value: Any, backend: Backend) -> tuple[Any, ...]:
    """Return what is equal for equal values; of what cannot be compared, the value itself."""
    if isinstance(value, COMPARABLE):
        return type(value), value
    if is_array(value):
        host = on_host(value, backend)
        return host.dtype.str, host.shape, blake2b(host.tobytes()).digest()
    return id(value), value
