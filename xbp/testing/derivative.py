"""The first of all properties: ``backward`` computes the derivative of ``forward``."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from math import inf, isfinite
from typing import NamedTuple

import numpy as np

from xbp.differences import REFINEMENT, Comparison, compare, is_staircase, turns_close_by
from xbp.testing.agreement import why_not_finite
from xbp.testing.domains import HostArray
from xbp.testing.proof import Differences
from xbp.testing.ties import Kink, mixes_elements, require_right_ties
from xbp.testing.trial import MOST_RUNS, RUNS, LayerTrial, at

__tracebackhide__ = True

# The first step of the central differences, for elements up to size 1; `compare` refines it.
STEP = 2.0**-6


# How many times the width of the narrowest quarter of claims bounds their rounding errors: it is
# three times the standard deviation of normal ones.
_SPREADS = 5.0


class Doubt(NamedTuple):
    """A derivative that differs from the quotient by more than is known to be rounding.

    Attributes
    ----------
    name : str
        The array that the derivative is taken with respect to.
    at : tuple of int
        The number of the output among all, and the index of the element.
    comparison : Comparison
    f : callable
        The output after a step that is added to the element.
    h : float
        The first step.
    """

    name: str
    at: tuple[int, ...]
    comparison: Comparison
    f: Callable[[float], float]
    h: float


def backward_is_the_derivative(trial: LayerTrial) -> Differences:
    """``backward`` agrees with central differences, for each pair of output and input elements.

    The tolerance follows from the step and the dtype. At a kink a derivative is to lie between the
    slopes on both sides. Float32 is tested by `float32_agrees_with_float64`. If the device has no
    float64, differences are taken on NumPy, and in float32 only of a layer that does not run there.
    """
    result, doubts, kinks = Differences(), list[Doubt](), list[Kink]()
    if trial.dtype == "float32" and trial.backend.has_float64:
        return result
    if trial.dtype == "float32":
        trial = trial.on_numpy or trial
    unit = trial.unit_of_differences
    noise = unit * trial.magnitude
    for name, claims in trial.jacobian.items():
        value = trial.case.arrays[name]
        if claims.shape[1:] != value.shape:
            raise trial.fail(
                f"the derivative with respect to {name} has shape {claims.shape[1:]}, {name} has "
                f"{value.shape}"
            )
        for index in np.ndindex(value.shape):
            outputs = _outputs_along(trial, name, index)
            for j, claimed in enumerate(claims[(slice(None), *index)]):
                f, h = partial(_item, outputs, j), STEP * max(1.0, abs(float(value[index])))
                comparison = compare(float(claimed), f, h, float(noise[j]), unit)
                result.note(comparison)
                if comparison.kink:
                    kinks.append(Kink(j, name, index, float(claimed)))
                if is_wrong(comparison):
                    doubts.append(Doubt(name, (j, *index), comparison, f, h))
    # The worst first: rounding is measured until one is seen to be more, as a rule only once.
    for doubt in sorted(doubts, key=_excess, reverse=True):
        comparison = _within_rounding(trial, doubt)
        if is_wrong(comparison):
            raise _wrong_derivative(trial, doubt, comparison, doubts, result.compared)
        result.kinks += comparison.kink and not doubt.comparison.kink
    require_right_ties(trial, kinks, STEP)
    return result


def _excess(doubt: Doubt) -> float:
    comparison = doubt.comparison
    excess = comparison.difference / max(comparison.error, 1e-300)
    return excess if isfinite(excess) else inf


def is_wrong(comparison: Comparison) -> bool:
    """Tell whether a derivative is neither the quotient nor at a kink, or lies outside of one."""
    return comparison.outside or not (comparison.right or comparison.kink)


def _within_rounding(trial: LayerTrial, doubt: Doubt) -> Comparison:
    """Compare again what is closest to the quotient within the rounding that the trial makes."""
    name, (j, *element), comparison, f, h = doubt
    index, claimed = tuple(element), comparison.claimed
    if not isfinite(claimed):
        return comparison

    def claim_of(trial: LayerTrial) -> HostArray:
        return np.asarray(trial.row(j)[name][index])

    def output_of(trial: LayerTrial) -> HostArray:
        return np.asarray(trial.output.reshape(-1)[j])

    for runs in (RUNS, MOST_RUNS):
        noise = float(trial.noise(output_of, runs, plain=trial.plain))
        seen = trial.rounded_otherwise(claim_of, runs)
        bound = max(noise, float(trial.unit_of_differences * trial.magnitude[j]))
        again = compare(claimed, f, h, bound, trial.unit_of_differences)
        low, high = _claims_within_rounding(claimed, seen, is_at_kink=again.kink)
        if isfinite(again.numerical):
            closest = min(max(again.numerical, low), high)
            again = compare(closest, f, h, bound, trial.unit_of_differences)
        if not is_wrong(again):
            return again
    if turns_close_by(claimed, again.numerical, f, h, noise, trial.unit_of_differences):
        return replace(again, error=again.difference)
    if again.outside and _is_said_close_by(trial, doubt, bound):
        return replace(again, outside=False)
    if mixes_elements(trial, j, h):
        return replace(comparison, kink=True, outside=False)
    return replace(comparison, error=max(comparison.error, again.error))


def _is_said_close_by(trial: LayerTrial, doubt: Doubt, noise: float) -> bool:
    """Tell whether a claim at a kink is one of those close by, and those beside it are right."""
    name, (j, *element), comparison, f, h = doubt
    index = tuple(element)

    def claim_of(trial: LayerTrial) -> float:
        return float(trial.row(j)[name][index])

    def is_right_at(place: float) -> bool:
        value = trial.case.arrays[name].copy()
        value[index] += place
        there = trial.again(replace(trial.case, arrays={**trial.case.arrays, name: value}))
        return not is_wrong(
            compare(
                claim_of(there),
                lambda step: f(place + step),
                h / REFINEMENT**2,
                noise,
                trial.unit_of_differences,
            )
        )

    if is_staircase(f, h, noise):  # there is nothing but kinks
        return False
    sides = (-h / REFINEMENT, h / REFINEMENT)
    return trial.is_said_close_by(comparison.claimed, claim_of) and all(map(is_right_at, sides))


def _claims_within_rounding(
    claimed: float, seen: HostArray, *, is_at_kink: bool
) -> tuple[float, float]:
    """Return between which numbers a claim might as well be, seen what it is rounded otherwise.

    As a rule that is the range of those seen, and a quarter more to each side.
    """
    with np.errstate(all="ignore"):
        seen = np.sort(seen)
        beside = float(seen[-1] - seen[0]) / 4
        if is_at_kink:
            # Rounding may lead from one side to the other: but their slopes are both right here.
            # So it says nothing that others are seen: only how far those lie apart that are alike.
            alike = len(seen) // 4
            beside = _SPREADS * float(np.min(seen[alike:] - seen[:-alike]))
            return claimed - beside, claimed + beside
        if np.min(abs(seen - claimed)) > beside:
            # It is that of one number alone, as where a layer asks whether x == 1.
            return claimed, claimed
    return float(seen[0]) - beside, float(seen[-1]) + beside


def _item(outputs: Callable[[float], HostArray], j: int, step: float) -> float:
    return float(outputs(step)[j])


def _outputs_along(
    trial: LayerTrial, name: str, index: tuple[int, ...]
) -> Callable[[float], HostArray]:
    """Return a function from a step, added to one element, to the flat outputs."""

    @cache
    def outputs(step: float) -> HostArray:
        if step == 0:
            return trial.output.reshape(-1)
        value = trial.case.arrays[name].copy()
        value[index] += step
        with np.errstate(all="ignore"):  # a large step may reach a pole
            return trial.forward({name: value}).reshape(-1)

    return outputs


def _wrong_derivative(
    trial: LayerTrial, doubt: Doubt, worst: Comparison, doubts: list[Doubt], compared: int
) -> AssertionError:
    name, (row, *index) = doubt.name, doubt.at
    # Arrays in any case: a parameter may be a single number.
    backward = np.asarray(trial.jacobian[name][row])
    differences = np.array(backward)
    for other in doubts:
        if (other.name, other.at[0]) == (name, row):
            differences[other.at[1:]] = other.comparison.numerical
    which = f"of {trial.output_at(row)} with respect to"
    return trial.fail(
        f"backward is wrong: {len(doubts)} of {compared} derivatives differ from central "
        "differences, with unit vectors as dout\n"
        f"the furthest off is that {which} {name}{at(tuple(index))}:\n"
        f"  backward says {worst.claimed!r}{why_not_finite(worst.claimed)}\n"
        f"  central differences say {worst.numerical!r}, give or take {worst.error:.1e}\n"
        f"{which} all of {name}:",
        backward=backward,
        differences=differences,
    )
