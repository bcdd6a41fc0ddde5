"""The check of backpropagation against central differences.

Nothing here knows how a network is built: its gradient is checked from outside.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import cbrt, inf, isfinite, isnan, nan, prod, sqrt
from typing import Any, Protocol, Self, TypeAlias

from xbp.differences import (
    MEMORY,
    Comparison,
    Probe,
    compare,
    is_staircase,
    longest_step,
    noise_of,
    require_step,
    share_of_step,
    step_for,
    unravel,
)
from xbp.errors import DataError, SettingError
from xbp.gradient_report import GradientReport, ParameterCheck
from xbp.initialization import random_generator
from xbp.namespace import (
    Array,
    cast_like,
    device_of,
    dtype_name,
    epsilon_of,
    is_floating,
    kind_of,
    namespace_of,
    require_floating,
    widest_float,
)
from xbp.settings import positive_integer, positive_number, seed_integer

# How far each element is moved to leave a kink, in steps of the difference quotient.
JITTER = 100

# How many elements of a parameter whose gradient is 0 are moved further, to see it rise.
FLAT = 3

# A quotient whose error is a larger part of the largest gradient of its parameter tells nothing.
RESOLVED = 0.1


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


def gradient_check(
    network: Checkable,
    x: Array,
    t: Array,
    *,
    h: float = 1e-4,
    elements: int | None = None,
    directions: int | None = None,
    seed: int = 0,
    memory: float = MEMORY,
) -> GradientReport:
    """Compare a network's backpropagation with central differences.

    The report says ok only of what was compared: a loss that is rounded, or computed in a lower
    precision, has no difference quotient to compare with, and one that differs from call to call
    has none either. Where the device has no float64, rounding hides what is far smaller than the
    largest gradient of the network: small ones are held against that.

    Either element by element, or, for a large network, along a few random directions: a wrong
    element shows in almost every direction, but is not located; where there is no float64, its
    share of a large parameter is below the rounding, and shows in none. Both gradients are computed
    in float64 wherever the device has it; the network itself is not changed.

    Parameters
    ----------
    network
        A `Network`, or whatever offers the same methods.
    x, t
        A sample or a small batch, and its targets.
    h
        The step, as in `numerical_gradient`; a longer one where rounding is coarse, and shorter
        ones beside a kink.
    elements
        How many elements of each parameter to compare, chosen at random; None compares all.
    directions
        Along how many random directions to move each parameter as a whole instead. The report
        counts directions then, not elements.
    seed
        Of that choice.
    memory
        How many bytes may be taken, about, to move many elements at once.

    Raises
    ------
    SettingError
        If h, elements or directions is not positive, or both of the latter are given.
    ShapeError, DTypeError, MixedBackendError
        If x or t does not fit the network.
    DataError
        If the loss is not finite.
    """
    if not all(hasattr(network, name) for name in ("params", "backend", "loss_and_gradient")):
        raise SettingError(f"gradient_check: first a network, not {network!r}")
    elements = None if elements is None else positive_integer("elements", elements)
    directions = None if directions is None else positive_integer("directions", directions)
    positive_number("memory", memory)
    require_step(h)
    if elements and directions:
        raise SettingError("either elements are compared or directions, not both")
    if not network.params:
        raise SettingError("the network has no parameters, so there is no gradient to check")
    seed = seed_integer("seed", seed)
    chance = random.Random(seed)
    with network.backend.scope():
        params = {key: widened_copy(value) for key, value in network.params.items()}
        x = widened_samples(network, x)
        chosen = {}
        for key, parameter in params.items():
            size = prod(parameter.shape)
            chosen[key] = (
                list(range(directions))
                if directions
                else chance.sample(range(size), min(elements or size, size))
            )
        dtype = dtype_name(next(iter(params.values())).dtype)
        first = network.loss_and_gradient(params, x, t)
        _require_numbers(first, params, x, t)
        if what := _not_deterministic(network, params, x, t, first):
            return GradientReport(_nothing_compared(params, chosen), dtype, h, what)
        if directions:
            lines: Callable[..., Lines] = partial(_Directions, seed=seed)
        else:
            moves_together = getattr(network.bound_to(params), "moves_together", lambda x, t: False)
            lines = partial(_Elements, memory=memory, together=moves_together(x, t))
        here = _compare(network, params, x, t, first, chosen, h, lines)
        aside = {
            key: [i for i, comparison in found.items() if comparison.kink or not comparison.right]
            for key, found in here.items()
        }
        if any(aside.values()):
            # Where a ReLU stands on its kink, backpropagation need not be the derivative, even
            # where there is one, as of relu(x) - relu(-x) at 0. A step aside it must.
            there: Found = {key: {} for key in here}
            what = _what_changes(network, params, x, t, first, here, h, lines)
            if not what and (beside := _beside(network, params, x, t, h, chance)):
                there = _compare(network, beside[0], x, t, beside[1], aside, h, lines)
                what = _what_changes(network, beside[0], x, t, beside[1], there, h, lines)
            if what:
                return GradientReport(_nothing_compared(params, chosen), dtype, h, what)
            for key, numbers in aside.items():
                here[key] |= {i: _of_two(here[key][i], there[key].get(i)) for i in numbers}
    sizes = {key: _largest_size(found) for key, found in here.items()}
    largest = max(sizes.values())
    # Backpropagation rounds, too: what is smaller beside the others is 0, for all that is known. In
    # float32 the bounds of rounding are too coarse to tell one parameter from the others.
    negligible = _unit_of_loss(params, x) * largest if dtype == "float64" else largest
    checks = {
        key: _summary(
            found,
            params[key],
            aside[key],
            () if directions else params[key].shape,
            RESOLVED * (largest if sizes[key] <= negligible else sizes[key]),
            negligible,
        )
        for key, found in here.items()
    }
    return GradientReport(checks, dtype, h)


# A loss, and its gradient by the key of each parameter.
Outcome: TypeAlias = tuple[Array, Mapping[str, Array]]

# The comparison of each element, or direction, of each parameter.
Found: TypeAlias = dict[str, dict[int, Comparison]]


def _require_numbers(outcome: Outcome, params: Mapping[str, Array], x: Array, t: Array) -> None:
    """Raise an error unless the loss is finite and the gradients are of real numbers."""
    loss, gradient = float(outcome[0]), outcome[1]
    if not isfinite(loss):
        given = {"x": x, **params, "t": t}
        odd = [
            name
            for name, value in given.items()
            if hasattr(value, "dtype") and is_floating(value) and not _is_finite(value)
        ]
        why = (
            f"{odd[0]} holds NaN or infinity"
            if odd
            else "a label is outside the classes, or a layer returned NaN or infinity"
        )
        raise DataError(f"gradient_check: the loss is {loss}: {why}")
    for key, value in gradient.items():
        require_floating(value, f"gradient_check, the gradient of {key}")


def _is_finite(x: Array) -> bool:
    xp = namespace_of(x)
    return bool(xp.all(xp.isfinite(x)))


def _not_deterministic(
    network: Checkable, params: Mapping[str, Array], x: Array, t: Array, first: Outcome
) -> str | None:
    """Return what differs between two equal calls by more than rounding; None if nothing does."""
    bound: Any = network.bound_to(params)
    if hasattr(bound, "gradient"):
        # One that was asked before is to give the same: no backward adds to what it has left.
        bound.gradient(x, t)
        again = bound.loss(x, t), bound.backward()
    else:
        again = network.loss_and_gradient(params, x, t)
    noise, unit = _noise(first, params, x), _unit_of_loss(params, x)
    if abs(float(first[0]) - float(again[0])) > noise:
        name: str | None = getattr(network.bound_to(params), "unsteady_layer", lambda _: None)(x)
        return f"{name}.forward" if name else "the loss"
    if key := _other_gradient(first[1], again[1], unit):
        return f"backward, for the gradient of {key},"
    # What is compiled is to give what it gives each time.
    key, traced = next(iter(losses_by_parameter(network, params, x, t).items()))
    if abs(float(traced(params[key])) - float(first[0])) > noise:
        return "the loss, called and traced,"
    if getattr(network, "traceable", False) and not _is_built_in(network):
        compiled = network.backend.compile(network.loss_and_gradient)
        for _ in range(2):  # traced, and replayed
            if key := _other_gradient(first[1], compiled(params, x, t)[1], unit):
                return f"backward, called and traced, for the gradient of {key},"
    return None


def _other_gradient(
    gradient: Mapping[str, Array], other: Mapping[str, Array], unit: float
) -> str | None:
    """Return the key of the first gradient that differs from another by more than rounding."""
    for key, value in gradient.items():
        xp = namespace_of(value)
        # Where a value is not finite there is no difference to take.
        once, again = _finite(value), _finite(other[key])
        is_same = bool(xp.all(xp.isfinite(value) == xp.isfinite(other[key])))
        if not is_same or _largest(once - again) > unit * _largest(once):
            return key
    return None


def _is_built_in(network: Any) -> bool:
    """Tell whether a network and its layers are xbp's own, whose traces have been proven."""
    parts = [network, *network.layers.values(), network.last_layer]
    return all(type(part).__module__.startswith("xbp.") for part in parts)


def _what_changes(
    network: Checkable,
    params: Mapping[str, Array],
    x: Array,
    t: Array,
    outcome: Outcome,
    found: "Found",
    h: float,
    lines: Callable[..., "Lines"],
) -> str | None:
    """Return what differs when all is asked again that tells against backpropagation, or None.

    Two equal calls of what is seldom random may agree by chance. So nothing is called wrong before
    it was asked once more.
    """
    against = {
        key: [i for i, c in some.items() if not (c.right or c.kink) and isfinite(c.claimed)]
        for key, some in found.items()
    }
    if not any(against.values()):
        return None
    worst = {
        key: [max(numbers, key=lambda i: found[key][i].difference)] if numbers else []
        for key, numbers in against.items()
    }
    if what := _not_deterministic(network, params, x, t, outcome):
        return what
    again = _compare(network, params, x, t, outcome, worst, h, lines)
    is_same = all(c.agrees_with(found[key][i]) for key in again for i, c in again[key].items())
    return None if is_same else "the loss"


def _of_two(here: Comparison, beside: Comparison | None) -> Comparison:
    """Return what counts of a comparison that was not right: the one a step aside, or None."""
    if isfinite(here.claimed) and here.kink:
        return beside or here
    if beside and not (beside.right or beside.kink):
        return beside
    if not isfinite(here.claimed):
        return replace(here, kink=False, contradicted=here.kink)
    # Nothing but kinks that cancel excuses a claim that is right beside it only.
    return replace(here, contradicted=True) if here.certain else beside or here


def _nothing_compared(
    params: Mapping[str, Array], chosen: Mapping[str, list[int]]
) -> dict[str, ParameterCheck]:
    return {
        key: ParameterCheck(
            *(prod(params[key].shape), len(numbers), 0, nan, nan, None, None, None),
            wrong=0,
            set_aside=len(numbers),
        )
        for key, numbers in chosen.items()
    }


def _noise(outcome: Outcome, params: Mapping[str, Array], x: Array) -> float:
    """Return how far a loss can be off by rounding."""
    loss, gradient = outcome
    return _unit_of_loss(params, x) * _magnitude_of_loss(abs(float(loss)), params, gradient)


def _largest(x: Array) -> float:
    xp = namespace_of(x)
    return float(xp.max(xp.abs(x))) if prod(x.shape) else 0.0


def _compare(
    network: Checkable,
    params: Mapping[str, Array],
    x: Array,
    t: Array,
    outcome: Outcome,
    chosen: Mapping[str, list[int]],
    h: float,
    lines: Callable[..., "Lines"],
) -> "Found":
    """Return the comparison of each chosen element, or direction, of each parameter."""
    losses = losses_by_parameter(network, params, x, t)
    gradient = outcome[1]
    unit, noise = _unit_of_loss(params, x), _noise(outcome, params, x)
    comparisons = {}
    for key, parameter in params.items():
        line = lines(network.bound_to(params), x, t, key, losses[key], gradient[key])
        # Where rounding is coarse, a longer step loses less to it than it gains in truncation.
        step = max(step_for(parameter, h), cbrt(unit))
        steps = {i: max(step, line.least_step(i)) for i in chosen[key]}
        for length in set(steps.values()):
            line.prepare([i for i in chosen[key] if steps[i] == length], length)
        found = {
            i: compare(line.claimed(i), line.along(i), steps[i], noise, unit) for i in chosen[key]
        }
        # A backward that is 0 agrees with what is flat, but a staircase is flat only so far.
        flat = [i for i, c in found.items() if c.claimed == 0 == c.numerical and not c.kink]
        if len(flat) > len(found) / 2 and any(
            is_staircase(line.along(i), steps[i], noise) for i in flat[:FLAT]
        ):
            found |= {i: replace(found[i], kink=True) for i in flat}
        comparisons[key] = found
    return comparisons


class Lines(Protocol):
    """The lines along which a parameter is moved, numbered."""

    def prepare(self, numbers: Sequence[int], step: float) -> None:
        """Compute at once what is asked for first, the losses a step forth and back."""

    def least_step(self, i: int) -> float:
        """Return the step below which a line's own numbers are rounded away."""

    def claimed(self, i: int) -> float:
        """Return what backpropagation says of the derivative along a line."""

    def along(self, i: int) -> Callable[[float], float]:
        """Return the loss as a function of the step along a line."""


class _Elements:
    """Each element by itself."""

    def __init__(
        self,
        network: Checkable,
        x: Array,
        t: Array,
        key: str,
        loss: Callable[[Array], Array],
        gradient: Array,
        memory: float,
        together: bool,
    ) -> None:
        self.network, self.x, self.t, self.key, self.memory = network, x, t, key, memory
        self.together = together
        self.probe = Probe(loss, network.params[key])
        self.gradient = network.backend.to_numpy(gradient).ravel()
        self.values = network.backend.to_numpy(network.params[key]).copy().ravel()
        self.known: dict[tuple[int, float], float] = {}

    def prepare(self, numbers: Sequence[int], step: float) -> None:
        if not self.together:
            return
        for signed in (step, -step):
            found = self.network.perturbed_losses(  # type: ignore[attr-defined]
                self.x, self.t, self.key, numbers, signed, self.memory
            )
            to_numpy = self.network.backend.to_numpy
            losses = [loss for some in found for loss in to_numpy(some).tolist()]
            self.known |= {(i, signed): losses[n] for n, i in enumerate(numbers)}

    def least_step(self, i: int) -> float:
        value = abs(float(self.values[i]))
        return share_of_step(self.probe.x) * value if isfinite(value) else 0.0

    def claimed(self, i: int) -> float:
        return float(self.gradient[i])

    def along(self, i: int) -> Callable[[float], float]:
        alone = self.probe.along(i)

        def loss(step: float) -> float:
            return self.known[i, step] if (i, step) in self.known else alone(step)

        return loss


class _Directions:
    """Random directions of length 1."""

    def __init__(
        self,
        network: Checkable,
        x: Array,
        t: Array,
        key: str,
        loss: Callable[[Array], Array],
        gradient: Array,
        seed: int,
    ) -> None:
        self.parameter, self.loss, self.gradient = network.params[key], loss, gradient
        self.backend, self.seed = network.backend, [seed, *key.encode()]

    def prepare(self, numbers: Sequence[int], step: float) -> None:
        pass

    def least_step(self, i: int) -> float:
        return longest_step(self.parameter, 0.0)

    def _direction(self, i: int) -> Array:
        drawn = random_generator([*self.seed, i]).normal(size=tuple(self.parameter.shape))
        drawn /= sqrt((drawn * drawn).sum())
        return cast_like(self.backend.asarray(drawn), like=self.parameter)

    def claimed(self, i: int) -> float:
        return float(namespace_of(self.gradient).sum(self.gradient * self._direction(i)))

    def along(self, i: int) -> Callable[[float], float]:
        direction = self._direction(i)
        return lambda step: float(self.loss(self.parameter + step * direction))


def _unit_of_loss(params: Mapping[str, Array], x: Array) -> float:
    """Return how far a number of size 1 in the loss can be off by rounding."""
    longest = max(length for array in (x, *params.values()) for length in array.shape)
    return noise_of(epsilon_of(next(iter(params.values()))), longest, 1.0)


def _magnitude_of_loss(
    loss: float, params: Mapping[str, Array], gradient: Mapping[str, Array]
) -> float:
    """Return the size of what is added up in the loss."""
    sums = (_sum_of_sizes(_finite(params[key]) * _finite(gradient[key])) for key in params)
    return 1 + loss + sum(sums)


def _sum_of_sizes(x: Array) -> float:
    """Return the sum of sizes, but for what is not finite: that is wrong, and tells no size."""
    xp = namespace_of(x)
    return float(xp.sum(xp.abs(_finite(x))))


def _finite(x: Array) -> Array:
    xp = namespace_of(x)
    return xp.where(xp.isfinite(x), x, 0.0)


def _beside(
    network: Checkable,
    params: Mapping[str, Array],
    x: Array,
    t: Array,
    h: float,
    chance: random.Random,
) -> tuple[dict[str, Array], Outcome] | None:
    """Return parameters a random step aside, and the outcome there; None if there is no loss."""
    for share in (1 / 2, 1 / 16, 1 / 128):  # the first is too far for the logarithm of 1 - x, say
        beside = {key: _jittered(W, h, share, chance) for key, W in params.items()}
        outcome = network.loss_and_gradient(beside, x, t)
        if isfinite(float(outcome[0])):
            return beside, outcome
    return None


def _jittered(x: Array, h: float, share: float, chance: random.Random) -> Array:
    """Return x with every element moved by a little, yet by many steps; no sign changes."""
    xp = namespace_of(x)
    drawn = [chance.uniform(-share, share) for _ in range(prod(x.shape))]
    moves = xp.reshape(cast_like(xp.asarray(drawn, device=device_of(x)), like=x), x.shape)
    size, largest = xp.abs(x), 2 * JITTER * step_for(x, h)
    return x + moves * xp.where((size == 0) | (size > largest), largest, size)


def losses_by_parameter(
    network: Checkable, params: Mapping[str, Array], x: Array, t: Array
) -> dict[str, Callable[[Array], Array]]:
    """Return for each parameter the loss as a function of it alone, the others staying as given."""

    def loss(params: Mapping[str, Array], x: Array, t: Array) -> Array:
        return network.bound_to(params).loss(x, t)

    if getattr(network, "traceable", False):
        loss = network.backend.compile(loss)

    def by(key: str) -> Callable[[Array], Array]:
        return lambda W: loss({**params, key: W}, x, t)

    return {key: by(key) for key in params}


def _largest_size(found: Mapping[int, Comparison]) -> float:
    """Return the largest gradient of a parameter, claimed or numerical."""
    sizes = (c.size for c in found.values() if isfinite(c.size) and not c.kink)
    return max(sizes, default=0.0)


def _summary(
    found: Mapping[int, Comparison],
    parameter: Array,
    aside: list[int],
    shape: tuple[int, ...],
    resolved: float,
    negligible: float,
) -> ParameterCheck:
    smooth = {i: comparison for i, comparison in found.items() if not comparison.kink}
    # Below this part of its error, which shrinks with the dtype, a quotient resolves no gradient.
    resolution = cbrt(epsilon_of(parameter))
    relative = {i: _relative_error(comparison, resolution) for i, comparison in smooth.items()}
    worst = max(relative, key=lambda i: relative[i], default=None)
    rough = [c for c in smooth.values() if c.right and not _is_resolved(c, resolved, negligible)]
    return ParameterCheck(
        size=prod(parameter.shape),
        checked=len(found),
        kinks=sum(found[i].right and not found[i].kink for i in aside),
        mean_absolute_difference=(
            sum(c.difference for c in smooth.values()) / len(smooth) if smooth else nan
        ),
        largest_relative_error=nan if worst is None else relative[worst],
        worst=None if worst is None else unravel(worst, shape),
        backpropagation=None if worst is None else smooth[worst].claimed,
        numerical=None if worst is None else smooth[worst].numerical,
        wrong=sum(not (c.right or c.contradicted) for c in smooth.values()),
        contradicted=sum(c.contradicted for c in smooth.values()),
        set_aside=len(found) - len(smooth) + len(rough),
    )


def _is_resolved(found: Comparison, resolved: float, negligible: float) -> bool:
    """Tell whether a quotient is exact enough to tell a right gradient from a wrong one.

    Where nothing moves the loss, as beside a pixel that is always 0, it is 0 but for the rounding
    of backpropagation. Any other has to stand out of its own error.
    """
    is_same = found.difference <= negligible
    return found.error <= resolved and (is_same or found.error < found.size)


def _relative_error(found: Comparison, resolved: float) -> float:
    relative = found.difference / max(found.size, found.error / resolved)
    return inf if isnan(relative) else relative  # a NaN that is claimed is as wrong as can be


def widened_samples(network: Any, x: Array) -> Array:
    """Return samples to compute exactly with; integers, which may choose rows, stay as they are."""
    first = next(iter(getattr(network, "layers", {}).values()), None)
    takes_integers = first is not None and first.takes_integers
    return x if takes_integers and kind_of(x) == "integral" else widened_copy(x)


def widened_copy(x: Array) -> Array:
    """Return a copy to compute exactly with: in float64 where the device has it."""
    return namespace_of(x).astype(x, widest_float(x))
