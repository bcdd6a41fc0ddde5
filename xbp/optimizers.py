"""Optimizers: how a gradient becomes an update."""

from collections.abc import Callable, Mapping, MutableMapping
from inspect import isdatadescriptor
from operator import attrgetter, iadd, isub
from typing import Any, ClassVar, Self

from xbp.errors import SettingError, ShapeError
from xbp.immutability import is_immutable
from xbp.namespace import Array, DType, cast_like, is_floating, namespace_of, require_floating
from xbp.registry import backend_of
from xbp.settings import positive_number, share


class Optimizer:
    """Changes parameters so that the loss becomes smaller.

    A subclass writes `update`. If it also names in `state_names` the attributes that `update` reads
    and changes, numbers and arrays and dictionaries and lists of them, and does not branch on their
    values, then a training is saved with them, and a library with a compiler compiles whole steps.

    Attributes
    ----------
    state_names : tuple of str or None
        Each class says so for itself: what a base class changes is not all that this class does.
        None: it is not known. Then each step is done as it is written, and nothing is saved.
    """

    state_names: ClassVar[tuple[str, ...] | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.state_names = cls.__dict__.get("state_names")
        if isinstance(cls.state_names, str):
            raise SettingError(
                f"{cls.__name__}: state_names is a tuple, ({cls.state_names!r},) with a comma"
            )
        if cls.__dict__.get("__slots__"):
            raise SettingError(
                f"{cls.__name__}: what an optimizer remembers is copied and saved by its "
                "dictionary of attributes: leave out __slots__"
            )

    @property
    def state(self) -> dict[str, Any] | None:
        """What `update` reads and changes, by name; None if it is not known.

        It is not known without `state_names`, or if another attribute is a list, an array, or
        whatever else may change unseen.
        """
        if self.state_names is None or self.unseen:
            return None
        own, kind = vars(self), type(self)
        if missing := [n for n in self.state_names if n not in own and not hasattr(kind, n)]:
            raise SettingError(
                f"{type(self).__name__}: state_names names {missing[0]!r}, and there is no such "
                "attribute"
            )
        state = {name: getattr(self, name) for name in self.state_names}
        for name, value in state.items():
            if isdatadescriptor(getattr(type(self), name, None)):
                raise SettingError(
                    f"{type(self).__name__}: state_names names {name!r}, a property: name the "
                    "attributes that it reads"
                )
            if (found := _odd_container(value)) is not None:
                raise SettingError(
                    f"{type(self).__name__}: self.{name} holds a {type(found).__name__}: what "
                    "state_names names is in plain dictionaries, lists and tuples"
                )
        return state

    @property
    def unnamed(self) -> dict[str, Any]:
        """The attributes that `state_names` does not name."""
        named = self.state_names or ()
        return {name: value for name, value in vars(self).items() if name not in named}

    @property
    def unseen(self) -> list[str]:
        """Which of these may change without another taking their place."""
        return [name for name, value in self.unnamed.items() if not is_immutable(value)]

    def bound_to(self, state: Mapping[str, Any]) -> Self:
        """Return a copy of the optimizer with another state."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **state)
        return copy

    def remember(self, state: Mapping[str, Any]) -> None:
        """Take over another state."""
        vars(self).update(state)

    def prepare(self, params: Mapping[str, Array]) -> None:
        """Make room for what is to be remembered of each parameter."""

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change every parameter that has a gradient.

        Parameters
        ----------
        params
            Arrays by key. They are updated in place where the library allows it, else (read-only,
            immutable, or recorded by PyTorch's autograd) replaced.
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

    state_names: ClassVar[tuple[str, ...]] = ("lr",)

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = positive_number("lr", lr)

    def __repr__(self) -> str:
        return f"SGD(lr={self.lr})"

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Step against the gradient."""
        for key, gradient in _fitting(self, params, grads).items():
            _change(params, key, isub, self.lr * gradient)


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

    state_names: ClassVar[tuple[str, ...]] = ("lr", "momentum", "velocity")

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
            _change(params, key, iadd, self.velocity[key])


# Smaller ones are 0 on some devices.
_SMALLEST_FLOAT32 = 2.0**-126


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

    Notes
    -----
    The means are kept in float32 at least: the square of a gradient in float16 is soon 0.
    """

    state_names: ClassVar[tuple[str, ...]] = (
        "lr",
        "beta1",
        "beta2",
        "epsilon",
        "steps",
        "mean",
        "mean_square",
    )

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        self.lr = positive_number("lr", lr)
        self.beta1 = share("beta1", beta1)
        self.beta2 = share("beta2", beta2)
        self.epsilon = positive_number("epsilon", epsilon)
        if self.epsilon < _SMALLEST_FLOAT32:
            raise SettingError(f"epsilon is at least {_SMALLEST_FLOAT32:.2g}, not {epsilon!r}")
        self.steps = 0
        self.mean: dict[str, Array] = {}
        self.mean_square: dict[str, Array] = {}

    def __repr__(self) -> str:
        return f"Adam(lr={self.lr}, beta1={self.beta1}, beta2={self.beta2})"

    def prepare(self, params: Mapping[str, Array]) -> None:
        """Let the means of every parameter that has none yet be 0."""
        _fill(self.mean, params, _at_least_float32)
        _fill(self.mean_square, params, _at_least_float32)

    def update(self, params: MutableMapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Step against the mean gradient, over the root of the mean square."""
        grads = _fitting(self, params, grads, self.mean, _at_least_float32)
        _fill(self.mean, grads, _at_least_float32)
        _fill(self.mean_square, grads, _at_least_float32)
        self.steps += 1
        unbias1 = 1 - self.beta1**self.steps
        unbias2 = 1 - self.beta2**self.steps
        for key, narrow in grads.items():
            xp = namespace_of(narrow)
            gradient = cast_like(narrow, like=self.mean[key])
            self.mean[key] *= self.beta1
            self.mean[key] += (1 - self.beta1) * gradient
            self.mean_square[key] *= self.beta2
            self.mean_square[key] += (1 - self.beta2) * gradient * gradient
            step = self.lr / unbias1 * self.mean[key]
            step /= xp.sqrt(self.mean_square[key] / unbias2) + self.epsilon
            _change(params, key, isub, cast_like(step, like=params[key]))


def _odd_container(value: Any) -> Any:
    """Return what of nested dictionaries, lists and tuples is of another kind than these; or None.

    Whoever takes them apart would put a plain one in its place.
    """
    if not isinstance(value, dict | list | tuple):
        return None
    if type(value) not in (dict, list, tuple):
        return value
    parts = value.values() if isinstance(value, dict) else value
    return next((found for part in parts if (found := _odd_container(part)) is not None), None)


def _change(
    params: MutableMapping[str, Array],
    key: str,
    operator: Callable[[Array, Array], Array],
    step: Array,
) -> None:
    """Change a parameter by an operator that works in place, or replace it where that is refused.

    NumPy refuses where an array is read-only, PyTorch where its autograd records.
    """
    parameter = params[key]
    try:
        params[key] = operator(parameter, step)
    except (ValueError, RuntimeError):
        with backend_of(parameter).scope():
            copy = namespace_of(parameter).astype(parameter, parameter.dtype)
            params[key] = operator(copy, step)


def _fill(
    memory: dict[str, Array],
    likes: Mapping[str, Array],
    dtype: Callable[[Array], DType] = attrgetter("dtype"),
) -> None:
    for key, like in likes.items():
        if key not in memory:
            memory[key] = namespace_of(like).zeros_like(like, dtype=dtype(like))


def _at_least_float32(like: Array) -> DType:
    xp = namespace_of(like)
    return xp.result_type(like.dtype, xp.float32) if is_floating(like) else like.dtype


def _fitting(
    optimizer: Optimizer,
    params: Mapping[str, Array],
    grads: Mapping[str, Array],
    memory: Mapping[str, Array] | None = None,
    memory_dtype: Callable[[Array], DType] = attrgetter("dtype"),
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
        require_floating(parameter, f"{kind}.update, {key}")
        if gradient.shape != parameter.shape:
            raise ShapeError(
                f"{where} has shape {tuple(gradient.shape)}, the parameter {tuple(parameter.shape)}"
            )
        kept = memory.get(key) if memory else None
        if kept is not None and (
            namespace_of(kept) is not namespace_of(parameter)
            or kept.shape != parameter.shape
            or kept.dtype != memory_dtype(parameter)
        ):
            raise SettingError(
                f"this {kind} remembers another network's {key}: make one for each network"
            )
        fitting[key] = cast_like(gradient, like=parameter)
    return fitting
