"""Layers that are wrong in what they keep, return, change, or say of themselves."""

from typing import Any, ClassVar

import numpy as np
from right_layers import Scale, Softplus
from support import arr, backend, dtype_of, host

from xbp.functions import batch_size_of
from xbp.layers import Affine, Layer, LossLayer, SoftmaxWithLoss
from xbp.namespace import Array, namespace_of
from xbp.recording import values


class Widening(Softplus):
    """Gives another dtype than it was given."""

    def backward(self, dout: Array) -> Array:
        return backend.xp.astype(super().backward(dout), backend.xp.float32)


class Bent(Softplus):
    """Right for unit vectors, and for what is upstream of two layers wrong."""

    def backward(self, dout: Array) -> Array:
        return super().backward(dout * abs(dout))


class Shortcut(Scale):
    """Leaves another gradient where it is asked for that alone."""

    def backward_params(self, dout: Array) -> None:
        self.dscale = namespace_of(dout).sum(dout, axis=0)


class Numbered(Softplus):
    """Adds a sample's number in the batch."""

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        numbers = xp.arange(x.shape[0], dtype=x.dtype, device=backend.native_device)
        return super().forward(x) + xp.reshape(numbers, (-1, 1))


class Pulled(Softplus):
    """Its derivatives depend on which sample comes first."""

    def backward(self, dout: Array) -> Array:
        one = dout * 0 + 1
        first = namespace_of(dout).where(self.x[:1, ...] > 0.5, one, 0 * one)
        return super().backward(dout) + first


class Stamping(Softplus):
    """Writes into what it was given, where the library lets it."""

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout) + 0
        dout += 1.0
        return dx


class Coarse(Softplus):
    """Loses digits in float32 that it need not lose."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        return y * 1.001 if dtype_of(y) == "float32" else y


class Random(Softplus):
    """Adds numbers that nobody can draw again."""

    def forward(self, x: Array) -> Array:
        noise = np.random.default_rng().normal(size=tuple(x.shape))
        return super().forward(x) + arr(1e-3 * noise, dtype_of(x))


class Rectifier(Layer):
    def forward(self, x: Array) -> Array:
        self.x = x
        return namespace_of(x).where(x > 0, x, 0 * x)

    def backward(self, dout: Array) -> Array:
        return namespace_of(dout).where(self.x > 0, dout, 0 * dout)


class Stale(Rectifier):
    """Keeps the first input of each shape."""

    def __init__(self) -> None:
        self.first: dict[Any, Array] = {}

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        self.x = self.first.setdefault(x.shape, x)
        return y


class Counting(Softplus):
    """Is right the first two times."""

    calls = 0

    def backward(self, dout: Array) -> Array:
        self.calls += 1
        return super().backward(dout) * (1.0 if self.calls <= 2 else 1.5)


class Buffered(Softplus):
    """Returns its buffer, also to the next caller, where the library lets it."""

    buffer: Any = None

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        if self.buffer is None:
            self.buffer = namespace_of(x).zeros((9, *x.shape[1:]), dtype=x.dtype, device=x.device)
        view = self.buffer[: x.shape[0], ...]
        view[...] = y
        return view


class Flattening(Softplus):
    """Takes the elements in the order of the memory."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        is_turned = host(x).strides != np.empty(x.shape).strides and x.shape[0] == x.shape[1]
        return namespace_of(x).permute_dims(y, (1, 0)) if is_turned else y


class Transposing(Affine):
    """Transposes its parameter when it is made, and not again when it has been trained."""

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__(W, b)
        self.turned = namespace_of(W).matrix_transpose(W) * 1

    def backward(self, dout: Array) -> Array:
        super().backward(dout)
        return namespace_of(dout).matmul(dout, self.turned)


class Fixing(Scale):
    """Keeps what it has computed of its parameter."""

    def __init__(self, scale: Array) -> None:
        super().__init__(scale)
        self.fixed = scale * 1

    def forward(self, x: Array) -> Array:
        super().forward(x)
        return x * self.fixed


class Homeless(Softplus):
    """Makes an array where it happens to be made."""

    def forward(self, x: Array) -> Array:
        return super().forward(x) + namespace_of(x).zeros(x.shape, dtype=x.dtype)


class Squaring(Softplus):
    """Says what it is to compute, and computes something else."""

    reference = staticmethod(lambda x: 2 * x)

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * x

    def backward(self, dout: Array) -> Array:
        return 2 * self.x * dout


class Sideways(Squaring):
    """Its derivative along a tangent is another."""

    reference = None  # type: ignore[assignment]

    def jvp(self, tangent: Array) -> Array:
        return self.x * tangent


class WideTangent(Squaring):
    """Its derivative along a tangent is of another dtype."""

    def jvp(self, tangent: Array) -> Array:
        xp = namespace_of(tangent)
        return xp.astype(2 * self.x * tangent, xp.float32)


class HomelessTangent(Squaring):
    """For a derivative along a tangent, makes an array where it happens to be made."""

    def jvp(self, tangent: Array) -> Array:
        xp = namespace_of(tangent)
        return 2 * self.x * tangent + xp.zeros(tangent.shape, dtype=tangent.dtype)


class StampingTangent(Squaring):
    """Changes the tangent."""

    def jvp(self, tangent: Array) -> Array:
        tangent *= 2
        return self.x * tangent


class ById(Rectifier):
    """Looks at an array again only if it is another one."""

    seen: Any = None

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        if x is not self.seen:
            self.seen, self.kept = x, y * 1
        return self.kept * 1


class Claiming(Softplus):
    """Says that its samples know nothing of each other."""

    samplewise = True

    def forward(self, x: Array) -> Array:
        return super().forward(x) + x.shape[0]


class ClaimingLoss(LossLayer):
    """Half the sum of squares, which says that a sample knows nothing of the others."""

    samplewise = True
    classifies = False

    def losses(self, y: Array, t: Array) -> Array:
        return namespace_of(y).sum((y - t) ** 2, axis=1) / 2 + y.shape[0]

    def slope(self) -> Array:
        return self.y - self.t


class OtherLosses(SoftmaxWithLoss):
    """Its losses are not those that it returns the mean of."""

    samplewise = True

    def forward(self, x: Array, t: Array) -> Array:
        return super().forward(x, t) / 2

    def losses(self, y: Array, t: Array) -> Array:
        return super().losses(y, t) * 1

    def backward(self, dout: Any = 1) -> Array:
        return super().backward(dout) / 2


class Wandering(Softplus):
    """Its backward changes what it carries."""

    state_names = ("count",)

    def __init__(self) -> None:
        self.count: Any = 0

    def backward(self, dout: Array) -> Array:
        self.count = self.count + 1
        return super().backward(dout)


class Clobbering(Softplus):
    """Its backward works in the memory of what forward has returned."""

    def forward(self, x: Array) -> Array:
        self.y = super().forward(x)
        return self.y

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        self.y[...] = dx
        return dx


class TakingTurns(Softplus):
    """Returns two buffers in turns."""

    def __init__(self) -> None:
        self.buffers: dict[Any, list[Array]] = {}

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        key = (tuple(y.shape), dtype_of(y))
        turns = self.buffers.setdefault(key, [y + 0, y + 0])
        turns.reverse()
        turns[0][...] = y
        return turns[0]


class OneGradient(Softplus):
    """Its second backward writes into what the first has returned."""

    def forward(self, x: Array) -> Array:
        self.dx: Any = None
        return super().forward(x)

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        if self.dx is None:
            self.dx = dx
        self.dx[...] = dx
        return self.dx


class Copying(Scale):
    """Keeps what it computed of a copy of its parameter."""

    def __init__(self, scale: Array) -> None:
        self.scale, self.fixed = scale * 1, scale * 1

    def forward(self, x: Array) -> Array:
        super().forward(x)
        return x * self.fixed

    def backward(self, dout: Array) -> Any:
        super().backward(dout)
        return dout * self.fixed


class WideGradients(Scale):
    """For a first layer, leaves its gradients in float64."""

    def backward_params(self, dout: Array) -> None:
        self.backward(dout)
        xp = namespace_of(dout)
        self.dscale = xp.astype(self.dscale, xp.float64)


class BufferedParams(Scale):
    """For a first layer, returns the memory of its gradients twice."""

    buffer: Any = None

    def backward_params(self, dout: Array) -> None:
        self.backward(dout)
        if self.buffer is None:
            self.buffer = self.dscale * 1
        self.buffer[...] = self.dscale
        self.dscale = self.buffer


class HomelessParams(Scale):
    """For a first layer, makes an array where it happens to be made."""

    def backward_params(self, dout: Array) -> None:
        self.backward(dout)
        self.dscale = self.dscale + namespace_of(dout).zeros(
            self.dscale.shape, dtype=self.dscale.dtype
        )


class StampingParams(Scale):
    """For a first layer, changes dout."""

    def backward_params(self, dout: Array) -> None:
        dout *= 2
        self.backward(dout / 2)


class RandomState(Softplus):
    """What it carries is random, though its results are not."""

    state_names = ("mean",)

    def __init__(self) -> None:
        self.mean: Any = 0.0

    def forward(self, x: Array) -> Array:
        self.mean = self.mean + float(np.random.default_rng().uniform())
        return super().forward(x)


class Branching(Softplus):
    """Says that it can be traced, and asks for a value."""

    traceable = True

    def forward(self, x: Array) -> Array:
        return super().forward(x) + 0 if float(namespace_of(x).sum(x)) > 0 else super().forward(x)


class Baking(Softplus):
    """Says that it can be traced, and what is traced remembers a number."""

    traceable = True

    def forward(self, x: Array) -> Array:
        return super().forward(x) + namespace_of(x).sign(values(x))


class Sharing(Layer):
    """Keeps its input where all layers of its class do."""

    kept: ClassVar[dict[str, Array]] = {}

    def forward(self, x: Array) -> Array:
        self.kept["x"] = x
        return x * x

    def backward(self, dout: Array) -> Array:
        return 2 * dout * self.kept["x"]


class Narrow(Layer):
    """Computes in float32: a staircase of many steps."""

    slope = 2.0

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.x = x
        return xp.astype(xp.astype(x, xp.float32) ** 2, x.dtype)

    def backward(self, dout: Array) -> Array:
        return dout * self.x * self.slope


class Steep(Narrow):
    """A staircase, and a derivative that is none of its slopes."""

    slope = 4.0


class Piling(Scale):
    """Adds each gradient to that of the call before."""

    dscale: Any = None

    def backward(self, dout: Array) -> Array:
        before = self.dscale
        dx = super().backward(dout)
        self.dscale = self.dscale if before is None else before + self.dscale
        return dx


class Rough(Scale):
    """Loses less than central differences in float32 can see."""

    def backward(self, dout: Array) -> Any:
        dx = super().backward(dout)
        return dx * 1.00002 if dtype_of(dx) == "float32" else dx


class First(Softplus):
    """Keeps the first dout."""

    kept: Any = None

    def backward(self, dout: Array) -> Array:
        self.kept = dout if self.kept is None else self.kept
        return super().backward(self.kept)


class Moving(Softplus):
    """Changes its input, where the library lets it."""

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        x += 1.0
        return y


# An affine layer, and the mean of a loss ---------------------------------------------------------


class SquareWeights(Affine):
    """Does not transpose W, which nobody sees while it is square and symmetric."""

    def backward(self, dout: Array) -> Array:
        super().backward(dout)
        return namespace_of(dout).matmul(dout, self.W)


class TransposedGradient(Affine):
    """Leaves the gradient of W transposed."""

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        self.dW = namespace_of(dout).matrix_transpose(self.dW)
        return dx


class WrongAxis(Affine):
    """Sums the gradient of b over the features."""

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        self.db = namespace_of(dout).sum(dout, axis=1)
        return dx


class FirstSample(Affine):
    """Takes the gradient of b from the first sample."""

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        self.db = dout[0, :]
        return dx


class OfWeights(Affine):
    """Sums W instead of dout."""

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        self.db = namespace_of(dout).sum(self.W, axis=0)
        return dx


class WithoutMean(SoftmaxWithLoss):
    """Its gradient is that of the sum."""

    def backward(self, dout: Any = 1.0) -> Array:
        return super().backward(dout) * batch_size_of(self.y)


class MeanTwice(SoftmaxWithLoss):
    """Its gradient is divided by the number of samples twice."""

    def backward(self, dout: Any = 1.0) -> Array:
        return super().backward(dout) / batch_size_of(self.y)


class Reversed(SoftmaxWithLoss):
    """t - y for y - t."""

    def backward(self, dout: Any = 1.0) -> Array:
        return -super().backward(dout)
