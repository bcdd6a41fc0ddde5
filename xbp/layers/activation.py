"""Activation functions, without which a network would be a single affine map."""

from xbp.functions import sigmoid
from xbp.layers.layer import Layer
from xbp.namespace import Array, cast_like, namespace_of


class Relu(Layer):
    """Rectified linear unit: ``y = x`` where x is positive, else 0.

    Its derivative at the kink, x = 0, is taken to be 0.
    """

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return ``max(x, 0)``, of the shape and dtype of x."""
        self.out = namespace_of(x).maximum(x, 0)
        return self.out

    def backward(self, dout: Array) -> Array:
        """Return dout where x was positive, else 0; of the dtype of dout."""
        # Not a product of dout with 0 and 1, since infinity times 0 is NaN.
        return namespace_of(dout, self.out).where(self.out > 0, dout, 0)


class Sigmoid(Layer):
    """The logistic function, ``y = 1 / (1 + exp(-x))``."""

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return the sigmoid of x, of its shape and dtype."""
        self.out = sigmoid(x)
        return self.out

    def backward(self, dout: Array) -> Array:
        """Return ``dout * (1 - y) * y``."""
        return cast_like(dout, like=self.out) * (1.0 - self.out) * self.out
