"""Numerical derivatives by central differences, with a bound of the error of each."""

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
)
from xbp.precision import widest_float
from xbp.settings import is_finite_number

# The roundings of an elementary function or of a few operations. A sum adds one for each term.
ROUNDINGS = 8

# The factor from one step to the next finer one, and the number of steps: after so many, a first
# step of 0.01 no longer changes a number of size 1.
REFINEMENT = 8
FINEST = 16

# How many step lengths, from the first step up, `is_staircase` tries.
COARSEST = 5

# The longest of them, unless the first is longer: further away a correct layer may be flat at
# another height, with other units active.
_FARTHEST = 0.5

# Where `is_staircase` evaluates the function, as fractions of a step.
_PLACES = (0.0, 0.83, -0.71, 0.47, -0.39)

# A stair as wide as the first step refined so often is wider than those of float32.
_WIDE = 5

# How many finer steps have to confirm a quotient before it counts against a claim.
DOUBTS = 3

# If the error is a larger part of the steepest slope, a quotient that agrees proves little: the
# step may have been refined just until it stayed on one side of a kink.
RESOLUTION = 1e-3

# Of float64: twice the machine epsilon.
_SMALLEST_STEP = 2.0**-51

# A longer step may overflow in float32, or leave the domain of the loss.
_LARGEST_STEP = 1e3

# The kinds of dtypes that hold real numbers.
_REAL = ("bool", "integral", "real floating")

# The default for how many bytes, roughly, may be used to move many elements at once.
MEMORY = 2.0**26


def numerical_gradient(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Return the gradient of f at x by central differences, ``(f(x + h) - f(x - h)) / 2h``.

    It evaluates f twice for each element of x, and again to see whether it is random or constant.

    Parameters
    ----------
    f
        Function of an array like x that returns a number or a 0-d array.
    x
        Array of any shape. If it is writable and in float64, or the device has no float64, it is
        changed in place and restored bit for bit, so that f may read it by reference, as the book's
        function does. Otherwise f gets a changed copy, in float64 if the device has it. If f does
        not react to that, x itself is changed, if it is writable.
    h
        The step. Without float64 on the device, it is at least the cube root of the machine
        epsilon, since rounding spoils the quotient of a shorter step. For an element x_i it is at
        least the machine epsilon to the power of 2/3, times abs(x_i).

    Returns
    -------
    Array
        Of the shape of x, on its device, in the dtype of the computation.

    Raises
    ------
    DTypeError
        If x is not an array of numbers, or is complex, or f does not return a number.
    SettingError
        If f cannot be called, or h is not a number from 2**-51 to 1000.

    Warns
    -----
    RuntimeWarning
        If f returns the same number each time, since it may read another array than its argument;
        if f reads x itself, which is then changed in its own precision; or if f is random, so that
        two equal calls differ.

    Notes
    -----
    Chapter 4 of the book, which also uses the default step.
    """
    require_step(h)
    if not callable(f):
        raise SettingError(f"numerical_gradient: first a function of an array, not {f!r}")
    namespace_of(x, where="numerical_gradient")
    gradient, probe = differences(f, x, h)
    if (results := probe.unequal()) is not None:
        warnings.warn(
            f"numerical_gradient: two equal calls of the function gave {results[0]:g} and "
            f"{results[1]:g}, so differences tell nothing: it is random, or changes what it reads",
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
    """Return the gradient as `numerical_gradient` does, and the `Probe` that evaluated f.

    It is computed in the given dtype; None takes the widest floating-point dtype.
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
        """Return f as a function of a step that is added to the i-th element."""
        return lambda step: self._record(i, step, self._at(i, step))

    def reacts(self) -> bool:
        """Tell whether f gave different numbers; True if x has no elements."""
        if self._varies or self._first is None:
            return True
        # An even function gives the same for both signs of a step, but another number at x.
        return _as_number(self.f(self.x)) != self._first[2]

    def unequal(self) -> tuple[float, float] | None:
        """Return the results of two equal calls of f if they differ by more than rounding."""
        if self._first is None:
            return None
        i, step, once = self._first
        again = self._at(i, step)
        is_same = isclose(once, again, rel_tol=share_of_step(self.x))
        return None if is_same or (isnan(once) and isnan(again)) else (once, again)

    def slope(self, i: int, h: float) -> float:
        """Return the quotient for the i-th element, with a longer step if the element is large.

        The divisor is the distance between the two points as they are rounded, not ``2h``.
        """
        element = self.x[unravel(i, self.x.shape)] * 1
        f = self.along(i)
        if not isfinite(float(element)):  # as an impossible class's score: no step changes it
            return _quotient(f, h)
        step = max(h, share_of_step(self.x) * abs(float(element)))
        return (f(step) - f(-step)) / float((element + step) - (element - step))

    def _record(self, i: int, step: float, result: float) -> float:
        if self._first is None:
            self._first = i, step, result
        self._varies = self._varies or result != self._first[2]
        return result

    def _in_place(self, i: int, step: float) -> float:
        index = unravel(i, self.x.shape)
        element = namespace_of(self.x).asarray(self.x[index], copy=True)  # bit by bit, and no view
        try:
            self.x[index] = element + step
            return _as_number(self.f(self.x))
        finally:
            self.x[index] = element

    def _on_a_copy(self, i: int, step: float) -> float:
        return _as_number(self.f(moved(self.x, i, step)))


def _as_number(result: Any) -> float:
    if isinstance(result, float):
        return float(result)  # numpy.float64 is a float, too
    complaint = "numerical_gradient: the function is to return a number or a 0-d array, not"
    if isinstance(result, str | bytes | bytearray):
        raise DTypeError(f"{complaint} text: {result!r}")
    if hasattr(result, "dtype") and kind_of(result) not in _REAL:
        raise DTypeError(f"{complaint} {dtype_name(result.dtype)}")
    try:
        return float(_detached(result))
    except (TypeError, ValueError) as error:
        raise DTypeError(f"{complaint} {type(result).__name__} ({error})") from error


def _detached(x: Any) -> Any:
    """Return a PyTorch tensor without its autograd history, and any other x as it is."""
    return x.detach() if hasattr(x, "detach") else x


def moved(x: Array, i: int, step: float) -> Array:
    """Return a copy of x with a step added to the i-th element, in row-major order."""
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
    """Return the step for the dtype of x: longer than h where rounding would spoil the quotient."""
    if dtype_name(x.dtype) == "float64":
        return h
    return max(h, cbrt(epsilon_of(x)))


def share_of_step(x: Array) -> float:
    """Return the shortest step for an element, divided by its size: epsilon to the power 2/3."""
    return float(cbrt(epsilon_of(x)) ** 2)


def longest_step(x: Array, h: float) -> float:
    """Return the step that the largest finite element of x needs, at least h."""
    if not prod(x.shape):
        return h
    xp = namespace_of(x)
    return max(h, share_of_step(x) * float(xp.max(xp.abs(xp.where(xp.isfinite(x), x, 0.0)))))


def _can_be_written(x: Array) -> bool:
    """Tell whether each element can be changed by itself, unlike those of an expanded tensor."""
    # Autograd would record a change in place.
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
    except Exception:  # each library raises an error of its own
        return False


def unravel(i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of the i-th element in row-major order."""
    index = []
    for length in reversed(shape):
        i, rest = divmod(i, length)
        index.append(rest)
    return tuple(reversed(index))


# A derivative under test -------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A claimed derivative and its difference quotient.

    Attributes
    ----------
    claimed, numerical : float
        The derivative under test, and the difference quotient.
    error : float
        A bound of the quotient's error, by rounding and truncation.
    kink : bool
        Whether there is no derivative: the slopes to the left and to the right differ.
    certain : bool
        Whether the claim is wrong even if there is a kink within the step.
    contradicted : bool
        Whether the claim is wrong at this very point, but right a step aside.
    outside : bool
        Whether there is a kink, and the claim lies outside of the slopes on its two sides; or a
        staircase that rises otherwise, whatever the step.
    """

    claimed: float
    numerical: float
    error: float
    kink: bool = False
    certain: bool = field(default=False, compare=False)
    contradicted: bool = False
    outside: bool = field(default=False, compare=False)

    @property
    def difference(self) -> float:
        """The absolute difference of claim and quotient."""
        return abs(self.claimed - self.numerical)

    @property
    def size(self) -> float:
        """The larger absolute value of claim and quotient."""
        return max(abs(self.claimed), abs(self.numerical))

    @property
    def right(self) -> bool:
        """Whether claim and quotient agree within the error."""
        return self.difference <= self.error

    def agrees_with(self, other: "Comparison") -> bool:
        """Tell whether the quotients of two comparisons agree within their errors."""
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
        A bound of the rounding error of f(0): see `noise_of`.
    unit
        The same for a number of size 1; over a step, f changes by ``h`` times the slope.

    Notes
    -----
    The quotient's rounding error is at most ``noise / h + unit * slope``, its truncation error is
    :math:`T(h) = h^2 f'''/6`. Quotients with steps 8h and h differ by :math:`63\,T(h)`. So once
    they agree within twice the rounding error, the truncation error is smaller than the rounding
    error, and both together are smaller than twice the rounding error. There is no other tolerance.
    A step that reaches over a kink is refined until it stays on one side. If f is constant over the
    finer steps, but not over a coarser one, it is a staircase, as when intermediate results are
    rounded to few digits: it has no derivative either.
    """
    f = cache(f)
    has_kink = partial(_has_kink, f, h, noise, unit)
    if not isfinite(claimed):
        coarse, fine = _quotient(f, h), _quotient(f, h / REFINEMENT)
        # The slope may be infinite, as that of a square root at 0.
        is_steep = not abs(coarse - fine) <= max(abs(fine), 2 * REFINEMENT * noise / h) / 2
        return Comparison(claimed, coarse, error=0.0, kink=is_steep or has_kink())
    first, coarse, steepest, rises = h, inf, abs(claimed), False
    candidate: Comparison | None = None
    for refinement in range(FINEST):
        slope = _quotient(f, h)
        if not isfinite(slope):  # the step leaves the domain of f
            comparison = Comparison(claimed, slope, error=0.0)
            h /= REFINEMENT
            continue
        rounding = noise / h + unit * max(abs(claimed), abs(slope))
        comparison = Comparison(claimed, slope, error=2 * rounding)
        steepest = max(steepest, abs(slope))
        rises = rises or abs(slope) > comparison.error
        if candidate is not None:
            # With each finer step the error grows, soon by a factor of REFINEMENT: it counts them.
            if comparison.error > min(candidate.difference, candidate.error * REFINEMENT**DOUBTS):
                break
            if not comparison.agrees_with(candidate):
                # The two steps that agreed were both too long for the details of f.
                candidate = None
        if candidate is None:
            if comparison.right:
                is_sharp = refinement == 0 or comparison.error <= RESOLUTION * steepest
                if rises and slope == 0 and is_staircase(f, first, noise):
                    return replace(comparison, kink=True)
                return comparison if is_sharp else replace(comparison, kink=has_kink())
            if abs(coarse - comparison.numerical) <= comparison.error:
                candidate = comparison
        coarse = comparison.numerical
        h /= REFINEMENT
    comparison = candidate or comparison
    is_stair = (rises and comparison.numerical == 0) or is_staircase(f, first, noise)
    is_edge = not isfinite(comparison.numerical)  # of the domain of f
    certain = all(excludes(claimed, f, h, noise, unit) for h in (first, first / REFINEMENT))
    kink = is_stair or is_edge or has_kink()
    outside = kink and not is_edge
    if is_stair:
        outside = outside and certain and _is_far_from_all(claimed, f, first)
    else:
        outside = outside and _outside(claimed, f, first, noise, unit)
    return replace(comparison, kink=kink, certain=certain, outside=outside)


def turns_close_by(
    claimed: float,
    numerical: float,
    f: Callable[[float], float],
    h: float,
    noise: float,
    unit: float,
) -> bool:
    """Tell whether a claim is right of finer steps, although not of those that gave a quotient.

    So it is of a softmax of large numbers: it turns over from one to another within a step that is
    short for the numbers, and is flat on both sides. Two steps have to say so, and each as sharply
    as the quotient says otherwise.

    Parameters
    ----------
    claimed, numerical
        The derivative under test, and the quotient that differs from it.
    f, h, unit
        As of `compare`.
    noise
        How large the rounding errors of f(0) were seen to be: less than a bound of them, as a rule.
    """
    apart = abs(claimed - numerical)
    doubt, said = (apart if isfinite(apart) else abs(claimed)) / REFINEMENT, 0
    for _ in range(FINEST):
        h /= REFINEMENT
        slope = _quotient(f, h)
        values = max(abs(f(h)), abs(f(-h)))
        error = 2 * (max(noise, unit * values) / h + unit * max(abs(claimed), abs(slope)))
        said = said + 1 if abs(claimed - slope) <= error <= doubt else 0
        if said > 1:
            return True
    return False


def noise_of(epsilon: float, longest_sum: int, magnitude: float) -> float:
    """Return a bound of the rounding error of a value.

    Parameters
    ----------
    epsilon
        The machine epsilon of the dtype.
    longest_sum
        The number of terms of the longest sum in the computation.
    magnitude
        The sum of the absolute values of: the value itself; each input times the derivative with
        respect to it, since a rounding error of the input changes the value in proportion to that;
        and 1 for exponentials and logarithms in between.

    Notes
    -----
    N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002, sections 1.5 (mixed
    forward-backward error) and 3.1 (a sum of n terms is off by n roundings at most).
    """
    return (ROUNDINGS + longest_sum) * epsilon / 2 * magnitude


def is_staircase(f: Callable[[float], float], h: float, noise: float) -> bool:
    """Tell whether f is constant around all of a few places, or all but one, yet differs there.

    Constant means over a distance in which f would change by ``noise`` if it rose evenly. Functions
    whose intermediate results are rounded, or in a lower precision, are such staircases.
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
        # One height on each side of 0, and an edge at 0, are a jump.
        if len(set(flat)) > 1 + (len(flat) < len(_PLACES)):
            return True
    return False


def excludes(
    claimed: float, f: Callable[[float], float], h: float, noise: float, unit: float
) -> bool:
    """Tell whether a claim differs from the quotient by more than a kink within the step allows."""
    slope = _quotient(f, h)
    gap = abs(f(h) - 2 * f(0.0) + f(-h)) / h
    return abs(claimed - slope) > gap + 4 * (noise / h + unit * max(abs(claimed), abs(slope)))


def _is_far_from_all(claimed: float, f: Callable[[float], float], h: float) -> bool:
    """Tell whether no quotient over several steps of a staircase agrees with a claim to a tenth.

    On a stair that is wide, as those of a number that is rounded to integers, the derivative is 0.
    """
    far = h / REFINEMENT**_WIDE
    near = far / REFINEMENT  # f may jump at 0
    rise = max(abs(f(far) - f(near)), abs(f(-far) - f(-near)))
    if claimed == 0 and rise <= abs(f(far) - f(-far)) / 100:
        return False
    slopes = []
    for refinement in range(FINEST):
        step = h / REFINEMENT**refinement
        if f(0.0) in (f(step), f(-step)):  # it does not leave the stair
            break
        slopes.append(_quotient(f, step))
    # Over the last one or two stairs a quotient says little.
    near = 0.1 * abs(claimed)
    return len(slopes) > 1 and not any(abs(claimed - slope) <= near for slope in slopes[:-1])


def _outside(
    claimed: float, f: Callable[[float], float], h: float, noise: float, unit: float
) -> bool:
    """Tell whether a claim lies outside of the slopes to the left and to the right of 0.

    By more than their rounding, and than they still change from one step to the next finer one. The
    slopes are taken beside 0, since f may jump there.
    """
    coarse: tuple[float, float] | None = None
    outside, distance = 0, 0.0
    for refinement in range(FINEST):
        step = h / REFINEMENT**refinement
        near = step / REFINEMENT
        slopes = (f(-near) - f(-step)) / (step - near), (f(step) - f(near)) / (step - near)
        steepest = max(map(abs, (claimed, *slopes)))
        margin = 4 * (noise / (step - near) + unit * steepest)
        # A finer step counts more, since a long one may reach over many kinks, as long as it tells
        # so much as the distance.
        if not margin < (distance if outside else steepest) / 2:
            break
        if coarse is not None:
            margin += max(abs(a - b) for a, b in zip(coarse, slopes, strict=True))
            distance = max(min(slopes) - claimed, claimed - max(slopes))
            outside = outside + 1 if distance > margin else 0
        coarse = slopes
    return outside >= DOUBTS


def _has_kink(f: Callable[[float], float], h: float, noise: float, unit: float) -> bool:
    """Tell whether the slopes to the left and to the right differ, however small the step."""
    # Curvature makes the slopes differ, too, but in proportion to the step. It is a kink if the gap
    # no longer shrinks at the finest steps at which it is larger than the rounding error. A long
    # step may find f as it is at 0, if f is periodic.
    gaps: list[float] = []
    for refinement in range(-2, FINEST):
        step = h / REFINEMENT**refinement
        gap = abs(f(step) - 2 * f(0.0) + f(-step)) / step
        if gap > 16 * (noise / step + unit * abs(_quotient(f, step))):
            gaps.append(gap)
        elif gaps or refinement > 0:
            break
    return (len(gaps) > 1 and gaps[-1] > gaps[-2] / 2) or _jumps(f, h, noise)


def _jumps(f: Callable[[float], float], h: float, noise: float) -> bool:
    """Tell whether f jumps at 0: it rises as much over the finest step as over a longer one."""
    fine, coarse = (
        abs(f(step) - f(-step)) for step in (h / REFINEMENT ** (FINEST - 1), h / REFINEMENT**3)
    )
    return fine > 16 * noise and fine > coarse / 2
