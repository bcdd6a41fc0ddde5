"""What a proof that has passed has seen, and what it could not see."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from xbp.differences import Comparison

# A fault that shows in some share of cases is met with this probability.
CONFIDENCE = 0.95


@dataclass
class Differences:
    """The result of comparing the derivatives of a layer with central differences.

    Attributes
    ----------
    compared : int
        The number of derivatives, each of one output element with respect to one input element.
    kinks : int
        How many of them were between the slopes on both sides of a kink.
    errors : list of float
        For each of the others that is not 0: the bound of the quotient's error, as a share of it.
    """

    compared: int = 0
    kinks: int = 0
    errors: list[float] = field(default_factory=list)

    def note(self, comparison: Comparison) -> None:
        """Count a comparison that found nothing wrong, or whose rounding is measured later."""
        self.compared += 1
        self.kinks += comparison.kink
        if comparison.size and not comparison.kink:
            self.errors.append(comparison.error / comparison.size)

    def add(self, other: "Differences") -> None:
        """Add those of another case."""
        self.compared += other.compared
        self.kinks += other.kinks
        self.errors += other.errors


@dataclass(frozen=True, repr=False)
class Proof:
    """What `assert_gradients` has seen of a layer that it found nothing wrong with.

    Attributes
    ----------
    title : str
        The layer and the backend.
    cases : int
        How many cases were tried.
    differences : Differences
        Of all of them.
    """

    title: str
    cases: int
    differences: Differences

    @classmethod
    def of(cls, title: str, found: Sequence[Differences]) -> "Proof":
        """Return the proof by these cases."""
        differences = Differences()
        for other in found:
            differences.add(other)
        return cls(title, len(found), differences)

    @property
    def smallest_share(self) -> float:
        """The share of cases in which a fault shows that is met with a probability of 95 %.

        For n cases it is ``1 - 0.05**(1 / n)``, if they were drawn independently.
        """
        return float(1 - (1 - CONFIDENCE) ** (1 / self.cases)) if self.cases else 1.0

    @property
    def smallest_error(self) -> float:
        """The error of a derivative, as a share of it, that shows in half of the comparisons."""
        errors = self.differences.errors
        return float(np.median(errors)) if errors else np.inf

    def __str__(self) -> str:
        compared, kinks = self.differences.compared, self.differences.kinks
        at_kinks = f", {kinks:,} of them at kinks" if kinks else ""
        error = self.smallest_error
        half = f"; half of the comparisons show an error of {error:.0e}" if error < 1 else ""
        return (
            f"{self.title}: {self.cases:,} cases, {compared:,} derivatives compared with central "
            f"differences{at_kinks}{half}; a fault that shows in {self.smallest_share:.1%} of such "
            f"cases is found with a probability of {CONFIDENCE:.0%}"
        )

    __repr__ = __str__
