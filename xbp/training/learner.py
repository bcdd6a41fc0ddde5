"""One step of learning: mini-batch, gradient, update."""

from typing import Any, Self

from xbp.errors import DivergenceError
from xbp.namespace import Array, namespace_of
from xbp.networks import Network
from xbp.optimizers import Optimizer
from xbp.training.finite import first_not_finite, parameter_not_finite


class Learner:
    """A network and an optimizer, that learn from one mini-batch after the other.

    Parameters
    ----------
    network, optimizer
        Which learns, and how.
    check_finite
        Whether to look at all that a step computes, and to raise `DivergenceError`.

    Attributes
    ----------
    state : dict or None
        The parameters and what the optimizer remembers: all that a step changes. None if the
        optimizer does not say what that is, or if a layer is not to be traced.
    """

    def __init__(
        self, network: Network, optimizer: Optimizer, *, check_finite: bool = False
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.check_finite = check_finite

    @property
    def whole_state(self) -> dict[str, Any] | None:
        """The parameters and what the optimizer remembers; None if it does not say what that is."""
        memory = self.optimizer.state
        return memory and {"params": dict(self.network.params), "memory": memory}

    @property
    def state(self) -> dict[str, Any] | None:  # noqa: D102
        traceable = self.network.traceable and not self.check_finite
        return self.whole_state if traceable else None

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.network.params.update(state["params"])
        self.optimizer.remember(state["memory"])

    def bound_to(self, state: dict[str, Any]) -> Self:
        """Return a learner of the same structure with another state."""
        return type(self)(
            self.network.bound_to(state["params"]), self.optimizer.bound_to(state["memory"])
        )

    def step(self, batch: Array, x: Array, t: Array) -> Array:
        """Learn from the samples of a batch, given by their numbers, and return the loss."""
        xp = namespace_of(x, t, batch, where=type(self).__name__)
        return self.learn(xp.take(x, batch, axis=0), xp.take(t, batch, axis=0))

    def learn(self, x: Array, t: Array) -> Array:
        """Learn from a mini-batch, and return its loss."""
        if self.check_finite and (where := first_not_finite(self.network, x, t)):
            raise DivergenceError(f"{where} gave NaN or infinity")
        loss = self.network.loss(x, t)
        self.optimizer.update(self.network.params, self.network.backward())
        if self.check_finite and (where := parameter_not_finite(self.network)):
            raise DivergenceError(f"the update of {where} gave NaN or infinity")
        return loss
