"""A layer that makes rows of images."""

from math import prod

from xbp.errors import ShapeError
from xbp.layers.layer import Layer
from xbp.namespace import Array, namespace_of


class Flatten(Layer):
    """Each sample of a batch in one row: ``(N, C, H, W)`` becomes ``(N, C H W)``."""

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return x as ``(N, D)``, in its dtype.

        Raises
        ------
        ShapeError
            If x is no batch, but a single number.
        """
        if x.ndim == 0:
            raise ShapeError(f"{self.name}: a batch (N, ...) is needed, got a number")
        return namespace_of(x).reshape(x, (x.shape[0], prod(x.shape[1:])))

    def backward(self, dout: Array) -> Array:
        """Return dout in the shape of x."""
        return namespace_of(dout).reshape(dout, self.input_shape)
