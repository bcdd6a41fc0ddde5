"""Layers that prepare data for the first layer with parameters."""

from xbp.errors import DTypeError, SettingError
from xbp.layers.layer import Layer
from xbp.namespace import Array, is_floating, namespace_of
from xbp.settings import is_finite_number


class Rescale(Layer):
    """``y = x / divisor``: scales raw data, such as pixels from 0 to 255, to the size of 1.

    As the first layer it saves memory: the data can stay integers, such as a byte for each pixel.
    Only one mini-batch at a time is converted to floating-point numbers, on the device.

    Parameters
    ----------
    divisor
        A finite number other than 0; 255 for pixels that are bytes.
    dtype
        The dtype that integers are converted to, ``"float32"`` or ``"float64"``. Floating-point
        numbers keep their dtype.

    Raises
    ------
    SettingError
        If divisor is not such a number.
    DTypeError
        If dtype is not one of the two.
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
