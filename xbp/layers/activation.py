"""Activation functions: what makes a network more than one affine map."""

from xbp.functions import sigmoid
from xbp.layers.layer import Layer
from xbp.namespace import Array, cast_like, namespace_of, require_floating


class Relu(Layer):
    """Rectified linear unit: ``y = x`` where x is positive, else 0.

    Its derivative at the kink, x = 0, is taken to be 0.
    """

    traceable = True
    samplewise = True
    out: Array = None

    def forward(self, x: Array) -> Array:
        """Return ``max(x, 0)``, of the shape and dtype of x.

        Raises
        ------
        DTypeError
            If x is not an array of floating-point numbers.
        """
        xp = namespace_of(x, where=self.name)
        require_floating(x, self.name)
        self.output_shape = x.shape
        self.out = xp.maximum(x, 0)
        return self.out

    def backward(self, dout: Array) -> Array:
        """Return dout where x was positive, else 0; of the dtype of dout.

        Raises
        ------
        CallOrderError, ShapeError, MixedBackendError
        """
        xp = self._check_dout(dout, self.out)
        # Not a product with 0 and 1: an infinite dout times 0 would be NaN.
        return xp.where(self.out > 0, dout, 0)


class Sigmoid(Layer):
    """The logistic function, ``y = 1 / (1 + exp(-x))``."""

    traceable = True
    samplewise = True
    out: Array = None

    def forward(self, x: Array) -> Array:
        """Return the sigmoid of x, of its shape and dtype.

        Raises
        ------
        DTypeError
            If x is not an array of floating-point numbers.
        """
        namespace_of(x, where=self.name)
        require_floating(x, self.name)
        self.output_shape = x.shape
        self.out = sigmoid(x)
        return self.out

    def backward(self, dout: Array) -> Array:
        """Return ``dout * (1 - y) * y``.

        Raises
        ------
        CallOrderError, ShapeError, MixedBackendError
        """
        self._check_dout(dout, self.out)
        return cast_like(dout, like=self.out) * (1.0 - self.out) * self.out
