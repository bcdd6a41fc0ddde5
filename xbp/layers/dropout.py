"""Dropout: some features are left out while a network learns."""

from xbp.errors import DTypeError, SettingError
from xbp.layers.layer import Layer
from xbp.namespace import Array, dtype_name, namespace_of
from xbp.randomness import random_key, uniform_like
from xbp.settings import is_finite_number


class Dropout(Layer):
    """Sets each element to 0 with some probability, while the network learns.

    N. Srivastava et al., Dropout, Journal of Machine Learning Research 15 (2014); chapter 6 of the
    book. The others are divided by the probability that they stay, so that the mean is the same;
    then nothing is left to do to infer. The book scales there instead.

    Parameters
    ----------
    ratio
        The probability, 0 or more and less than 1.
    seed
        An integer from 0 to 2⁶⁴ - 1: the same seed leaves out the same elements in each library,
        and after a resume. None takes an unpredictable one. Give two layers two seeds.

    Raises
    ------
    SettingError
        If ratio or seed is no such number.
    """

    state_names = ("key",)
    traceable = True
    samplewise = True

    def __init__(self, ratio: float = 0.5, *, seed: int | None = None) -> None:
        if not (is_finite_number(ratio) and 0 <= ratio < 1):
            raise SettingError(
                f"Dropout: ratio is a probability, 0 or more and less than 1, not {ratio!r}"
            )
        self.ratio = float(ratio)
        self.key = random_key(seed)

    def __repr__(self) -> str:
        return f"<{self.name}: ratio {self.ratio:g}>"

    def forward(self, x: Array) -> Array:
        """Return x with some elements 0, of the shape and dtype of x. The key becomes the next.

        Raises
        ------
        DTypeError
            If x is neither float32 nor float64.
        """
        if dtype_name(x.dtype) not in ("float32", "float64"):
            raise DTypeError(f"{self.name}: x is float32 or float64, not {dtype_name(x.dtype)}")
        numbers, self.key = uniform_like(x, self.key)
        self.mask = namespace_of(x).astype(numbers >= self.ratio, x.dtype) / (1 - self.ratio)
        return x * self.mask

    def infer(self, x: Array) -> Array:
        """Return x."""
        return x

    def backward(self, dout: Array) -> Array:
        """Return dout, 0 where x was left out."""
        return dout * self.mask
