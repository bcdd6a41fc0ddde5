"""The test whether a network gives the same results each time, up to rounding."""

from collections.abc import Mapping
from math import prod
from typing import Any

from xbp.checkable import (
    Checkable,
    Outcome,
    bound,
    finite,
    losses_by_parameter,
    rounding_of_loss,
    state_of,
    unit_of_loss,
)
from xbp.namespace import Array, namespace_of


def not_deterministic(
    network: Checkable, params: Mapping[str, Array], x: Array, t: Array, first: Outcome
) -> str | None:
    """Return what differs between two equal calls by more than rounding; None if nothing does."""
    state = state_of(network)
    instance: Any = network.bound_to(params)
    if hasattr(instance, "backpropagate"):
        # A second call on one network has to give the same: a backward must not add to gradients.
        instance.gradient(x, t)
        instance.state.replace(state)
        again = instance.backpropagate(x, t)
    else:
        again = network.loss_and_gradient(params, x, t)
    noise, unit = rounding_of_loss(first, params, x), unit_of_loss(params, x)
    if abs(float(first[0]) - float(again[0])) > noise:
        instance = network.bound_to(params)
        name = instance.unsteady_layer(x, t) if hasattr(instance, "unsteady_layer") else None
        return f"{name}.forward" if name else "the loss"
    if key := _other_gradient(first[1], again[1], unit):
        return f"backward, for the gradient of {key},"
    # The compiled loss has to be that of the plain call.
    key, traced = next(iter(losses_by_parameter(network, params, x, t).items()))
    if abs(float(traced(params[key])) - float(first[0])) > noise:
        return "the loss, called and traced,"
    if getattr(network, "traceable", False) and not _is_built_in(network):
        compiled = network.backend.compile(
            lambda params, state, x, t: bound(network, params, state).backpropagate(x, t)
        )
        for _ in range(2):  # traced, and replayed
            if key := _other_gradient(first[1], compiled(params, state, x, t)[1], unit):
                return f"backward, called and traced, for the gradient of {key},"
    return None


def _other_gradient(
    gradient: Mapping[str, Array], other: Mapping[str, Array], unit: float
) -> str | None:
    """Return the key of the first gradient that differs from another by more than rounding.

    One that is 0 is rounded as the terms that cancel in it, which are of the size of the others.
    """
    largest = max(_largest(finite(value)) for value in gradient.values())
    for key, value in gradient.items():
        xp = namespace_of(value)
        # NaN and infinities have no difference: they are compared by their places.
        once, again = finite(value), finite(other[key])
        is_same = bool(xp.all(xp.isfinite(value) == xp.isfinite(other[key])))
        if not is_same or _largest(once - again) > unit * largest:
            return key
    return None


def _is_built_in(network: Any) -> bool:
    """Tell whether a network and its layers are xbp's own, whose traces xbp's tests check."""
    parts = [network, *network.all_layers.values()]
    return all(type(part).__module__.startswith("xbp.") for part in parts)


def _largest(x: Array) -> float:
    xp = namespace_of(x)
    return float(xp.max(xp.abs(x))) if prod(x.shape) else 0.0
