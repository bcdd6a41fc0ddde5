"""The interface that a gradient check needs of a network, and bounds of its rounding errors."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self, TypeAlias

from xbp.differences import noise_of
from xbp.namespace import Array, epsilon_of, kind_of, namespace_of
from xbp.precision import widest_float


class Checkable(Protocol):
    """The methods and attributes that `gradient_check` needs of a network."""

    @property
    def params(self) -> Mapping[str, Array]: ...  # noqa: D102
    @property
    def backend(self) -> Any: ...  # noqa: D102
    def bound_to(self, params: Mapping[str, Array]) -> Self: ...  # noqa: D102
    def loss(self, x: Array, t: Array) -> Array: ...  # noqa: D102
    def loss_and_gradient(  # noqa: D102
        self, params: Mapping[str, Array], x: Array, t: Array
    ) -> tuple[Array, Mapping[str, Array]]: ...


# A loss, and its gradient by the key of each parameter.
Outcome: TypeAlias = tuple[Array, Mapping[str, Array]]


def losses_by_parameter(
    network: Checkable, params: Mapping[str, Array], x: Array, t: Array
) -> dict[str, Callable[[Array], Array]]:
    """Return for each parameter the loss as a function of it, with the others as given."""
    state = state_of(network)

    def loss(params: Mapping[str, Array], state: Any, x: Array, t: Array) -> Array:
        return bound(network, params, state).loss(x, t)

    if getattr(network, "traceable", False):
        loss = network.backend.compile(loss)

    def by(key: str) -> Callable[[Array], Array]:
        return lambda W: loss({**params, key: W}, state, x, t)

    return {key: by(key) for key in params}


def state_of(network: Checkable) -> dict[str, Array]:
    """Return the state that a network has beside its parameters, by key; empty if it has none."""
    return dict(getattr(network, "state", {}))


def bound(network: Any, params: Mapping[str, Array], state: Mapping[str, Array]) -> Any:
    """Return a network bound to these parameters and this state; it changes none of the arrays."""
    return network.bound_to(params, state) if state else network.bound_to(params)


def widened_samples(network: Any, x: Array) -> Array:
    """Return a copy of samples in the widest dtype; integers stay if the first layer takes them."""
    first = next(iter(getattr(network, "layers", {}).values()), None)
    takes_integers = first is not None and first.takes_integers
    return x if takes_integers and kind_of(x) == "integral" else widened_copy(network, x)


def widened_copy(network: Any, x: Array) -> Array:
    """Return a copy in float64 if the device has it: see `widest_float`."""
    return namespace_of(x).astype(x, widest_float(x, network.backend))


def rounding_of_loss(outcome: Outcome, params: Mapping[str, Array], x: Array) -> float:
    """Return a bound of the rounding error of a loss."""
    loss, gradient = outcome
    return unit_of_loss(params, x) * _magnitude_of_loss(abs(float(loss)), params, gradient)


def unit_of_loss(params: Mapping[str, Array], x: Array) -> float:
    """Return a bound of the rounding error of a number of size 1 in the loss."""
    longest = max(length for array in (x, *params.values()) for length in array.shape)
    return noise_of(epsilon_of(next(iter(params.values()))), longest, 1.0)


def _magnitude_of_loss(
    loss: float, params: Mapping[str, Array], gradient: Mapping[str, Array]
) -> float:
    """Return the size of the terms of the loss: the magnitude of `noise_of`."""
    sums = (_sum_of_sizes(finite(params[key]) * finite(gradient[key])) for key in params)
    return 1 + loss + sum(sums)


def _sum_of_sizes(x: Array) -> float:
    """Return the sum of absolute values, leaving out what is not finite."""
    xp = namespace_of(x)
    return float(xp.sum(xp.abs(finite(x))))


def finite(x: Array) -> Array:
    """Return x with 0 in place of NaN and infinity."""
    xp = namespace_of(x)
    return xp.where(xp.isfinite(x), x, 0.0)
