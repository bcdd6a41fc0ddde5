"""The results of a gradient check, as numbers and as text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ParameterCheck:
    """How backpropagation and central differences compare for one parameter.

    Attributes
    ----------
    size : int
        Number of elements of the parameter.
    checked : int
        Number of elements that were chosen for comparison.
    kinks : int
        Number of elements that were compared, and are right, a small random step aside: at the kink
        of a ReLU the loss has no derivative, or backpropagation does not give it.
    mean_absolute_difference : float
        Mean over the elements; NaN if no element has a difference quotient.
    largest_relative_error : float
        Difference divided by the larger of the two values, or by the smallest gradient that a
        difference quotient can resolve; NaN if no element has a quotient.
    worst : tuple of int or None
        Index of the element with that error; None if there is none.
    backpropagation, numerical : float or None
        The two values of that element.
    wrong : int
        Number of elements whose difference is not explained by rounding or a kink.
    set_aside : int
        Number of elements that were not compared: the loss has no derivative a step aside either,
        or the quotient is too inexact to tell a right gradient from a wrong one.
    contradicted : int
        Number of elements where backpropagation is wrong at this very point, but right a step
        aside: as for relu(x) - relu(-x) at 0, where two kinks cancel, or for a backward that
        divides by 0.
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
    set_aside: int = 0
    contradicted: int = 0

    @property
    def compared(self) -> int:
        """Number of elements that were compared."""
        return self.checked - self.set_aside

    @property
    def verdict(self) -> str:
        """``"wrong"``, ``"inconclusive"`` or ``"ok"``.

        Inconclusive if any element is contradicted, or at least half of them were set aside.
        """
        if self.wrong:
            return "wrong"
        is_told = self.compared > self.set_aside and not self.contradicted
        return "ok" if is_told else "inconclusive"

    @property
    def passed(self) -> bool:
        """Whether the verdict is ``"ok"``."""
        return self.verdict == "ok"

    def __str__(self) -> str:
        counts = f"{self.compared:,} of {self.checked:,} compared"
        if self.kinks:
            counts += f", {self.kinks:,} of them beside a kink"
        if self.set_aside:
            counts += f", {self.set_aside:,} set aside"
        story = self.verdict
        if story == "inconclusive" and self.contradicted:
            story = (
                f"INCONCLUSIVE: {self.contradicted:,} right a step aside only: at {self.worst} "
                f"backpropagation says {self.backpropagation:.6g}, differences say "
                f"{self.numerical:.6g} (kinks may cancel there, or backward is wrong at this very "
                "number)"
            )
        elif story == "inconclusive":
            story = (
                "INCONCLUSIVE: no difference quotient tells (the rounding is too coarse, as of a "
                "large loss or a lower precision, or there is a kink everywhere)"
            )
        if story == "wrong":
            story = (
                f"WRONG in {self.wrong:,}: at {self.worst} backpropagation says "
                f"{self.backpropagation:.6g}, differences say {self.numerical:.6g}"
            )
        return f"mean difference {self.mean_absolute_difference:.3g}, {counts}, {story}"


@dataclass(frozen=True)
class GradientReport:
    """The result of `gradient_check`.

    Attributes
    ----------
    parameters : dict of str to ParameterCheck
        The checks by the parameters' keys.
    dtype : str
        The dtype that both gradients were computed in.
    step : float
        The argument ``h`` of `gradient_check`.
    not_deterministic : str
        What differs between two equal calls, such as ``"Dropout1.forward"``; empty if nothing
        does. If something does, nothing was compared.
    """

    parameters: dict[str, ParameterCheck]
    dtype: str
    step: float
    not_deterministic: str = ""

    @property
    def verdict(self) -> str:
        """``"not deterministic"``, ``"wrong"``, ``"inconclusive"`` or ``"ok"``: the worst."""
        if self.not_deterministic:
            return "not deterministic"
        verdicts = {check.verdict for check in self.parameters.values()}
        return next(verdict for verdict in ("wrong", "inconclusive", "ok") if verdict in verdicts)

    @property
    def passed(self) -> bool:
        """Whether backpropagation agrees with central differences for every parameter."""
        return self.verdict == "ok"

    def __str__(self) -> str:
        lines = [f"gradient check in {self.dtype}, step {self.step:g}"]
        if self.not_deterministic:
            lines.append(
                f"NOT DETERMINISTIC: two equal calls of {self.not_deterministic} differ, so "
                "nothing can be compared"
            )
        else:
            lines += [f"{key}: {check}" for key, check in self.parameters.items()]
        return "\n".join(lines)
