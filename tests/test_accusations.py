"""The kit accuses no right layer, however ill-conditioned: it measures what rounding does."""

import os
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from planted_faults import find
from right_layers import (
    RIGHT_LAYERS,
    Attention,
    BatchNorm,
    Clamp,
    GatedLinear,
    LayerNorm,
    Quartile,
    RootMeanSquareNorm,
    Sawtooth,
    Softmax,
    Sort,
    UnitLength,
)
from support import SLOW, arr, backend, except_slow, needs_float64

import xbp
from xbp.layers import Layer
from xbp.namespace import Array, namespace_of
from xbp.testing import LAYERS, Nonzero, Signature, assert_gradients
from xbp.testing.assertions import prove
from xbp.testing.directions import random_case
from xbp.testing.examples import case_of
from xbp.testing.properties import backward_is_linear
from xbp.testing.trial import LayerTrial

# How often each proof is repeated, each time with other cases: see the session `accusations`.
PROOFS = int(os.environ.get("XBP_PROOFS", "1"))

BY_MAKER = {signature.make: signature for signature in RIGHT_LAYERS}


@pytest.mark.skipif(SLOW and PROOFS == 1, reason="takes long: nox -s accusations")
@pytest.mark.parametrize("signature", RIGHT_LAYERS, ids=lambda signature: signature.name)
def test_no_right_layer_is_accused(signature: Signature) -> None:
    accused, seconds = [], []
    for number in range(PROOFS):
        start = perf_counter()
        cases = 100 if PROOFS > 1 else 10
        if finding := find(signature, backend, max_examples=cases, number=number):
            accused.append(finding.message)
        seconds.append(perf_counter() - start)
    print(
        f"{signature.name} on {backend.name}:{backend.device}: {len(accused)} of {PROOFS} accused, "
        f"a proof takes {median(seconds):.2g} s"
    )
    assert not accused, f"{len(accused)} of {PROOFS}: {accused[0]}"


def arrays(**values: Any) -> dict[str, Any]:
    return values


# Each was taken for a fault.
ILL_CONDITIONED = [
    # The variance of equal numbers is 0, and a small number in float32.
    (
        BatchNorm,
        arrays(
            x=[[-485634.9375] * 2] * 3,
            gamma=[0.0, 10000.0],
            beta=[0.0, -8290.8466796875],
            dout=[[-9999.8994140625, 0.0], [0.0, 5236.5888671875], [1.0, -4000.0]],
        ),
    ),
    (
        LayerNorm,
        arrays(
            x=[[0.0, -4138.0234375], [-4138.0234375, -4138.0234375]],
            gamma=[-0.004138023592531681] * 2,
            beta=[0.0, -0.004138023592531681],
            dout=[[1.0, 3.0], [-2.0, 5.0]],
        ),
    ),
    # Two scores are equal, among numbers whose neighbours in float32 are a sixteenth apart.
    (
        Softmax,
        arrays(
            x=[[830000.0, 216653.15625, 0.0], [997232.0, 830000.0, 997232.0]],
            dout=[[1.0, 2.0, -3.0], [0.5, -1.0, 2.0]],
        ),
    ),
    (
        Attention,
        arrays(
            q=[[0.0, -95654.203125], [827722.9375, 0.0], [818891.75, 609236.0]],
            k=[[0.7720087766647339] * 2] * 2,
            v=[[-0.5411604046821594, 0.0], [0.4840339720249176, -5.848690032958984]],
            dout=[[1.0, 2.0], [-3.0, 1.0], [2.0, -2.0]],
        ),
    ),
    # Each number is as far from some other as a step is long.
    (
        Sort,
        arrays(
            x=[[3.1e-5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.3e-5]],
            dout=[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]],
        ),
    ),
    # Where several are equal, a derivative is one of many.
    (Clamp, arrays(x=[[0.0] * 9], low=[[0.0] * 9], high=[[0.0] * 9], dout=[[1.0] * 9])),
    (Quartile, arrays(x=[[0.0] * 4], dout=[[1.0]])),
    # A score turns the weights over within a millionth, and they are flat on both sides.
    (
        Attention,
        arrays(
            q=[
                [-8.2773811300285161e-05, -7.2067174187395722e-05, -6.0805803514085710e-05],
                [-9.9463886726880446e-06, 4.4466294639278203e-05, -2.1550347810261883e-05],
            ],
            k=[
                [0.0, 470000.0, 659899.125],
                [1000000.0, 778837.5625, -437602.09375],
                [0.0, 0.0, -374258.6875],
                [-557541.0625, 113589.984375, -374258.6875],
                [-987691.375, 0.0, -374258.6875],
            ],
            v=[
                [-1.9583530956879258e-05, -2.0518384189927019e-05],
                [0.0, -7.0999994932208210e-05],
                [-1.1194378203072120e-05, 0.0],
                [-9.4343895398196764e-06, 1.2988760317966808e-05],
                [0.0, -7.9651772466604598e-06],
            ],
            dout=[[1.5295268894988112e-05, 9.0172550699207932e-05], [3.6165e-05, 0.0]],
        ),
    ),
    (Sawtooth, arrays(x=[[1e5, 0.0, 0.0]], dout=[[1.0, 2.0, 3.0]])),
    (GatedLinear, arrays(x=[[1e6]], y=[[11.5]], dout=[[1.0]])),
    (UnitLength, arrays(x=[[1e6, 1e-3, -1e6]], dout=[[1e6, 1e-5, -1e6]])),
    (
        RootMeanSquareNorm,
        arrays(x=[[1e6, 1e6, 1e6]], gamma=[1e6, 1e6, 1e6], dout=[[1e6, 1e6, 999999.0]]),
    ),
]


@pytest.mark.parametrize(
    ("make", "values"), ILL_CONDITIONED, ids=[make.__name__ for make, _ in ILL_CONDITIONED]
)
def test_what_is_ill_conditioned_is_no_fault(make: type[Layer], values: dict[str, Any]) -> None:
    # The numbers of some are beyond the domain that others are drawn from.
    signature = Signature(Sawtooth) if make is Sawtooth else BY_MAKER[make]
    prove(case_of(signature, values), backend)


class Bend(Layer):
    """Bends at 0 by 0.005: less than differences in float32 can tell from rounding."""

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.x, self.gate = x, xbp.functions.sigmoid(x)
        self.rest = xp.where(x > 0, 0.01 * x, 0 * x) - x
        return x + self.gate * self.rest

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        slope = xp.where(self.x > 0, 0 * self.x + 0.01, 0 * self.x) - 1
        return dout * (1 + self.gate * slope + self.gate * (1 - self.gate) * self.rest)


def test_a_small_kink_is_no_fault() -> None:
    assert_gradients(
        Bend, backend=backend, max_examples=1, examples=[arrays(x=[[0.0]], dout=[[1.0]])]
    )


@pytest.mark.parametrize("signature", [*LAYERS, *RIGHT_LAYERS], ids=str)
def test_rounding_is_measured_and_not_guessed(signature: Signature) -> None:
    case = random_case(signature, {}, 0, 10.0)
    with backend.scope():
        assert LayerTrial(case, backend, "float32").takes_traced


def test_what_is_run_twice_rounds_otherwise_each_time() -> None:
    case = random_case(Signature(Softmax), {"N": (3, 3), "D": (4, 4)}, 0, 10.0)
    with backend.scope():
        (rough,) = LayerTrial(case, backend, "float32")._rough(1, None)
        one, other = rough.again(case).forward(), rough.again(case).forward()
    assert np.any(one != other)
    np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.skipif(backend.name not in ("numpy", "torch"), reason="has no protocol for that")
def test_what_is_written_for_one_library_is_run_roughly_too() -> None:
    """Its own functions, methods, and assignments to parts."""
    own: Any = backend.library

    class Cosine(Layer):
        def forward(self, x: Any, y: Any) -> Any:
            self.x, self.y = x, y
            self.product = (x * y).sum(1)
            self.sizes = own.sqrt((x * x).sum(1)), own.sqrt((y * y).sum(1))
            return self.product / (self.sizes[0] * self.sizes[1])

        def backward(self, dout: Any) -> Any:
            x, y, (a, b) = self.x, self.y, self.sizes
            dx, dy = own.zeros_like(x), own.zeros_like(y)
            for row in range(len(x)):
                shared = self.product[row] / (a[row] * b[row])
                dx[row] = dout[row] * (y[row] / b[row] - shared * x[row] / a[row]) / a[row]
                dy[row] = dout[row] * (x[row] / a[row] - shared * y[row] / b[row]) / b[row]
            return dx, dy

    inputs: Any = {"x": Nonzero(("N", "D")), "y": Nonzero(("N", "D"))}
    shapes: Any = {"inputs": inputs, "output": ("N",)}
    case = random_case(Signature(Cosine, **shapes), {}, 0, 10.0)
    with backend.scope():
        assert LayerTrial(case, backend, "float32").takes_traced
    # Of one element it is the sign, and the derivative is rounding alone.
    example = {"x": [[1.0]], "y": [[0.0075]], "dout": [1.0]}
    assert_gradients(Cosine, **shapes, backend=backend, max_examples=20, examples=[example])


@needs_float64
def test_terms_that_cancel_where_two_elements_tie_are_no_fault() -> None:
    class Triplet(Layer):
        """``max(0, |a - p|² - |a - n|² + 1)``, of which nearly all cancels."""

        def forward(self, a: Array, p: Array, n: Array) -> Array:
            xp = namespace_of(a)
            self.arrays = a, p, n
            self.active = xp.sum((a - p) ** 2 - (a - n) ** 2, axis=1) + 1 > 0
            margin = xp.sum((a - p) ** 2, axis=1) - xp.sum((a - n) ** 2, axis=1) + 1
            return xp.maximum(margin, 0 * margin)

        def backward(self, dout: Array) -> Any:
            a, p, n = self.arrays
            d = namespace_of(dout).where(self.active, dout, 0 * dout)[:, None]
            return 2 * d * (n - p), 2 * d * (p - a), 2 * d * (a - n)

    inputs: Any = dict.fromkeys("apn", ("N", "D"))
    example = {"a": [[750000.0]], "p": [[0.0]], "n": [[0.0]], "dout": [1.0]}
    assert_gradients(
        Triplet, inputs=inputs, output=("N",), backend=backend, max_examples=5, examples=[example]
    )


def jumping(function: Callable[[Any, Array], Array], slope: float) -> type[Layer]:
    """Return the class of layers of a function that jumps, and of what its backward says."""

    class Jumping(Layer):
        def forward(self, x: Array) -> Array:
            return function(namespace_of(x), x)

        def backward(self, dout: Array) -> Array:
            return slope * dout

    return Jumping


@needs_float64
@pytest.mark.parametrize("name", ["sign", "trunc", "floor", "ceil", "round"])
def test_the_derivative_of_what_jumps_is_0(name: str) -> None:
    def function(xp: Any, x: Array) -> Array:
        return getattr(xp, name)(x)

    numbers = [0.0, 0.5, 3.0, -7.0, 1e4, -1e6]
    examples = [{"x": [[x]], "dout": [[1.0]]} for x in numbers]
    few: Any = {"backend": backend, "examples": examples, "max_examples": 20}
    assert_gradients(jumping(function, 0.0), **few)
    with pytest.raises(AssertionError, match="backward is wrong"):
        assert_gradients(jumping(function, 5.0), **few)


@needs_float64
def test_a_threshold_that_float32_rounds_is_no_fault() -> None:
    class AtLeast(Layer):
        """The larger of x and 0.1, which in float32 is a little more than 0.1."""

        def forward(self, x: Array) -> Array:
            self.is_larger = x > 0.1
            return namespace_of(x).maximum(x, 0.1)

        def backward(self, dout: Array) -> Array:
            return namespace_of(dout).where(self.is_larger, dout, 0 * dout)

    example = {"x": [[0.1]], "dout": [[1.0]]}
    assert_gradients(AtLeast, backend=backend, examples=[example], max_examples=5)


@needs_float64
@pytest.mark.parametrize("is_wave", [False, True])
def test_a_jump_on_a_slope_has_the_slope_beside_it(is_wave: bool) -> None:
    class Jumping(Layer):
        def forward(self, x: Array) -> Array:
            xp = namespace_of(x)
            self.x = x
            return xp.sign(x) + (xp.sin(x) if is_wave else x * x)

        def backward(self, dout: Array) -> Array:
            return dout * (namespace_of(dout).cos(self.x) if is_wave else 2 * self.x)

    example = {"x": [[0.0]], "dout": [[1.0]]}
    assert_gradients(Jumping, backend=backend, examples=[example], max_examples=10, largest=100)


@pytest.mark.skipif(backend.name != "numpy", reason="is about NumPy's functions")
def test_what_is_written_for_numpy_makes_no_array_on_another_device() -> None:
    class Squares(Layer):
        def forward(self, x: Any) -> Any:
            self.x = x
            return x * x

        def backward(self, dout: Any) -> Any:
            return np.multiply(dout, 2 * self.x)

    assert_gradients(Squares, backend=backend, max_examples=5)


class Asking(GatedLinear):
    """Asks for a value, which cannot be traced."""

    def forward(self, x: Array, y: Array) -> Array:
        float(namespace_of(x).max(x))
        return super().forward(x, y)


class ThroughLogarithms(Layer):
    """Loses digits of what it is given upstream, in a kernel that nobody can trace."""

    def forward(self, x: Array) -> Array:
        float(namespace_of(x).max(x))
        return x * 1

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        whole = xp.sign(dout) * xp.exp((xp.log(xp.abs(dout) + 1e-30) + 1000) - 1000)
        return xp.where(dout == 0, dout, whole)


@needs_float64
def test_digits_of_dout_that_a_kernel_loses_are_no_fault() -> None:
    case = case_of(Signature(ThroughLogarithms), arrays(x=[[1.0, 2.0]], dout=[[0.3, -0.7]]))
    trial = LayerTrial(case, backend, "float64")
    assert not trial.takes_traced
    backward_is_linear(trial)


@except_slow
def test_a_layer_that_asks_for_values_is_not_accused_either() -> None:
    pair = {"x": ("N", "D"), "y": ("N", "D")}
    assert_gradients(Asking, inputs=pair, backend=backend, max_examples=40)

    class Wrong(Asking):
        def backward(self, dout: Array) -> Any:
            dx, dy = super().backward(dout)
            return dx, dy * 1.01

    with pytest.raises(AssertionError, match=r"^Wrong on .*derivative"):
        assert_gradients(Wrong, inputs=pair, backend=backend)


def test_a_layer_of_one_device_is_proven_there() -> None:
    """Its constant does not go to NumPy, where a device without float64 is seen from."""

    class Constant(Layer):
        def __init__(self) -> None:
            self.constant = arr([2.0], "float32")

        def forward(self, x: Array) -> Array:
            return x * namespace_of(x).astype(self.constant, x.dtype)

        def backward(self, dout: Array) -> Array:
            return dout * namespace_of(dout).astype(self.constant, dout.dtype)

    class Wrong(Constant):
        def backward(self, dout: Array) -> Array:
            return super().backward(dout) * 1.5

    assert_gradients(Constant, backend=backend, max_examples=5)
    with pytest.raises(AssertionError, match=r"^Wrong on .*backward is wrong"):
        assert_gradients(Wrong, backend=backend, max_examples=5)


def test_an_example_that_failed_is_tried_first() -> None:
    tried = []

    class Rare(Layer):
        """Wrong for one number alone."""

        def forward(self, x: Array) -> Array:
            tried.append(x)
            self.x = x
            return x * 2

        def backward(self, dout: Array) -> Array:
            xp = namespace_of(dout)
            return xp.where(self.x == 0.40625, 3 * dout, 2 * dout)

    prove_rare = partial(assert_gradients, Rare, backend=backend, max_examples=1)
    prove_rare()
    case = arrays(x=[[1.0, 0.40625]], dout=[[1.0, -1.0]])
    with pytest.raises(AssertionError, match="backward is wrong") as failure:
        prove_rare(examples=[case])
    message = str(failure.value)
    assert "  x = [[1.     , 0.40625]]\n  dout = [[ 1., -1.]]\n" in message
    assert message.endswith("examples=[dict(x=..., dout=...)]")


def test_what_overflows_is_told_what_to_do() -> None:
    class Naive(Layer):
        """Overflows in float32 from 89 on."""

        def forward(self, x: Array) -> Array:
            xp = namespace_of(x)
            self.x = x
            return xp.log(1 + xp.exp(x))

        def backward(self, dout: Array) -> Array:
            xp = namespace_of(dout)
            return dout * xp.exp(self.x) / (1 + xp.exp(self.x))

    with pytest.raises(AssertionError, match=r"say how large its numbers may be, largest=100"):
        assert_gradients(Naive, backend=backend, examples=[arrays(x=[[1000.0]], dout=[[1.0]])])
    assert_gradients(Naive, backend=backend, largest=30, max_examples=10 if SLOW else 100)
