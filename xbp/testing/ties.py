"""Elements that tie, where a layer has a slope along each, and another along all of them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, islice, pairwise
from math import cos, pi, sin
from typing import NamedTuple

import numpy as np

from xbp.differences import DOUBTS, REFINEMENT
from xbp.testing.cases import HostArray
from xbp.testing.trial import LayerTrial, at

__tracebackhide__ = True

# More than rounding, and than stairs as those of float32.
A_TENTH = 0.1

# Of one case, so many pairs of elements are looked at; at so many points around where they tie.
_MOST_PAIRS = 6
_POINTS = 16


class Kink(NamedTuple):
    """An element that an output has no derivative with respect to, and what backward says there."""

    output: int
    name: str
    element: tuple[int, ...]
    claimed: float

    def __str__(self) -> str:
        return f"{self.name}{at(self.element)}"


def require_right_ties(trial: LayerTrial, kinks: Iterable[Kink], step: float) -> None:
    """Raise `AssertionError` if two derivatives cannot both be right, although each alone may be.

    So it is if backward gives the whole of dout to each of two maxima. Along both elements together
    the derivative is to lie between the slopes close by.
    """
    of_output: defaultdict[int, list[Kink]] = defaultdict(list)
    for kink in kinks:
        of_output[kink.output].append(kink)
    pairs = (pair for group in of_output.values() for pair in combinations(group, 2))
    for pair in islice(pairs, _MOST_PAIRS):
        for sign in (1.0, -1.0):
            _require_right_pair(trial, pair, (1.0, sign), step)


def _require_right_pair(
    trial: LayerTrial, pair: Sequence[Kink], along: tuple[float, float], step: float
) -> None:
    j = pair[0].output
    claimed = sum(kink.claimed * part for kink, part in zip(pair, along, strict=True))
    sizes = [max(1.0, abs(float(trial.case.arrays[kink.name][kink.element]))) for kink in pair]
    if max(sizes) > 2 * min(sizes):  # no distance is small for both
        return
    scale = step * max(sizes)

    def f(first: float, second: float) -> float:
        return float(_moved(trial, pair, (first, second)).reshape(-1)[j])

    def slope(place: tuple[float, float], h: float) -> float:
        (a, b), (u, v) = place, along
        return (f(a + h * u, b + h * v) - f(a - h * u, b - h * v)) / (2 * h)

    noise = float(trial.unit_of_differences * trial.magnitude[j])
    for level in range(1, DOUBTS + 1):
        radius = scale / REFINEMENT**level
        h = radius / (4 * _POINTS)
        slopes = [slope(place, h) for place in _around(radius)]
        steepest = max(map(abs, (*slopes, *(kink.claimed for kink in pair))))
        margin = 4 * noise / h + A_TENTH * steepest
        is_between = min(slopes) - margin <= claimed <= max(slopes) + margin
        if is_between or not np.all(np.isfinite(slopes)):
            return
    sign = "+" if along[1] > 0 else "-"
    first, second = pair
    raise trial.fail(
        f"backward is wrong where {first} and {second} tie:\n"
        f"  backward says {first.claimed!r} {sign} {second.claimed!r} of {trial.output_at(j)} "
        "along both\n"
        f"  central differences close by say {min(slopes):.6g} to {max(slopes):.6g}"
    )


def _around(radius: float) -> Iterator[tuple[float, float]]:
    """Yield points around 0, none of them on an axis or a diagonal."""
    for number in range(_POINTS):
        angle = 2 * pi * (number + 0.31) / _POINTS
        yield radius * cos(angle), radius * sin(angle)


def _moved(trial: LayerTrial, pair: Sequence[Kink], steps: Sequence[float]) -> HostArray:
    """Return the output with each element of a pair moved by a step."""
    arrays = {kink.name: trial.case.arrays[kink.name].copy() for kink in pair}
    for kink, step in zip(pair, steps, strict=True):
        arrays[kink.name][kink.element] += step
    with np.errstate(all="ignore"):
        return trial.forward(arrays)


def mixes_elements(trial: LayerTrial, name: str, j: int, h: float) -> bool:
    """Tell whether the slope in some direction is not that of the elements together.

    So it is where elements tie: three equal numbers that are sorted have no derivative, and yet no
    kink is seen along one of them.
    """

    def gap(step: float) -> float:
        """Return what is missing, as a part of the slope."""
        along_all, parts = (slopes[..., j] for slopes in _slopes(trial, name, step))
        return float(abs(along_all - parts.sum()) / max(abs(parts).sum(), 1e-300))

    # Curvature makes the slopes differ, too, but by less with each finer step. Other elements may
    # be as near as a step is long: so several are tried.
    noise = float(trial.unit_of_differences * trial.magnitude[j])
    steps = [h / REFINEMENT**level for level in range(2, 6)]
    gaps = (gap(step) for step in steps if noise < A_TENTH * step)
    return any(
        coarse > A_TENTH and fine > max(A_TENTH, coarse / 2) for coarse, fine in pairwise(gaps)
    )


def _slopes(trial: LayerTrial, name: str, step: float) -> tuple[HostArray, HostArray]:
    """Return the slopes of the outputs in a random direction, and the part of each element in it.

    Shapes ``(outputs,)`` and ``(elements, outputs)``; computed once for each step.
    """
    if (name, step) not in trial.slopes:
        value = trial.case.arrays[name]
        direction = np.asarray(np.random.default_rng(0).uniform(-1, 1, value.shape))

        def slope(along: HostArray) -> HostArray:
            with np.errstate(all="ignore"):
                up, down = (trial.forward({name: value + s * along}) for s in (step, -step))
                return np.asarray((up - down).reshape(-1) / (2 * step))

        units = np.eye(value.size).reshape(value.size, *value.shape)
        parts = [slope(unit) * d for unit, d in zip(units, direction.reshape(-1), strict=True)]
        trial.slopes[name, step] = slope(direction), np.stack(parts)
    return trial.slopes[name, step]
