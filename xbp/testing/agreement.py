"""Results that are equal up to rounding, which is measured where no bound of it is known."""

from collections.abc import Callable, Iterator
from itertools import islice
from math import isfinite
from typing import NamedTuple

import numpy as np

from xbp.testing.domains import HostArray
from xbp.testing.trial import MOST_RUNS, RUNS, LayerTrial

__tracebackhide__ = True


class Agreement(NamedTuple):
    """Two results that are equal up to rounding; the bound holds if no terms cancel."""

    complaint: str
    actual: HostArray
    expected: HostArray
    bound: HostArray

    @property
    def difference(self) -> HostArray:
        """What is 0 but for rounding."""
        return self.actual - self.expected


def require_agreement(
    trial: LayerTrial,
    agreements: Callable[[LayerTrial], Iterator[Agreement]],
    *,
    exact: LayerTrial | None = None,
    is_measured: bool = True,
) -> None:
    """Raise an error unless all agree, up to the rounding errors that the trial is seen to make.

    They are seen in the exact trial, when it rounds as the other does; None takes the trial itself.
    If they are not measured, the bounds alone count.
    """
    for number, agreement in enumerate(agreements(trial)):
        complaint, actual, expected, bound = agreement
        if actual.shape != expected.shape:
            raise trial.fail(f"{complaint} has shape {actual.shape}, not {expected.shape}")

        def difference(trial: LayerTrial, number: int = number) -> HostArray:
            return next(islice(agreements(trial), number, None)).difference

        # Not `abs(...) > bound`, which is false for NaN.
        total, apart = bound, ~(abs(agreement.difference) <= bound)
        for runs in (RUNS, MOST_RUNS):
            if is_measured and apart.any():  # only where it is needed, since it is slow
                total = bound + (exact or trial).noise(difference, runs, dtype=trial.dtype)
                apart = ~(abs(agreement.difference) <= total)
        if apart.any():
            worst = tuple(int(k) for k in np.unravel_index(np.argmax(apart), apart.shape))
            raise trial.fail(
                f"{complaint} is {float(actual[worst])!r}{_within(worst)}, expected "
                f"{float(expected[worst])!r}, give or take {total[worst]:.1e}"
                f"{why_not_finite(actual[worst])}:",
                found=actual,
                expected=expected,
            )


def equality(complaint: str, actual: HostArray, expected: HostArray, unit: float) -> Agreement:
    """Return an agreement in which both may be infinite or NaN: that is no difference."""
    if actual.shape == expected.shape:
        are_nan = np.isnan(actual) & np.isnan(expected)
        is_odd = ~np.isfinite(actual) & ((actual == expected) | are_nan)
        actual, expected = np.where(is_odd, 0.0, actual), np.where(is_odd, 0.0, expected)
    return Agreement(complaint, actual, expected, unit * (1 + abs(expected)))


def why_not_finite(value: float) -> str:
    """Return what to do if a layer overflows; nothing if it does not."""
    if isfinite(value):
        return ""
    return " (it overflows, or leaves its domain: say how large its numbers may be, largest=100)"


def _within(index: tuple[int, ...]) -> str:
    """Return ``" at [i, j]"`` for an index; nothing for a 0-d array."""
    return f" at {list(index)}" if index else ""
