"""The check of backpropagation against central differences.

Nothing here knows how a network is built: its gradient is checked from outside.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import cbrt, inf, isfinite, isnan, nan, prod
from typing import TypeAlias

from xbp.checkable import (
    Checkable,
    Outcome,
    losses_by_parameter,
    rounding_of_loss,
    unit_of_loss,
    widened_copy,
    widened_samples,
)
from xbp.determinism import not_deterministic
from xbp.differences import (
    MEMORY,
    Comparison,
    compare,
    is_staircase,
    require_step,
    step_for,
    unravel,
)
from xbp.errors import DataError, SettingError
from xbp.gradient_report import GradientReport, ParameterCheck
from xbp.lines import Directions, Elements, Lines
from xbp.namespace import (
    Array,
    cast_like,
    device_of,
    dtype_name,
    epsilon_of,
    is_floating,
    namespace_of,
    require_floating,
)
from xbp.settings import positive_integer, positive_number, seed_integer

# How far each element is moved away from a kink, in steps of the difference quotient.
JITTER = 100

# How many elements of a parameter whose gradient is 0 are tested for a staircase.
FLAT = 3

# A quotient with a larger error, relative to its parameter's largest gradient, decides nothing.
RESOLVED = 0.1


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

    Both gradients are computed in float64 if the device has it. The network is not changed.

    The comparison is element by element or, for a large network, along a few random directions. A
    wrong element shows in almost every direction, but is not located. Without float64, a wrong
    element of a large parameter may be below the rounding error in all directions.

    The verdict is ok only if most elements could be compared. There is no difference quotient if
    the loss is rounded, computed in a lower precision, or different from call to call; a loss that
    rarely differs may pass by chance. Without float64, gradients far smaller than the network's
    largest one are below the rounding error: they are judged relative to the largest.

    Parameters
    ----------
    network
        A `Network`, or an object with the methods and attributes of `xbp.checkable.Checkable`.
    x, t
        A sample or a small batch, and its targets.
    h
        The step, as in `numerical_gradient`; longer where rounding errors are large, and shorter
        beside a kink.
    elements
        How many elements of each parameter to compare, chosen at random; None compares all.
    directions
        How many random directions of each parameter to compare instead. The report then counts
        directions, not elements.
    seed
        The seed of that choice, an integer.
    memory
        How many bytes, roughly, may be used to move many elements at once.

    Raises
    ------
    SettingError
        If network is not a network or has no parameters, another argument is invalid, or both
        elements and directions are given.
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
        params = {key: widened_copy(network, value) for key, value in network.params.items()}
        x = widened_samples(network, x)
        numbers = {}
        for key, parameter in params.items():
            size = prod(parameter.shape)
            numbers[key] = (
                list(range(directions))
                if directions
                else chance.sample(range(size), min(elements or size, size))
            )
        dtype = dtype_name(next(iter(params.values())).dtype)
        first = network.loss_and_gradient(params, x, t)
        _require_numbers(first, params, x, t)
        if what := not_deterministic(network, params, x, t, first):
            return GradientReport(_empty_checks(params, numbers), dtype, h, what)
        if directions:
            lines: Callable[..., Lines] = partial(Directions, seed=seed)
        else:
            moves_together = getattr(network.bound_to(params), "moves_together", lambda x, t: False)
            lines = partial(Elements, memory=memory, together=moves_together(x, t))
        comparisons = _compare(network, params, x, t, first, numbers, h, lines)
        suspects = {
            key: [i for i, c in results.items() if c.kink or not c.right]
            for key, results in comparisons.items()
        }
        if any(suspects.values()):
            # On the kink of a ReLU, backpropagation need not give the derivative, even if there is
            # one, as of relu(x) - relu(-x) at 0. A step aside it has to.
            there: Comparisons = {key: {} for key in comparisons}
            what = _what_changes(network, params, x, t, first, comparisons, h, lines)
            if not what and (beside := step_aside(network, params, x, t, h, chance)):
                there = _compare(network, beside[0], x, t, beside[1], suspects, h, lines)
                what = _what_changes(network, beside[0], x, t, beside[1], there, h, lines)
            if what:
                return GradientReport(_empty_checks(params, numbers), dtype, h, what)
            for key, here in comparisons.items():
                here.update({i: of_two(here[i], there[key].get(i)) for i in suspects[key]})
    sizes = {key: _largest_size(results) for key, results in comparisons.items()}
    largest = max(sizes.values())
    # Backpropagation has rounding errors, too: a gradient this small may as well be 0. In float32
    # the bounds of the rounding error are too coarse to judge each parameter by itself.
    negligible = unit_of_loss(params, x) * largest if dtype == "float64" else largest
    checks = {
        key: _summary(
            results,
            params[key],
            suspects[key],
            () if directions else params[key].shape,
            RESOLVED * (largest if sizes[key] <= negligible else sizes[key]),
            negligible,
        )
        for key, results in comparisons.items()
    }
    return GradientReport(checks, dtype, h)


# By parameter and number: the comparison of each element, or direction.
Comparisons: TypeAlias = dict[str, dict[int, Comparison]]


def _require_numbers(outcome: Outcome, params: Mapping[str, Array], x: Array, t: Array) -> None:
    """Raise an error unless the loss is finite and the gradients are of real numbers."""
    loss, gradient = float(outcome[0]), outcome[1]
    if not isfinite(loss):
        arrays = {"x": x, **params, "t": t}
        odd = [
            name
            for name, value in arrays.items()
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


def _what_changes(
    network: Checkable,
    params: Mapping[str, Array],
    x: Array,
    t: Array,
    outcome: Outcome,
    comparisons: "Comparisons",
    h: float,
    lines: Callable[..., Lines],
) -> str | None:
    """Return what differs when the comparisons that failed are repeated; None if nothing does.

    Two equal calls of a function that is rarely random may agree by chance. So a gradient is called
    wrong, and a point a kink, only after a second comparison.
    """
    failures = {
        key: [i for i, c in results.items() if not c.right and isfinite(c.claimed)]
        for key, results in comparisons.items()
    }
    if not any(failures.values()):
        return None
    worst = {
        key: [max(numbers, key=lambda i: comparisons[key][i].difference)] if numbers else []
        for key, numbers in failures.items()
    }
    if what := not_deterministic(network, params, x, t, outcome):
        return what
    again = _compare(network, params, x, t, outcome, worst, h, lines)
    is_same = all(
        c.agrees_with(comparisons[key][i]) for key in again for i, c in again[key].items()
    )
    return None if is_same else "the loss"


def of_two(here: Comparison, beside: Comparison | None) -> Comparison:
    """Return the comparison that counts: that here, which failed, or that a step aside, if any."""
    if isfinite(here.claimed) and here.kink:
        return beside or here
    if beside and not (beside.right or beside.kink):
        return beside
    if not isfinite(here.claimed):
        return replace(here, kink=False, contradicted=here.kink)
    # A claim that is wrong here and right aside may be due to kinks that cancel here.
    return replace(here, contradicted=True) if here.certain else beside or here


def _empty_checks(
    params: Mapping[str, Array], numbers: Mapping[str, list[int]]
) -> dict[str, ParameterCheck]:
    return {
        key: ParameterCheck(
            *(prod(params[key].shape), len(selection), 0, nan, nan, None, None, None),
            wrong=0,
            set_aside=len(selection),
        )
        for key, selection in numbers.items()
    }


def _compare(
    network: Checkable,
    params: Mapping[str, Array],
    x: Array,
    t: Array,
    outcome: Outcome,
    numbers: Mapping[str, list[int]],
    h: float,
    lines: Callable[..., Lines],
) -> "Comparisons":
    """Return the comparisons of the elements, or directions, of these numbers."""
    losses = losses_by_parameter(network, params, x, t)
    gradient = outcome[1]
    unit, noise = unit_of_loss(params, x), rounding_of_loss(outcome, params, x)
    comparisons = {}
    for key, parameter in params.items():
        line = lines(network.bound_to(params), x, t, key, losses[key], gradient[key])
        # If rounding errors are large, a longer step reduces them by more than it adds truncation.
        step = max(step_for(parameter, h), cbrt(unit))
        steps = {i: max(step, line.least_step(i)) for i in numbers[key]}
        for length in set(steps.values()):
            line.prepare([i for i in steps if steps[i] == length], length)
        results = {i: compare(line.claimed(i), line.along(i), steps[i], noise, unit) for i in steps}
        # A gradient of 0 agrees with a constant loss, but also with a single stair of a staircase.
        flat = [i for i, c in results.items() if c.claimed == 0 == c.numerical and not c.kink]
        if len(flat) > len(results) / 2 and any(
            is_staircase(line.along(i), steps[i], noise) for i in flat[:FLAT]
        ):
            results |= {i: replace(results[i], kink=True) for i in flat}
        comparisons[key] = results
    return comparisons


def step_aside(
    network: Checkable,
    params: Mapping[str, Array],
    x: Array,
    t: Array,
    h: float,
    chance: random.Random,
) -> tuple[dict[str, Array], Outcome] | None:
    """Return parameters a random step aside, and the outcome; None if no loss there is finite."""
    makes: list[Callable[[Array], Array]] = [
        partial(jittered, h=h, chance=chance),
        # Shorter ones, for functions such as log(x) and log(1 - x), whose domain may end nearby.
        *(partial(jittered_little, h=h, share=1 / n, chance=chance) for n in (2, 16, 128)),
    ]
    for make in makes:
        beside = {key: make(W) for key, W in params.items()}
        outcome = network.loss_and_gradient(beside, x, t)
        if isfinite(float(outcome[0])):
            return beside, outcome
    return None


def jittered(x: Array, h: float, chance: random.Random) -> Array:
    """Return x with a random number of at most `JITTER` steps added to each element."""
    return x + JITTER * step_for(x, h) * _random_like(x, 1.0, chance)


def jittered_little(x: Array, h: float, share: float, chance: random.Random) -> Array:
    """Return x with random moves: a share of the element, or of many steps if it is 0 or large.

    Since the share is less than 1, no sign changes.
    """
    xp = namespace_of(x)
    size, largest = xp.abs(x), 2 * JITTER * step_for(x, h)
    moves = _random_like(x, share, chance)
    return x + moves * xp.where((size == 0) | (size > largest), largest, size)


def _random_like(x: Array, largest: float, chance: random.Random) -> Array:
    xp = namespace_of(x)
    numbers = [chance.uniform(-largest, largest) for _ in range(prod(x.shape))]
    return xp.reshape(cast_like(xp.asarray(numbers, device=device_of(x)), like=x), x.shape)


def _largest_size(comparisons: Mapping[int, Comparison]) -> float:
    """Return the largest gradient of a parameter, claimed or numerical."""
    sizes = (c.size for c in comparisons.values() if isfinite(c.size) and not c.kink)
    return max(sizes, default=0.0)


def _summary(
    comparisons: Mapping[int, Comparison],
    parameter: Array,
    suspects: list[int],
    shape: tuple[int, ...],
    resolved: float,
    negligible: float,
) -> ParameterCheck:
    smooth = {i: comparison for i, comparison in comparisons.items() if not comparison.kink}
    # A gradient below the error divided by this is too small for a quotient to resolve.
    resolution = cbrt(epsilon_of(parameter))
    relative = {i: _relative_error(comparison, resolution) for i, comparison in smooth.items()}
    worst = max(relative, key=lambda i: relative[i], default=None)
    rough = [c for c in smooth.values() if c.right and not is_resolved(c, resolved, negligible)]
    return ParameterCheck(
        size=prod(parameter.shape),
        checked=len(comparisons),
        kinks=sum(comparisons[i].right and not comparisons[i].kink for i in suspects),
        mean_absolute_difference=(
            sum(c.difference for c in smooth.values()) / len(smooth) if smooth else nan
        ),
        largest_relative_error=nan if worst is None else relative[worst],
        worst=None if worst is None else unravel(worst, shape),
        backpropagation=None if worst is None else smooth[worst].claimed,
        numerical=None if worst is None else smooth[worst].numerical,
        wrong=sum(not (c.right or c.contradicted) for c in smooth.values()),
        contradicted=sum(c.contradicted for c in smooth.values()),
        set_aside=len(comparisons) - len(smooth) + len(rough),
    )


def is_resolved(comparison: Comparison, resolved: float, negligible: float) -> bool:
    """Tell whether a quotient is exact enough to tell a right gradient from a wrong one.

    Its error has to be at most ``resolved``, and smaller than the gradient, unless claim and
    quotient differ by at most ``negligible``, as where a pixel is always 0, and the gradient too.
    """
    is_same = comparison.difference <= negligible
    return comparison.error <= resolved and (is_same or comparison.error < comparison.size)


def _relative_error(comparison: Comparison, resolved: float) -> float:
    relative = comparison.difference / max(comparison.size, comparison.error / resolved)
    return inf if isnan(relative) else relative  # a claim of NaN is the worst error
