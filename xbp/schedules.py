"""Schedules: the learning rate as a function of the number of updates that were made before.

Any function will do: ``xbp.SGD(lr=lambda number: 0.1 * 0.99**number)``. It is called between
steps, for several of them at once, so it may branch on the number. It must return the same rate for
the same number.
"""

from dataclasses import dataclass
from math import cos, pi
from typing import Any

from xbp.errors import SettingError
from xbp.settings import is_finite_number, positive_integer, positive_number


@dataclass(frozen=True)
class Step:
    """``lr · factor^⌊number / every⌋``: a rate that falls in steps.

    Parameters
    ----------
    lr
        The first rate.
    every
        How many updates have the same rate.
    factor
        What the rate is multiplied by after these.

    Raises
    ------
    SettingError
        If one is not positive.
    """

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        positive_number("lr", self.lr)
        positive_integer("every", self.every)
        positive_number("factor", self.factor)

    def __call__(self, number: int) -> float:
        """Return the rate after so many updates."""
        return float(self.lr * self.factor ** (number // self.every))


@dataclass(frozen=True)
class Cosine:
    """Half a wave from lr down to a last rate, which stays.

    ``last + (lr - last) (1 + cos(π number / steps)) / 2``: I. Loshchilov, F. Hutter, "SGDR:
    stochastic gradient descent with warm restarts", ICLR 2017, equation 5, without a restart.

    Parameters
    ----------
    lr
        The first rate.
    steps
        After how many updates the last rate is reached.
    last
        That rate, 0 or more.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    lr: float
    steps: int
    last: float = 0.0

    def __post_init__(self) -> None:
        positive_number("lr", self.lr)
        positive_integer("steps", self.steps)
        if not (is_finite_number(self.last) and self.last >= 0):
            raise SettingError(f"last is a number of 0 or more, not {self.last!r}")

    def __call__(self, number: int) -> float:
        """Return the rate after so many updates."""
        share = min(number / self.steps, 1.0)
        return float(self.last + (self.lr - self.last) * (1 + cos(pi * share)) / 2)


@dataclass(frozen=True)
class Warmup:
    """A rise in equal steps, and then another rate, or schedule.

    Parameters
    ----------
    lr
        The rate, or a schedule, which begins at 0 when the rise is over.
    steps
        How many updates the rise takes: the first has ``1 / steps`` of the first rate.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """

    lr: Any
    steps: int

    def __post_init__(self) -> None:
        if not callable(self.lr):
            positive_number("lr", self.lr)
        positive_integer("steps", self.steps)

    def __call__(self, number: int) -> float:
        """Return the rate after so many updates."""
        after = self.lr if callable(self.lr) else lambda _: self.lr
        if number < self.steps:
            return float(after(0) * (number + 1) / self.steps)
        return float(after(number - self.steps))
