"""Changes of all gradients between backpropagation and the update."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TypeAlias

from xbp.errors import SettingError
from xbp.namespace import Array, cast_like, namespace_of
from xbp.settings import SMALLEST_FLOAT32, positive_number

# From gradients by key to others.
Change: TypeAlias = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class ClipNorm:
    """Makes all gradients shorter by one factor, so that their norm is at most a limit.

    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013, algorithm 1.

    Parameters
    ----------
    limit
        The largest norm: the root of the sum of the squares of all elements of all gradients.

    Raises
    ------
    SettingError
        If it is not positive, or so small that some devices take it for 0.
    """

    limit: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", _limit("clip_norm", self.limit))

    def __call__(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients, each of its own dtype."""
        if not gradients:
            return {}
        # The square of a large element may be infinite, and that of a small one 0.
        wide = [_at_least_float32(dW) for dW in gradients.values()]
        xp = namespace_of(wide[0])
        largest = reduce(xp.maximum, [xp.max(xp.abs(dW)) for dW in wide])
        unit = xp.where(largest > 0, largest, 1.0)
        norm = unit * xp.sqrt(reduce(add, [xp.sum((dW / unit) ** 2) for dW in wide]))
        limit = min(self.limit, float(xp.finfo(norm.dtype).max))
        factor = limit / xp.maximum(norm, limit)
        return {key: cast_like(factor, like=dW) * dW for key, dW in gradients.items()}


@dataclass(frozen=True)
class ClipValue:
    """Brings each element of each gradient between a limit and its negative.

    Parameters
    ----------
    limit
        The largest absolute value.

    Raises
    ------
    SettingError
        If it is not positive, or so small that some devices take it for 0.
    """

    limit: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", _limit("clip_value", self.limit))

    def __call__(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients, each of its own dtype; NaN stays."""
        clipped = {}
        for key, dW in gradients.items():
            xp = namespace_of(dW)
            limit = min(self.limit, float(xp.finfo(dW.dtype).max))
            clipped[key] = xp.maximum(xp.minimum(dW, limit), -limit)
        return clipped


def _limit(name: str, limit: float) -> float:
    """Return a limit as a number of Python; raise `SettingError` if it is none."""
    if positive_number(name, limit) < SMALLEST_FLOAT32:
        raise SettingError(f"{name} is at least {SMALLEST_FLOAT32:.2g}, not {limit!r}")
    return float(limit)


def _at_least_float32(gradient: Array) -> Array:
    xp = namespace_of(gradient)
    return xp.astype(gradient, xp.result_type(gradient.dtype, xp.float32))


def changes(*, clip_norm: float | None, clip_value: float | None) -> list[ClipValue | ClipNorm]:
    """Return the changes that limits ask for, in their order."""
    by_value = [] if clip_value is None else [ClipValue(clip_value)]
    by_norm = [] if clip_norm is None else [ClipNorm(clip_norm)]
    return [*by_value, *by_norm]
