"""What a gradient check has found, in figures and in words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ParameterCheck:
    """How backpropagation and central differences compare for one parameter.

    Attributes
    ----------
    size : int
        Number of elements of the parameter.
    checked : int
        Number of elements that were to be compared.
    kinks : int
        Of these, those that were compared a small random step aside, and are right there: at the
        kink of a ReLU the loss has no derivative, or backpropagation does not give it.
    mean_absolute_difference : float
        Over the elements; NaN if no element has a difference quotient.
    largest_relative_error : float
        Difference over the larger of the two, or over the smallest gradient that a difference
        quotient can resolve; NaN if there is none.
    worst : tuple of int or None
        Index of the element where that is; None if there is none.
    backpropagation, numerical : float or None
        The two values there.
    wrong : int
        Number of elements whose difference neither rounding nor a kink explains.
    set_aside : int
        Number of elements that were not compared: beside them, too, the loss has no derivative, or
        the quotient is too rough to tell a right gradient from a wrong one.
    contradicted : int
        Number of elements where backpropagation is wrong at this very point, but right a step
        aside: as of relu(x) - relu(-x) at 0, whose kinks cancel, or of a backward that divides by
        what is 0.
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
        """How many elements were compared."""
        return self.checked - self.set_aside

    @property
    def verdict(self) -> str:
        """``"wrong"``, ``"inconclusive"`` or ``"ok"``.

        Inconclusive is what is contradicted anywhere, or of which most elements were set aside.
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
    """What `gradient_check` found.

    Attributes
    ----------
    parameters : dict of str to ParameterCheck
    dtype : str
        The precision that both gradients were computed in.
    step : float
        The step of the central differences that was asked for.
    not_deterministic : str
        What differs between two equal calls, ``"Dropout1.forward"``; empty if nothing does. If
        something does, there is nothing to compare.
    """

    parameters: dict[str, ParameterCheck]
    dtype: str
    step: float
    not_deterministic: str = ""

    @property
    def verdict(self) -> str:
        """``"not deterministic"``, ``"wrong"``, ``"inconclusive"`` or ``"ok"``: the gravest."""
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
