"""Each layer: the chapter's examples, backward against central differences, untouched inputs."""

import math
import pickle
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import (
    HostArray,
    arr,
    arrays,
    backend,
    both_floats,
    dtype_of,
    host,
    needs_float64,
    other,
    precise,
    widest,
)

import xbp
from xbp.calls import noted_calls
from xbp.errors import (
    CallOrderError,
    DataError,
    DTypeError,
    MixedBackendError,
    SettingError,
    ShapeError,
)
from xbp.layers import (
    AddLayer,
    Affine,
    DivLayer,
    ExpLayer,
    IdentityWithLoss,
    Layer,
    LossLayer,
    MulLayer,
    ReciprocalLayer,
    Relu,
    Rescale,
    Sequential,
    Sigmoid,
    SoftmaxWithLoss,
    SubLayer,
)
from xbp.namespace import Array, epsilon_of, namespace_of

# The chapter's examples --------------------------------------------------------------------------


def test_two_apples() -> None:
    apples, with_tax = MulLayer(), MulLayer()
    assert apples.forward(100, 2) == 200
    assert with_tax.forward(200, 1.1) == 220.00000000000003
    assert repr(with_tax.backward(1)) == "(1.1, 200)"
    assert apples.backward(1.1) == (2.2, 110.00000000000001)


def test_apples_and_oranges() -> None:
    apples, oranges, fruit, with_tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()
    price = with_tax.forward(fruit.forward(apples.forward(100, 2), oranges.forward(150, 3)), 1.1)
    assert price == 715.0000000000001
    dfruit, dtax = with_tax.backward(1)
    dapples, doranges = fruit.backward(dfruit)
    assert apples.backward(dapples) == (2.2, 110.00000000000001)
    assert oranges.backward(doranges) == (3.3000000000000003, 165.0)
    assert dtax == 650


def test_relu_example() -> None:
    relu = Relu()
    y = relu.forward(arr([[1.0, -0.5], [-2.0, 3.0]]))
    np.testing.assert_array_equal(host(y), [[1, 0], [0, 3]])
    dx = relu.backward(arr([[1, 8], [1, 1]], "int64"))
    np.testing.assert_array_equal(host(dx), [[1, 0], [0, 1]])
    assert dtype_of(dx) == "int64"


def test_the_derivative_of_relu_at_its_kink_is_0() -> None:
    relu = Relu()
    np.testing.assert_array_equal(host(relu.forward(arr([0.0, 0.5]))), [0, 0.5])
    np.testing.assert_array_equal(host(relu.backward(arr([2.0, 2.0]))), [0, 2])


def test_sigmoid_example() -> None:
    sigmoid = Sigmoid()
    y = host(sigmoid.forward(arr([[1.0, -0.5], [-2.0, 3.0]], widest)))
    dx = host(sigmoid.backward(arr([[1, 1], [1, 1]], "int64")))
    assert y.dtype == dx.dtype == widest
    digits = precise(5e-9, 1e-7)
    expected_y = [[0.73105858, 0.37754067], [0.11920292, 0.95257413]]
    expected_dx = [[0.19661193, 0.23500371], [0.10499359, 0.04517666]]
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=digits)
    np.testing.assert_allclose(dx, expected_dx, rtol=0, atol=digits)


@pytest.mark.parametrize(
    ("y", "dx"),
    [((0.3, 0.2, 0.5), (0.3, -0.8, 0.5)), ((0.005, 0.99, 0.005), (0.005, -0.01, 0.005))],
)
def test_softmax_with_loss_sends_back_the_difference(y: Any, dx: Any) -> None:
    layer = SoftmaxWithLoss()
    loss = layer.forward(arr(np.log(y)), arr([0, 1, 0]))
    np.testing.assert_allclose(host(loss), -np.log(y[1]), rtol=precise(1e-13, 1e-5))
    np.testing.assert_allclose(host(layer.backward()), dx, rtol=precise(1e-12, 1e-4))


INF = math.inf


@both_floats
@pytest.mark.parametrize(
    ("scores", "label", "loss", "dx"),
    [
        # As PyTorch's cross_entropy has them.
        ([0.0, -INF, 1.0], 0, 1.3132616875182228, [-0.7310585786300049, 0, 0.7310585786300049]),
        ([0.0, -INF, 1.0], 1, INF, [0.2689414213699951, -1, 0.7310585786300049]),
        ([-INF, -INF, 3.0], 2, 0, [0, 0, 0]),
        ([1e35, 0.0, 0.0], 0, 0, [0, 0, 0]),
        ([1e35, 0.0, 0.0], 1, 1e35, [1, -1, 0]),
        ([3e38, -3e38, 0.0], 0, 0, [0, 0, 0]),
        ([-3e38, -3e38, 3e38], 2, 0, [0, 0, 0]),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_the_largest_scores_and_classes_that_cannot_be(
    scores: list[float], label: int, loss: float, dx: list[float], dtype: str
) -> None:
    x = arr([scores, scores], dtype)
    one_hot = arr(np.eye(3)[[label, label]])
    for t in (arr([label, label]), one_hot):
        layer = SoftmaxWithLoss()
        np.testing.assert_allclose(host(layer.forward(x, t)), loss, rtol=1e-6)
        np.testing.assert_allclose(host(layer.losses(x, t)), [loss, loss], rtol=1e-6)
        np.testing.assert_allclose(host(layer.backward(2)), [dx, dx], rtol=1e-6)


@given(t=arrays((4, 3), 0, 2), x=arrays((4, 3)))
def test_targets_may_have_any_sum(t: HostArray, x: HostArray) -> None:
    layer = SoftmaxWithLoss()
    layer.forward(arr(x, widest), arr(t, widest))
    y = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    expected = (y * t.sum(axis=1, keepdims=True) - t) / 4
    np.testing.assert_allclose(
        host(layer.backward()), expected, rtol=precise(1e-10, 1e-3), atol=precise(1e-13, 1e-6)
    )


def test_relu_stops_what_is_infinite_too() -> None:
    relu = Relu()
    relu.forward(arr([-1.0, 0.0, 2.0, 3.0]))
    dx = host(relu.backward(arr([INF, -INF, INF, math.nan])))
    np.testing.assert_array_equal(dx, [0, 0, INF, math.nan])


# Forward, and the exact backward of arithmetic ---------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3), (2, 3, 1, 1), (2, 1, 3)])
def test_affine_is_a_matrix_product_and_a_bias(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    x, W, b = (random.normal(size=size) for size in (shape, (3, 2), (2,)))
    y = Affine(arr(W, widest), arr(b, widest)).forward(arr(x, widest))
    expected = x.reshape(-1, 3) @ W + b if x.ndim > 1 else x @ W + b
    np.testing.assert_allclose(
        host(y), expected, rtol=precise(1e-13, 1e-5), strict=backend.has_float64
    )


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3), (2, 3, 1, 1), (2, 1, 3)])
def test_the_gradients_of_affine_are_matrix_products_and_a_sum(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    x, W, b = (random.normal(size=size) for size in (shape, (3, 2), (2,)))
    layer = Affine(arr(W, widest), arr(b, widest))
    dout = random.normal(size=layer.forward(arr(x, widest)).shape)
    dx = layer.backward(arr(dout, widest))
    rows, dout_rows = x.reshape(-1, 3), dout.reshape(-1, 2)
    for found, expected in (
        (dx, (dout_rows @ W.T).reshape(shape)),
        (layer.dW, rows.T @ dout_rows),
        (layer.db, dout_rows.sum(axis=0)),
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(
            host(found), expected, rtol=precise(1e-12, 1e-4), atol=precise(1e-14, 1e-6)
        )


@given(st.data(), st.sampled_from([(), (3,), (2, 2)]))
def test_arithmetic_on_arrays(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x, y, dout = (data.draw(arrays(shape)).astype(widest) for _ in range(3))
    mul, add = MulLayer(), AddLayer()
    np.testing.assert_array_equal(host(mul.forward(arr(x), arr(y))), x * y)
    np.testing.assert_array_equal(host(add.forward(arr(x), arr(y))), x + y)
    for found, expected in zip(mul.backward(arr(dout)), (dout * y, dout * x), strict=True):
        np.testing.assert_array_equal(host(found), expected)
    for found in add.backward(arr(dout)):
        np.testing.assert_array_equal(host(found), dout)


@given(st.data(), st.sampled_from([(), (3,), (2, 2)]))
def test_subtraction_and_division_of_arrays(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x, y, dout = (data.draw(arrays(shape)).astype(widest) for _ in range(3))
    y = y + np.copysign(1, y)
    sub, div = SubLayer(), DivLayer()
    rtol = precise(1e-14, 1e-5)
    np.testing.assert_array_equal(host(sub.forward(arr(x), arr(y))), x - y)
    np.testing.assert_allclose(host(div.forward(arr(x), arr(y))), x / y, rtol=rtol)
    for found, expected in zip(sub.backward(arr(dout)), (dout, -dout), strict=True):
        np.testing.assert_array_equal(host(found), expected)
    quotients = dout / y, -dout * x / y**2
    for found, expected in zip(div.backward(arr(dout)), quotients, strict=True):
        np.testing.assert_allclose(host(found), expected, rtol=rtol)


ARITHMETIC = [MulLayer, AddLayer, SubLayer, DivLayer]


def test_numbers_alone_give_numbers() -> None:
    sub, div = SubLayer(), DivLayer()
    assert sub.forward(3, 5) == -2
    assert sub.backward(2) == (2, -2)
    assert div.forward(3, 4) == 0.75
    assert div.backward(8) == (2, -1.5)
    assert div.forward(1e-200, 2e-200) == 0.5
    assert div.backward(1e-200) == (0.5, -0.25)
    for layer in map(type.__call__, ARITHMETIC):
        for x, y in ((np.int8(100), np.uint8(200)), (np.float32(0.5), 3), (True, np.int64(2))):
            found = layer.forward(x, y)
            assert found == type(layer)().forward(float(x), float(y))
            assert type(found) in (int, float)


def test_division_by_zero() -> None:
    for zero in (0, 0.0, np.float32(0)):
        with pytest.raises(ZeroDivisionError):
            DivLayer().forward(1, zero)
    div = DivLayer()
    with np.errstate(all="ignore"):
        for zeros, last in ((arr([0.0, 0.0, 2.0], widest), -3), (0, -np.inf)):
            y = div.forward(arr([1.0, 0.0, -6.0], widest), zeros)
            np.testing.assert_array_equal(host(y), [np.inf, np.nan, last])
        # Without dimensions they are arrays, too, and stay so.
        x = AddLayer().forward(arr(1.0, widest), arr(2.0, widest))
        zero = MulLayer().forward(arr(1.0, widest), 0)
        assert float(div.forward(x, zero)) == np.inf
        assert [float(gradient) for gradient in div.backward(1)] == [np.inf, -np.inf]


def test_a_quotient_of_tiny_numbers() -> None:
    tiny = precise(1e-160, 1e-25)
    div = DivLayer()
    y = div.forward(arr([tiny, -3 * tiny], widest), arr([2 * tiny, tiny], widest))
    np.testing.assert_allclose(host(y), [0.5, -3], rtol=1e-6)
    dx, dy = div.backward(arr([tiny, tiny], widest))
    np.testing.assert_allclose(host(dx), [0.5, 1], rtol=1e-6)
    np.testing.assert_allclose(host(dy), [-0.25, 3], rtol=1e-6)


NARROW = ["int8", "uint8", "int16", "uint16"]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("kind", [MulLayer, AddLayer, SubLayer])
def test_narrow_integers_do_not_overflow(kind: type[Layer], dtype: str) -> None:
    limits = np.iinfo(dtype)
    x, y = np.array([[limits.max, 3, 0], [limits.max, 5, 1]])
    operation = {"×": np.multiply, "+": np.add, "−": np.subtract}[kind.symbol]
    expected = operation(x.astype("int64"), y.astype("int64"))
    there = [arr(values.astype(dtype)) for values in (x, y)]
    for operands in (there, (there[0], arr(y, "int32")), (arr(x, "int32"), there[1])):
        np.testing.assert_array_equal(host(kind().forward(*operands)), expected)
    for number in (300, np.int64(-300)):
        layer = kind()
        np.testing.assert_array_equal(host(layer.forward(there[0], number)), operation(x, number))
        np.testing.assert_array_equal(host(layer.forward(number, there[0])), operation(number, x))
        dx, dy = layer.backward(there[0])
        slope = {"×": number, "+": 1, "−": -1}[kind.symbol]
        np.testing.assert_array_equal(host(dy), slope * x)
        assert int(dx) == (np.sum(x * x) if kind is MulLayer else np.sum(x))


def test_integers_without_a_sign_that_no_wider_ones_hold() -> None:
    one = arr(np.array([1], dtype="uint64"))
    for kind in (MulLayer, AddLayer, SubLayer):
        with pytest.raises(DTypeError, match=rf"{kind.__name__}: uint64 holds .* asarray\(x, dty"):
            kind().forward(one, 1)
        layer = kind()
        layer.forward(arr([1]), 2)
        with pytest.raises(DTypeError, match=rf"{kind.__name__}.backward: uint64 holds "):
            layer.backward(one)


@pytest.mark.parametrize("kind", [MulLayer, AddLayer, SubLayer])
def test_a_number_that_an_array_cannot_hold(kind: type[Layer]) -> None:
    integers, floats = arr([1, 2]), arr([1.0, 2.0])
    for number in (2**63, -(2**63) - 1, 10**400):
        for operands in ((integers, number), (number, integers)):
            with pytest.raises(DTypeError, match=rf"{kind.__name__}: an integer of \d+ bits does"):
                kind().forward(*operands)
    layer = kind()
    layer.forward(integers, 3)
    with pytest.raises(DTypeError, match=rf"{kind.__name__}.backward: an integer of 64 bits"):
        layer.backward(2**63)
    for operands in ((floats, 10**400), (10**400, 0.5), (0.5, 10**400)):
        with pytest.raises(DTypeError, match=f"{kind.__name__}: an integer is too large for a fl"):
            kind().forward(*operands)
    assert kind().forward(10**400, 1) in (10**400, 10**400 + 1, 10**400 - 1)


def test_numbers_too_large_for_a_float() -> None:
    assert DivLayer().forward(10**400, 10**399) == 10
    for operands in ((10**400, 3), (10**400, 0.5)):
        with pytest.raises(DTypeError, match="DivLayer: an integer is too large"):
            DivLayer().forward(*operands)
    div, reciprocal, exp = DivLayer(), ReciprocalLayer(), ExpLayer()
    div.forward(1, 2)
    with pytest.raises(DTypeError, match="DivLayer: an integer is too large"):
        div.backward(10**400)
    assert reciprocal.forward(10**400) == 0
    with pytest.raises(DTypeError, match=r"ReciprocalLayer\.backward: an integer is too large"):
        reciprocal.backward(10**400)
    assert exp.forward(10**400) == math.inf
    assert exp.forward(-(10**400)) == 0


def test_integers_and_floating_point_arrays_meet_in_backward_alone() -> None:
    x, y = arr([1, 2]), arr([0.5, 4.0], widest)
    for kind in ARITHMETIC:
        for operands in ((x, y), (y, x), (x, 0.5)):
            with pytest.raises(DTypeError, match=rf"{kind.__name__}.*: real floating-point"):
                kind().forward(*operands)
    for kind, expected in ((MulLayer, (1.5, 24)), (DivLayer, (6, 1.5))):
        layer = kind()
        layer.forward(arr([3.0, 6.0], widest), y)
        dx, _ = layer.backward(arr([3, 6], "int64"))
        np.testing.assert_array_equal(host(dx), expected)


def test_what_is_sent_back_to_integers_may_be_floating_point() -> None:
    layer = MulLayer()
    layer.forward(arr([1, 2]), arr([3, 4]))
    for dtype in {"float32", widest}:
        dx, dy = layer.backward(arr([0.5, 1.5], dtype))
        np.testing.assert_array_equal(host(dx), [1.5, 6])
        np.testing.assert_array_equal(host(dy), [0.5, 3])
        assert dtype_of(dx) == dtype_of(dy) == dtype


@needs_float64
@pytest.mark.parametrize(("first", "second"), [("float32", "float64"), ("float64", "float32")])
def test_of_two_precisions_backward_keeps_the_finer(first: str, second: str) -> None:
    layer = MulLayer()
    layer.forward(arr([3.0], first), arr([3.0], first))
    for gradient in layer.backward(arr([0.1], second)):
        assert dtype_of(gradient) == "float64"


@pytest.mark.parametrize("kind", ARITHMETIC)
def test_arrays_without_dimensions_stay_arrays(kind: type[Layer]) -> None:
    layer, x = kind(), arr(3.0, widest)
    for operands in ((x, 2.0), (2.0, x), (x, x)):
        assert type(layer.forward(*operands)) is type(x)  # NumPy makes scalars of them
        for dout in (arr(1.0, widest), 1.0):
            gradients = layer.backward(dout)
            for operand, gradient in zip(operands, gradients, strict=True):
                assert operand is not x or type(gradient) is type(x)


@pytest.mark.parametrize("kind", [ExpLayer, ReciprocalLayer])
def test_of_one_array_without_dimensions_too(kind: type[Layer]) -> None:
    layer = kind()
    x = arr(3.0, widest)
    assert type(layer.forward(x)) is type(x)
    assert type(layer.backward(arr(1.0, widest))) is type(x)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(MulLayer, (8, 4)), (DivLayer, (0.5, -0.25)), (AddLayer, (2, 2)), (SubLayer, (2, -2))],
)
def test_an_array_is_sent_back_to_numbers(kind: type[Layer], expected: tuple[float, ...]) -> None:
    layer = kind()
    layer.forward(2.0, 4.0)
    for gradient, value in zip(layer.backward(arr(2.0, widest)), expected, strict=True):
        assert float(gradient) == value


@pytest.mark.parametrize(("kind", "expected"), [(ExpLayer, 8.0), (ReciprocalLayer, -2.0)])
def test_an_array_is_sent_back_to_one_number(kind: type[Layer], expected: float) -> None:
    layer = kind()
    out = layer.forward(1.0)
    gradient = layer.backward(arr(2.0, widest))
    assert float(gradient) == pytest.approx(expected if kind is ReciprocalLayer else 2 * out)


@both_floats
@pytest.mark.parametrize("kind", [ExpLayer, ReciprocalLayer, Sigmoid])
def test_functions_send_back_the_dtype_of_what_they_gave(kind: type[Layer], dtype: str) -> None:
    layer = kind()
    layer.forward(arr([1.0, 2.0], dtype))
    for dout in (arr([1, 2], "int64"), arr([1.0, 2.0], widest), arr([1.0, 2.0], "float32")):
        assert dtype_of(layer.backward(dout)) == dtype


@pytest.mark.parametrize("kind", ARITHMETIC)
def test_what_is_neither_a_number_nor_an_array_is_no_operand(kind: type[Layer]) -> None:
    layer = kind()
    for operands in ((arr([1.0]), "text"), (arr([1.0]), [1.0]), ("text", arr([1.0]))):
        with pytest.raises(DTypeError, match=rf"^{kind.__name__}: expected an array, got "):
            layer.forward(*operands)
    layer.forward(2.0, 3.0)
    with pytest.raises(
        DTypeError, match=rf"^{kind.__name__}\.backward: expected an array, got str"
    ):
        layer.backward("text")


@pytest.mark.parametrize("name", ["W", "b"])
def test_a_parameter_of_another_library_is_refused(name: str) -> None:
    layer = Affine(arr([[1.0]]), arr([1.0]))
    setattr(layer, name, other.asarray(backend.to_numpy(getattr(layer, name))))
    with pytest.raises(MixedBackendError, match="Affine"):
        layer.forward(arr([1.0]))


def test_a_loss_is_sent_back_to_in_its_own_dtype_and_library() -> None:
    layer = SoftmaxWithLoss()
    layer.forward(arr([[1.0, 2.0]], "float32"), arr([0]))
    for dout in (2, np.float64(2), np.int8(2), arr(2.0, "float32")):
        assert dtype_of(layer.backward(dout)) == "float32"
    with pytest.raises(MixedBackendError, match=r"SoftmaxWithLoss\.backward"):
        layer.backward(other.asarray(2.0))


def test_the_target_of_one_sample_may_be_a_number_of_numpy() -> None:
    for there in (backend, other):
        x = there.asarray([1.0, 2.0, 4.0], "float32")
        layer = SoftmaxWithLoss()
        expected = float(layer.forward(x, 1))
        assert float(layer.forward(x, np.int64(1))) == expected


def test_targets_of_another_library_are_refused_whatever_forward_does() -> None:
    class Own(LossLayer):
        classifies = False

        def forward(self, x: Array, t: Array) -> Array:
            return namespace_of(x).mean(x)

    x = arr([[1.0, 2.0]])
    assert float(Own().forward(x, x)) == 1.5
    with pytest.raises(MixedBackendError, match=r"^Own: "):
        Own().forward(x, other.asarray([[1.0, 2.0]]))
    with pytest.raises(MixedBackendError, match=r"^Own: "):
        Own().forward(other.asarray([[1.0, 2.0]]), x)


def test_a_loss_returns_something() -> None:
    class Nothing(LossLayer):
        classifies = False

        def forward(self, x: Array, t: Array) -> Any:
            namespace_of(x).mean(x - t)

    with pytest.raises(DTypeError, match=r"^Nothing\.forward returned None: it ends with return"):
        Nothing().forward(arr([[1.0]]), arr([[1.0]]))


@needs_float64
def test_a_derivative_of_a_quotient_is_not_lost_on_the_way() -> None:
    layer = DivLayer()
    layer.forward(arr([1e-300], "float64"), arr([1e-100], "float64"))
    _, dy = layer.backward(arr([1e-200], "float64"))
    np.testing.assert_allclose(host(dy), [-1e-300], rtol=1e-12)


def test_division_is_of_floating_point_arrays() -> None:
    for operands in ((arr([1]), arr([2])), (arr([1]), 2), (3, arr([2]))):
        with pytest.raises(DTypeError, match="DivLayer: real floating-point numbers are needed"):
            DivLayer().forward(*operands)


@pytest.mark.parametrize("kind", ARITHMETIC)
def test_empty_arrays_and_numbers_of_numpy(kind: type[Layer]) -> None:
    layer = kind()
    nothing = arr(np.zeros((0, 2)), widest)
    for operands in ((nothing, nothing), (nothing, np.float32(2)), (np.int8(3), nothing)):
        assert layer.forward(*operands).shape == (0, 2)
        for operand, gradient in zip(operands, layer.backward(nothing), strict=True):
            assert tuple(gradient.shape) == (() if np.isscalar(operand) else (0, 2))
    x = layer.forward(arr([2.0, 3.0], "float32"), np.float64(2))
    assert dtype_of(x) == "float32"
    assert {dtype_of(gradient) for gradient in layer.backward(np.float32(1))} == {"float32"}
    assert host(layer.forward(arr([2.0], widest), arr([1.0], widest))).shape == (1,)


def test_a_number_that_meets_an_array_has_a_part_in_each_element() -> None:
    x = arr([1.0, 2.0, 4.0], widest)
    mul, add = MulLayer(), AddLayer()
    np.testing.assert_array_equal(host(mul.forward(x, 3)), [3, 6, 12])
    dx, dy = mul.backward(1)
    np.testing.assert_array_equal(host(dx), [3, 3, 3])
    assert float(dy) == 7
    add.forward(2.5, x)
    dx, dy = add.backward(arr([1.0, 2.0, 3.0], widest))
    assert float(dx) == 6
    np.testing.assert_array_equal(host(dy), [1, 2, 3])


def test_it_does_so_on_either_side_and_with_a_number_sent_back() -> None:
    x = arr([1.0, 2.0, 4.0], widest)
    mul, add = MulLayer(), AddLayer()
    mul.forward(3, x)
    dx, dy = mul.backward(1)
    assert float(dx) == 7
    np.testing.assert_array_equal(host(dy), [3, 3, 3])
    add.forward(x, 2.5)
    dx, dy = add.backward(2)
    np.testing.assert_array_equal(host(dx), [2, 2, 2])
    assert float(dy) == 6


@pytest.mark.parametrize(("kind", "sign"), [(AddLayer, 1), (SubLayer, -1)])
def test_addition_and_subtraction_send_integers_back(kind: type[Layer], sign: int) -> None:
    layer = kind()
    layer.forward(1, 2)
    assert [type(gradient) for gradient in layer.backward(3)] == [int, int]
    layer.forward(arr([1.0, 2.0]), arr([3.0, 4.0]))
    dx, dy = layer.backward(arr([1, 2], "int64"))
    assert dtype_of(dx) == dtype_of(dy) == "int64"
    np.testing.assert_array_equal(host(dx), [1, 2])
    np.testing.assert_array_equal(host(dy), [sign, 2 * sign])


@given(st.data(), st.sampled_from([(), (3,), (2, 2)]))
def test_exponential_and_reciprocal_of_arrays(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x, dout = data.draw(arrays(shape)).astype(widest), data.draw(arrays(shape)).astype(widest)
    rtol = precise(1e-14, 1e-5)
    exp, reciprocal = ExpLayer(), ReciprocalLayer()
    np.testing.assert_allclose(host(exp.forward(arr(x))), np.exp(x), rtol=rtol)
    np.testing.assert_allclose(host(exp.backward(arr(dout))), dout * np.exp(x), rtol=rtol)
    far = np.where(x < 0, x - 1, x + 1)
    np.testing.assert_allclose(host(reciprocal.forward(arr(far))), 1 / far, rtol=rtol)
    np.testing.assert_allclose(host(reciprocal.backward(arr(dout))), -dout / far**2, rtol=rtol)


def test_exponential_and_reciprocal_of_numbers() -> None:
    exp, reciprocal = ExpLayer(), ReciprocalLayer()
    assert exp.forward(0) == 1
    assert exp.forward(2.0) == math.exp(2)
    assert exp.backward(3) == 3 * math.exp(2)
    assert exp.forward(1000) == math.inf
    assert reciprocal.forward(4) == 0.25
    assert reciprocal.backward(2) == -0.125


def test_the_sigmoid_is_made_of_them() -> None:
    parts = MulLayer(), ExpLayer(), AddLayer(), ReciprocalLayer()
    x = arr([[0.5, -1.0, 2.0]], widest)
    minus, exp, plus, over = parts
    y = over.forward(plus.forward(exp.forward(minus.forward(x, -1)), 1))
    sigmoid = Sigmoid()
    rtol = precise(1e-14, 1e-5)
    np.testing.assert_allclose(host(y), host(sigmoid.forward(x)), rtol=rtol)
    dout = arr([[1.0, 2.0, -3.0]], widest)
    dx, _ = minus.backward(exp.backward(plus.backward(over.backward(dout))[0]))
    np.testing.assert_allclose(host(dx), host(sigmoid.backward(dout)), rtol=rtol)


# What every layer keeps --------------------------------------------------------------------------


def _layers(dtype: str) -> list[tuple[Layer, tuple[Array, ...]]]:
    x = arr([[0.5, -1.0, 2.0], [1.5, 0.0, -0.25]], dtype)
    W, b = arr([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], dtype), arr([0.5, -0.5], dtype)
    return [
        (Relu(), (x,)),
        (Sigmoid(), (x,)),
        (Affine(W, b), (x,)),
        (MulLayer(), (x, x + 1)),
        (AddLayer(), (x, x + 1)),
        (SubLayer(), (x, x + 1)),
        (DivLayer(), (x, x + 3)),
        (ExpLayer(), (x,)),
        (ReciprocalLayer(), (x + 3,)),
        (SoftmaxWithLoss(), (x, arr([2, 0]))),
        (SoftmaxWithLoss(), (x, arr([[0, 0, 1], [1, 0, 0]], dtype))),
        (IdentityWithLoss(), (x, x + 1)),
    ]


def test_scores_of_ten_thousand_give_an_exact_loss() -> None:
    layer = SoftmaxWithLoss()
    x = arr([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], "float32")
    assert float(layer.forward(x, arr([1, 1]))) == 1e4
    np.testing.assert_array_equal(host(layer.backward()), [[0.5, -0.5, 0], [0, 0, 0]])


def test_a_first_layer_can_do_without_the_derivative_by_its_input() -> None:
    layer, (x,) = _layers(widest)[2]
    dout = backend.xp.ones_like(layer.forward(x))
    layer.backward(dout)
    whole = {key: host(value) for key, value in layer.grads.items()}
    layer.backward_params(2 * dout)
    for key, value in layer.grads.items():
        np.testing.assert_array_equal(host(value), 2 * whole[key])


class Scale(Layer):
    """A layer of the user's own: a factor to be trained, and a setting."""

    param_names = ("a",)
    da: Array = None

    def __init__(self, a: Array, power: int) -> None:
        self.a = a
        self.power = power

    def forward(self, x: Array) -> Array:
        self.x = x**self.power
        return self.a * self.x

    def backward(self, dout: Array) -> Array:
        self.da = backend.xp.sum(dout * self.x)
        return dout * self.a  # of power 1


def test_a_layer_need_not_know_how_to_do_without_the_derivative_by_its_input() -> None:
    layer = Scale(arr(2.0), 1)
    layer.forward(arr([1.0, 3.0]))
    layer.backward_params(arr([1.0, 10.0]))
    assert float(layer.grads["a"]) == 31


def test_a_bound_layer_keeps_its_settings() -> None:
    layer = Scale(arr(2.0), 2)
    bound = layer.bound_to({"a": arr(5.0)})
    np.testing.assert_array_equal(host(bound.forward(arr([1.0, 3.0]))), [5, 45])
    np.testing.assert_array_equal(host(layer.forward(arr([1.0, 3.0]))), [2, 18])


def test_parameters_show_their_shapes() -> None:
    layer, _ = _layers(widest)[2]
    assert repr(layer.params) == "<parameters W: (3, 2), b: (2,)>"


# Targets that can be learned from ---------------------------------------------------------------


@pytest.mark.parametrize("spec", [f"{backend.name}:{backend.device}", "array-api-strict:device1"])
def test_targets_are_looked_at_before_they_are_learned_from(spec: str) -> None:
    there = xbp.get_backend(spec)

    def complaint(layer: LossLayer, t: HostArray) -> str | None:
        try:
            layer.check_targets(there.asarray(t), 3)
        except DataError as error:
            return str(error)
        return None

    classes, figures = SoftmaxWithLoss(), IdentityWithLoss()
    assert complaint(classes, np.array([0, 2, 1])) is None
    assert complaint(classes, np.eye(3)) is None
    assert complaint(classes, np.eye(3, dtype=np.int32)) is None
    assert complaint(classes, np.array([[0.5, 0.2, 0.3004]], "float32")) is None
    assert complaint(figures, np.array([[-7.5, 0.0, 0.0]])) is None
    assert complaint(figures, np.array([[3, -4, 0]])) is None
    no_label = "no label: the outputs are numbered 0 ... 2"
    assert complaint(classes, np.array([0, 3, 1])) == f"t[1] is 3, {no_label}"
    assert complaint(classes, np.array([0, 1, -1])) == f"t[2] is -1, {no_label}"
    not_one_hot = "not one-hot: numbers from 0 to 1 whose sum is 1"
    for row in ([0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.5, -0.5, 0.0], [0.5, 0.25, 0.375]):
        rows = np.array([[0, 1, 0], row, [0, 0, 1]], "float32")
        assert complaint(classes, rows) == f"t[1] is {row}, {not_one_hot}"
    for infinite in (np.inf, np.nan):
        rows = np.array([[0, 1, 0], [infinite, 0, 1]])
        assert complaint(figures, rows) == f"t[1] is [{infinite}, 0.0, 1.0], not finite"


def test_there_may_be_more_classes_than_the_labels_dtype_has_numbers() -> None:
    SoftmaxWithLoss.check_targets(arr(np.array([3, 200], dtype=np.uint8)), 300)


# Parameters --------------------------------------------------------------------------------------


def test_params_write_through_to_the_layer() -> None:
    layer, (x,) = _layers(widest)[2]
    before = host(layer.forward(x))
    layer.params["b"] -= arr([1.0, 2.0], widest)
    np.testing.assert_allclose(host(layer.forward(x)), before - [1, 2])
    layer.params["b"] = new = arr([3.0, 4.0], widest)
    assert layer.params["b"] is new
    np.testing.assert_allclose(host(layer.forward(x)), before - [0.5, -0.5] + [3, 4])
    with pytest.raises(TypeError, match="cannot be deleted"):
        del layer.params["b"]


def test_layers_in_print() -> None:
    assert repr(Relu()) == "<Relu>"
    assert repr(Rescale(16)) == "<Rescale: divides by 16>"
    affine = Affine(arr([[1.0], [2.0]], widest), arr([0.0], widest))
    assert repr(affine) == "<Affine: W (2, 1), b (1,)>"
    xbp.Network([affine], SoftmaxWithLoss())
    assert repr(affine) == "<Affine1: W (2, 1), b (1,)>"
    assert repr(object.__new__(Affine)) == "<Affine>"


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        *(Relu(), Sigmoid(), MulLayer(), AddLayer(), SubLayer(), DivLayer()),
        *(ExpLayer(), ReciprocalLayer()),
        *(SoftmaxWithLoss(), IdentityWithLoss()),
    ],
)
def test_backward_before_forward(layer: Layer) -> None:
    with pytest.raises(CallOrderError, match=f"{layer.name}: .*call forward first"):
        layer.backward(1)


def test_affine_backward_before_forward() -> None:
    layer, _ = _layers(widest)[2]
    with pytest.raises(CallOrderError, match=r"Affine: .*call forward first"):
        layer.backward(arr([[1.0, 1.0]]))


@pytest.mark.parametrize("case", range(9))
def test_dout_has_the_shape_of_the_output(case: int) -> None:
    layer, inputs = _layers(widest)[case]
    layer.forward(*inputs)
    with pytest.raises(ShapeError, match=rf"{layer.name}.backward: .*\(5,\)"):
        layer.backward(arr([1.0, 2.0, 3.0, 4.0, 5.0]))


@pytest.mark.parametrize("case", range(10))
def test_arrays_of_two_libraries_do_not_mix(case: int) -> None:
    layer, inputs = _layers("float32")[case]
    stranger = other.asarray(np.ones((2, 3), dtype=np.float32))
    if len(inputs) == 2:
        with pytest.raises(MixedBackendError, match=f"{layer.name}: .*asarray"):
            layer.forward(stranger, inputs[1])
    elif layer.params:
        with pytest.raises(MixedBackendError, match=f"{layer.name}: .*asarray"):
            layer.forward(stranger)
    y = layer.forward(*inputs)
    if y.shape:
        with pytest.raises(MixedBackendError, match=layer.name):
            layer.backward(other.asarray(np.ones(y.shape, dtype=np.float32)))


@pytest.mark.parametrize(
    ("W", "b"),
    [
        (np.ones((3, 2)), np.ones(3)),
        (np.ones((3, 2)), np.ones((1, 2))),
        (np.ones(3), np.ones(3)),
        (np.ones((0, 2)), np.ones(2)),
        (np.ones((3, 0)), np.ones(0)),
    ],
)
def test_affine_refuses_a_weight_and_a_bias_that_do_not_fit(W: HostArray, b: HostArray) -> None:
    with pytest.raises(ShapeError, match="Affine: "):
        Affine(arr(W), arr(b))


def test_affine_refuses_wrong_dtypes() -> None:
    with pytest.raises(DTypeError, match=r"Affine: .*int64"):
        Affine(arr([[1]], "int64"), arr([1], "int64"))
    with pytest.raises(MixedBackendError, match="Affine: "):
        Affine(arr([[1.0]]), other.asarray([1.0]))
    layer = Affine(arr([[1.0]]), arr([1.0]))
    with pytest.raises(DTypeError, match=r"Affine: .*int64"):
        layer.forward(arr([[1]], "int64"))
    with pytest.raises(DTypeError, match="Affine: expected an array, got list"):
        layer.forward([[1.0]])


@needs_float64
def test_affine_refuses_parameters_of_two_dtypes() -> None:
    with pytest.raises(DTypeError, match="one dtype, got float64 and float32"):
        Affine(arr([[1.0]], "float64"), arr([1.0], "float32"))


@needs_float64
@pytest.mark.parametrize(("dtype", "others"), [("float32", "float64"), ("float64", "float32")])
def test_a_layer_computes_in_the_dtype_of_its_parameters(dtype: str, others: str) -> None:
    layer = Affine(arr([[2.0]], dtype), arr([1.0], dtype))
    y = layer.forward(arr([[0.5]], others))
    results = [y, layer.backward(arr([[1.0]], others)), *layer.grads.values()]
    assert [dtype_of(result) for result in results] == [dtype] * 4


@needs_float64
@pytest.mark.parametrize(("dtype", "others"), [("float32", "float64"), ("float64", "float32")])
def test_a_loss_is_computed_in_the_dtype_of_the_outputs(dtype: str, others: str) -> None:
    for layer in (SoftmaxWithLoss(), IdentityWithLoss()):
        loss = layer.forward(arr([[0.5, 1.0]], dtype), arr([[0.0, 1.0]], others))
        assert dtype_of(loss) == dtype_of(layer.backward()) == dtype


def test_arrays_on_two_devices_do_not_mix() -> None:
    here, there = (xbp.get_backend(f"array-api-strict:device{n}") for n in (1, 2))
    layer = Affine(here.asarray([[2.0]]), here.asarray([1.0]))
    with pytest.raises(MixedBackendError, match=r"Affine: arrays on .*device2.* and on .*device1"):
        layer.forward(there.asarray([[1.0]]))
    with pytest.raises(MixedBackendError, match=r"params\['b'\]: arrays on "):
        layer.params["b"] = there.asarray([1.0])
    layer.forward(here.asarray([[1.0]]))
    with pytest.raises(MixedBackendError, match=r"^Affine\.backward: arrays on .*device"):
        layer.backward(there.asarray([[1.0]]))


@pytest.mark.parametrize("shape", [(), (2,), (4, 2), (3, 1), (2, 3, 2)])
def test_affine_refuses_samples_of_another_size(shape: tuple[int, ...]) -> None:
    layer = Affine(arr(np.ones((3, 2))), arr(np.ones(2)))
    with pytest.raises(ShapeError, match="Affine: samples of 3 elements"):
        layer.forward(arr(np.ones(shape)))


def test_arithmetic_refuses_arrays_of_two_shapes() -> None:
    for layer in (MulLayer(), AddLayer(), SubLayer(), DivLayer()):
        with pytest.raises(ShapeError, match=layer.name):
            layer.forward(arr([1.0, 2.0]), arr([1.0, 2.0, 3.0]))


def test_a_layer_without_forward_says_so() -> None:
    class Half(Layer):
        pass

    assert Half().name == "Half"
    with pytest.raises(NotImplementedError, match="Half has no forward"):
        Half().forward(1)
    with pytest.raises(NotImplementedError, match="Half has no backward"):
        Half().backward(1)


# Rescale -----------------------------------------------------------------------------------------


@both_floats
def test_rescale_divides_integers_as_normalized_data_were(dtype: str) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(2, 128)
    layer = Rescale(255, dtype)
    y = layer.forward(arr(pixels))
    assert dtype_of(y) == dtype
    # A compiler may multiply by 1 / 255.
    np.testing.assert_allclose(host(y), np.divide(pixels, 255, dtype=dtype), rtol=2 * epsilon_of(y))
    np.testing.assert_array_equal(host(y), host(layer.forward(arr(host(arr(pixels)), dtype))))


def test_rescale_leaves_integers_as_they_are() -> None:
    pixels = arr(np.array([[0, 51, 255]], dtype=np.uint8))
    Rescale().forward(pixels)
    np.testing.assert_array_equal(host(pixels), [[0, 51, 255]])


def test_rescale_sends_back_a_part() -> None:
    layer = Rescale(4)
    layer.forward(arr([[1.0, 2.0]], widest))
    np.testing.assert_array_equal(host(layer.backward(arr([[8.0, -4.0]], widest))), [[2, -1]])


def test_rescale_is_for_bytes_unless_told_otherwise() -> None:
    assert Rescale().divisor == 255
    assert Rescale().dtype == "float32"


# What a class says of itself ---------------------------------------------------------------------


def test_what_derives_from_a_layer_says_itself_what_it_allows() -> None:
    class Silent(Rescale):
        pass

    class Outspoken(Relu):
        traceable = True
        samplewise = True
        takes_integers = True

    for flag in ("traceable", "samplewise", "takes_integers"):
        assert getattr(Rescale, flag) is True
        assert getattr(Outspoken, flag) is True
        assert getattr(Silent, flag) is False


def test_a_sequence_takes_what_its_first_layer_takes() -> None:
    class Block(Sequential):
        pass

    class Another(Sequential):
        def forward(self, x: Array) -> Array:
            return super().forward(2.0 * x)

    assert Block(Rescale(), Relu()).takes_integers
    assert not Block(Relu(), Rescale()).takes_integers
    assert not Another(Rescale()).takes_integers


def test_numbers_may_be_carried_from_number_to_number() -> None:
    class Total(MulLayer):
        state_names = ("total",)

        def __init__(self) -> None:
            self.total = 0

        def forward(self, x: Any, y: Any) -> Any:
            self.total = self.total + 1
            return super().forward(x, y) * self.total

    layer = Total()
    assert [layer.forward(2, 3), layer.forward(2, 3)] == [6, 12]


@pytest.mark.parametrize("kind", [ExpLayer, ReciprocalLayer])
def test_functions_of_one_operand_name_themselves(kind: Any) -> None:
    with pytest.raises(DTypeError, match=f"^{kind.__name__}: real floating-point numbers"):
        kind().forward(arr([1, 2]))
    with pytest.raises(DTypeError, match=f"^{kind.__name__}"):
        kind().forward("x")
    layer = kind()
    layer.forward(1.5)
    with pytest.raises(ShapeError, match=f"^{kind.__name__}"):
        layer.backward(arr([1.0, 2.0]))


# A loss by its two methods -----------------------------------------------------------------------


class Huber(LossLayer):
    classifies = False
    traceable = True
    samplewise = True

    def losses(self, x: Array, t: Array) -> Array:
        xp = namespace_of(x)
        size = xp.abs(x - t)
        near = xp.minimum(size, 1.0)
        return xp.sum(near * (size - 0.5 * near), axis=1)

    def slope(self) -> Array:
        xp = namespace_of(self.y)
        return xp.maximum(xp.minimum(self.y - self.t, 1.0), -1.0)


class Brier(LossLayer):
    """Half the squared distance from the one-hot target."""

    classifies = True
    traceable = True
    samplewise = True

    def losses(self, x: Array, t: Array) -> Array:
        return 0.5 * namespace_of(x).sum((x - t) ** 2, axis=1)

    def slope(self) -> Array:
        return self.y - self.t


def test_a_loss_is_the_mean_of_the_losses_of_its_samples() -> None:
    x, t = np.array([[0.5, 3.0], [-2.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 0.5]])
    layer = Huber()
    np.testing.assert_allclose(
        float(layer.forward(arr(x, widest), arr(t, widest))), (0.125 + 2.5 + 1.5 + 0.125) / 2
    )
    slope = np.array([[0.5, 1.0], [-1.0, -0.5]])
    np.testing.assert_allclose(host(layer.backward()), slope / 2)
    np.testing.assert_allclose(host(layer.backward(3)), 3 * slope / 2)
    # One sample alone is a batch of one.
    for i in range(2):
        loss = layer.forward(arr(x[i], widest), arr(t[i], widest))
        assert loss.shape == ()
        np.testing.assert_allclose(float(loss), [2.625, 1.625][i])
        np.testing.assert_allclose(host(layer.backward()), slope[i])


def test_a_loss_that_classifies_is_given_rows() -> None:
    x = np.array([[0.5, 0.25], [-2.0, 0.0]])
    layer = Brier()
    for t in (arr([1, 0]), arr([[0, 1], [1, 0]]), arr([[0.0, 1.0], [1.0, 0.0]], widest)):
        loss = layer.forward(arr(x, widest), t)
        np.testing.assert_allclose(float(loss), (0.25 + 0.5625 + 9) / 4)
        np.testing.assert_allclose(host(layer.backward()), [[0.25, -0.375], [-1.5, 0]])
    for label in (1, arr(1)):
        np.testing.assert_allclose(float(layer.forward(arr(x[0], widest), label)), 0.40625)


@pytest.mark.parametrize("kind", [Huber, Brier])
def test_a_network_learns_by_such_a_loss(kind: type[LossLayer]) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 3))
    t = np.arange(12) % 2 if kind is Brier else random.normal(size=(12, 2)) * 3
    nets = []
    for loss in (kind, type("Plain", (kind,), {})):
        network = xbp.Network.fully_connected([3, 4, 2], loss=loss, dtype=widest, seed=0)
        rows = arr(x[:5], widest), arr(t[:5], widest if kind is Huber else None)
        assert xbp.gradient_check(network, *rows).passed
        history = xbp.Trainer(network, xbp.SGD(0.1), batch_size=4, seed=0).fit(x, t, epochs=20)
        assert sum(history.loss[-3:]) < sum(history.loss[:3])
        nets.append(network)
    for key, value in nets[0].params.items():
        tolerance = precise(1e-12, 1e-5)
        np.testing.assert_allclose(
            host(value), host(nets[1].params[key]), rtol=tolerance, atol=tolerance
        )


def test_losses_and_slope_have_their_shapes() -> None:
    class Summed(Huber):
        def losses(self, x: Array, t: Array) -> Array:
            return namespace_of(x).sum(super().losses(x, t))

    class Nothing(Huber):
        def losses(self, x: Array, t: Array) -> Array:
            super().losses(x, t)

    class Row(Huber):
        def slope(self) -> Array:
            return super().slope()[0, :]

    class Number(Huber):
        def slope(self) -> Any:
            return 1.5

    class Flat(LossLayer):
        classifies = False

        def losses(self, x: Array, t: Array) -> Array:
            return namespace_of(x).sum(x - t, axis=1)

    x, t = arr([[0.5, 3.0, 1.0], [-2.0, 0.0, 1.0]], widest), arr([[0.0] * 3] * 2, widest)
    needed = r"losses: a loss for each of 2 samples is needed, \(2,\), got"
    with pytest.raises(ShapeError, match=rf"^Summed\.{needed} \(\)$"):
        Summed().forward(x, t)
    with pytest.raises(ShapeError, match=rf"^Nothing\.{needed} None$"):
        Nothing().forward(x, t)
    for kind, got in ((Row, r"\(3,\)"), (Number, "1.5")):
        layer = kind()
        layer.forward(x, t)
        outputs = r"slope: the outputs have shape \(2, 3\), it has"
        with pytest.raises(ShapeError, match=rf"^{kind.__name__}\.{outputs} {got}$"):
            layer.backward()
    with pytest.raises(ShapeError, match=r"Huber: outputs of shape \(2, 3\) need targets of that"):
        Huber().forward(x, t[:1, :])
    with pytest.raises(ShapeError, match="Huber: outputs of shape"):
        Huber().forward(x, arr([0, 1]))
    flat = Flat()
    flat.forward(x, t)
    with pytest.raises(
        SettingError,
        match=r"^Flat has no slope: write slope\(self\), which returns"
        r" the .* each sample's loss with respect to its outputs, or a backward$",
    ):
        flat.backward()
    with pytest.raises(CallOrderError, match="Huber: backward was called before forward"):
        Huber().backward()


# What is checked of every layer ------------------------------------------------------------------


class Doubling:
    """No layer, but a part of one."""

    def forward(self, x: Array) -> Array:
        return 2 * x

    def backward(self, dout: Array) -> Array:
        return 2 * dout


class Mixed(Doubling, Layer):
    """Gets both methods from what is no layer."""


class Derived(Mixed):
    def forward(self, x: Array, factor: float = 1.0, on: bool = True) -> Array:
        return super().forward(x) * (factor if on else 1.0)

    def backward(self, dout: Array) -> Array:
        return super().backward(dout)


class OnlyForward(Derived):
    def forward(self, x: Array, factor: float = 3.0, on: bool = True) -> Array:
        return super().forward(x, factor, on)


@pytest.mark.parametrize("kind", [Mixed, Derived, OnlyForward])
def test_what_goes_through_a_strangers_layer_is_checked(kind: type[Layer]) -> None:
    layer = kind()
    with pytest.raises(CallOrderError, match=rf"^{kind.__name__}: backward was called before"):
        layer.backward(arr([1.0]))
    for wrong in ([1.0], 1.0, None, arr([1, 2])):
        with pytest.raises(DTypeError, match=rf"^{kind.__name__}: "):
            layer.forward(wrong)
    with pytest.raises(DTypeError, match=rf"^{kind.__name__}: expected an array, got str"):
        layer.forward("text")
    y = layer.forward(arr([[1.0, 2.0]]))
    with pytest.raises(
        ShapeError, match=r"\.backward: the output had shape \(1, 2\), dout has \(2,\)"
    ):
        layer.backward(arr([1.0, 2.0]))
    with pytest.raises(MixedBackendError, match=rf"^{kind.__name__}\.backward: "):
        layer.backward(other.asarray([[1.0, 2.0]]))
    np.testing.assert_array_equal(host(layer.backward(y)), 2 * host(y))
    assert layer.output_shape == layer.input_shape == (1, 2)


def test_options_and_names_are_passed_on() -> None:
    x = arr([1.0, 2.0])
    for layer, factor in ((Derived(), 1), (OnlyForward(), 3)):
        np.testing.assert_array_equal(host(layer.forward(x=x)), [2 * factor, 4 * factor])
        np.testing.assert_array_equal(host(layer.forward(x, factor=5.0)), [10, 20])
        np.testing.assert_array_equal(host(layer.forward(x, 5.0, False)), [2, 4])
        np.testing.assert_array_equal(host(layer.forward(x, on=False)), [2, 4])
        assert layer.input_shape == (2,)


def test_a_copy_of_another_making_has_seen_no_forward() -> None:
    layer = Rescale(2)
    layer.forward(arr([1.0, 2.0]))
    for copy in (deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copy.divisor == 2
        with pytest.raises(CallOrderError, match="Rescale: backward was called before forward"):
            copy.backward(arr([1.0, 2.0]))
    np.testing.assert_array_equal(host(layer.backward(arr([1.0, 2.0]))), [0.5, 1])


def test_what_is_kept_of_a_call_is_explained_by_the_class() -> None:
    assert Layer.input_shape.__doc__ == "The shape of the first input of the last ``forward``."
    assert Relu.output_shape.__doc__ == "The shape of the output of the last ``forward``."


def test_a_forward_that_was_set_from_outside_is_called_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer: Any = Relu()

    def threefold(x: Array) -> Array:
        layer.out = x
        return 3 * x

    layer.forward = threefold
    np.testing.assert_array_equal(host(layer.forward(arr([1.0, -1.0]))), [3, -3])
    np.testing.assert_array_equal(host(layer.backward(arr([5.0, 5.0]))), [5, 0])

    def unchanged(self: Any, x: Array) -> Array:
        self.out = x
        return x

    monkeypatch.setattr(Sigmoid, "forward", unchanged)
    other_layer = Sigmoid()
    other_layer.forward(arr([0.5]))
    np.testing.assert_array_equal(host(other_layer.backward(arr([1.0]))), [0.25])


class Weighted(Layer):
    """Has two inputs, of which the second goes nowhere, an option, and a parameter."""

    param_names = ("a",)

    def __init__(self, a: Array) -> None:
        self.a = a

    def forward(self, x: Array, y: Array = None, option: Any = None) -> Array:
        return 1 * x


def test_each_input_and_each_parameter_is_of_one_library() -> None:
    x, stranger = arr([1.0, 2.0]), other.asarray([1.0, 2.0])
    layer = Weighted(arr([1.0]))
    for option in (None, "text", [1]):
        np.testing.assert_array_equal(host(layer.forward(x, x, option)), [1, 2])
    for inputs in ((x, stranger), (stranger, x), (stranger,), (x, x, stranger)):
        with pytest.raises(MixedBackendError, match=r"^Weighted: .* met"):
            layer.forward(*inputs)
    layer = Weighted(stranger)
    for inputs in ((x,), (x, x)):
        with pytest.raises(MixedBackendError, match=r"^Weighted: .* met"):
            layer.forward(*inputs)


def test_what_only_looks_like_an_array_is_not_sent_back() -> None:
    layer = Relu()
    layer.forward(np.asarray([1.0, 2.0]))
    with pytest.raises(DTypeError, match=r"^Relu\.backward: expected an array, got numpy\.ma\."):
        layer.backward(np.ma.masked_array([1.0, 2.0]))


def test_derivatives_have_the_shapes_of_the_inputs() -> None:
    class Summed(Layer):
        def forward(self, x: Array) -> Array:
            return 1 * x

        def backward(self, dout: Array) -> Array:
            return namespace_of(dout).sum(dout, axis=0)

    class Two(Layer):
        def forward(self, x: Array, y: Array) -> Array:
            return x + namespace_of(y).sum(y)

        def backward(self, dout: Array) -> tuple[Array, Array]:
            return dout, dout

    layer = Summed()
    layer.forward(arr([[1.0, 2.0]]))
    message = r"^Summed\.backward: the input had shape \(1, 2\), the derivative .* has \(2,\)$"
    with pytest.raises(ShapeError, match=message):
        layer.backward(arr([[1.0, 2.0]]))
    two = Two()
    two.forward(arr([1.0, 2.0]), arr([1.0]))
    with pytest.raises(
        ShapeError, match=r"^Two\.backward: the input had shape \(1,\), .* has \(2,\)"
    ):
        two.backward(arr([1.0, 2.0]))


def test_a_copy_that_failed_to_infer_still_infers() -> None:
    class Picky(Layer):
        def forward(self, x: Array) -> Array:
            return x

        def infer(self, x: Array) -> Array:
            if x.shape[0] > 1:
                raise RuntimeError("one at a time")
            return -x

        def backward(self, dout: Array) -> Array:
            return dout

    copy = Picky().for_inference()
    with pytest.raises(RuntimeError):
        copy.forward(arr([1.0, 2.0]))
    np.testing.assert_array_equal(host(copy.forward(arr([1.0]))), [-1])


@both_floats
def test_a_derivative_of_another_dtype_does_not_widen_that_of_a_loss(dtype: str) -> None:
    other_dtype = widest if dtype == "float32" else "float32"
    for loss in (SoftmaxWithLoss(), IdentityWithLoss()):
        loss.forward(arr([[1.0, 2.0]], dtype), arr([[0.0, 1.0]], dtype))
        assert dtype_of(loss.backward(arr(2.0, other_dtype))) == dtype


def test_a_layer_of_two_inputs_may_send_back_one_derivative_alone() -> None:
    class Chosen(Layer):
        def forward(self, x: Array, y: Array) -> Array:
            return x

        def backward(self, dout: Array) -> tuple[Array]:
            return (dout,)

    chosen = Chosen()
    chosen.forward(arr([1.0]), arr([2.0, 3.0]))
    assert len(chosen.backward(arr([1.0]))) == 1


def test_an_argument_by_name_reaches_a_layer_whose_calls_are_noted() -> None:
    class Scaled(Layer):
        def forward(self, x: Array, *, factor: float = 1.0) -> Array:  # type: ignore[override]
            return x * factor

    with noted_calls() as root:
        y = Scaled().forward(arr([1.0, 2.0]), factor=3.0)
    np.testing.assert_array_equal(host(y), [3, 6])
    assert [str(part) for part in root.parts] == ["Scaled.forward"]
