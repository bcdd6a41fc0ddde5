"""Activation functions, without which a network would be a single affine map."""

from xbp.functions import sigmoid
from xbp.layers.layer import Layer
from xbp.namespace import Array, cast_like, namespace_of
from xbp.normal_distribution import FARTHEST, normal
from xbp.settings import finite_number, positive_number


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


class Tanh(Layer):
    """The hyperbolic tangent."""

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return the hyperbolic tangent of x, of its shape and dtype."""
        self.x = x
        return namespace_of(x).tanh(x)

    def backward(self, dout: Array) -> Array:
        """Return dout divided by the square of the hyperbolic cosine of x."""
        xp = namespace_of(dout, self.x)
        # Not 1 - y², which has lost its digits where y is nearly 1.
        e = xp.exp(-2 * xp.abs(self.x))
        return dout * (4 * e / ((1 + e) * (1 + e)))


class LeakyRelu(Layer):
    """``y = x`` where x is positive, else x times a slope (Maas, Hannun and Ng, 2013).

    Its derivative at the kink, x = 0, is taken to be the slope.

    Parameters
    ----------
    slope
        A number, as a rule between 0 and 1.

    Raises
    ------
    SettingError
        If the slope is no finite number.
    """

    traceable = True
    samplewise = True

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = finite_number("LeakyRelu: slope", slope)

    def __repr__(self) -> str:
        return f"<{self.name}: slope {self.slope:g}>"

    def forward(self, x: Array) -> Array:
        """Return x where it is positive, else x times the slope; of the shape and dtype of x."""
        self.x = x
        return namespace_of(x).where(x > 0, x, self.slope * x)

    def backward(self, dout: Array) -> Array:
        """Return dout where x was positive, else dout times the slope."""
        return namespace_of(dout, self.x).where(self.x > 0, dout, self.slope * dout)


class Elu(Layer):
    """Exponential linear unit: ``y = x`` where x is positive, else ``alpha (exp(x) - 1)``.

    D.-A. Clevert, T. Unterthiner and S. Hochreiter, 2016. Its derivative at x = 0 is taken to be
    alpha.

    Parameters
    ----------
    alpha
        A positive number: y is greater than -alpha.

    Raises
    ------
    SettingError
        If alpha is no positive number.
    """

    traceable = True
    samplewise = True

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = positive_number("Elu: alpha", alpha)

    def __repr__(self) -> str:
        return f"<{self.name}: alpha {self.alpha:g}>"

    def forward(self, x: Array) -> Array:
        """Return x where it is positive, else ``alpha (exp(x) - 1)``; of its shape and dtype."""
        xp = namespace_of(x)
        self.x = x
        return xp.where(x > 0, x, self.alpha * xp.expm1(xp.minimum(x, 0)))

    def backward(self, dout: Array) -> Array:
        """Return dout where x was positive, else ``dout alpha exp(x)``."""
        xp = namespace_of(dout, self.x)
        e = xp.exp(xp.minimum(self.x, 0))
        return xp.where(self.x > 0, dout, dout * (self.alpha * e))


class Gelu(Layer):
    r"""Gaussian error linear unit: :math:`y = x \Phi(x)`, by the normal distribution.

    D. Hendrycks and K. Gimpel, 2016; not their approximations, but exact to the dtype.
    """

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return x times the normal distribution function of x, of its shape and dtype."""
        xp = namespace_of(x)
        self.density, self.cumulative = normal(x)
        # Infinity times 0 is NaN.
        self.x = xp.minimum(xp.maximum(x, -FARTHEST), FARTHEST)
        return xp.maximum(x, -FARTHEST) * self.cumulative

    def backward(self, dout: Array) -> Array:
        r"""Return :math:`(\Phi(x) + x \varphi(x))` times dout."""
        return dout * (self.cumulative + self.x * self.density)


class Silu(Layer):
    """Sigmoid linear unit: x times its sigmoid, also called swish (Elfwing et al., 2018)."""

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return x times its sigmoid, of its shape and dtype."""
        xp = namespace_of(x)
        self.gate = sigmoid(x)
        # Infinity times 0 is NaN.
        self.x = xp.minimum(xp.maximum(x, -_SATURATED), _SATURATED)
        return xp.maximum(x, -_SATURATED) * self.gate

    def backward(self, dout: Array) -> Array:
        """Return ``dout s (1 + x (1 - s))`` for the sigmoid s of x."""
        # Not 1 - s, which has lost its digits where s is nearly 1.
        return dout * (self.gate * (1 + self.x * sigmoid(-self.x)))


# Below, a sigmoid is 0 in float64; beyond, it is 1.
_SATURATED = 1000.0


class Softplus(Layer):
    """``y = log(1 + exp(x))``, a smooth rectified linear unit (Dugas et al., 2001)."""

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return ``log(1 + exp(x))``, of the shape and dtype of x."""
        xp = namespace_of(x)
        self.x = x
        positive = x >= 0
        # The exponential of a negative number cannot overflow.
        return xp.where(positive, x, 0) + xp.log1p(xp.exp(xp.where(positive, -x, x)))

    def backward(self, dout: Array) -> Array:
        """Return dout times the sigmoid of x."""
        return dout * sigmoid(self.x)
