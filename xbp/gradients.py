"""Numerical gradients, and the check of backpropagation against them.

Nothing here knows how a network is built: its gradient is checked from outside.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, Protocol, Self

from xbp.errors import DataError, DTypeError, SettingError
from xbp.namespace import (
    Array,
    device_of,
    dtype_name,
    kind_of,
    namespace_of,
    widest_float,
)

# A difference quotient carries the rounding of the two values it subtracts, amplified by 1/h. The
# loss is a sum of many rounded terms: this is how many units in the last place it may be off.
ROUNDING_ERRORS = 32

# How much the quotient may be off for the curvature of the function, relative to the gradient. It
# shrinks with the square of the step: an entry that misses is tried with smaller steps.
TRUNCATION = 1e-6
SMALLER_STEPS = (1 / 8, 1 / 64)

# How far each element is moved to leave a kink.
JITTER = 0.01


def numerical_gradient(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Return the gradient of f at x by central differences, ``(f(x + h) - f(x - h)) / 2h``.

    It evaluates f twice for each element of x.

    Parameters
    ----------
    f
        Function of an array like x, whose result is a number or a 0-d array.
    x
        Array of any shape. An array of float64 that can be written to is varied in place, and
        restored bit by bit, so that f may also read it by reference, as the chapter's does. Of any
        other, f is given a varied copy: in float64 wherever the device has it.
    h
        The step. Where the device has no float64, it is widened to the cube root of the machine
        epsilon, below which the quotient drowns in rounding.

    Returns
    -------
    Array
        Of the shape of x, on its device, in the precision that was computed in.

    Raises
    ------
    DTypeError
        If x is not an array, or holds complex numbers.
    SettingError
        If h is not positive.

    Notes
    -----
    Chapter 4 of the book; the step of the default is its choice.
    """
    xp = namespace_of(x, where="numerical_gradient")
    probe = _Probe(f, x, h)
    slopes = [probe.slope(i, probe.h) for i in range(prod(x.shape))]
    flat = xp.asarray(slopes, dtype=probe.x.dtype, device=device_of(x))
    return xp.reshape(flat, x.shape)


class _Probe:
    """Evaluates f with one element of x moved by a step."""

    def __init__(self, f: Callable[[Array], Any], x: Array, h: float) -> None:
        if not (isinstance(h, int | float) and h > 0):
            raise SettingError(f"the step h is a positive number, not {h!r}")
        xp = namespace_of(x, where="numerical_gradient")
        if kind_of(x) == "complex floating":
            raise DTypeError("numerical_gradient: x is complex: give its real and imaginary parts")
        dtype = widest_float(x)
        self.f = f
        self.x = x if x.dtype == dtype else xp.astype(x, dtype)
        self.epsilon = float(xp.finfo(dtype).eps)
        self.h = h if dtype_name(dtype) == "float64" else max(h, self.epsilon ** (1 / 3))
        self.at = self._in_place if _can_be_written(self.x) else self._on_a_copy

    def slope(self, i: int, h: float) -> float:
        """Return the central difference quotient by the i-th element."""
        return (self.at(i, h) - self.at(i, -h)) / (2 * h)

    def _in_place(self, i: int, step: float) -> float:
        index = _unravel(i, self.x.shape)
        kept = namespace_of(self.x).asarray(self.x[index], copy=True)
        try:
            self.x[index] = kept + step
            return float(self.f(self.x))
        finally:
            self.x[index] = kept

    def _on_a_copy(self, i: int, step: float) -> float:
        xp = namespace_of(self.x)
        positions = xp.arange(prod(self.x.shape), device=device_of(self.x))
        here = xp.reshape(positions == i, self.x.shape)
        return float(self.f(xp.where(here, self.x + step, self.x)))


def _unravel(i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for length in reversed(shape):
        i, rest = divmod(i, length)
        index.append(rest)
    return tuple(reversed(index))


def _can_be_written(x: Array) -> bool:
    if 0 in x.shape:
        return False
    first = (0,) * x.ndim
    try:
        x[first] = namespace_of(x).asarray(x[first], copy=True)
    except Exception:  # each library refuses with an error of its own
        return False
    return True


class Checkable(Protocol):
    """What `gradient_check` asks of a network."""

    @property
    def params(self) -> Mapping[str, Array]: ...  # noqa: D102
    @property
    def backend(self) -> Any: ...  # noqa: D102
    def bound_to(self, params: Mapping[str, Array]) -> Self: ...  # noqa: D102
    def loss(self, x: Array, t: Array) -> Array: ...  # noqa: D102
    def loss_and_gradient(  # noqa: D102
        self, params: Mapping[str, Array], x: Array, t: Array
    ) -> tuple[Array, Mapping[str, Array]]: ...


@dataclass(frozen=True)
class ParameterCheck:
    """How backpropagation and central differences compare for one parameter.

    Attributes
    ----------
    size : int
        Number of elements of the parameter.
    checked : int
        Number of elements that were compared.
    kinks : int
        Of these, those at which the loss has no derivative: its slopes to the left and to the right
        differ. They are compared a small random step aside.
    mean_absolute_difference : float
        The chapter's figure.
    largest_relative_error : float
        Difference over the larger of the two, or over the smallest gradient that a difference
        quotient can resolve.
    worst : tuple of int or None
        Index of the element where that is; None if kinks are all around.
    backpropagation, numerical : float or None
        The two values there.
    wrong : int
        Number of elements whose difference neither rounding nor a kink explains.
    """

    size: int
    checked: int
    kinks: int
    mean_absolute_difference: float
    largest_relative_error: float
    worst: tuple[int, ...] | None
    backpropagation: float | None
    numerical: float | None
    wrong: int

    @property
    def passed(self) -> bool:
        """Whether no element is wrong."""
        return self.wrong == 0


@dataclass(frozen=True)
class GradientReport:
    """What `gradient_check` found.

    Attributes
    ----------
    parameters : dict of str to ParameterCheck
    dtype : str
        The precision that both gradients were computed in.
    step : float
        The step of the central differences that was asked for.
    """

    parameters: dict[str, ParameterCheck]
    dtype: str
    step: float

    @property
    def passed(self) -> bool:
        """Whether backpropagation agrees with central differences for every parameter."""
        return all(check.passed for check in self.parameters.values())

    def __str__(self) -> str:
        lines = [f"gradient check in {self.dtype}, step {self.step:g}"]
        for key, check in self.parameters.items():
            verdict = (
                "ok"
                if check.passed
                else (
                    f"WRONG in {check.wrong} of {check.checked}: at {check.worst} backpropagation "
                    f"says {check.backpropagation:.6g}, differences say {check.numerical:.6g}"
                )
            )
            lines.append(f"{key}: mean difference {check.mean_absolute_difference:.3g}, {verdict}")
        return "\n".join(lines)


def gradient_check(
    network: Checkable,
    x: Array,
    t: Array,
    *,
    h: float = 1e-4,
    elements: int | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare a network's backpropagation with central differences.

    Both are computed in float64 wherever the device has it; the network itself is not changed.

    Parameters
    ----------
    network
        A `Network`, or whatever offers the same methods.
    x, t
        A sample or a small batch, and its targets.
    h
        The step, as in `numerical_gradient`.
    elements
        How many elements of each parameter to compare, chosen at random; None compares all.
    seed
        Of that choice.

    Raises
    ------
    SettingError
        If h or elements is not positive.
    ShapeError, DTypeError, MixedBackendError
        If x or t does not fit the network.
    DataError
        If the loss is not finite.
    """
    if elements is not None and not (isinstance(elements, int) and elements > 0):
        raise SettingError(f"elements is a positive integer or None, not {elements!r}")
    if not network.params:
        raise SettingError("the network has no parameters, so there is no gradient to check")
    chance = random.Random(seed)
    with network.backend.scope():
        params = {key: widened_copy(value) for key, value in network.params.items()}
        x = widened_copy(x)
        chosen = {}
        for key, parameter in params.items():
            size = prod(parameter.shape)
            chosen[key] = chance.sample(range(size), min(elements or size, size))
        here = _compare(network, params, x, t, chosen, h)
        kinks = {key: [i for i in found if found[i].kink] for key, found in here.items()}
        if any(kinks.values()):
            # Whoever stands on a kink cannot be judged: a step aside, the loss has a derivative.
            beside = {key: _jittered(parameter, chance) for key, parameter in params.items()}
            for key, found in _compare(network, beside, x, t, kinks, h).items():
                here[key].update(found)
    checks = {
        key: _summary(found, params[key].shape, len(kinks[key])) for key, found in here.items()
    }
    return GradientReport(checks, dtype_name(next(iter(params.values())).dtype), h)


def _compare(
    network: Checkable,
    params: Mapping[str, Array],
    x: Array,
    t: Array,
    chosen: Mapping[str, list[int]],
    h: float,
) -> dict[str, dict[int, "_Comparison"]]:
    """Return the comparison of each chosen element of each parameter."""
    losses = losses_by_parameter(network, params, x, t)
    loss, gradient = network.loss_and_gradient(params, x, t)
    if not isfinite(float(loss)):
        raise DataError(
            f"gradient_check: the loss is {float(loss)}: x holds NaN or infinity, or a label is "
            "outside the classes"
        )
    comparisons = {}
    for key, parameter in params.items():
        probe = _Probe(losses[key], parameter, h)
        values = network.backend.to_numpy(gradient[key]).reshape(-1)
        comparisons[key] = {
            i: _Comparison(probe, i, float(values[i]), float(loss)) for i in chosen[key]
        }
    return comparisons


def _jittered(x: Array, chance: random.Random) -> Array:
    """Return x with every element moved by a little."""
    xp = namespace_of(x)
    moves = [chance.uniform(-JITTER, JITTER) for _ in range(prod(x.shape))]
    return x + xp.reshape(xp.asarray(moves, dtype=x.dtype, device=device_of(x)), x.shape)


def losses_by_parameter(
    network: Checkable, params: Mapping[str, Array], x: Array, t: Array
) -> dict[str, Callable[[Array], Array]]:
    """Return for each parameter the loss as a function of it alone, the others staying as given."""
    loss = network.backend.compile(lambda params: network.bound_to(params).loss(x, t))

    def by(key: str) -> Callable[[Array], Array]:
        return lambda W: loss({**params, key: W})

    return {key: by(key) for key in params}


class _Comparison:
    """One element: backpropagation's value, the difference quotient's, and what to think of it."""

    def __init__(self, probe: _Probe, i: int, value: float, middle: float) -> None:
        self.i = i
        self.value = value
        self.kink = False
        scale = ROUNDING_ERRORS * probe.epsilon * max(1.0, abs(middle))
        h = probe.h
        self._compare(probe.slope(i, h), scale / h)
        for factor in SMALLER_STEPS:
            if self.right:
                return
            h = probe.h * factor
            self._compare(probe.slope(i, h), scale / h)
        if not self.right:
            self.kink = self._is_kink(probe, h, middle, scale / h)

    def _compare(self, numerical: float, rounding: float) -> None:
        self.numerical = numerical
        self.difference = abs(self.value - numerical)
        size = max(abs(self.value), abs(numerical))
        self.error = self.difference / max(size, rounding / TRUNCATION)
        self.right = self.difference <= rounding + TRUNCATION * size

    def _is_kink(self, probe: _Probe, h: float, middle: float, rounding: float) -> bool:
        """Tell whether the slopes to the left and to the right differ, however small the step."""

        def jump(step: float) -> float:
            forward = probe.at(self.i, step) - middle
            backward = middle - probe.at(self.i, -step)
            return abs(forward - backward) / step

        # Curvature, too, parts the slopes, but in proportion to the step.
        return jump(h) > max(8 * rounding, jump(8 * h) / 2)


def _summary(
    found: Mapping[int, _Comparison], shape: tuple[int, ...], kinks: int
) -> ParameterCheck:
    smooth = [comparison for comparison in found.values() if not comparison.kink]
    worst = max(smooth, key=lambda comparison: comparison.error, default=None)
    return ParameterCheck(
        size=prod(shape),
        checked=len(found),
        kinks=kinks,
        mean_absolute_difference=sum(c.difference for c in smooth) / max(len(smooth), 1),
        largest_relative_error=worst.error if worst else 0.0,
        worst=_unravel(worst.i, shape) if worst else None,
        backpropagation=worst.value if worst else None,
        numerical=worst.numerical if worst else None,
        wrong=sum(not comparison.right for comparison in smooth),
    )


def widened_copy(x: Array) -> Array:
    """Return a copy to compute exactly with: in float64 where the device has it."""
    return namespace_of(x).astype(x, widest_float(x), copy=True)
