"""Changes of gradients: what is done to all of them, between backpropagation and the update."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from xbp.namespace import Array, cast_like, namespace_of
from xbp.settings import positive_number

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
        Of the root of the sum of the squares of all elements of all gradients.

    Raises
    ------
    SettingError
        If it is not positive.
    """

    limit: float

    def __post_init__(self) -> None:
        positive_number("clip_norm", self.limit)

    def __call__(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients, each of its own dtype."""
        squares = [_sum_of_squares(gradient) for gradient in gradients.values()]
        if not squares:
            return {}
        total = squares[0]
        for square in squares[1:]:
            total = total + square
        xp = namespace_of(total)
        factor = self.limit / xp.maximum(xp.sqrt(total), self.limit)
        return {key: cast_like(factor, like=dW) * dW for key, dW in gradients.items()}


def _sum_of_squares(gradient: Array) -> Array:
    xp = namespace_of(gradient)
    wide = xp.astype(gradient, xp.result_type(gradient.dtype, xp.float32))
    return xp.sum(wide * wide)
