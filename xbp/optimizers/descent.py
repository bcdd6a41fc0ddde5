"""Gradient descent and its variants: a step from a parameter and its gradient to the next one."""

from typing import Any, ClassVar

from xbp.errors import SettingError
from xbp.namespace import Array, namespace_of
from xbp.optimizers.optimizer import Optimizer, Schedule
from xbp.settings import SMALLEST_FLOAT32, positive_number, share


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


class Adam(Optimizer):
    """Adam: steps scaled by running means of gradient and squared gradient.

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.

    Parameters
    ----------
    lr, decay
        Learning rate, the size of a step, a number or a schedule, and weight decay: see
        `xbp.Optimizer`.
    beta1, beta2
        How much of the running means is kept, at least 0 and below 1.
    epsilon
        Keeps the division from 0.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    memory_names: ClassVar[tuple[str, ...]] = ("mean", "mean_square")
    state_names: ClassVar[tuple[str, ...]] = (
        "lr",
        "beta1",
        "beta2",
        "epsilon",
        "mean",
        "mean_square",
    )
    mean: dict[str, Array]
    mean_square: dict[str, Array]

    def __init__(
        self,
        lr: float | Schedule = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        decay: float = 0.0,
    ) -> None:
        super().__init__(lr, decay=decay)
        self.beta1 = share("beta1", beta1)
        self.beta2 = share("beta2", beta2)
        self.epsilon = positive_number("epsilon", epsilon)
        if self.epsilon < SMALLEST_FLOAT32:
            raise SettingError(f"epsilon is at least {SMALLEST_FLOAT32:.2g}, not {epsilon!r}")

    def __repr__(self) -> str:
        return self._repr_of("lr", "beta1", "beta2")

    def step(self, W: Array, dW: Array, memory: dict[str, Array], lr: Any) -> Array:
        """Step against the mean gradient, over the root of the mean square."""
        xp, n = namespace_of(W), self.update_number + 1
        mean = self.beta1 * memory["mean"] + (1 - self.beta1) * dW
        mean_square = self.beta2 * memory["mean_square"] + (1 - self.beta2) * dW * dW
        memory.update(mean=mean, mean_square=mean_square)
        # The means start at 0, and so are too small by these factors.
        unbias, unbias_square = 1 - self.beta1**n, 1 - self.beta2**n
        return W - lr / unbias * mean / (xp.sqrt(mean_square / unbias_square) + self.epsilon)
