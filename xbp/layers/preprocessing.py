"""What stands before the first layer that learns."""

from xbp.errors import DTypeError, SettingError
from xbp.layers.layer import Layer
from xbp.namespace import Array, is_floating, namespace_of
from xbp.settings import is_finite_number


class Rescale(Layer):
    """``y = x / divisor``: brings raw data, such as pixels of 0 to 255, to the size of 1.

    As the first layer it lets data stay as small as they come, a byte for a pixel: only a
    mini-batch is ever turned into floating-point numbers, on the device.

    Parameters
    ----------
    divisor
        A number other than 0; 255 for pixels that are bytes.
    dtype
        What integers are turned into: ``"float32"`` or ``"float64"``. Floating-point numbers keep
        their dtype.

    Raises
    ------
    SettingError, DTypeError
        If divisor or dtype is another.
    """

    traceable = True
    samplewise = True
    takes_integers = True

    def __init__(self, divisor: float = 255, dtype: str = "float32") -> None:
        if not is_finite_number(divisor) or divisor == 0:
            raise SettingError(f"Rescale: the divisor is a number other than 0, not {divisor!r}")
        if dtype not in ("float32", "float64"):
            raise DTypeError(f"Rescale: the dtype is 'float32' or 'float64', not {dtype!r}")
        self.divisor = float(divisor)
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"<{self.name}: divides by {self.divisor:g}>"

    def forward(self, x: Array) -> Array:
        """Return ``x / divisor``, of the shape of x."""
        if is_floating(x):
            return x / self.divisor
        xp = namespace_of(x)
        y = xp.astype(x, getattr(xp, self.dtype))
        y /= self.divisor
        return y

    def backward(self, dout: Array) -> Array:
        """Return ``dout / divisor``."""
        return dout / self.divisor
