"""Elements that tie, where a layer has a slope along each, and another along all of them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise, permutations, product
from math import isfinite
from typing import NamedTuple

import numpy as np

from xbp.differences import DOUBTS, FINEST, REFINEMENT
from xbp.testing.domains import HostArray
from xbp.testing.trial import MOST_RUNS, LayerTrial, at

__tracebackhide__ = True

# More than rounding, and than stairs as those of float32.
A_TENTH = 0.1
A_HUNDREDTH = 0.01

# Of one case, so many outputs are looked at.
_MOST_OUTPUTS = 6

# Around so many elements that tie there are 48 parts, by the signs and the order of the steps.
_MOST_TIED = 3

# So many random directions are tried, in which each element moves by one of these parts of a step.
_DIRECTIONS = 16
_PARTS = (-1.0, -0.5, 0.5, 1.0)

# Of the distance of these points, the part that slopes are taken over.
_SHARE = 64


class Kink(NamedTuple):
    """An element that an output has no derivative with respect to, and what backward says there."""

    output: int
    name: str
    element: tuple[int, ...]
    claimed: float

    def __str__(self) -> str:
        return f"{self.name}{at(self.element)}"


def require_right_ties(trial: LayerTrial, kinks: Iterable[Kink], step: float) -> None:
    """Raise `AssertionError` if derivatives cannot all be right, although each alone may be.

    So it is if backward gives the whole of dout to each of two maxima. Along all elements together
    the derivative is to lie between the slopes close by, or what backward says there; along two,
    also in opposite directions.
    """
    of_output: defaultdict[int, list[Kink]] = defaultdict(list)
    for kink in kinks:
        of_output[kink.output].append(kink)
    groups = (group for group in of_output.values() if 1 < len(group) <= _MOST_TIED)
    for group in islice(groups, _MOST_OUTPUTS):
        _require_right_group(trial, group, [1.0] * len(group), step)
        if len(group) == 2:  # noqa: PLR2004
            _require_right_group(trial, group, [1.0, -1.0], step)


def _require_right_group(
    trial: LayerTrial, group: Sequence[Kink], along: Sequence[float], step: float
) -> None:
    j = group[0].output
    noise = float(trial.unit_of_differences * trial.magnitude[j])
    if _slopes_beside(trial, group, along, step, noise) is None:
        return
    # Terms may cancel: rounding is measured, where it matters.
    measured = trial.noise(lambda trial: trial.output.reshape(-1)[j], MOST_RUNS, plain=trial.plain)
    slopes = _slopes_beside(trial, group, along, step, max(noise, float(measured)))
    if slopes is None:
        return

    def claim_of(trial: LayerTrial) -> float:
        claims = (float(trial.row(j)[kink.name][kink.element]) for kink in group)
        return sum(claim * part for claim, part in zip(claims, along, strict=True))

    claimed = sum(kink.claimed * part for kink, part in zip(group, along, strict=True))
    if trial.is_said_close_by(claimed, claim_of):
        return
    names = [str(kink) for kink in group]
    sign = " - " if along[-1] < 0 else " + "
    raise trial.fail(
        f"backward is wrong where {', '.join(names[:-1])} and {names[-1]} tie:\n"
        f"  backward says {sign.join(f'{kink.claimed!r}' for kink in group)} of "
        f"{trial.output_at(j)} along {'both' if len(group) == 2 else 'all'}\n"  # noqa: PLR2004
        f"  central differences close by say {slopes[0]:.6g} to {slopes[1]:.6g}"
    )


def _slopes_beside(
    trial: LayerTrial,
    group: Sequence[Kink],
    along: Sequence[float],
    step: float,
    noise: float,
) -> tuple[float, float] | None:
    """Return the slopes along all, the smallest and the largest; None if the claims may be right.

    The noise is a bound of the rounding of the output.
    """
    j, direction = group[0].output, np.asarray(along)
    claimed = sum(kink.claimed * part for kink, part in zip(group, along, strict=True))
    sizes = [max(1.0, abs(float(trial.case.arrays[kink.name][kink.element]))) for kink in group]
    if max(sizes) > 2 * min(sizes):  # no distance is small for all
        return None

    def f(steps: HostArray) -> float:
        return float(_moved(trial, group, steps).reshape(-1)[j])

    def slope(place: HostArray, h: float) -> float:
        return (f(place + h * direction) - f(place - h * direction)) / (2 * h)

    def hull(level: int) -> tuple[float, float]:
        """Return the smallest and the largest slope at a distance."""
        radius = step * max(sizes) / REFINEMENT**level
        slopes = [slope(radius * place, radius / _SHARE) for place in _around(len(group))]
        return min(slopes), max(slopes)

    steepest = max(*(abs(kink.claimed) for kink in group), *map(abs, hull(1)))
    margins = [
        4 * noise * _SHARE * REFINEMENT**level / (step * max(sizes)) for level in range(FINEST)
    ]
    levels = [level for level in range(1, FINEST) if margins[level] < A_HUNDREDTH * steepest]
    # The finest first, since a long step may reach over other kinks.
    fine, *others = reversed(levels[-DOUBTS - 1 :]) if len(levels) > DOUBTS else [0]
    hulls = [hull(fine)] if others else []
    for level in others:
        (low, high), coarse = hulls[-1], hull(level)
        # By more than the slopes still change, as they do where f is curved.
        margin = margins[level] + max(abs(low - coarse[0]), abs(high - coarse[1]))
        if low - margin <= claimed <= high + margin or not isfinite(margin):
            return None
        hulls.append(coarse)
    return hulls[0] if hulls else None  # rounding hides it


def _around(count: int) -> Iterator[HostArray]:
    """Yield points at a distance of 1 from 0: with all signs, and in all orders, of coordinates."""
    sizes = np.arange(1, count + 1)
    for signs in product((-1, 1), repeat=count):
        for order in permutations(sizes):
            place = np.asarray(signs) * order
            yield place / np.linalg.norm(place)


def _moved(trial: LayerTrial, group: Sequence[Kink], steps: HostArray) -> HostArray:
    """Return the output with each element of a group moved by a step."""
    arrays = {kink.name: trial.case.arrays[kink.name].copy() for kink in group}
    for kink, step in zip(group, steps, strict=True):
        arrays[kink.name][kink.element] += step
    with np.errstate(all="ignore"):
        return trial.forward(arrays)


def mixes_elements(trial: LayerTrial, j: int, h: float) -> bool:
    """Tell whether the slope in some direction is not that of the elements together.

    So it is where elements tie: three equal numbers that are sorted have no derivative, and yet no
    kink is seen along one of them.
    """

    def gap(step: float) -> float:
        """Return what is missing, as a part of the slope: in one direction it may be little."""
        along_all, parts = (slopes[..., j] for slopes in _slopes(trial, step))
        missing = abs(along_all - parts.sum(axis=1))
        return float(np.max(missing / np.maximum(abs(parts).sum(axis=1), 1e-300)))

    # Curvature makes the slopes differ, too, but by less with each finer step. Other elements may
    # be as near as a step is long: so several are tried.
    noise = float(trial.unit_of_differences * trial.magnitude[j])
    steps = [h / REFINEMENT**level for level in range(2, 6)]
    gaps = (gap(step) for step in steps if noise < A_TENTH * step)
    return any(
        coarse > A_TENTH and fine > max(A_TENTH, coarse / 2) for coarse, fine in pairwise(gaps)
    )


def _slopes(trial: LayerTrial, step: float) -> tuple[HostArray, HostArray]:
    """Return the slopes of the outputs in random directions, and along the part of each element.

    Shapes ``(directions, outputs)`` and ``(directions, elements of all arrays, outputs)``; computed
    once for each step. They are taken to one side, so that a kink or a jump along one element alone
    is in both.
    """
    if step not in trial.slopes:
        arrays = {
            name: value
            for name, value in trial.case.arrays.items()
            if trial.is_differentiable(name)
        }
        ends = np.cumsum([value.size for value in arrays.values()])

        def slope(along: HostArray) -> HostArray:
            """Return the slopes in a direction: a number for each element of each array."""
            parts = zip(arrays.items(), np.split(step * along, ends[:-1]), strict=True)
            moved = {name: value + part.reshape(value.shape) for (name, value), part in parts}
            with np.errstate(all="ignore"):
                return np.asarray((trial.forward(moved) - trial.output).reshape(-1) / step)

        alone = np.stack([[slope(part) for part in np.diag([by] * ends[-1])] for by in _PARTS])
        choices = np.random.default_rng(0).integers(len(_PARTS), size=(_DIRECTIONS, ends[-1]))
        parts = np.stack([alone[choice, np.arange(ends[-1])] for choice in choices])
        along_all = np.stack([slope(np.asarray(_PARTS)[choice]) for choice in choices])
        trial.slopes[step] = along_all, parts
    return trial.slopes[step]
