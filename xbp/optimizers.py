"""Optimizers: how a gradient becomes an update."""

from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar, Self

from xbp.errors import SettingError, ShapeError
from xbp.namespace import Array, cast_like, namespace_of
from xbp.settings import positive_number, share


class Optimizer:
    """Changes parameters so that the loss becomes smaller.

    A subclass writes `update`. If it also names in `state_names` what `update` reads and changes of
    itself, and does not branch on values there, a library with a compiler compiles the whole step.
    """

    state_names: ClassVar[tuple[str, ...] | None] = None

    @property
    def state(self) -> dict[str, Any] | None:
        """Settings and what is remembered, by name; None if it is not known."""
        if self.state_names is None:
            return None
        return {name: getattr(self, name) for name in self.state_names}

    def bound_to(self, state: Mapping[str, Any]) -> Self:
        """Return a copy of the optimizer with another state."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **state)
        return copy

    def remember(self, state: Mapping[str, Any]) -> None:
        """Take over another state, but for the settings: a float is one, and stays as it is."""
        for name, value in state.items():
            if not isinstance(getattr(self, name), float):
                setattr(self, name, value)

    def prepare(self, params: Mapping[str, Array]) -> None:
        """Make room for what is to be remembered of each parameter."""

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change every parameter that has a gradient.

        Parameters
        ----------
        params
            Arrays by key. They are updated in place where the library allows it, else replaced.
        grads
            Gradients by key; they are not changed.

        Raises
        ------
        SettingError, ShapeError, DTypeError, MixedBackendError
            If a gradient does not fit its parameter, or the optimizer has learned with another
            network. No parameter has changed then.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")


class SGD(Optimizer):
    """Stochastic gradient descent: ``W ← W - lr · dW``.

    Parameters
    ----------
    lr
        Learning rate.

    Raises
    ------
    SettingError
        If lr is not a positive number.
    """

    state_names = ("lr",)

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = positive_number("lr", lr)

    def __repr__(self) -> str:
        return f"SGD(lr={self.lr})"

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Step against the gradient."""
        for key, gradient in _fitting(self, params, grads).items():
            params[key] -= self.lr * gradient


class Momentum(Optimizer):
    """SGD with momentum: ``v ← momentum · v - lr · dW``, ``W ← W + v`` (Polyak 1964).

    Parameters
    ----------
    lr
        Learning rate.
    momentum
        The share of the last step that is kept, at least 0 and below 1.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    state_names = ("lr", "momentum", "velocity")

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        self.lr = positive_number("lr", lr)
        self.momentum = share("momentum", momentum)
        self.velocity: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"Momentum(lr={self.lr}, momentum={self.momentum})"

    def prepare(self, params: Mapping[str, Array]) -> None:
        """Let every parameter be at rest that has no velocity yet."""
        _fill(self.velocity, params)

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Step by the velocity, which the gradient has changed."""
        grads = _fitting(self, params, grads, self.velocity)
        _fill(self.velocity, grads)
        for key, gradient in grads.items():
            self.velocity[key] *= self.momentum
            self.velocity[key] -= self.lr * gradient
            params[key] += self.velocity[key]


class Adam(Optimizer):
    """Adam: steps scaled by running means of gradient and squared gradient.

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.

    Parameters
    ----------
    lr
        Learning rate, the size of a step.
    beta1, beta2
        How much of the running means is kept, at least 0 and below 1.
    epsilon
        Keeps the division from 0.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    state_names = ("lr", "beta1", "beta2", "epsilon", "steps", "mean", "mean_square")

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        self.lr = positive_number("lr", lr)
        self.beta1 = share("beta1", beta1)
        self.beta2 = share("beta2", beta2)
        self.epsilon = positive_number("epsilon", epsilon)
        self.steps = 0
        self.mean: dict[str, Array] = {}
        self.mean_square: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"Adam(lr={self.lr}, beta1={self.beta1}, beta2={self.beta2})"

    def prepare(self, params: Mapping[str, Array]) -> None:
        """Let the means of every parameter that has none yet be 0."""
        _fill(self.mean, params)
        _fill(self.mean_square, params)

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Step against the mean gradient, over the root of the mean square."""
        grads = _fitting(self, params, grads, self.mean)
        _fill(self.mean, grads)
        _fill(self.mean_square, grads)
        self.steps += 1
        unbias1 = 1 - self.beta1**self.steps
        unbias2 = 1 - self.beta2**self.steps
        for key, gradient in grads.items():
            xp = namespace_of(gradient)
            self.mean[key] *= self.beta1
            self.mean[key] += (1 - self.beta1) * gradient
            self.mean_square[key] *= self.beta2
            self.mean_square[key] += (1 - self.beta2) * gradient * gradient
            step = self.lr / unbias1 * self.mean[key]
            step /= xp.sqrt(self.mean_square[key] / unbias2) + self.epsilon
            params[key] -= step


def _fill(memory: dict[str, Array], likes: Mapping[str, Array]) -> None:
    for key, like in likes.items():
        if key not in memory:
            memory[key] = namespace_of(like).zeros_like(like)


def _fitting(
    optimizer: Optimizer,
    params: Mapping[str, Array],
    grads: Mapping[str, Array],
    memory: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return the gradients in the dtypes of their parameters, once all are seen to fit.

    So an update changes all parameters or none.
    """
    kind = type(optimizer).__name__
    if not isinstance(params, Mapping) or not isinstance(grads, Mapping):
        raise SettingError(f"{kind}.update takes parameters and gradients by key, as dictionaries")
    fitting = {}
    for key, gradient in grads.items():
        where = f"{kind}.update, the gradient of {key}"
        if key not in params:
            raise SettingError(f"{where}: the parameters are {', '.join(params) or 'none'}")
        parameter = params[key]
        namespace_of(gradient, parameter, where=where)
        if gradient.shape != parameter.shape:
            raise ShapeError(
                f"{where} has shape {tuple(gradient.shape)}, the parameter {tuple(parameter.shape)}"
            )
        kept = memory.get(key) if memory else None
        if kept is not None and (
            type(kept) is not type(parameter)
            or kept.shape != parameter.shape
            or kept.dtype != parameter.dtype
        ):
            raise SettingError(
                f"this {kind} remembers another network's {key}: make one for each network"
            )
        fitting[key] = cast_like(gradient, like=parameter)
    return fitting
