"""Optimizers that give each element a rate of its own, by the gradients that it has had."""

from typing import Any, ClassVar

from xbp.errors import SettingError
from xbp.namespace import Array, namespace_of
from xbp.optimizers.optimizer import Optimizer, Schedule
from xbp.settings import SMALLEST_FLOAT32, positive_number, share


class AdaGrad(Optimizer):
    """Steps over the root of the sum of all squares: ``h ← h + dW²``, ``W ← W - lr · dW / √h``.

    Duchi, Hazan and Singer, Adaptive subgradient methods, Journal of Machine Learning Research 12
    (2011), page 2121.

    Parameters
    ----------
    lr, decay
        Learning rate, a number or a schedule, and weight decay: see `xbp.Optimizer`.
    epsilon
        Keeps the division from 0: it is added to the root.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    memory_names: ClassVar[tuple[str, ...]] = ("square_sum",)
    state_names: ClassVar[tuple[str, ...]] = ("lr", "epsilon", "square_sum")
    square_sum: dict[str, Array]

    def __init__(
        self, lr: float | Schedule = 0.01, epsilon: float = 1e-10, *, decay: float = 0.0
    ) -> None:
        super().__init__(lr, decay=decay)
        self.epsilon = _epsilon(epsilon)

    def __repr__(self) -> str:
        return self._repr_of("lr")

    def step(self, W: Array, dW: Array, memory: dict[str, Array], lr: Any) -> Array:
        """Step against the gradient, over the root of the sum of squares."""
        memory["square_sum"] = memory["square_sum"] + dW * dW
        return W - lr * dW / (namespace_of(W).sqrt(memory["square_sum"]) + self.epsilon)


class RMSprop(Optimizer):
    """Steps over the root of a running mean of squares: ``h ← beta · h + (1 - beta) · dW²``.

    Tieleman and Hinton, Neural networks for machine learning, lecture 6.5, Coursera 2012.

    Parameters
    ----------
    lr, decay
        Learning rate, a number or a schedule, and weight decay: see `xbp.Optimizer`.
    beta
        How much of the running mean is kept, at least 0 and below 1.
    epsilon
        Keeps the division from 0: it is added to the root.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    memory_names: ClassVar[tuple[str, ...]] = ("mean_square",)
    state_names: ClassVar[tuple[str, ...]] = ("lr", "beta", "epsilon", "mean_square")
    mean_square: dict[str, Array]

    def __init__(
        self,
        lr: float | Schedule = 0.01,
        beta: float = 0.99,
        epsilon: float = 1e-8,
        *,
        decay: float = 0.0,
    ) -> None:
        super().__init__(lr, decay=decay)
        self.beta = share("beta", beta)
        self.epsilon = _epsilon(epsilon)

    def __repr__(self) -> str:
        return self._repr_of("lr", "beta")

    def step(self, W: Array, dW: Array, memory: dict[str, Array], lr: Any) -> Array:
        """Step against the gradient, over the root of the mean square."""
        memory["mean_square"] = self.beta * memory["mean_square"] + (1 - self.beta) * dW * dW
        return W - lr * dW / (namespace_of(W).sqrt(memory["mean_square"]) + self.epsilon)


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
        self.epsilon = _epsilon(epsilon)

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


class AdamW(Adam):
    """Adam, and beside it weights that decay by themselves: ``W ← W - lr · decay · W``.

    Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2: the decay is not scaled as the
    gradient is.

    Parameters
    ----------
    lr, beta1, beta2, epsilon
        As of `Adam`.
    decay
        The share of each parameter that a step of the rate 1 takes away, 0 or more.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    state_names: ClassVar[tuple[str, ...]] = Adam.state_names
    _decays_by_itself: ClassVar[bool] = True

    def __init__(
        self,
        lr: float | Schedule = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        decay: float = 0.01,
    ) -> None:
        super().__init__(lr, beta1, beta2, epsilon, decay=decay)

    def step(self, W: Array, dW: Array, memory: dict[str, Array], lr: Any) -> Array:
        """Step as Adam does, and against the parameter itself."""
        return super().step(W, dW, memory, lr) - lr * self._decay * W


def _epsilon(epsilon: float) -> float:
    if positive_number("epsilon", epsilon) < SMALLEST_FLOAT32:
        raise SettingError(f"epsilon is at least {SMALLEST_FLOAT32:.2g}, not {epsilon!r}")
    return float(epsilon)
