"""What a signature says: sizes, domains, several outputs, references, directions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from right_layers import Scale
from support import backend, except_slow, needs_float64

from xbp.errors import SettingError
from xbp.layers import Affine, Layer, Relu, Sigmoid, SoftmaxWithLoss
from xbp.namespace import Array, namespace_of
from xbp.testing import (
    Fixed,
    Labels,
    LayerCase,
    Nonzero,
    OneHot,
    Signature,
    Values,
    assert_gradients,
    assert_vjp,
    layer_cases,
)
from xbp.testing.directions import random_case
from xbp.testing.domains import other_values
from xbp.testing.examples import case_of

# What a kit does is the same on every library; the slow ones are left out.
pytestmark = except_slow

FEW = settings(max_examples=20, suppress_health_check=list(HealthCheck), deadline=None)


class Softplus(Sigmoid):
    """Any layer of one input."""


def found(layer: Any, **settings: Any) -> str:
    """Return what the proof of a layer says; nothing if it passes."""
    try:
        assert_gradients(layer, **{"backend": backend, "max_examples": 10, **settings})
    except AssertionError as error:
        return str(error)
    return ""


# Options -----------------------------------------------------------------------------------------


class Windows(Layer):
    """Sums of neighbours, one sum every few elements; scaled, if it is asked for."""

    def __init__(self, scale: Array, stride: int, mode: str = "sum") -> None:
        self.scale, self.stride, self.mode = scale, stride, mode

    param_names = ("scale",)

    def forward(self, x: Array) -> Array:
        self.x = x
        self.chosen = x[:, :: self.stride]
        return self.chosen * self.scale if self.mode == "scaled" else self.chosen * 1

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        is_scaled = self.mode == "scaled"
        self.dscale = xp.sum(dout * self.chosen) if is_scaled else 0 * self.scale
        dout = dout * self.scale if is_scaled else dout
        dx = xp.zeros(self.x.shape, dtype=dout.dtype, device=dout.device)
        columns = [dx[:, i] for i in range(self.x.shape[1])]
        for number in range(dout.shape[1]):
            columns[number * self.stride] = dout[:, number]
        return xp.stack(columns, axis=1)


def every_few(x: Any, scale: Any, stride: int, mode: str) -> Any:
    return x[:, ::stride] * (scale if mode == "scaled" else 1)


OPTIONS: dict[str, Any] = {
    "inputs": {"x": ("N", "H")},
    "output": ("N", "(H + S - 1) // S"),
    "params": {"scale": ()},
    "options": {"stride": "S", "mode": ["sum", "scaled"]},
}


def test_options_are_chosen_for_each_case() -> None:
    assert not found(Windows, **OPTIONS, reference=every_few)
    assert not found(Windows, **OPTIONS, directions=2, max_examples=4)
    signature = Signature(Windows, **OPTIONS)
    drawn = set()

    @settings(FEW, max_examples=60)
    @given(layer_cases(signature))
    def draw(case: LayerCase) -> None:
        drawn.add((case.options["stride"], case.options["mode"]))

    draw()
    assert len({stride for stride, _ in drawn} & {1, 2, 3, 4, 5, 6}) > 3
    assert {mode for _, mode in drawn} == {"sum", "scaled"}


def test_a_fault_of_one_option_is_found_and_pinned() -> None:
    class Forgetful(Windows):
        def backward(self, dout: Array) -> Array:
            is_wrong = self.mode == "scaled" and self.stride > 1
            return super().backward(dout) * (1.5 if is_wrong else 1.0)

    says = found(Forgetful, **OPTIONS, max_examples=60)
    assert "backward is wrong" in says
    assert "smallest case found:\n  stride = 2\n  mode = 'scaled'\n  x = [[" in says
    assert "examples=[dict(stride=..., mode=..., x=..., scale=..., dout=...)]" in says
    pinned: dict[str, Any] = {"x": [[1.0, 2.0, 3.0]], "scale": 2.0, "dout": [[1.0, 1.0]]}
    right = {**OPTIONS, "max_examples": 1, "options": {"stride": "S", "mode": ["sum"]}}
    assert not found(Forgetful, **right)
    assert found(Forgetful, **right, examples=[{**pinned, "stride": 2, "mode": "scaled"}])
    along = found(Forgetful, **OPTIONS, directions=2, max_examples=8)
    assert "mode = 'scaled'" in along


def test_a_pair_of_functions_takes_options() -> None:
    def power(x: Array, exponent: int) -> Array:
        return x**exponent

    few: dict[str, Any] = {"options": {"exponent": [1, 2, 3]}, "largest": 100, "max_examples": 60}
    assert_vjp(power, lambda dout, x, exponent: exponent * dout * x ** (exponent - 1), **few)
    with pytest.raises(AssertionError, match="exponent = 3"):
        assert_vjp(
            power, lambda dout, x, exponent: exponent * dout * x ** min(exponent - 1, 1), **few
        )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["S"], r"Windows: options are lists of values, or names of sizes, by name, .*, not \['S'"),
        ({"stride": []}, r"options are lists .*; that of 'stride' is \[\]"),
        ({"stride": 2}, r"that of 'stride' is 2"),
        ({"stride": "S + 1"}, r"that of 'stride' is 'S \+ 1'"),
        ({"scale": [1]}, "'scale' names two of the inputs, parameters and options"),
    ],
)
def test_mistakes_in_options(options: Any, complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        Signature(Windows, **{**OPTIONS, "options": options})


def test_a_signature_and_what_it_decides_are_not_both_given() -> None:
    signature = Signature(Softplus)
    for name, value in {"inputs": {"x": ("N",)}, "options": {"p": [1]}, "output": ("N",)}.items():
        with pytest.raises(SettingError, match=f"Softplus: its Signature says {name}=: say it th"):
            assert_gradients(signature, **{name: value})  # type: ignore[arg-type]
    for count in (0, -1, 2.5):
        with pytest.raises(SettingError, match="max_examples is a positive integer, not"):
            assert_gradients(signature, max_examples=count)  # type: ignore[arg-type]


def test_sizes_of_an_example_that_no_axis_has_alone() -> None:
    shapes: dict[str, Any] = {"x": ("N", "2*D")}
    case = case_of(Signature(Softplus, shapes), {"x": [[1.0, 2.0]], "dout": [[1.0, 1.0]]})
    assert case.sizes == {"N": 1, "D": 1}
    with pytest.raises(SettingError, match=r"'s x has the shape \(1, 3\), which does not fit"):
        case_of(Signature(Softplus, shapes), {"x": [[1.0] * 3], "dout": [[1.0] * 3]})
    image = case_of(
        Signature(Softplus, {"x": ("N", "H*W", "C - 2")}),
        {"x": np.ones((1, 784, 3)), "dout": np.ones((1, 784, 3))},
    )
    assert image.sizes == {"N": 1, "H": 1, "W": 784, "C": 5}
    many = Signature(Softplus, {"x": ("A+B+C+E", "2*F")})
    large = np.ones((60, 2))
    with pytest.raises(SettingError, match=r"'s x of the shape \(60, 2\) fits Softplus.* too many"):
        case_of(many, {"x": large, "dout": large})


def test_mistakes_in_an_example_of_options() -> None:
    signature = Signature(Windows, **OPTIONS)
    example: dict[str, Any] = {"x": [[1.0, 2.0]], "scale": 2.0, "dout": [[1.0]], "mode": "sum"}
    case_of(signature, {**example, "stride": 2})
    for stride in (0, "2", 2.0):
        with pytest.raises(SettingError, match=f"stride is the size S, .* not {stride!r}"):
            case_of(signature, {**example, "stride": stride})
    with pytest.raises(SettingError, match=r"dout has the shape \(1, 1\), which does not"):
        case_of(signature, {**example, "stride": 1})
    with pytest.raises(SettingError, match="names x, scale, dout, stride, mode; stride is missing"):
        case_of(signature, example)


class Ignoring(Layer):
    """Takes labels of classes that no axis counts."""

    def forward(self, x: Array, t: Array) -> Array:
        return x * 2

    def backward(self, dout: Array) -> Array:
        return dout * 2


def test_classes_need_not_be_an_axis() -> None:
    both: dict[str, Any] = {"x": ("N", "D"), "t": Labels(("N",), "C + 1")}
    assert not found(Ignoring, inputs=both)
    with pytest.raises(SettingError, match=r"Ignoring: the classes of t: a size is .*, not 'C\+'"):
        Signature(Ignoring, {**both, "t": Labels(("N",), "C+")})


def test_labels_of_an_example_are_classes() -> None:
    signature = Signature(SoftmaxWithLoss, {"x": ("N", "C"), "t": Labels(("N",), "C")}, ())
    example = {"x": [[1.0, 2.0]], "dout": 1.0}
    case_of(signature, {**example, "t": [1]})
    for t in ([2], [-1], [0.5]):
        with pytest.raises(SettingError, match=r"'s t holds labels, integers from 0 to 1, not \["):
            case_of(signature, {**example, "t": t})


# Mistakes ----------------------------------------------------------------------------------------


def test_mistakes_in_a_signature() -> None:
    with pytest.raises(SettingError, match="Softplus: no input has the shape of the output: say o"):
        Signature(Softplus, {"t": Labels(("N",), 3)})
    with pytest.raises(SettingError, match="no input and no parameter is an array of floating-poi"):
        Signature(Softplus, {"t": Labels(("N",), 3)}, ("N",))
    with pytest.raises(SettingError, match="a reference is a function of NumPy arrays, not 'exp'"):
        Signature(Softplus, reference="exp")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"Softplus: x: a shape is a tuple .*, not \['N'\]"):
        Signature(Softplus, {"x": ["N"]})  # type: ignore[dict-item]
    for role in ("inputs", "params"):
        with pytest.raises(SettingError, match=rf"Softplus: {role} are shapes by name, .*'N', 'D'"):
            assert_gradients(Softplus, **{role: ("N", "D")})  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"^a layer's class is needed, .*; not <Soft"):
        assert_gradients(Softplus())  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"Softplus: output: a shape is a tuple .*, not 'N'"):
        Signature(Softplus, output="N")  # type: ignore[arg-type]
    for size in (-1, 0, True, "H*", "2D", "", "2", "H**2", "H-2.5", "f(H)", "H if H else D"):
        with pytest.raises(SettingError, match="Scale: scale: a size is a positive number"):
            Signature(Scale, params={"scale": (size,)})
    with pytest.raises(SettingError, match=r"Softplus: t: a size is .*, not '-'"):
        Signature(Softplus, {"x": ("N", "D"), "t": Labels(("-",), "D")})


def test_signatures_describe_themselves() -> None:
    signature = Signature(
        Affine, {"x": ("N", "H", "L")}, ("N", "M"), {"W": ("H*L", "M"), "b": ("M",)}
    )
    assert str(signature) == "Affine(x: N H L, W: H*L M, b: M)"
    assert signature.size_names() == ["N", "H", "L", "M"]
    assert "t: labels N" in str(Signature(Scale, {"x": ("N", "C"), "t": Labels(("N",), "C")}, ()))
    assert "t: fixed 0-d" not in str(Signature(Scale, {"x": (), "t": Fixed(("N",))}, ()))


# Sizes -------------------------------------------------------------------------------------------


class Pooling(Layer):
    """The largest of each two neighbours; of an odd number the last is left out."""

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        self.shape, half = x.shape, x.shape[1] // 2
        pairs = xp.reshape(x[:, : 2 * half], (x.shape[0], half, 2))
        self.is_largest = pairs == xp.max(pairs, axis=2, keepdims=True)
        return xp.max(pairs, axis=2)

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        share = xp.astype(self.is_largest, dout.dtype)
        share = share / xp.sum(share, axis=2, keepdims=True)
        dx = xp.reshape(share * dout[:, :, None], (self.shape[0], -1))
        rest = xp.zeros_like(dout[:, : self.shape[1] % 2])
        return xp.concat([dx, rest], axis=1)


class Difference(Layer):
    """Each element and the one two places on."""

    def forward(self, x: Array) -> Array:
        return x[:, 2:] - x[:, :-2]

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        none = xp.zeros((dout.shape[0], 2), dtype=dout.dtype, device=dout.device)
        return xp.concat([none, dout], axis=1) - xp.concat([dout, none], axis=1)


class WrongFromFive(Difference):
    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        return dx * 2 if dx.shape[1] > 4 else dx


def test_sizes_are_expressions() -> None:
    assert not found(Pooling, inputs={"x": ("N", "H")}, output=("N", "H // 2"))
    assert not found(Difference, inputs={"x": ("N", "H")}, output=("N", "H - 2"))
    wrong = found(WrongFromFive, inputs={"x": ("N", "H")}, output=("N", "H - 2"), max_examples=30)
    assert "WrongFromFive on" in wrong
    assert "that of output[0, " in wrong


@FEW
@given(
    layer_cases(
        Signature(Softplus, {"x": ("N", "(H - K) / S + 1")}, params={"W": ("H", "K"), "V": ("S",)})
    )
)
def test_expressions_of_sizes_are_drawn_so_that_they_fit(case: LayerCase) -> None:
    (H, K), (S,) = case.arrays["W"].shape, case.arrays["V"].shape
    assert (H - K) % S == 0
    assert case.arrays["x"].shape[1] == (H - K) // S + 1
    assert case.sizes == {"N": len(case.arrays["x"]), "H": H, "K": K, "S": S}


def test_sizes_that_do_not_fit_are_an_error() -> None:
    signature = Signature(Softplus, {"x": ("N", "H")}, ("N", "H - 7"))
    with pytest.raises(
        SettingError, match=r"no sizes within .* fit 'H - 7': give other bounds, si"
    ):
        assert_gradients(signature, backend=backend)
    fitting = signature.fitting_sizes({"H": (7, 9), "N": (1, 1)})
    assert fitting == [{"N": 1, "H": 8}, {"N": 1, "H": 9}]
    with pytest.raises(SettingError, match="too many combinations"):
        signature.fitting_sizes({"H": (1, 1000), "N": (1, 1000)})
    by_zero = Signature(Softplus, {"x": ("N", "H / (K - 1)")}, params={"W": ("H", "K")})
    fitting = by_zero.fitting_sizes({"N": (1, 1)})
    assert fitting
    assert all(sizes["K"] > 1 for sizes in fitting)


# Domains -----------------------------------------------------------------------------------------


class Logarithm(Layer):
    def forward(self, x: Array) -> Array:
        self.x = x
        return namespace_of(x).log(x)

    def backward(self, dout: Array) -> Array:
        return dout / self.x


def test_inputs_are_drawn_of_a_domain() -> None:
    assert not found(Logarithm, inputs={"x": Values(("N", "D"), low=0.1, high=100)})
    assert not found(Logarithm, inputs={"x": Values(("N", "D"), low=0.1)}, largest=1e3)
    below = lambda x: -namespace_of(x).log(-x)  # noqa: E731
    few: dict[str, Any] = {"backend": backend, "max_examples": 10}
    inputs = {"x": Values(("N", "D"), high=-0.1)}
    assert_vjp(below, lambda dout, x: -dout / x, inputs=inputs, largest=1e3, **few)
    assert "log" in found(Logarithm).lower()  # negative numbers have none
    strategy = lambda shape: st.just(np.full(shape, 0.1))  # noqa: E731
    assert not found(Logarithm, inputs={"x": Values(("N", "D"), strategy=strategy)})


@settings(FEW, max_examples=100)
@given(
    layer_cases(
        Signature(
            Softplus,
            {
                "x": Values(("N", "D"), low=0.1, high=0.3),
                "low": Values(("D",), low=2.5),
                "high": Values(("D",), high=-1e-3),
                "t": Values(("D",), low=0, high=1, differentiable=False),
            },
            params={"scale": Values(("D",), low=-7, high=-6)},
        ),
        largest=10.0,
    )
)
def test_what_is_drawn_is_of_its_domain(case: LayerCase) -> None:
    for name, low, high in (
        ("x", 0.1, 0.3), ("low", 2.5, 13), ("high", -11, -1e-3), ("t", 0, 1), ("scale", -7, -6),
    ):  # fmt: skip
        values = case.arrays[name]
        assert np.all((low <= values) & (values <= high)), name
        np.testing.assert_array_equal(values, values.astype(np.float32))
    assert case.signature.differentiable == ["x", "low", "high"]
    assert "x: values 0.1..0.3 N D, low: values 2.5.. D, high: values ..-0.001" in str(
        case.signature
    )


def test_other_numbers_are_of_the_domain_and_others() -> None:
    for kind, value in (
        (Values((), low=0.1, high=0.3), np.float32(0.125)),
        (Values((), low=2.5), np.float32(3.0)),
        (Values((), high=-1.0), np.float32(-2.0)),
        (Nonzero(()), np.float32(1.5)),
    ):
        other = float(other_values(kind, np.asarray(value, dtype=np.float64)))
        assert other != float(value)
        assert other == np.float32(other)
        low, high = getattr(kind, "low", None), getattr(kind, "high", None)
        assert low is None or other >= low
        assert high is None or other <= high


def test_mistakes_in_a_domain() -> None:
    with pytest.raises(SettingError, match="Values: low is less than high, not 2 and 1"):
        Values(("N",), low=2, high=1)
    with pytest.raises(SettingError, match=r"strategy is a function of a shape, .*, not 3"):
        Values(("N",), strategy=3)  # type: ignore[arg-type]


# Inputs without a derivative ---------------------------------------------------------------------


class Embedding(Layer):
    """A row of W for each number."""

    param_names = ("W",)
    takes_integers = True

    def __init__(self, W: Array) -> None:
        self.W = W

    def forward(self, t: Array) -> Array:
        xp = namespace_of(t)
        self.t, flat = t, xp.reshape(t, (-1,))
        return xp.reshape(xp.take(self.W, flat, axis=0), (*t.shape, self.W.shape[1]))

    def backward(self, dout: Array) -> None:
        xp = namespace_of(dout)
        count, width = self.W.shape
        numbers = xp.arange(count, dtype=self.t.dtype, device=dout.device)
        chosen = xp.astype(xp.reshape(self.t, (-1, 1)) == numbers, dout.dtype)
        self.dW = chosen.T @ xp.reshape(dout, (-1, width))


EMBEDDING: dict[str, Any] = {
    "inputs": {"t": Labels(("N", "L"), "V")},
    "output": ("N", "L", "D"),
    "params": {"W": ("V", "D")},
}


def test_a_layer_of_integers_alone_is_proven() -> None:
    assert not found(Embedding, **EMBEDDING)

    class Half(Embedding):
        takes_integers = True

        def backward(self, dout: Array) -> None:
            super().backward(dout)
            self.dW = self.dW / 2

    wrong = found(Half, **EMBEDDING)
    assert "Half on" in wrong
    assert "with respect to W[0, 0]" in wrong


class Weighted(Layer):
    """A product, of which only the first factor has a derivative."""

    returned: Any = staticmethod(lambda dx: (dx, None))

    def forward(self, x: Array, t: Array) -> Array:
        self.t = t
        return x * t

    def backward(self, dout: Array) -> Any:
        return self.returned(dout * self.t)


WEIGHTED: dict[str, Any] = {"inputs": {"x": ("N", "D"), "t": Fixed(("N", "D"))}}


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        (lambda dx: (dx, None), ""),
        (lambda dx: dx, ""),
        (lambda dx: (dx,), ""),
        (lambda dx: (dx, dx), "backward returned a derivative with respect to t, which has none"),
        (lambda dx: (None, None), "backward returned None for x: it is Fixed in the signature, if"),
        (lambda dx: (dx, None, None), "backward returned 3 derivatives: as many as inputs, 2"),
    ],
)
def test_none_stands_for_no_derivative(returned: Any, complaint: str) -> None:
    kind = type("Weighted", (Weighted,), {"returned": staticmethod(returned)})
    message = found(kind, max_examples=3, **WEIGHTED)
    assert complaint in message if complaint else not message


# Several outputs ---------------------------------------------------------------------------------


class SineAndSum(Layer):
    """Of each sample two outputs of different shapes."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        xp = namespace_of(x)
        self.x = x
        return xp.sin(x), xp.sum(x, axis=1)

    def backward(self, dy: Array, dtotal: Array) -> Array:  # type: ignore[override]
        return dy * namespace_of(dy).cos(self.x) + dtotal[:, None]


class SumForgotten(SineAndSum):
    def backward(self, dy: Array, dtotal: Array) -> Array:  # type: ignore[override]
        return dy * namespace_of(dy).cos(self.x)


SEVERAL: dict[str, Any] = {"output": (("N", "D"), ("N",)), "largest": 10}


def test_a_layer_of_several_outputs_is_proven() -> None:
    assert not found(SineAndSum, **SEVERAL)
    wrong = found(SumForgotten, **SEVERAL)
    assert "SumForgotten on" in wrong
    assert "that of output 1[0] with respect to x[0, 0]" in wrong
    one = found(type("One", (SineAndSum,), {"forward": lambda self, x: x}), **SEVERAL)
    assert "forward returned" in one
    assert "the signature says a tuple of 2" in one
    swapped = {**SEVERAL, "output": (("N",), ("N", "D"))}
    assert "output 0 has shape" in found(SineAndSum, **swapped)


def test_outputs_of_samples_and_of_the_batch_are_proven_together() -> None:
    def forward(x: Array) -> tuple[Array, Array]:
        return x * x, namespace_of(x).mean(x)

    def backward(douts: tuple[Array, Array], x: Array) -> Array:
        dy, dmean = douts
        return 2 * x * dy + dmean / (x.shape[0] * x.shape[1])

    few: dict[str, Any] = {"backend": backend, "max_examples": 10, "output": (("N", "D"), ())}
    assert_vjp(forward, backward, **few)
    with pytest.raises(AssertionError, match=r"that of output 1 with respect to x\[0, 0\]"):
        assert_vjp(forward, lambda douts, x: 2 * x * douts[0] + douts[1], **few)


def test_outputs_side_by_side_are_told_apart() -> None:
    signature = Signature(SineAndSum, output=(("N", "D"), ("N",)))
    case = case_of(signature, {"x": np.ones((2, 3)), "dout": np.arange(8.0).reshape(2, 4)})
    first, second = case.douts()
    np.testing.assert_array_equal(first, [[0, 1, 2], [4, 5, 6]])
    np.testing.assert_array_equal(second, [3, 7])
    np.testing.assert_array_equal(case.whole([first, second]), case.dout)
    np.testing.assert_array_equal(case.samples([1]).douts()[1], [7])


# References --------------------------------------------------------------------------------------


def test_forward_is_compared_with_a_reference() -> None:
    params = {"W": ("D", "M"), "b": ("M",)}
    shapes: dict[str, Any] = {"output": ("N", "M"), "params": params}
    assert not found(Affine, reference=lambda x, W, b: x @ W + b, **shapes)
    wrong = found(Affine, reference=lambda x, W, b: x @ W - b, **shapes)
    assert "Affine on" in wrong
    assert "the output is not that of the reference: it" in wrong
    other = found(Affine, reference=lambda x, W, b: (x @ W + b)[0], **shapes)
    assert "the output is not that of the reference: it has shape" in other
    assert "the reference raised TypeError" in found(Affine, reference=lambda x: x, **shapes)


@needs_float64
def test_a_reference_rounds_otherwise() -> None:
    def reference(x: Any) -> Any:
        return np.exp(-np.log1p(np.exp(-x)))

    assert not found(Sigmoid, reference=reference, largest=30, max_examples=50)


# Forward mode ------------------------------------------------------------------------------------


def test_the_derivative_along_tangents_is_compared() -> None:
    def product(x: Array, y: Array) -> Array:
        return x * y

    def backward(dout: Array, x: Array, y: Array) -> Any:
        return dout * y, dout * x

    few: dict[str, Any] = {
        "inputs": {"x": ("N", "D"), "y": ("N", "D")}, "backend": backend, "max_examples": 10,
    }  # fmt: skip
    assert_vjp(product, backward, jvp=lambda moves, x, y: moves[0] * y + x * moves[1], **few)
    with pytest.raises(AssertionError, match="jvp and backward differ: the derivative of the out"):
        assert_vjp(product, backward, jvp=lambda moves, x, y: moves[0] * y, **few)


# Directions --------------------------------------------------------------------------------------

LARGE: dict[str, Any] = {
    "inputs": {"x": ("N", "D")},
    "output": ("N", "M"),
    "params": {"W": ("D", "M"), "b": ("M",)},
    "sizes": {"D": (200, 300), "M": (100, 100)},
    "directions": 2,
    "max_examples": 1,
}


def test_a_large_layer_is_looked_at_along_directions() -> None:
    assert not found(Affine, **LARGE)

    class OneWrong(Affine):
        def backward(self, dout: Array) -> Array:
            dx = super().backward(dout)
            xp = namespace_of(dout)
            numbers = xp.arange(self.db.shape[0], device=self.db.device)
            self.db = xp.where(numbers == 7, -self.db, self.db)
            return dx

    wrong = found(OneWrong, **LARGE)
    assert "backward is wrong along 2 of 2 random directions of b:" in wrong
    assert "the case:\n  random numbers of seed 0, N = 3, D = 300, M = 100" in wrong
    assert len(wrong) < 1000


def test_what_else_is_fast_is_looked_at() -> None:
    class Stale(Scale):
        def backward(self, dout: Array) -> Array:
            self.kept = getattr(self, "kept", self.x)
            self.dscale = namespace_of(dout).sum(dout * self.kept, axis=0)
            return dout * self.scale

    large: dict[str, Any] = {"params": {"scale": ("D",)}, "sizes": {"D": (50, 50)}, "directions": 1}
    assert not found(Scale, **large)
    assert found(Stale, **large)


@needs_float64
def test_kinks_are_stepped_over_or_told() -> None:
    assert not found(Relu, sizes={"D": (100, 100)}, directions=2)

    class Stairs(Layer):
        def forward(self, x: Array) -> Array:
            return namespace_of(x).round(x * 1e6) / 1e6

        def backward(self, dout: Array) -> Array:
            return dout

    assert "no random direction of x tells anything" in found(
        Stairs, sizes={"D": (100, 100)}, directions=2
    )


def test_random_cases_are_of_the_signature() -> None:
    signature = Signature(
        Softplus,
        {
            "x": Values(("N", "D"), low=0.5, high=0.75), "y": Nonzero(("D",)), "t": Labels((), "D"),
            "one": OneHot(("N", "D")), "low": Values(("D",), low=2), "high": Values(("D",), high=2),
        },
        params={"W": ("H - 2",)},
    )  # fmt: skip
    case = random_case(signature, {"D": (5, 7), "H": (3, 4)}, 0, 1e6)
    assert case.numbers == {"N": 3, "D": 7, "H": 4}
    assert case.arrays["W"].shape == (2,)
    assert np.all((case.arrays["x"] >= 0.5) & (case.arrays["x"] <= 0.75))
    assert np.all(abs(case.arrays["y"]) >= 1)
    assert np.all(case.arrays["low"] >= 2)
    assert np.all(case.arrays["high"] <= 2)
    assert 0 <= case.arrays["t"] < 7
    np.testing.assert_array_equal(case.arrays["one"].sum(axis=1), 1)
    again = random_case(signature, {"D": (5, 7), "H": (3, 4)}, 0, 1e6)
    np.testing.assert_array_equal(case.arrays["x"], again.arrays["x"])
    other = random_case(signature, {"D": (5, 7), "H": (3, 4)}, 1, 1e6)
    assert other.arrays["x"].shape != case.arrays["x"].shape or np.any(
        other.arrays["x"] != case.arrays["x"]
    )
    of_strategy = Signature(Softplus, {"x": Values(("N",), strategy=lambda shape: st.just(1))})
    with pytest.raises(SettingError, match="directions: an array of a strategy cannot be drawn"):
        random_case(of_strategy, {}, 0, 1e6)
    with pytest.raises(SettingError, match="directions"):
        assert_gradients(Softplus, backend=backend, directions=0)
