"""A fast look at large layers: the derivative along random directions, not by every element."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import isfinite

import numpy as np

from xbp.differences import Comparison, compare
from xbp.errors import SettingError
from xbp.testing.agreement import why_not_finite
from xbp.testing.cases import LayerCase
from xbp.testing.derivative import STEP, is_wrong
from xbp.testing.domains import HostArray, Input, Labels, Nonzero, OneHot, Values, rounded, within
from xbp.testing.proof import Differences
from xbp.testing.signatures import LARGEST_SIZE, Signature
from xbp.testing.sizes import size_of, sizes_of
from xbp.testing.trial import MOST_RUNS, RUNS, LayerTrial

__tracebackhide__ = True


@dataclass(frozen=True)
class RandomCase(LayerCase):
    """A case too large to be shown: the same seed and sizes give the same numbers.

    Attributes
    ----------
    seed : int
    """

    seed: int

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} = {number}" for name, number in self.numbers.items())
        options = "".join(f", {name} = {value!r}" for name, value in self.options.items())
        return f"  random numbers of seed {self.seed}, {sizes}{options}"

    def described(self) -> str:
        """Return the seed and the sizes: each run tries the same."""
        return f"the case:\n{self}"


def random_case(
    signature: Signature, bounds: Mapping[str, tuple[int, int]], seed: int, largest: float
) -> RandomCase:
    """Return a case of normally distributed numbers; of seed 0, of the largest sizes.

    The values of an option take turns.

    Raises
    ------
    SettingError
        If an array is drawn by a strategy.
    """
    chance = np.random.default_rng(seed)
    fitting = signature.fitting_sizes(bounds)
    if fitting is None:
        limits = dict.fromkeys(signature.size_names(), (1, LARGEST_SIZE)) | dict(bounds)
        sizes = {
            name: high if seed == 0 else int(chance.integers(low, high + 1))
            for name, (low, high) in limits.items()
        }
    else:
        sizes = fitting[-1 if seed == 0 else chance.integers(len(fitting))]
    arrays = {}
    for name in (*signature.inputs, *signature.params):
        shape = sizes_of(signature.shape_of(name), sizes)
        arrays[name] = _random_array(signature.kind_of(name), shape, sizes, chance, largest)
    dout = rounded(chance.normal(size=sizes_of(signature.output_shape, sizes)))
    options = signature.options_with(sizes, lambda values: values[seed % len(values)])
    return RandomCase(signature, arrays, dout, seed, options=options, numbers=sizes)


def _random_array(
    kind: Input,
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
    chance: np.random.Generator,
    largest: float,
) -> HostArray:
    if isinstance(kind, Labels):
        return chance.integers(0, size_of(kind.classes, sizes), shape)
    if isinstance(kind, OneHot):
        return np.asarray(np.eye(shape[-1])[chance.integers(0, shape[-1], shape[:-1])])
    values = np.clip(chance.normal(size=shape), -largest, largest)
    if isinstance(kind, Nonzero):
        values = values + np.copysign(1, values)
    elif isinstance(kind, Values):
        if kind.strategy is not None:
            raise SettingError("directions: an array of a strategy cannot be drawn: give bounds")
        low, high = kind.low, kind.high
        if low is not None and high is not None:
            values = chance.uniform(low, high, shape)
        elif low is not None:
            values = low + abs(values)
        elif high is not None:
            values = high - abs(values)
        return within(kind, values)
    return rounded(values)


def backward_is_the_derivative_along(trial: LayerTrial, count: int) -> Differences:
    """Check backward by central differences along random directions of each array.

    The rounding error of either is measured; a direction along which there is a kink tells nothing.
    """
    result = Differences()
    if trial.dtype == "float32" and trial.backend.has_float64:
        return result
    if trial.dtype == "float32":
        trial = trial.on_numpy or trial
    for name in filter(trial.is_differentiable, trial.case.arrays):
        comparisons = [_along(trial, name, seed) for seed in range(count)]
        wrong = [comparison for comparison in comparisons if is_wrong(comparison)]
        if wrong:
            worst = wrong[0]
            raise trial.fail(
                f"backward is wrong along {len(wrong)} of {count} random directions of {name}:\n"
                f"  backward says {worst.claimed!r}{why_not_finite(worst.claimed)}\n"
                f"  central differences say {worst.numerical!r}, give or take {worst.error:.1e}"
            )
        if all(comparison.kink for comparison in comparisons):
            raise trial.fail(
                f"no random direction of {name} tells anything, since there are kinks along all: "
                "prove the layer in small sizes, without directions="
            )
        for comparison in comparisons:
            result.note(comparison)
    return result


def _along(trial: LayerTrial, name: str, seed: int) -> Comparison:
    chance = np.random.default_rng(seed)
    value = trial.case.arrays[name]
    direction = chance.uniform(-1, 1, value.shape) * np.maximum(1, abs(value))
    dout = np.asarray(chance.uniform(-1, 1, trial.case.dout.shape))

    def change(trial: LayerTrial) -> HostArray:
        trial.forward()
        return np.asarray(np.sum(trial.backward(dout)[name] * direction))

    def total(trial: LayerTrial, step: float) -> HostArray:
        moved = {name: trial.case.arrays[name] + step * direction} if step else None
        return np.asarray(np.sum(dout * trial.forward(moved)))

    @cache
    def f(step: float) -> float:
        with np.errstate(all="ignore"):  # a step may leave the domain
            return float(total(trial, step))

    claimed = float(change(trial))
    comparison = Comparison(claimed, claimed, 0.0)
    for runs in (RUNS, MOST_RUNS):
        noise = float(trial.noise(lambda trial: total(trial, 0.0), runs, plain=trial.plain))
        by = float(trial.noise(change, runs, plain=trial.plain))
        bound = max(noise, trial.unit_of_differences * abs(f(0.0)))
        comparison = compare(claimed, f, STEP, bound, trial.unit_of_differences)
        if is_wrong(comparison) and isfinite(claimed + comparison.numerical):
            nearest = min(max(comparison.numerical, claimed - by), claimed + by)
            comparison = compare(nearest, f, STEP, bound, trial.unit_of_differences)
        if not is_wrong(comparison):
            break
    return comparison
