"""Derivatives from values alone: central differences, and how far each of them can be off."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import cbrt, inf, isclose, isfinite, isnan, prod
from typing import Any

from xbp.errors import DTypeError, SettingError
from xbp.namespace import (
    Array,
    DType,
    device_of,
    dtype_name,
    epsilon_of,
    is_floating,
    kind_of,
    namespace_of,
    widest_float,
)
from xbp.settings import is_finite_number

# How many roundings an elementary function or a handful of operations amount to; a sum adds one for
# each of its terms.
ROUNDINGS = 8

# From one step to the next smaller one, and how often: by then a first step of 0.01 changes no
# number of size 1 any more.
REFINEMENT = 8
FINEST = 16

# How many coarser steps are asked for a staircase.
COARSEST = 5

# Further off, a layer may be flat at another height for good reasons: no unit is as it was.
_FARTHEST = 0.5

# Where, in parts of a step.
_PLACES = (0.0, 0.83, -0.71, 0.47, -0.39)

# How many finer steps have to bear a quotient out before it tells against a claim.
DOUBTS = 3

# A step so fine that the error allows for more than this part of the slopes around proves little:
# it may have been refined for nothing but to stay on one side of a kink.
RESOLUTION = 1e-3


# Of float64: twice the machine epsilon.
_SMALLEST_STEP = 2.0**-51

# A longer one leaves float32, or what a loss is defined for.
_LARGEST_STEP = 1e3

# The kinds of numbers that can be told from one another by their size.
_REAL = ("bool", "integral", "real floating")

# How many bytes are taken, about, to move many elements at once, unless somebody says otherwise.
MEMORY = 2.0**26


def numerical_gradient(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Return the gradient of f at x by central differences, ``(f(x + h) - f(x - h)) / 2h``.

    It evaluates f twice for each element of x, and once more to see whether it gives the same.

    Parameters
    ----------
    f
        Function of an array like x, whose result is a number or a 0-d array.
    x
        Array of any shape. An array of float64 that can be written to is varied in place, and
        restored bit by bit, so that f may also read it by reference, as the chapter's does. Of any
        other, f is given a varied copy: in float64 wherever the device has it. If f never reacts
        to that, x itself is varied, where it can be.
    h
        The step. Where the device has no float64, it is widened to the cube root of the machine
        epsilon, below which the quotient drowns in rounding. It is widened for large elements, too:
        to a share of them, the machine epsilon to the power of 2/3.

    Returns
    -------
    Array
        Of the shape of x, on its device, in the precision that was computed in.

    Raises
    ------
    DTypeError
        If x is not an array, or holds complex numbers, or f returns no number.
    SettingError
        If f is no function, or h is not positive.

    Warns
    -----
    RuntimeWarning
        If f gives the same number each time: it may read another array than the one that it is
        given. And if it reads x itself, which is then varied in its own precision; or if f is
        random, so that two equal calls differ.

    Notes
    -----
    Chapter 4 of the book; the step of the default is its choice.
    """
    require_step(h)
    if not callable(f):
        raise SettingError(f"numerical_gradient: first a function of an array, not {f!r}")
    namespace_of(x, where="numerical_gradient")
    gradient, probe = differences(f, x, h)
    if (found := probe.unequal()) is not None:
        warnings.warn(
            f"numerical_gradient: two equal calls of the function gave {found[0]:g} and "
            f"{found[1]:g}, so differences tell nothing: it is random, or changes what it reads",
            RuntimeWarning,
            stacklevel=2,
        )
        return gradient
    reacts = probe.reacts()
    advice = "let it compute with its argument, or call network.numerical_gradient(x, t)"
    if not reacts and gradient.dtype != x.dtype and is_floating(x) and _can_be_written(x):
        exact = gradient.dtype
        gradient, probe = differences(f, x, h, x.dtype)
        reacts = probe.reacts()
        if reacts:
            warnings.warn(
                "numerical_gradient: the function reads x itself, not the array of "
                f"{dtype_name(exact)} that it is given, so x was varied, in "
                f"{dtype_name(x.dtype)}, where a difference is rough: {advice}",
                RuntimeWarning,
                stacklevel=2,
            )
    if not reacts:
        warnings.warn(
            "numerical_gradient: the function gives the same number for each change of x, so the "
            "gradient is 0. If it reads another array than the one it is given (lambda W: "
            f"network.loss(x, t) does, where arrays cannot be changed in place), {advice}",
            RuntimeWarning,
            stacklevel=2,
        )
    return gradient


def differences(
    f: Callable[[Array], Any], x: Array, h: float, dtype: DType | None = None
) -> tuple[Array, "Probe"]:
    """Return the gradient as `numerical_gradient`, and what f was asked by.

    It is computed in the dtype; None is the widest.
    """
    xp, probe = namespace_of(x), Probe(f, x, dtype)
    step, count = step_for(probe.x, h), prod(x.shape)
    if longest_step(probe.x, step) > step:
        slopes = [probe.slope(i, step) for i in range(count)]
    else:
        slopes = [_quotient(probe.along(i), step) for i in range(count)]
    flat = xp.asarray(slopes, dtype=probe.x.dtype, device=device_of(x))
    return xp.reshape(flat, x.shape), probe


def _quotient(f: Callable[[float], float], h: float) -> float:
    return (f(h) - f(-h)) / (2 * h)


class Probe:
    """Evaluates f with one element of x moved by a step."""

    def __init__(self, f: Callable[[Array], Any], x: Array, dtype: DType | None = None) -> None:
        if (kind := kind_of(x)) == "complex floating":
            raise DTypeError("numerical_gradient: x is complex: give its real and imaginary parts")
        if not kind:
            raise DTypeError(f"numerical_gradient: x holds no numbers, but {dtype_name(x.dtype)}")
        dtype = dtype or widest_float(x)
        self.f = f
        x = x if x.dtype == dtype else _detached(namespace_of(x).astype(x, dtype))
        self._at = self._in_place if _can_be_written(x) else self._on_a_copy
        self.x = _detached(x)
        self._first: tuple[int, float, float] | None = None
        self._varies = False

    def along(self, i: int) -> Callable[[float], float]:
        """Return f as a function of the step that the i-th element is moved by."""
        return lambda step: self._noted(i, step, self._at(i, step))

    def reacts(self) -> bool:
        """Tell whether f gave different numbers; of no element at all, it does."""
        if self._varies or self._first is None:
            return True
        # An even function does not tell forth from back.
        return _as_number(self.f(self.x)) != self._first[2]

    def unequal(self) -> tuple[float, float] | None:
        """Return what two equal calls of f gave, if that differs by more than rounding."""
        if self._first is None:
            return None
        i, step, once = self._first
        again = self._at(i, step)
        is_same = isclose(once, again, rel_tol=share_of_step(self.x))
        return None if is_same or (isnan(once) and isnan(again)) else (once, again)

    def slope(self, i: int, h: float) -> float:
        """Return the quotient for the i-th element, by a step that moves it however large it is.

        It is divided by what the element was moved by: x + h is rounded.
        """
        element = self.x[unravel(i, self.x.shape)] * 1
        f = self.along(i)
        if not isfinite(float(element)):  # as of a class that cannot be: no step moves it
            return _quotient(f, h)
        step = max(h, share_of_step(self.x) * abs(float(element)))
        return (f(step) - f(-step)) / float((element + step) - (element - step))

    def _noted(self, i: int, step: float, result: float) -> float:
        if self._first is None:
            self._first = i, step, result
        self._varies = self._varies or result != self._first[2]
        return result

    def _in_place(self, i: int, step: float) -> float:
        index = unravel(i, self.x.shape)
        kept = namespace_of(self.x).asarray(self.x[index], copy=True)  # bit by bit, and no view
        try:
            self.x[index] = kept + step
            return _as_number(self.f(self.x))
        finally:
            self.x[index] = kept

    def _on_a_copy(self, i: int, step: float) -> float:
        return _as_number(self.f(moved(self.x, i, step)))


def _as_number(result: Any) -> float:
    if isinstance(result, float):
        return float(result)  # NumPy's is one, too
    wanted = "numerical_gradient: the function is to return a number or a 0-d array, not"
    if isinstance(result, str | bytes | bytearray):
        raise DTypeError(f"{wanted} text: {result!r}")
    if hasattr(result, "dtype") and kind_of(result) not in _REAL:
        raise DTypeError(f"{wanted} {dtype_name(result.dtype)}")
    try:
        return float(_detached(result))
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{wanted} {type(result).__name__} ({error})") from error


def _detached(x: Any) -> Any:
    """Return x without the history that PyTorch keeps for its own derivatives."""
    return x.detach() if hasattr(x, "detach") else x


def moved(x: Array, i: int, step: float) -> Array:
    """Return a copy of x whose i-th element, counted along the last axis first, is moved."""
    xp = namespace_of(x)
    positions = xp.arange(prod(x.shape), device=device_of(x))
    return xp.where(xp.reshape(positions == i, x.shape), x + step, x)


def require_step(h: float) -> None:
    """Raise `SettingError` unless h can be the step of a difference quotient."""
    if not (is_finite_number(h) and h > 0):
        raise SettingError(f"the step h is a positive number, not {h!r}")
    if h < _SMALLEST_STEP:
        raise SettingError(f"a step h of {h:g} changes no number of size 1: 1e-4 is usual")
    if h > _LARGEST_STEP:
        raise SettingError(f"a step h of {h:g} tells nothing of a slope: 1e-4 is usual")


def step_for(x: Array, h: float) -> float:
    """Return the step to take in the dtype of x: in float32 a small one drowns in rounding."""
    if dtype_name(x.dtype) == "float64":
        return h
    return max(h, cbrt(epsilon_of(x)))


def share_of_step(x: Array) -> float:
    """Return which share of a number the step is at least: a smaller one drowns in its rounding."""
    return float(cbrt(epsilon_of(x)) ** 2)


def longest_step(x: Array, h: float) -> float:
    """Return the step that the largest finite element of x needs, at least h."""
    if not prod(x.shape):
        return h
    xp = namespace_of(x)
    return max(h, share_of_step(x) * float(xp.max(xp.abs(xp.where(xp.isfinite(x), x, 0.0)))))


def _can_be_written(x: Array) -> bool:
    """Tell whether each element can be changed alone; those of an expanded tensor share memory."""
    # In place, a change would become part of its history.
    return not getattr(x, "requires_grad", False) and _keeps_what_is_written(x)


def _keeps_what_is_written(x: Array) -> bool:
    xp = namespace_of(x)
    before = xp.asarray(x, copy=True)
    numbers = xp.reshape(xp.arange(prod(x.shape), dtype=x.dtype, device=device_of(x)), x.shape)
    try:
        try:
            x[...] = numbers
            return bool(xp.all(x == numbers))
        finally:
            x[...] = before
    except Exception:  # each library refuses with an error of its own
        return False


def unravel(i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of the i-th element, counted along the last axis first."""
    index = []
    for length in reversed(shape):
        i, rest = divmod(i, length)
        index.append(rest)
    return tuple(reversed(index))


# A derivative under test -------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A derivative that somebody claims, beside the difference quotient.

    Attributes
    ----------
    claimed, numerical : float
    error : float
        How far the quotient can be off, by rounding and truncation.
    kink : bool
        Whether there is no derivative: the slopes to the left and to the right differ.
    certain : bool
        Whether a claim differs from the slopes on either side by more than they differ.
    contradicted : bool
        Whether the claim differs at this very point, but not a step aside.
    """

    claimed: float
    numerical: float
    error: float
    kink: bool = False
    certain: bool = field(default=False, compare=False)
    contradicted: bool = False

    @property
    def difference(self) -> float:
        """How far the two are apart."""
        return abs(self.claimed - self.numerical)

    @property
    def size(self) -> float:
        """The larger of the two."""
        return max(abs(self.claimed), abs(self.numerical))

    @property
    def right(self) -> bool:
        """Whether the two agree within the error."""
        return self.difference <= self.error

    def agrees_with(self, other: "Comparison") -> bool:
        """Tell whether two quotients agree within their errors."""
        return abs(self.numerical - other.numerical) <= self.error + other.error


def compare(
    claimed: float, f: Callable[[float], float], h: float, noise: float, unit: float = 0.0
) -> Comparison:
    r"""Compare a claimed derivative of f at 0 with central differences.

    Parameters
    ----------
    claimed
        The derivative under test.
    f
        A function of one number.
    h
        The first step. It is refined until the quotient has converged.
    noise
        How far f(0) can be off by rounding: see `noise_of`.
    unit
        How far a number of size 1 can be: a step adds ``h`` times the slope to what is rounded.

    Notes
    -----
    Rounding puts the quotient off by at most ``noise / h + unit * slope``, and truncation by
    :math:`T(h) = h^2 f'''/6`. Two quotients of steps 8h and h differ by :math:`63\,T(h)`, so once
    they agree within twice the rounding, what is left of the truncation is smaller than the
    rounding, and the two together than twice the rounding. No other tolerance is used: a step that
    reaches over a kink is refined until it stays on one side. Where f is flat as far as the finer
    steps reach, but rises from one to the other end of a coarser one, it is a staircase, as of
    numbers that are rounded on the way: it has no derivative either.
    """
    f = cache(f)
    has_kink = partial(_has_kink, f, h, noise, unit)
    if not isfinite(claimed):
        coarse, fine = _quotient(f, h), _quotient(f, h / REFINEMENT)
        # As of a square root at 0, whose slope is infinite.
        is_steep = not abs(coarse - fine) <= max(abs(fine), 2 * REFINEMENT * noise / h) / 2
        return Comparison(claimed, coarse, error=0.0, kink=is_steep or has_kink())
    first, coarse, steepest, rises = h, inf, abs(claimed), False
    settled: Comparison | None = None
    for refinement in range(FINEST):
        slope = _quotient(f, h)
        if not isfinite(slope):  # the step leaves what f is defined for
            found = Comparison(claimed, slope, error=0.0)
            h /= REFINEMENT
            continue
        rounding = noise / h + unit * max(abs(claimed), abs(slope))
        found = Comparison(claimed, slope, error=2 * rounding)
        steepest = max(steepest, abs(slope))
        rises = rises or abs(slope) > found.error
        if settled is not None:
            # The error tells how many steps have passed: each makes it larger, by REFINEMENT soon.
            if found.error > min(settled.difference, settled.error * REFINEMENT**DOUBTS):
                break
            if not found.agrees_with(settled):
                # Two steps that both reached over what is finer than they are.
                settled = None
        if settled is None:
            if found.right:
                is_sharp = refinement == 0 or found.error <= RESOLUTION * steepest
                if rises and slope == 0 and is_staircase(f, first, noise):
                    return replace(found, kink=True)
                return found if is_sharp else replace(found, kink=has_kink())
            if abs(coarse - found.numerical) <= found.error:
                settled = found
        coarse = found.numerical
        h /= REFINEMENT
    found = settled or found
    is_stair = (rises and found.numerical == 0) or is_staircase(f, first, noise)
    is_edge = not isfinite(found.numerical)  # of where there is a loss
    certain = all(excludes(claimed, f, h, noise, unit) for h in (first, first / REFINEMENT))
    return replace(found, kink=is_stair or is_edge or has_kink(), certain=certain)


def noise_of(epsilon: float, longest_sum: int, magnitude: float) -> float:
    """Return how far a value can be off by rounding.

    Parameters
    ----------
    epsilon
        The machine epsilon of the dtype.
    longest_sum
        The number of terms of the longest sum in the computation.
    magnitude
        The size of what is added up: the value itself, each input times the derivative with
        respect to it (an input that is off by one rounding puts the value off by as much), and 1
        for the exponentials and logarithms on the way.

    Notes
    -----
    N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002, sections 1.5 (mixed
    forward-backward error) and 3.1 (a sum of n terms is off by n roundings at most).
    """
    return (ROUNDINGS + longest_sum) * epsilon / 2 * magnitude


def is_staircase(f: Callable[[float], float], h: float, noise: float) -> bool:
    """Tell whether f is flat around almost each of some places, yet not at one height.

    Flat is what rises less between two places beside each other than rounding would hide, if it
    rose evenly. So are numbers that are rounded, or computed in a lower precision, on the way.
    """
    for length in (h * REFINEMENT**coarser for coarser in range(COARSEST)):
        if length > max(h, _FARTHEST):
            return False
        rise = max(abs(f(length) - f(0.0)), abs(f(-length) - f(0.0)))
        if not 8 * noise < rise < inf:
            continue
        heights = [f(place * length) for place in _PLACES]
        beside = length * noise / rise
        flat = [
            height
            for place, height in zip(_PLACES, heights, strict=True)
            if f(place * length - beside) == height == f(place * length + beside)
        ]
        if len(flat) < len(_PLACES) - 1:
            return False
        if len(set(flat)) > 1:
            return True
    return False


def excludes(
    claimed: float, f: Callable[[float], float], h: float, noise: float, unit: float
) -> bool:
    """Tell whether a claim is further from a quotient than a kink within the step explains."""
    slope = _quotient(f, h)
    gap = abs(f(h) - 2 * f(0.0) + f(-h)) / h
    return abs(claimed - slope) > gap + 4 * (noise / h + unit * max(abs(claimed), abs(slope)))


def _has_kink(f: Callable[[float], float], h: float, noise: float, unit: float) -> bool:
    """Tell whether the slopes to the left and to the right differ, however small the step."""
    # Curvature, too, parts the slopes, but in proportion to the step. What counts is whether they
    # still come closer when their gap is about to drown in rounding.
    gaps: list[float] = []
    for refinement in range(-2, FINEST):
        step = h / REFINEMENT**refinement
        gap = abs(f(step) - 2 * f(0.0) + f(-step)) / step
        if gap <= 16 * (noise / step + unit * abs(_quotient(f, step))):
            break
        gaps.append(gap)
    return len(gaps) > 1 and gaps[-1] > gaps[-2] / 2
