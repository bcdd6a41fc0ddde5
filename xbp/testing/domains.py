"""What the arrays of a signature hold: labels, one-hot rows, targets, numbers of a domain."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from xbp.errors import SettingError
from xbp.settings import is_finite_number, true_or_false
from xbp.testing.sizes import Shape, Size, size_of

HostArray: TypeAlias = np.ndarray[Any, Any]

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Labels:
    """An input of integers from 0, such as labels; there is no derivative with respect to it.

    Parameters
    ----------
    shape
        The array's shape: ``("N",)``, or ``()`` for the label of one sample.
    classes
        How many integers there are, usually the name of another array's axis.
    """

    shape: Shape
    classes: Size


@dataclass(frozen=True)
class OneHot:
    """An input of one-hot rows, ``("N", "C")``, that ``backward`` returns no derivative for."""

    shape: Shape


@dataclass(frozen=True)
class Fixed:
    """A floating-point input, such as targets, that ``backward`` returns no derivative for."""

    shape: Shape


@dataclass(frozen=True)
class Nonzero:
    """A floating-point input of size 1 or more, such as a divisor, with a derivative."""

    shape: Shape


@dataclass(frozen=True)
class Values:
    """A floating-point input or parameter whose elements are of a domain.

    Parameters
    ----------
    shape
        The array's shape.
    low, high
        The smallest and the largest element; None sets no bound.
    strategy
        A function of the shape in numbers that returns a Hypothesis strategy of NumPy arrays, if
        there are no bounds. Elements are rounded to float32.
    differentiable
        Whether ``backward`` returns the derivative with respect to it.

    Raises
    ------
    SettingError
        If a bound is no finite number, no number of float32 is between them, or the strategy is no
        function, or one beside bounds.
    """

    shape: Shape
    low: float | None = None
    high: float | None = None
    strategy: Callable[[tuple[int, ...]], Any] | None = None
    differentiable: bool = True

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        for which, bound in (("low", low), ("high", high)):
            if bound is not None and not is_finite_number(bound):
                raise SettingError(
                    f"Values: {which} is a number, or None where there is no bound, not {bound!r}"
                )
        if low is not None and high is not None and not low < high:
            raise SettingError(f"Values: low is less than high, not {low!r} and {high!r}")
        least, most = inner_bounds(self)
        if not least <= most or least == np.inf or most == -np.inf:
            raise SettingError(
                f"Values: float32 has no number from {low} to {high}: give bounds further apart"
            )
        true_or_false("Values: differentiable", self.differentiable)
        if self.strategy is not None and not callable(self.strategy):
            raise SettingError(
                f"Values: strategy is a function of a shape, lambda shape: ..., not "
                f"{self.strategy!r}"
            )
        if self.strategy is not None and not low is high is None:
            raise SettingError(
                "Values: bounds, or a strategy that draws within them, but not both, since it "
                "takes no notice of low= and high="
            )


Input: TypeAlias = Shape | Labels | OneHot | Fixed | Nonzero | Values
Parameter: TypeAlias = Shape | Nonzero | Values


def is_differentiable(kind: Input) -> bool:
    """Tell whether ``backward`` returns the derivative with respect to such an input."""
    if isinstance(kind, Values):
        return kind.differentiable
    return isinstance(kind, tuple | Nonzero)


def described(kind: Input) -> str:
    """Return a kind and its shape as text: ``"values 0.1..100 N D"``."""
    if isinstance(kind, tuple):
        return " ".join(map(str, kind)) or "0-d"
    words = {Labels: "labels", OneHot: "one-hot", Fixed: "fixed", Nonzero: "nonzero"}
    if isinstance(kind, Values):
        bounds = ("" if it is None else f"{it:g}" for it in (kind.low, kind.high))
        word = "values" if kind.strategy else f"values {'..'.join(bounds)}"
    else:
        word = words[type(kind)]
    return " ".join([word, *map(str, kind.shape)])


# Numbers -----------------------------------------------------------------------------------------


def rounded(values: Any) -> HostArray:
    """Return numbers of float32 as an array of float64."""
    return np.asarray(np.float32(values), dtype=np.float64)


def inner_bounds(kind: Values) -> tuple[float, float]:
    """Return the first and the last number of float32 in a domain; infinite where it is open."""
    low = -np.inf if kind.low is None else _inner(kind.low, np.inf)
    high = np.inf if kind.high is None else _inner(kind.high, -np.inf)
    return low, high


def _inner(bound: float, towards: float) -> float:
    """Return the number of float32 that is nearest to a bound, on the side of the domain."""
    with np.errstate(over="ignore"):
        nearest = np.float32(bound)
    is_outside = float(nearest) < bound if towards > 0 else float(nearest) > bound
    return float(np.nextafter(nearest, np.float32(towards)) if is_outside else nearest)


def within(kind: Values, values: Any) -> HostArray:
    """Return numbers of float32 that are moved into the bounds."""
    return np.asarray(np.clip(rounded(values), *inner_bounds(kind)))


def other_values(kind: Input, value: HostArray) -> HostArray:
    """Return other numbers of the same domain; those of labels and one-hot rows are the same."""
    if isinstance(kind, Labels | OneHot):
        return value
    turned = np.flip(value)
    if not isinstance(kind, Values):
        return -turned
    if kind.strategy is not None:
        return turned
    if kind.low is not None and kind.high is not None:
        return within(kind, kind.low + kind.high - turned)
    bound = kind.low if kind.low is not None else kind.high
    return -turned if bound is None else rounded(2 * turned - bound)


def real_numbers(where: str, values: object) -> HostArray:
    """Return real numbers that float32 holds, not rounded yet.

    Raises
    ------
    SettingError
        If the values are no such numbers.
    """
    if np.ma.is_masked(values):
        raise SettingError(f"{where} is a masked array: give a number in each place")
    try:
        array = np.asarray(values)
        if array.dtype == object and all(isinstance(it, int) for it in array.flat):
            array = np.asarray(array, np.float64)  # too large for an integer of NumPy
        is_real = array.dtype.kind in "biuf"
    except (TypeError, ValueError, OverflowError) as error:
        raise SettingError(f"{where} is no array of numbers, nested evenly ({error})") from error
    if not is_real:
        raise SettingError(f"{where} is an array of real numbers, not {values!r}")
    array = np.asarray(array, np.float64)
    if not np.all(abs(array) <= _LARGEST_FLOAT32):
        odd = array[~(abs(array) <= _LARGEST_FLOAT32)].flat[0]
        raise SettingError(f"{where} holds {odd}: each element is a finite number of float32")
    return array


def values_of(where: str, kind: Input, values: object, sizes: Mapping[str, int]) -> HostArray:
    """Return values that an author gives for an array, as they are tried.

    Raises
    ------
    SettingError
        If they are no numbers, or not of the domain.
    """
    array = real_numbers(where, values)
    if isinstance(kind, Labels):
        return _labels(where, kind, np.asarray(values), sizes)
    if isinstance(kind, OneHot):
        is_one_hot = np.all((array == 0) | (array == 1)) and np.all(array.sum(axis=-1) == 1)
        if not is_one_hot:
            raise SettingError(
                f"{where} holds one-hot rows, a 1 in each and else 0, not {array.tolist()}"
            )
    if isinstance(kind, Nonzero) and not np.all(rounded(array)):
        raise SettingError(f"{where} is Nonzero in the signature, and holds 0: {array.tolist()}")
    if not isinstance(kind, Values) or kind.strategy is not None:
        return rounded(array)
    low = -np.inf if kind.low is None else kind.low
    high = np.inf if kind.high is None else kind.high
    if not np.all((low <= array) & (array <= high)):
        raise SettingError(f"{where} is from {low:g} to {high:g}, not {array.tolist()}")
    return within(kind, array)


def _labels(where: str, kind: Labels, labels: HostArray, sizes: Mapping[str, int]) -> HostArray:
    most = size_of(kind.classes, sizes)
    if labels.dtype.kind not in "iu" or np.any((labels < 0) | (labels >= most)):
        raise SettingError(
            f"{where} holds labels, integers from 0 to {most - 1}, not {labels.tolist()}"
        )
    return labels
