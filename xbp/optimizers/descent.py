"""Gradient descent and its variants: a step from a parameter and its gradient to the next one."""

from typing import Any, ClassVar

from xbp.namespace import Array
from xbp.optimizers.optimizer import Optimizer, Schedule
from xbp.settings import share


class SGD(Optimizer):
    """Stochastic gradient descent: ``W ← W - lr · dW``.

    Parameters
    ----------
    lr, decay
        Learning rate, a number or a schedule, and weight decay: see `xbp.Optimizer`.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    def __repr__(self) -> str:
        return self._repr_of("lr")

    def step(self, W: Array, dW: Array, memory: dict[str, Array], lr: Any) -> Array:
        """Step against the gradient."""
        return W - lr * dW


class Momentum(Optimizer):
    """SGD with momentum: ``v ← momentum · v - lr · dW``, ``W ← W + v`` (Polyak 1964).

    Parameters
    ----------
    lr, decay
        Learning rate, a number or a schedule, and weight decay: see `xbp.Optimizer`.
    momentum
        The share of the last step that is kept, at least 0 and below 1.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    memory_names: ClassVar[tuple[str, ...]] = ("velocity",)
    state_names: ClassVar[tuple[str, ...]] = ("lr", "momentum", "velocity")
    velocity: dict[str, Array]

    def __init__(
        self, lr: float | Schedule = 0.01, momentum: float = 0.9, *, decay: float = 0.0
    ) -> None:
        super().__init__(lr, decay=decay)
        self.momentum = share("momentum", momentum)

    def __repr__(self) -> str:
        return self._repr_of("lr", "momentum")

    def step(self, W: Array, dW: Array, memory: dict[str, Array], lr: Any) -> Array:
        """Step by the velocity, which the gradient has changed."""
        memory["velocity"] = self.momentum * memory["velocity"] - lr * dW
        return W + memory["velocity"]


class Nesterov(Momentum):
    """Momentum that looks ahead: v as of `Momentum`, and ``W ← W + momentum · v - lr · dW``.

    Nesterov 1983, in the form of Bengio, Boulanger-Lewandowski and Pascanu 2012, arXiv:1212.0901:
    gradients are taken where the next step will lead.

    Parameters
    ----------
    lr, momentum, decay
        As of `Momentum`.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    state_names: ClassVar[tuple[str, ...]] = ("lr", "momentum", "velocity")

    def step(self, W: Array, dW: Array, memory: dict[str, Array], lr: Any) -> Array:
        """Step as far as the next step would lead with the same gradient."""
        memory["velocity"] = self.momentum * memory["velocity"] - lr * dW
        return W + self.momentum * memory["velocity"] - lr * dW
