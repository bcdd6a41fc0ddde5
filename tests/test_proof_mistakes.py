"""Mistakes of those who prove a layer: each ends in an error that says what to do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from right_layers import Scale
from support import backend, once

from xbp.errors import SettingError
from xbp.layers import Layer, Relu
from xbp.namespace import Array
from xbp.testing import (
    Labels,
    Nonzero,
    OneHot,
    Signature,
    Values,
    assert_gradients,
    assert_vjp,
    host_arrays,
)

pytestmark = once

BATCH: Any = ("N", "D")
SCALE: Any = {"params": {"scale": ("D",)}}


class Chosen(Layer):
    """Does nothing with what it is made with."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def forward(self, x: Array) -> Array:
        return x * 1

    def backward(self, dout: Array) -> Array:
        return dout * 1


def prove(layer: Any = Relu, **settings: Any) -> None:
    """Prove a layer in a few cases."""
    assert_gradients(layer, **{"backend": backend, "max_examples": 2, **settings})


def example(x: Any = 1.0, kind: Any = BATCH, **others: Any) -> None:
    """Prove the layer of one input, beginning with an example of one element."""
    values = {"x": [[x]], "dout": [[1.0]], **others}
    prove(inputs={"x": kind}, examples=[values])


def drawn(strategy: Any) -> None:
    """Prove a layer on what a strategy draws."""
    prove(inputs={"x": Values(BATCH, strategy=strategy)})


class Unset(Chosen):
    """Carries what it never had."""

    state_names = ("mean",)


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    # Examples
    "no list": (lambda: prove(examples=5), r"Relu: examples is a list of cases, .*, not 5$"),
    "none": (lambda: prove(examples=None), "examples is a list of cases"),
    "one case": (lambda: prove(examples={"x": [[1.0]]}), "examples is a list of cases"),
    "a list in the list": (lambda: prove(examples=[["x"]]), r"an example is values by name, .*'x'"),
    "another name": (lambda: example(y=1.0), "an example names x, dout; y is unknown"),
    "a name that is no text": (lambda: prove(examples=[{1: 2}]), "1 is unknown"),
    "no dout": (lambda: prove(examples=[{"x": [[1.0]]}]), "dout is missing"),
    "not a number": (lambda: example(float("nan")), "an example's x holds nan: each element is a"),
    "infinity": (lambda: example(dout=[[np.inf]]), "an example's dout holds inf"),
    "too large": (lambda: example(1e300), r"holds 1e\+300: each element is a finite number of flo"),
    "complex": (lambda: example(1j), r"an example's x is an array of real numbers, not \[\[1j\]\]"),
    "text": (lambda: example("1"), r"is an array of real numbers, not \[\['1'\]\]"),
    "nothing": (lambda: example(None), "is an array of real numbers"),
    "masked": (
        lambda: prove(examples=[{"x": np.ma.array([[1.0]], mask=True), "dout": [[1.0]]}]),
        "an example's x is a masked array: give a number in each place",
    ),
    "beyond floats": (lambda: example(10**400), "an example's x is no array of numbers"),
    "ragged": (
        lambda: example(x=[1.0, [2.0]]),
        "an example's x is no array of numbers, nested evenly",
    ),
    "another length": (lambda: example(dout=[[1.0, 2.0]]), r"dout has the shape \(1, 2\), which "),
    "another number of axes": (lambda: example(dout=[1.0]), r"dout has the shape \(1,\), which do"),
    "zero": (lambda: example(0.0, Nonzero(BATCH)), r"x is Nonzero in the signature, and holds 0"),
    "below": (lambda: example(-1.0, Values(BATCH, low=0)), r"x is from 0 to inf, not \[\[-1.0\]\]"),
    "above": (lambda: example(9.0, Values(BATCH, -1, 8)), r"x is from -1 to 8, not \[\[9.0\]\]"),
    "no one-hot row": (
        lambda: prove(
            inputs={"x": BATCH, "t": OneHot(BATCH)},
            examples=[{"x": [[1.0, 2.0]], "t": [[0.5, 0.5]], "dout": [[1.0, 1.0]]}],
        ),
        r"an example's t holds one-hot rows, a 1 in each and else 0, not \[\[0.5, 0.5\]\]",
    ),
    # What is drawn
    "largest of zero": (lambda: prove(largest=0), "largest is a number from 1e-05 to 1e"),
    "largest below zero, along": (lambda: prove(largest=-1, directions=1), "largest is a number"),
    "largest that is text": (lambda: prove(largest="1"), "largest is a number .*, not '1'"),
    "largest that is none": (lambda: prove(largest=float("nan")), "largest is a number"),
    "an array of largest 0": (
        lambda: drawn(lambda shape: host_arrays(shape, largest=0)),
        "largest is a numb",
    ),
    "a bound that is text": (lambda: Values(BATCH, low="a"), "Values: low is a number, or None"),  # type: ignore[arg-type]
    "no bound": (lambda: Values(BATCH, high=float("inf")), "high is a number, or None where there"),
    "bounds without a number": (
        lambda: Values(BATCH, 1.0000000001, 1.0000000002),
        "Values: float32 has no number from 1.0000000001 to 1.0000000002",
    ),
    "a bound beyond float32": (lambda: Values(BATCH, low=1e39), "float32 has no number from 1e"),
    "an array for a strategy": (
        lambda: drawn(np.zeros),
        r"Relu: x, drawn by its strategy, needs a strategy of Hypothesis, not array",
    ),
    "a strategy beside bounds": (
        lambda: Values(BATCH, low=0, strategy=lambda _: st.nothing()),
        "Values: bounds, or a strategy that draws within them, but not both",
    ),
    "a strategy of nothing": (
        lambda: drawn(lambda _: st.nothing()),
        "a strategy of Hypothesis, not",
    ),
    "a strategy that filters all": (
        lambda: drawn(lambda shape: st.just(np.zeros(shape)).filter(np.any)),
        "Relu: hardly any case can be drawn: let the strategies of its arrays filter less",
    ),
    "a strategy without a shape": (
        lambda: drawn(lambda: 1),
        r"Relu: x, drawn by its strategy, of the shape \(1, 1\), raised TypeError: .*takes 0 pos",
    ),
    "a strategy that fails": (
        lambda: drawn(lambda shape: st.just(shape).map(lambda _: 1 // 0)),
        "drawn by its strategy, .*, raised ZeroDivisionError",
    ),
    "a strategy of text": (lambda: drawn(lambda _: st.text()), "x, drawn .*, is an array of real"),
    "a strategy of another shape": (
        lambda: drawn(lambda _: st.just(np.zeros(7))),
        r"x, drawn by its strategy, has the shape \(7,\), not \(1, 1\)",
    ),
    "a strategy of NaN": (
        lambda: drawn(lambda shape: st.just(np.full(shape, np.nan))),
        "x, drawn by its strategy, holds nan",
    ),
    "a size beyond memory": (
        lambda: prove(inputs={"x": ("N", 10**12)}),
        "outputs by 1000000000000 elements of x are more derivatives than can be tried: give sma",
    ),
    # Signatures
    "a function for a layer": (
        lambda: prove(lambda x: x),
        "by name, here none: missing .* 'x'. Say params= .*; a function of .* is for assert_vjp",
    ),
    "a parameter forgotten": (
        lambda: prove(Scale),
        "Scale: what makes .*, here none: missing .* 's",
    ),
    "a parameter too many": (
        lambda: prove(params={"W": ("D",)}),
        "here W: got an unexpected .* 'W'",
    ),
    "more classes than labels": (
        lambda: prove(inputs={"x": BATCH, "t": Labels(("N",), 2**64)}),
        "Relu: t are labels of int64, of 9223372036854775808 classes at most, not 18446744073",
    ),
    "a list of inputs": (
        lambda: assert_vjp(abs, abs, inputs=[BATCH]),  # type: ignore[arg-type]
        "abs: inputs are shapes by name",
    ),
    "no inputs": (lambda: prove(inputs={}), "no input has the shape of the output: say output="),
    "a name of no text": (lambda: prove(inputs={1: BATCH}), "have names, not 1"),
    "a parameter of no name": (lambda: prove(Scale, params={"": ("D",)}), "have names, not ''"),
    "an input and a parameter": (
        lambda: prove(Scale, inputs={"scale": BATCH}, **SCALE),
        "Scale: 'scale' names two of the inputs, parameters and options",
    ),
    "an input and an option": (lambda: prove(Chosen, options={"x": [1]}), "'x' names two of"),
    "one-hot rows without an axis": (
        lambda: prove(inputs={"x": BATCH, "t": OneHot(())}),
        r"t: one-hot rows have an axis of classes, OneHot\(\('N', 'C'\)\)",
    ),
    "classes that are half": (
        lambda: prove(inputs={"x": BATCH, "t": Labels(("N",), 2.5)}),  # type: ignore[arg-type]
        "the classes of t: a size is",
    ),
    "a parameter of labels": (
        lambda: prove(Scale, params={"scale": Labels(("D",), 3)}),
        r"Scale: scale is a parameter, and has a derivative: .*, not Labels",
    ),
    "a parameter without a derivative": (
        lambda: prove(Scale, params={"scale": Values(("D",), differentiable=False)}),
        "scale is a parameter, and has a derivative",
    ),
    "no truth": (
        lambda: Values(BATCH, differentiable="no"),  # type: ignore[arg-type]
        "Values: differentiable is True or False, not 'no'",
    ),
    "an option of no name": (lambda: prove(Chosen, options={"a": ""}), "that of 'a' is ''"),
    "an option of a keyword": (lambda: prove(Chosen, options={"a": "if"}), "that of 'a' is 'if'"),
    "no function": (
        lambda: assert_vjp("abs", abs),  # type: ignore[arg-type]
        "assert_vjp: forward is a function of arrays, not 'abs'",
    ),
    "no functions back": (
        lambda: assert_vjp(abs, None),  # type: ignore[arg-type]
        "assert_vjp: backward is a function of arrays, not None",
    ),
    # What counts samples is the first axis.
    "N is another axis": (
        lambda: prove(inputs={"x": ("D", "N")}),
        r"'N' counts the samples of a batch, along the first axis of inputs and outputs, and "
        r"occurs in \('D', 'N'\)",
    ),
    "N in an expression": (lambda: prove(output=("2*N", "D")), r"occurs in \('2\*N', 'D'\)"),
    "N of a parameter": (lambda: prove(Scale, params={"scale": ("N", "D")}), "'N' counts the sam"),
    "N of an option": (lambda: prove(Chosen, options={"count": "N"}), "'N' counts the samples"),
    "N classes": (
        lambda: prove(inputs={"x": BATCH, "t": Labels(("N",), "N")}),
        "'N' counts the samples",
    ),
    "N twice": (lambda: prove(output=("N", "N")), r"occurs in \('N',\)"),
    # Layers
    "no layer": (lambda: prove(lambda: None), "a layer is made for each case, not None"),
    "a dictionary": (lambda: prove(lambda: {"a": 1}), r"is made for each case, not \{'a': 1\}"),
    "a class": (lambda: prove(lambda: Relu), "not the class Relu: make one of it"),
    "a state that was never set": (
        lambda: prove(Unset),
        "Unset: there is no attribute 'mean', which state_names names: set it in __init__",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_an_error_that_says_what_to_do(mistake: str) -> None:
    make, complaint = MISTAKES[mistake]
    with pytest.raises(SettingError, match=complaint):
        make()


def test_an_array_may_be_called_as_the_upstream_derivative() -> None:
    both: Any = {"inputs": {"dout": BATCH, "x": BATCH}, "max_examples": 5, "backend": backend}

    def slope(dout: Array, x: Array) -> Array:
        return 2 * dout * x

    def right(second: Array, dout: Array, x: Array) -> tuple[Array, Array]:
        return 2 * x * second, 2 * dout * second

    values = {"dout": [[1.0]], "x": [[2.0]], "upstream_dout": [[3.0]]}
    assert_vjp(slope, right, **both, examples=[values])
    says = "examples=[dict(dout=..., x=..., upstream_dout=...)]"
    with pytest.raises(AssertionError) as caught:
        assert_vjp(slope, lambda second, dout, x: (x * second, dout * second), **both)
    assert says in str(caught.value)
    assert "\n  upstream_dout = " in str(caught.value)
    labels: Any = {"dout": Labels(("N",), "C"), "x": ("N", "C")}
    assert_vjp(lambda _, x: x * 1, lambda second, *_: second * 1, **{**both, "inputs": labels})


def test_an_option_may_have_any_name() -> None:
    names = {name: [1] for name in ("self", "what", "function", "make")}

    def make(**options: Any) -> Layer:
        assert options == dict.fromkeys(names, 1)
        return Relu()

    prove(make, options=names)


def test_an_input_called_dout_is_not_to_be_changed() -> None:
    def forward(dout: Array) -> Array:
        dout += 1
        return dout - 1

    with pytest.raises(AssertionError, match="the arrays it is given are not to be changed"):
        assert_vjp(forward, lambda second, _: second * 1, inputs={"dout": BATCH}, backend=backend)


@pytest.mark.parametrize(
    ("size", "length", "number"),
    [("D // 4", 3, 12), ("D - 10", 3, 13), ("(D - 1) // 2", 3, 7), ("D / 50", 2, 100)],
)
def test_an_example_fits_sizes_that_others_are_taken_from(
    size: str, length: int, number: int
) -> None:
    seen = []

    def make(count: int) -> Layer:
        seen.append(count)
        return Chosen()

    values = {"x": [[1.0] * length], "dout": [[1.0] * length], "count": number}
    signature = Signature(make, {"x": ("N", size)}, options={"count": "D"})
    assert_gradients(
        signature, backend=backend, sizes={"D": (100, 100)}, max_examples=1, examples=[values]
    )
    assert seen[0] == number
    without = {"x": values["x"], "dout": values["dout"]}
    prove(inputs={"x": ("N", size)}, sizes={"D": (100, 100)}, max_examples=1, examples=[without])


def test_an_example_of_a_bound_is_of_the_domain() -> None:
    values = {"x": [[0.1]], "dout": [[1.0]]}
    prove(inputs={"x": Values(BATCH, low=0.01, high=0.1)}, examples=[values])
    prove(inputs={"x": Values(BATCH, low=0.1)}, examples=[values])


def test_a_tuple_may_hold_one_output() -> None:
    assert_vjp(lambda x: (x * 2,), lambda dout, _: dout * 2, output=(BATCH,), backend=backend)
    with pytest.raises(AssertionError, match=r"forward returned .*: the signature says a tuple"):
        assert_vjp(lambda x: x * 2, lambda dout, _: dout * 2, output=(BATCH,), backend=backend)
