"""Functions with their derivative, and with a derivative that somebody once wrote instead."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support import backend

from xbp.functions import sigmoid
from xbp.namespace import Array, namespace_of
from xbp.testing import Labels, Nonzero, Signature, Values
from xbp.testing.assertions import layer_of_functions


@dataclass(frozen=True)
class Formula:
    """A function, and its derivative: right and wrong, each called with dout and the inputs."""

    name: str
    forward: Callable[..., Any]
    right: Callable[..., Any]
    wrong: Callable[..., Any]
    shapes: dict[str, Any] = field(default_factory=dict)

    def signature(self, backward: Callable[..., Any]) -> Signature:
        """Return the signature of the layer with this backward."""
        kind = layer_of_functions(self.forward, backward, inputs=self.shapes.get("inputs"))
        kind.__name__ = kind.name = "Layer"
        return Signature(kind, **self.shapes)


def total(x: Array, axis: int = -1) -> Array:
    return namespace_of(x).sum(x, axis=axis, keepdims=True)


def mean(x: Array, axis: int = -1) -> Array:
    return namespace_of(x).mean(x, axis=axis, keepdims=True)


def choose(condition: Array, x: Array, y: Array) -> Array:
    return namespace_of(x).where(condition, x, y)


def positive(x: Array) -> Array:
    return choose(x > 0, x, 0 * x)


def softmax(x: Array, axis: int = -1) -> Array:
    xp = namespace_of(x)
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return e / total(e, axis)


def tanh(x: Array) -> Array:
    return namespace_of(x).tanh(x)


def sign(x: Array) -> Array:
    return namespace_of(x).sign(x)


def swapped(x: Array) -> Array:
    return namespace_of(x).matrix_transpose(x)


def matmul(x: Array, y: Array) -> Array:
    return namespace_of(x, y).matmul(x, y)


def gelu_slope(x: Array, *, inner: float) -> Array:
    gate = tanh(0.8 * (x + 0.04 * x**3))
    return 0.5 * (1 + gate) + inner * 0.4 * x * (1 - gate**2) * (1 + 0.12 * x**2)


def norm(x: Array, axis: int = -1) -> Array:
    return namespace_of(x).sqrt(mean(x * x, axis) + 1)


def normalized(x: Array) -> Array:
    centred = x - mean(x)
    return centred / norm(centred)


def normalized_back(dout: Array, x: Array, *, of_mean: bool, of_deviation: bool) -> Array:
    deviation, y = norm(x - mean(x)), normalized(x)
    rest = dout - (mean(dout) if of_mean else 0 * dout)
    return (rest - (y * mean(dout * y) if of_deviation else 0 * y)) / deviation


def windows(x: Array) -> Array:
    """Return the sums of each element and twice its right neighbour."""
    return x[:, :-1] + 2 * x[:, 1:]


def padded(x: Array, before: int, after: int) -> Array:
    xp = namespace_of(x)
    zeros = xp.zeros((x.shape[0], 1), dtype=x.dtype, device=x.device)
    return xp.concat([*([zeros] * before), x, *([zeros] * after)], axis=1)


def rows_of(labels: Array, like: Array, count: int) -> Array:
    """Return one-hot rows of labels, in the dtype of another array."""
    xp = namespace_of(like)
    classes = xp.arange(count, dtype=labels.dtype, device=labels.device)
    return xp.astype(labels[..., None] == classes, like.dtype)


def first_only(mask: Array) -> Array:
    """Return a mask of the first place of each row of a mask."""
    xp = namespace_of(mask)
    count = xp.cumulative_sum(xp.astype(mask, xp.int32), axis=-1)
    return xp.logical_and(mask, count == 1)


def is_largest(x: Array) -> Array:
    return x == namespace_of(x).max(x, axis=-1, keepdims=True)


def attention(q: Array, k: Array, v: Array) -> Array:
    return matmul(softmax(matmul(q, swapped(k)) * 0.5), v)


def attention_back(dout: Array, q: Array, k: Array, v: Array, scale: float = 0.5) -> Any:
    weights = softmax(matmul(q, swapped(k)) * 0.5)
    dweights = matmul(dout, swapped(v))
    dscores = weights * (dweights - total(weights * dweights))
    dk = matmul(swapped(dscores), q) * scale
    return matmul(dscores, k) * 0.5, dk, matmul(swapped(weights), dout)


PAIR = {"inputs": {"x": ("N", "D"), "y": ("N", "D")}}
QUOTIENT = {"inputs": {"x": ("N", "D"), "y": Nonzero(("N", "D"))}}
PRODUCT = {"inputs": {"x": ("A", "B"), "y": ("B", "C")}, "output": ("A", "C")}
SUM = {"inputs": {"x": ("N", "D")}, "output": ("N", 1)}
BOUNDED = {"inputs": {"x": Values(("N", "D"), low=-20, high=20)}}
POSITIVE = {"inputs": {"x": Values(("N", "D"), low=0.1, high=100)}}
SEQUENCE = {"inputs": {"x": ("N", "H")}, "output": ("N", "H - 1")}
POOLED = {"inputs": {"x": ("N", "2*H")}, "output": ("N", "H")}
BIASED = {"inputs": {"x": ("B", "D"), "b": ("D",)}, "output": ("B", "D")}
QUERIES = {"inputs": {"q": ("T", "D"), "k": ("S", "D"), "v": ("S", "M")}, "output": ("T", "M")}
TABLE = {"inputs": {"table": ("V", "D"), "t": Labels(("T",), "V")}, "output": ("T", "D")}
SPLIT = {"inputs": {"x": ("N", "2*D")}, "output": (("N", "D"), ("N", "D"))}

FORMULAS = [
    # Of each element.
    Formula(
        "tanh: 1 - y for 1 - y²",
        tanh,
        lambda d, x: d * (1 - tanh(x) ** 2),
        lambda d, x: d * (1 - tanh(x)),
    ),
    Formula(
        "sigmoid: 1 + y for 1 - y",
        sigmoid,
        lambda d, x: d * sigmoid(x) * (1 - sigmoid(x)),
        lambda d, x: d * sigmoid(x) * (1 + sigmoid(x)),
    ),
    Formula(
        "exp: its own value forgotten",
        lambda x: namespace_of(x).exp(x),
        lambda d, x: d * namespace_of(x).exp(x),
        lambda d, x: d,
        BOUNDED,
    ),
    Formula(
        "log: the inner derivative forgotten",
        lambda x: namespace_of(x).log(1 + x * x),
        lambda d, x: d * 2 * x / (1 + x * x),
        lambda d, x: d / (1 + x * x),
    ),
    Formula("square: the 2", lambda x: x * x, lambda d, x: 2 * x * d, lambda d, x: x * d),
    Formula("cube: 3x for 3x²", lambda x: x**3, lambda d, x: 3 * x**2 * d, lambda d, x: 3 * x * d),
    Formula(
        "square root: the 1/2",
        lambda x: namespace_of(x).sqrt(x),
        lambda d, x: 0.5 * d / namespace_of(x).sqrt(x),
        lambda d, x: d / namespace_of(x).sqrt(x),
        POSITIVE,
    ),
    Formula(
        "reciprocal: the sign",
        lambda x: 1 / x,
        lambda d, x: -d / x**2,
        lambda d, x: d / x**2,
        POSITIVE,
    ),
    Formula(
        "sine: the sign of its derivative's square",
        lambda x: namespace_of(x).cos(x),
        lambda d, x: -d * namespace_of(x).sin(x),
        lambda d, x: d * namespace_of(x).sin(x),
        BOUNDED,
    ),
    Formula(
        "arc tangent: x for x²",
        lambda x: namespace_of(x).atan(x),
        lambda d, x: d / (1 + x * x),
        lambda d, x: d / (1 + namespace_of(x).abs(x)),
    ),
    Formula(
        "swish: the second term of the product rule",
        lambda x: x * sigmoid(x),
        lambda d, x: d * sigmoid(x) * (1 + x * (1 - sigmoid(x))),
        lambda d, x: d * sigmoid(x),
    ),
    Formula(
        "GELU: the slope within the gate",
        lambda x: 0.5 * x * (1 + tanh(0.8 * (x + 0.04 * x**3))),
        lambda d, x: d * gelu_slope(x, inner=1),
        lambda d, x: d * gelu_slope(x, inner=0),
        BOUNDED,
    ),
    Formula("absolute value: no sign", abs, lambda d, x: d * sign(x), lambda d, x: d),
    Formula(
        "clip: a gradient outside of the bounds, too",
        lambda x: choose(abs(x) < 1, x, sign(x)),
        lambda d, x: choose(abs(x) < 1, d, 0 * d),
        lambda d, x: d,
    ),
    Formula(
        "ReLU: a mask of the numbers above -1",
        positive,
        lambda d, x: choose(x > 0, d, 0 * d),
        lambda d, x: choose(x > -1, d, 0 * d),
    ),
    Formula(
        "ReLU: a slope of 2 at 0",
        positive,
        lambda d, x: choose(x > 0, d, 0 * d),
        lambda d, x: choose(x > 0, d, choose(x == 0, 2 * d, 0 * d)),
    ),
    Formula(
        "leaky ReLU: the other side's slope",
        lambda x: choose(x > 0, x, 0.1 * x),
        lambda d, x: choose(x > 0, d, 0.1 * d),
        lambda d, x: choose(x < 0, d, 0.1 * d),
    ),
    Formula(
        "Huber: the square's slope far away",
        lambda x: choose(abs(x) < 1, 0.5 * x * x, abs(x) - 0.5),
        lambda d, x: d * choose(abs(x) < 1, x, sign(x)),
        lambda d, x: d * x,
    ),
    Formula(
        "a step up at 0: a slope of 7 there",
        lambda x: choose(x > 0, x + 1, x),
        lambda d, x: d,
        lambda d, x: choose(x == 0, 7 * d, d),
    ),
    Formula(
        "power: the exponent not lowered",
        lambda x, p: x**p,
        lambda d, x, p: d * p * x ** (p - 1),
        lambda d, x, p: d * p * x**p,
        {**BOUNDED, "options": {"p": [1, 2, 3]}},
    ),
    # Of two arrays.
    Formula(
        "product: the operands not exchanged",
        lambda x, y: x * y,
        lambda d, x, y: (d * y, d * x),
        lambda d, x, y: (d * x, d * y),
        PAIR,
    ),
    Formula(
        "difference: the second sign",
        lambda x, y: x - y,
        lambda d, x, y: (d, -d),
        lambda d, x, y: (d, d),
        PAIR,
    ),
    Formula(
        "quotient: y for y²",
        lambda x, y: x / y,
        lambda d, x, y: (d / y, -d * x / y**2),
        lambda d, x, y: (d / y, -d * x / y),
        QUOTIENT,
    ),
    Formula(
        "maximum: both have the whole where they tie",
        lambda x, y: namespace_of(x, y).maximum(x, y),
        lambda d, x, y: (choose(x >= y, d, 0 * d), choose(y > x, d, 0 * d)),
        lambda d, x, y: (choose(x >= y, d, 0 * d), choose(y >= x, d, 0 * d)),
        PAIR,
    ),
    Formula(
        "maximum of unequal slopes: both have the whole",
        lambda x, y: namespace_of(x, y).maximum(x, 10 * y),
        lambda d, x, y: (choose(x >= 10 * y, d, 0 * d), choose(10 * y > x, 10 * d, 0 * d)),
        lambda d, x, y: (choose(x >= 10 * y, d, 0 * d), choose(10 * y >= x, 10 * d, 0 * d)),
        PAIR,
    ),
    Formula(
        "bias: the first sample's gradient alone",
        lambda x, b: x + b,
        lambda d, x, b: (d, namespace_of(d).sum(d, axis=0)),
        lambda d, x, b: (d, d[0, :]),
        BIASED,
    ),
    Formula(
        "matrix product: the second factor not transposed",
        matmul,
        lambda d, x, y: (matmul(d, swapped(y)), matmul(swapped(x), d)),
        lambda d, x, y: (matmul(d, y), matmul(swapped(x), d)),
        {"inputs": {"x": ("A", "B"), "y": ("B", "B")}, "output": ("A", "B")},
    ),
    Formula(
        "matrix product: the gradient transposed",
        matmul,
        lambda d, x, y: (matmul(d, swapped(y)), matmul(swapped(x), d)),
        lambda d, x, y: (matmul(d, swapped(y)), swapped(matmul(swapped(x), d))),
        PRODUCT,
    ),
    # Along an axis.
    Formula(
        "sum: a mean's share",
        total,
        lambda d, x: d + 0 * x,
        lambda d, x: d / x.shape[1] + 0 * x,
        SUM,
    ),
    Formula(
        "mean: the whole", mean, lambda d, x: d / x.shape[1] + 0 * x, lambda d, x: d + 0 * x, SUM
    ),
    Formula(
        "variance: the 2",
        lambda x: mean((x - mean(x)) ** 2),
        lambda d, x: d * 2 * (x - mean(x)) / x.shape[1],
        lambda d, x: d * (x - mean(x)) / x.shape[1],
        SUM,
    ),
    Formula(
        "sums so far: not turned around",
        lambda x: namespace_of(x).cumulative_sum(x, axis=1),
        lambda d, x: total(d) - namespace_of(d).cumulative_sum(d, axis=1) + d,
        lambda d, x: namespace_of(d).cumulative_sum(d, axis=1),
    ),
    Formula(
        "largest: the whole to each that ties",
        lambda x: namespace_of(x).max(x, axis=1, keepdims=True),
        lambda d, x: choose(first_only(is_largest(x)), d + 0 * x, 0 * x),
        lambda d, x: choose(is_largest(x), d + 0 * x, 0 * x),
        SUM,
    ),
    Formula(
        "largest: the whole to every element",
        lambda x: namespace_of(x).max(x, axis=1, keepdims=True),
        lambda d, x: choose(first_only(is_largest(x)), d + 0 * x, 0 * x),
        lambda d, x: d + 0 * x,
        SUM,
    ),
    Formula(
        "product of two features: their own values",
        lambda x: x[:, :1] * x[:, 1:],
        lambda d, x: namespace_of(d).concat([d * x[:, 1:], d * x[:, :1]], axis=1),
        lambda d, x: namespace_of(d).concat([d * x[:, :1], d * x[:, 1:]], axis=1),
        {"inputs": {"x": ("N", 2)}, "output": ("N", 1)},
    ),
    Formula(
        "length: not divided by it",
        norm,
        lambda d, x: d * x / norm(x) / x.shape[1],
        lambda d, x: d * x / x.shape[1],
        SUM,
    ),
    # Of neighbours and places.
    Formula(
        "convolution: the kernel not turned around",
        windows,
        lambda d, x: padded(d, 0, 1) + 2 * padded(d, 1, 0),
        lambda d, x: 2 * padded(d, 0, 1) + padded(d, 1, 0),
        SEQUENCE,
    ),
    Formula(
        "mean of pairs: the 1/2",
        lambda x: (x[:, ::2] + x[:, 1::2]) / 2,
        lambda d, x: namespace_of(d).repeat(d, 2, axis=1) / 2,
        lambda d, x: namespace_of(d).repeat(d, 2, axis=1),
        POOLED,
    ),
    Formula(
        "upsampling: the first of two alone",
        lambda x: namespace_of(x).repeat(x, 2, axis=1),
        lambda d, x: d[:, ::2] + d[:, 1::2],
        lambda d, x: d[:, ::2],
        {"inputs": {"x": ("N", "H")}, "output": ("N", "2*H")},
    ),
    Formula(
        "shift: to the same side",
        lambda x: namespace_of(x).roll(x, 1, axis=1),
        lambda d, x: namespace_of(d).roll(d, -1, axis=1),
        lambda d, x: namespace_of(d).roll(d, 1, axis=1),
    ),
    Formula(
        "transposition: reshaped, not transposed",
        swapped,
        lambda d, x: swapped(d),
        lambda d, x: namespace_of(d).reshape(d, x.shape),
        {"inputs": {"x": ("A", "B")}, "output": ("B", "A")},
    ),
    Formula(
        "split: the halves exchanged",
        lambda x: (x[:, : x.shape[1] // 2] * 1, x[:, x.shape[1] // 2 :] * 1),
        lambda d, x: namespace_of(*d).concat([d[0], d[1]], axis=1),
        lambda d, x: namespace_of(*d).concat([d[1], d[0]], axis=1),
        SPLIT,
    ),
    Formula(
        "embedding: repeated words not added up",
        lambda table, t: namespace_of(table).take(table, t, axis=0),
        lambda d, table, t: matmul(swapped(rows_of(t, d, table.shape[0])), d),
        lambda d, table, t: (
            matmul(swapped(rows_of(t, d, table.shape[0])), d)
            / namespace_of(d).maximum(
                namespace_of(d).sum(rows_of(t, d, table.shape[0]), axis=0)[:, None], 1 + 0 * table
            )
        ),
        TABLE,
    ),
    # Of normalizations and attention.
    Formula(
        "softmax: the sum over the others",
        softmax,
        lambda d, x: softmax(x) * (d - total(softmax(x) * d)),
        lambda d, x: softmax(x) * (1 - softmax(x)) * d,
    ),
    Formula(
        "softmax: along the wrong axis",
        softmax,
        lambda d, x: softmax(x) * (d - total(softmax(x) * d)),
        lambda d, x: softmax(x) * (d - total(softmax(x) * d, axis=0)),
    ),
    Formula(
        "log-softmax: the sum of dout",
        lambda x: namespace_of(x).log(softmax(x)),
        lambda d, x: d - softmax(x) * total(d),
        lambda d, x: d - softmax(x) * d,
        BOUNDED,
    ),
    Formula(
        "normalization: the mean",
        normalized,
        lambda d, x: normalized_back(d, x, of_mean=True, of_deviation=True),
        lambda d, x: normalized_back(d, x, of_mean=False, of_deviation=True),
    ),
    Formula(
        "normalization: the deviation",
        normalized,
        lambda d, x: normalized_back(d, x, of_mean=True, of_deviation=True),
        lambda d, x: normalized_back(d, x, of_mean=True, of_deviation=False),
    ),
    Formula(
        "attention: the scale of the keys' gradient",
        attention,
        attention_back,
        lambda d, q, k, v: attention_back(d, q, k, v, scale=1),
        QUERIES,
    ),
    # Rare and small.
    Formula(
        "square: a millionth too large",
        lambda x: x * x,
        lambda d, x: 2 * x * d,
        lambda d, x: 2 * x * d * (1 + 1e-6),
    ),
    Formula(
        "square: wrong above 100 alone",
        lambda x: x * x,
        lambda d, x: 2 * x * d,
        lambda d, x: choose(x > 100, 3 * x * d, 2 * x * d),
    ),
    Formula(
        "square: wrong in a batch alone",
        lambda x: x * x,
        lambda d, x: 2 * x * d,
        lambda d, x: 2 * x * d * (1.5 if x.shape[0] > 1 else 1.0),
    ),
    Formula(
        "square: wrong in the last feature alone",
        lambda x: x * x,
        lambda d, x: 2 * x * d,
        lambda d, x: (
            2
            * x
            * d
            * namespace_of(d).where(
                namespace_of(d).arange(x.shape[1], device=backend.native_device) == x.shape[1] - 1,
                1.5 + 0 * x,
                1 + 0 * x,
            )
        ),
    ),
    Formula(
        "square: wrong of four features or more",
        lambda x: x * x,
        lambda d, x: 2 * x * d,
        lambda d, x: 2 * x * d * (1.5 if x.shape[1] > 3 else 1.0),
    ),
    Formula(
        "square: wrong for a negative dout",
        lambda x: x * x,
        lambda d, x: 2 * x * d,
        lambda d, x: choose(d < 0, 0 * d, 2 * x * d),
    ),
]
