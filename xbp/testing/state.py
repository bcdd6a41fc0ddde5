"""What a layer under test carries from step to step: copied, moved, and with other random keys."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from xbp.backend import Backend
from xbp.layers import Layer
from xbp.namespace import is_array, is_floating, kind_of, namespace_of
from xbp.recording import flatten

# Arrays, numbers or tuples of numbers, by the key of the state.
LayerState: TypeAlias = Mapping[str, Any]


def state_of(layer: Layer) -> LayerState:
    """Return copies of what a layer carries."""
    carried = layer.state
    return {key: _copied(carried.held(key)) for key in carried}


def place_state(layer: Layer, state: LayerState) -> None:
    """Let a layer carry copies of this from now on."""
    places = layer.state.places if state else {}
    for key, (owner, attribute) in places.items():
        setattr(owner, attribute, _copied(state[key]))


def _copied(value: Any) -> Any:
    return namespace_of(value).asarray(value, copy=True) if is_array(value) else value


def moved_state(state: LayerState, owner: Backend, backend: Backend, dtype: str) -> LayerState:
    """Return a state on another backend than its owner, its floating-point arrays in a dtype."""

    def moved(value: Any) -> Any:
        if not is_array(value):
            return value
        return backend.asarray(owner.to_numpy(value), dtype if is_floating(value) else None)

    return {key: moved(value) for key, value in state.items()}


def with_other_keys(state: LayerState) -> LayerState | None:
    """Return a state whose integers are others; None if there are none, and so no random key."""

    def is_integral(value: Any) -> bool:
        return kind_of(value) == "integral" if is_array(value) else isinstance(value, int)

    leaves, rebuild = flatten(dict(state))
    if not any(map(is_integral, leaves)):
        return None
    other: LayerState = rebuild([leaf ^ 1 if is_integral(leaf) else leaf for leaf in leaves])
    return other
