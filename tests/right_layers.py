"""Layers that are right, in the forms in which textbooks write them: the kit accuses none of them.

Their mathematics is ill-conditioned here and there: a variance of nearly equal numbers, a softmax
of scores that are far apart, a norm of numbers near 0.
"""

from typing import Any

from xbp.layers import Layer
from xbp.namespace import Array, namespace_of
from xbp.testing import Fixed, Signature, Values


class Scale(Layer):
    """Each feature times a number of its own."""

    param_names = ("scale",)

    def __init__(self, scale: Array) -> None:
        self.scale = scale

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * self.scale

    def backward(self, dout: Array) -> Any:
        self.dscale = namespace_of(dout).sum(dout * self.x, axis=0)
        return dout * self.scale


class LayerNorm(Layer):
    """Ba, Kiros and Hinton, 2016."""

    param_names = ("gamma", "beta")
    axis = -1

    def __init__(self, gamma: Array, beta: Array) -> None:
        self.gamma, self.beta = gamma, beta

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        mean = xp.mean(x, axis=self.axis, keepdims=True)
        variance = xp.mean((x - mean) ** 2, axis=self.axis, keepdims=True)
        self.deviation = xp.sqrt(variance + 1e-5)
        self.normal = (x - mean) / self.deviation
        return self.gamma * self.normal + self.beta

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        self.dgamma = xp.sum(dout * self.normal, axis=0)
        self.dbeta = xp.sum(dout, axis=0)
        dnormal = dout * self.gamma
        return (
            dnormal
            - xp.mean(dnormal, axis=self.axis, keepdims=True)
            - self.normal * xp.mean(dnormal * self.normal, axis=self.axis, keepdims=True)
        ) / self.deviation


class BatchNorm(LayerNorm):
    """Ioffe and Szegedy, 2015, without the running mean."""

    axis = 0


class RootMeanSquareNorm(Layer):
    """Zhang and Sennrich, 2019."""

    param_names = ("gamma",)

    def __init__(self, gamma: Array) -> None:
        self.gamma = gamma

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.scale = xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
        self.normal = x / self.scale
        return self.gamma * self.normal

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        self.dgamma = xp.sum(dout * self.normal, axis=0)
        dnormal = dout * self.gamma
        inner = xp.mean(dnormal * self.normal, axis=-1, keepdims=True)
        return (dnormal - self.normal * inner) / self.scale


def softmax(x: Array) -> Array:
    xp = namespace_of(x)
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def softmax_backward(y: Array, dy: Array) -> Array:
    xp = namespace_of(y)
    return y * (dy - xp.sum(y * dy, axis=-1, keepdims=True))


class Softmax(Layer):
    def forward(self, x: Array) -> Array:
        self.y = softmax(x)
        return self.y

    def backward(self, dout: Array) -> Array:
        return softmax_backward(self.y, dout)


class LogSoftmax(Layer):
    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        z = x - xp.max(x, axis=-1, keepdims=True)
        self.y = softmax(x)
        return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        return dout - self.y * xp.sum(dout, axis=-1, keepdims=True)


class LogSumExp(Layer):
    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        highest = xp.max(x, axis=-1)
        self.y = softmax(x)
        return highest + xp.log(xp.sum(xp.exp(x - highest[..., None]), axis=-1))

    def backward(self, dout: Array) -> Array:
        return self.y * dout[..., None]


class Attention(Layer):
    """Vaswani et al., 2017: scaled dot products of queries and keys weigh the values."""

    def forward(self, q: Array, k: Array, v: Array) -> Array:
        xp = namespace_of(q, k, v)
        self.q, self.k, self.v = q, k, v
        self.scale = q.shape[-1] ** -0.5
        self.weights = softmax(xp.matmul(q, xp.matrix_transpose(k)) * self.scale)
        return xp.matmul(self.weights, v)

    def backward(self, dout: Array) -> Any:
        xp = namespace_of(dout)
        dv = xp.matmul(xp.matrix_transpose(self.weights), dout)
        dweights = xp.matmul(dout, xp.matrix_transpose(self.v))
        dscores = softmax_backward(self.weights, dweights) * self.scale
        dq = xp.matmul(dscores, self.k)
        return dq, xp.matmul(xp.matrix_transpose(dscores), self.q), dv


class Gelu(Layer):
    """Hendrycks and Gimpel, 2016, by the hyperbolic tangent."""

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.x = x
        self.gate = xp.tanh(0.7978845608028654 * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + self.gate)

    def backward(self, dout: Array) -> Array:
        inner = 0.7978845608028654 * (1 + 3 * 0.044715 * self.x**2)
        return dout * (0.5 * (1 + self.gate) + 0.5 * self.x * (1 - self.gate**2) * inner)


class Softplus(Layer):
    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.x = x
        return xp.maximum(x, xp.zeros_like(x)) + xp.log1p(xp.exp(-xp.abs(x)))

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        e = xp.exp(-xp.abs(self.x))
        return dout * xp.where(self.x > 0, 1 / (1 + e), e / (1 + e))


class Tanh(Layer):
    def forward(self, x: Array) -> Array:
        self.y = namespace_of(x).tanh(x)
        return self.y

    def backward(self, dout: Array) -> Array:
        return dout * (1 - self.y**2)


class UnitLength(Layer):
    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.length = xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
        self.y = x / self.length
        return self.y

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        inner = xp.sum(self.y * dout, axis=-1, keepdims=True)
        return (dout - self.y * inner) / self.length


class Centre(Layer):
    """Subtracts the mean of each feature over the batch."""

    def forward(self, x: Array) -> Array:
        return x - namespace_of(x).mean(x, axis=0)

    def backward(self, dout: Array) -> Array:
        return dout - namespace_of(dout).mean(dout, axis=0)


class GatedLinear(Layer):
    """Dauphin et al., 2017: one half is the gate of the other."""

    def forward(self, x: Array, y: Array) -> Array:
        xp = namespace_of(x)
        e = xp.exp(-xp.abs(y))
        self.x, self.gate = x, xp.where(y > 0, 1 / (1 + e), e / (1 + e))
        return x * self.gate

    def backward(self, dout: Array) -> Any:
        return dout * self.gate, dout * self.x * self.gate * (1 - self.gate)


class Perceptron(Layer):
    """Two layers in one, with rectifiers between, whose slope at 0 is 0 as everywhere."""

    param_names = ("V", "W")

    def __init__(self, V: Array, W: Array) -> None:
        self.V, self.W = V, W

    def forward(self, x: Array) -> Array:
        self.x, z = x, x @ self.V
        self.active = namespace_of(x).astype(z > 0, x.dtype)
        self.h = z * self.active
        return self.h @ self.W

    def backward(self, dout: Array) -> Array:
        self.dW = self.h.T @ dout
        dz = (dout @ self.W.T) * self.active
        self.dV = self.x.T @ dz
        return dz @ self.V.T


class Huber(Layer):
    """Huber, 1964: a loss, the mean over the batch."""

    def forward(self, x: Array, t: Array) -> Array:
        xp = namespace_of(x)
        self.rest = x - t
        size = xp.abs(self.rest)
        return xp.sum(xp.where(size <= 1, 0.5 * size**2, size - 0.5)) / x.shape[0]

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(self.rest)
        one = xp.ones_like(self.rest)
        return dout * xp.minimum(xp.maximum(self.rest, -one), one) / self.rest.shape[0]


class Sort(Layer):
    """Where numbers are equal, dout goes to them in their order."""

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.places = xp.argsort(xp.argsort(x, axis=-1), axis=-1)
        return xp.sort(x, axis=-1)

    def backward(self, dout: Array) -> Array:
        return namespace_of(dout).take_along_axis(dout, self.places, axis=-1)


class Sawtooth(Layer):
    """The part after the point: it jumps at each whole number."""

    def forward(self, x: Array) -> Array:
        return x - namespace_of(x).floor(x)

    def backward(self, dout: Array) -> Array:
        return dout * 1


class Clamp(Layer):
    """Between two bounds: where all three are equal, dout goes to the first."""

    def forward(self, x: Array, low: Array, high: Array) -> Array:
        xp = namespace_of(x, low, high)
        self.x, self.low, self.high = x, low, high
        return xp.minimum(xp.maximum(x, low), high)

    def backward(self, dout: Array) -> Any:
        xp, zero = namespace_of(dout), 0 * dout
        is_high = xp.maximum(self.x, self.low) > self.high
        is_low = (self.x < self.low) & ~is_high
        dx = xp.where(is_high | is_low, zero, dout)
        return dx, xp.where(is_low, dout, zero), xp.where(is_high, dout, zero)


class Quartile(Layer):
    """A quarter between the smallest number and the next."""

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.places = xp.argsort(xp.argsort(x, axis=-1), axis=-1)
        ordered = xp.sort(x, axis=-1)
        return 0.25 * ordered[:, :1] + 0.75 * ordered[:, 1:2]

    def backward(self, dout: Array) -> Array:
        xp, zero = namespace_of(dout), 0 * dout
        shares = xp.where(self.places == 1, 0.75 * dout, zero)
        return xp.where(self.places == 0, 0.25 * dout, shares)


_NORM = {"gamma": ("D",), "beta": ("D",)}
_QUERY = {"q": ("T", "D"), "k": ("S", "D"), "v": ("S", "M")}

RIGHT_LAYERS = (
    Signature(LayerNorm, params=_NORM),
    Signature(BatchNorm, {"x": ("B", "D")}, params=_NORM),
    Signature(RootMeanSquareNorm, params={"gamma": ("D",)}),
    Signature(Softmax),
    Signature(LogSoftmax),
    Signature(LogSumExp, output=("N",)),
    Signature(Attention, _QUERY, ("T", "M")),
    Signature(Gelu),
    Signature(Softplus),
    Signature(Tanh),
    Signature(UnitLength),
    Signature(Centre, {"x": ("B", "D")}),
    Signature(GatedLinear, {"x": ("N", "D"), "y": ("N", "D")}),
    Signature(Perceptron, output=("N", "M"), params={"V": ("D", "H"), "W": ("H", "M")}),
    Signature(Huber, {"x": ("N", "D"), "t": Fixed(("N", "D"))}, ()),
    Signature(Sort),
    Signature(Clamp, dict.fromkeys(("x", "low", "high"), ("N", "D"))),
    Signature(Quartile, {"x": ("N", 4)}, ("N", 1)),
    Signature(Sawtooth, {"x": Values(("N", "D"), low=-30, high=30)}),
)
