"""The numerical gradient, and a check that finds planted faults and knows a kink."""

import math
import random
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from math import cbrt, isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from support import (
    arr,
    arrays,
    backend,
    dtype_of,
    except_slow,
    host,
    needs_float64,
    precise,
    widest,
)

import xbp
from xbp import TwoLayerNet, gradient_check, numerical_gradient
from xbp.differences import Comparison, compare, noise_of, share_of_step, step_for
from xbp.errors import DataError, DTypeError, SettingError
from xbp.gradient_report import GradientReport, ParameterCheck
from xbp.gradients import is_resolved, of_two, step_aside
from xbp.layers import Affine, IdentityWithLoss, Layer, Relu, Sigmoid, SoftmaxWithLoss
from xbp.namespace import epsilon_of, namespace_of


@given(arrays((2, 3)))
def test_gradient_of_a_polynomial(x: Any) -> None:
    gradient = numerical_gradient(lambda x: backend.xp.sum(x**3 - 2 * x), arr(x))
    np.testing.assert_allclose(
        host(gradient), 3 * x**2 - 2, rtol=precise(1e-7, 1e-3), atol=precise(1e-7, 1e-3)
    )


def test_shapes_from_zero_dimensions_to_three() -> None:
    for shape in ((), (1,), (2, 1, 3), (0, 3)):
        gradient = numerical_gradient(lambda x: backend.xp.sum(x * x), arr(np.full(shape, 3.0)))
        assert gradient.shape == shape
        np.testing.assert_allclose(host(gradient), np.full(shape, 6.0), rtol=precise(1e-7, 1e-4))


def test_float32_is_differentiated_in_the_widest_dtype() -> None:
    gradient = numerical_gradient(lambda x: backend.xp.sum(x * x), arr([1.0, -2.0], "float32"))
    assert dtype_of(gradient) == widest
    np.testing.assert_allclose(host(gradient), [2, -4], rtol=precise(1e-9, 1e-4))


def test_f_may_return_a_python_number() -> None:
    gradient = numerical_gradient(lambda x: float(x[0]) * 3, arr([1.0, 2.0], widest))
    np.testing.assert_allclose(host(gradient), [3, 0], rtol=precise(1e-7, 1e-4))


def test_x_is_restored_bit_by_bit_even_after_an_error() -> None:
    values = np.random.default_rng(0).normal(size=7).astype(widest)
    x = arr(values.copy(), widest)
    numerical_gradient(lambda x: backend.xp.sum(backend.xp.exp(x)), x)
    np.testing.assert_array_equal(host(x), values)

    def failing(x: Any) -> Any:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        numerical_gradient(failing, x)
    np.testing.assert_array_equal(host(x), values)


@pytest.mark.skipif(backend.name == "jax", reason="JAX arrays cannot be written to")
@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0], 1.0])
def test_f_may_read_x_by_reference_where_it_can_be_written_to(values: Any) -> None:
    x = arr(values, widest)
    gradient = numerical_gradient(lambda _: backend.xp.sum(x * x), x)
    np.testing.assert_allclose(host(gradient), 2 * np.array(values), rtol=precise(1e-7, 1e-4))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("dtype", ["float32", widest])
def test_x_is_restored_whatever_is_raised(error: type[BaseException], dtype: str) -> None:
    x = arr([1.5, 2.5], dtype)
    calls = 0

    def failing(x: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise error
        return 0.0

    with pytest.raises(error):
        numerical_gradient(failing, x)
    np.testing.assert_array_equal(host(x), [1.5, 2.5])


@pytest.mark.parametrize("dtype", ["float32", widest])
def test_the_chapters_way_to_ask_for_a_gradient(dtype: str) -> None:
    net = TwoLayerNet(4, 5, 3, weight_init_std=0.5, dtype=dtype, seed=0)
    x, t = data()
    expected = {key: host(value) for key, value in net.gradient(x, t).items()}
    before = {key: host(value).copy() for key, value in net.params.items()}
    for key in net.params if backend.name in ("numpy", "torch") else ("b2",):
        if backend.name == "jax":  # where no array can be changed
            with pytest.warns(RuntimeWarning, match="gives the same number for each change of x"):
                found = numerical_gradient(lambda W: net.loss(x, t), net.params[key])
            np.testing.assert_array_equal(host(found), 0)
        else:
            rough = dtype != widest
            expectation = pytest.warns(RuntimeWarning, match="the function reads x itself, not")
            with expectation if rough else nullcontext():
                found = numerical_gradient(lambda W: net.loss(x, t), net.params[key])
            precision = 1e-7 if dtype == "float64" else 2e-3
            np.testing.assert_allclose(host(found), expected[key], atol=precision)
        np.testing.assert_array_equal(host(net.params[key]), before[key])


ADVICE = "let it compute with its argument, or call network.numerical_gradient(x, t)"


@pytest.mark.parametrize("dtype", ["float32", widest])
def test_a_function_that_never_reacts_is_pointed_out(dtype: str) -> None:
    with pytest.warns(RuntimeWarning) as caught:
        numerical_gradient(lambda x: 3.0, arr([1.0, 2.0], dtype))
    (warning,) = caught
    assert str(warning.message) == (
        "numerical_gradient: the function gives the same number for each change of x, so the "
        "gradient is 0. If it reads another array than the one it is given (lambda W: "
        f"network.loss(x, t) does, where arrays cannot be changed in place), {ADVICE}"
    )
    # One that reacts to one of the elements does.
    found = numerical_gradient(lambda x: x[1] * 2, arr([1.0, 2.0]))
    np.testing.assert_allclose(host(found), [0, 2], atol=precise(1e-7, 1e-3))


@pytest.mark.skipif(backend.name == "jax", reason="JAX arrays cannot be written to")
@pytest.mark.skipif(not backend.has_float64, reason="x is varied in its own precision at once")
def test_a_function_that_reads_x_itself_is_pointed_out() -> None:
    x = arr([1.0, 2.0], "float32")
    with pytest.warns(RuntimeWarning) as caught:
        numerical_gradient(lambda _: backend.xp.sum(x), x)
    (warning,) = caught
    assert str(warning.message) == (
        "numerical_gradient: the function reads x itself, not the array of float64 that it is "
        f"given, so x was varied, in float32, where a difference is rough: {ADVICE}"
    )


@needs_float64
def test_a_warning_names_the_line_that_asked() -> None:
    x = arr([1.0, 2.0], "float32")
    for function in (lambda x: 3.0, lambda _: backend.xp.sum(x)):
        with pytest.warns(RuntimeWarning) as caught:
            numerical_gradient(function, x)
        assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(RuntimeWarning) as caught:
        odd_network(Noisy).numerical_gradient(*data())
    assert caught[0].filename == __file__


@needs_float64
def test_a_quotient_is_the_chapters() -> None:
    x, h = np.random.default_rng(0).normal(size=20), 1e-4
    found = numerical_gradient(lambda x: float(x[0]) * 3, arr(x))
    assert float(found[0]) == ((x[0] + h) * 3 - (x[0] - h) * 3) / (2 * h)


@needs_float64
def test_a_large_number_is_divided_by_what_it_was_moved_by() -> None:
    for size in np.random.default_rng(0).uniform(1e13, 1e14, 20):
        found = numerical_gradient(lambda x: float(x[0]), arr([size], "float64"))
        assert float(found[0]) == 1


@pytest.mark.parametrize("dtype", ["float32", widest])
@pytest.mark.parametrize("size", [1e3, 1e7, 1e12, 1e15])
def test_a_step_is_found_for_large_numbers(size: float, dtype: str) -> None:
    x = np.array([size, -size, 1.0, 0.0])
    found = numerical_gradient(lambda x: backend.xp.sum(x * x) / size, arr(x, dtype))
    np.testing.assert_allclose(
        host(found), 2 * x / size, rtol=precise(1e-4, 2e-2), atol=precise(1e-2, 0.5)
    )


@pytest.mark.skipif(backend.name != "numpy", reason="only NumPy makes an array read-only")
def test_x_may_be_read_only() -> None:
    x = np.array([1.0, 2.0])
    x.flags.writeable = False
    np.testing.assert_allclose(numerical_gradient(lambda x: np.sum(x * x), x), [2, 4])


def test_x_may_be_read_only_anywhere() -> None:
    there = xbp.get_backend("array-api-strict:device1")
    xp = there.xp
    x = xp.broadcast_to(there.asarray([1.0, 2.0]), (2, 2))
    gradient = numerical_gradient(lambda x: xp.sum(x * x * x), x)
    np.testing.assert_allclose(there.to_numpy(gradient), [[3, 12], [3, 12]])


@pytest.mark.skipif(backend.name != "torch", reason="only PyTorch lets such an array be written to")
def test_elements_that_share_memory_are_varied_one_by_one() -> None:
    x = backend.library.ones((), dtype=backend.library.float64).expand(3)
    gradient = numerical_gradient(lambda x: backend.xp.sum(x * x), x)
    np.testing.assert_allclose(host(gradient), [2, 2, 2])
    np.testing.assert_array_equal(host(x), [1, 1, 1])


@pytest.mark.parametrize(("dtype", "name"), [("U1", "<U1"), ("O", "object")])
def test_text_and_objects_have_no_gradient(dtype: str, name: str) -> None:
    with pytest.raises(DTypeError, match=f"numerical_gradient: x holds no numbers, but {name}$"):
        numerical_gradient(lambda x: 0.0, np.array(["1", "2"], dtype))


def test_mistakes() -> None:
    with pytest.raises(DTypeError, match="numerical_gradient: expected an array, got float"):
        numerical_gradient(lambda x: x, 1.0)
    for h in (0, -1e-4, float("nan")):
        with pytest.raises(SettingError, match="step h"):
            numerical_gradient(lambda x: x, arr(1.0), h=h)
    with pytest.raises(SettingError, match="a step h of 1e\\+300 tells nothing of a slope"):
        gradient_check(network(), *data(), h=1e300)
    numerical_gradient(lambda x: x * x, arr(1.0), h=2.0**-51)  # the smallest
    numerical_gradient(lambda x: x * x, arr(1.0), h=1e3)  # the largest
    with pytest.raises(SettingError, match="elements"):
        gradient_check(network(), *data(), elements=0)
    with pytest.raises(SettingError, match="no parameters"):
        gradient_check(xbp.Network([Relu()], SoftmaxWithLoss(), backend=backend), *data())
    with pytest.raises(DataError, match=r"the loss is nan: a label is outside the classes, or"):
        gradient_check(network(), data()[0], data()[1] + 1)
    net = network()
    net.params["b2"] = arr([math.nan, 0, 0], widest)
    with pytest.raises(DataError, match="the loss is nan: b2 holds NaN or infinity"):
        gradient_check(net, *data())


@pytest.mark.parametrize("dtype", ["float32", widest])
def test_a_random_function_is_pointed_out(dtype: str) -> None:
    chance = np.random.default_rng(0)
    with pytest.warns(RuntimeWarning) as caught:
        numerical_gradient(
            lambda x: float(backend.xp.sum(x)) + chance.normal(), arr([1.0, 2.0], dtype)
        )
    (warning,) = caught
    assert str(warning.message).startswith("numerical_gradient: two equal calls of the function ")
    assert str(warning.message).endswith(
        "so differences tell nothing: it is random, or changes what it reads"
    )


def test_a_random_network_is_pointed_out() -> None:
    message = r"numerical_gradient: two equal calls of Noisy1.forward differ, so differences tell"
    with pytest.warns(RuntimeWarning, match=message):
        odd_network(Noisy).numerical_gradient(*data())

    class Loss(SoftmaxWithLoss):
        chance = np.random.default_rng(0)

        def forward(self, x: Any, t: Any) -> Any:
            return super().forward(x, t) * float(self.chance.uniform(0.9, 1.1))

    noisy = xbp.Network([*network().layers.values()], Loss())
    message = "two equal calls of Loss.forward differ, so differences tell nothing: it is random, "
    with pytest.warns(RuntimeWarning, match=f"{message}or changes what it reads$"):
        noisy.numerical_gradient(*data())


def counted(values: list[float]) -> Any:
    """Return a function that gives these values, one at each call, and the last ever after."""
    left = list(values)
    return lambda x: left.pop(0) if len(left) > 1 else left[0]


@except_slow
def test_what_differs_between_two_equal_calls_is_told() -> None:
    with pytest.warns(RuntimeWarning, match="two equal calls of the function gave 1 and 3, so"):
        numerical_gradient(counted([1.0, 2.0, 3.0]), arr([0.5], widest))
    with pytest.warns(RuntimeWarning, match="two equal calls of the function gave 1 and nan, so"):
        numerical_gradient(counted([1.0, 2.0, math.nan]), arr([0.5], widest))


@needs_float64
def test_two_calls_that_differ_by_little_more_than_rounding_do() -> None:
    little = 20 * share_of_step(arr([1.0], widest))
    with pytest.warns(RuntimeWarning, match="two equal calls of the function"):
        numerical_gradient(counted([1.0, 2.0, 1 + little]), arr([0.5], widest))

    class Uneven(IdentityWithLoss):
        def __init__(self, again: float) -> None:
            super().__init__()
            self.values = counted([1e3, again])

        def forward(self, x: Any, t: Any) -> Any:
            return 0 * super().forward(x, t) + self.values(None)

    for again in (1e3 * (1 + little), math.nan):
        net = xbp.Network([Affine(arr([[1.0]], widest), arr([0.0], widest))], Uneven(again))
        with pytest.warns(RuntimeWarning, match="two equal calls of loss differ"):
            net.numerical_gradient(arr([[1.0]], widest), arr([[1.0]], widest))


def test_two_calls_that_differ_by_rounding_are_equal() -> None:
    part = share_of_step(arr([1.0], widest))
    for size in (1.0, 1e3, 1e-3):
        values = [size, 0.5 * size, size * (1 + part / 2)]
        numerical_gradient(counted(values), arr([0.5], widest))
    # NaN, too, is the same each time.
    assert isnan(float(numerical_gradient(lambda x: math.nan, arr(0.5, widest))))


@except_slow
def test_the_losses_of_a_network_may_differ_by_rounding() -> None:
    part = share_of_step(arr([1.0], widest))

    class Rounding(IdentityWithLoss):
        def __init__(self, size: float) -> None:
            super().__init__()
            self.values = counted([size, size * (1 + part / 2)] if size else [0.0, part / 2])

        def forward(self, x: Any, t: Any) -> Any:
            return 0 * super().forward(x, t) + self.values(None)

    for size in (1e3, 0.0, math.nan):
        net = xbp.Network([Affine(arr([[1.0]], widest), arr([0.0], widest))], Rounding(size))
        net.numerical_gradient(arr([[1.0]], widest), arr([[1.0]], widest))


@needs_float64
def test_of_what_no_step_moves_the_difference_is_0() -> None:
    xp = backend.xp
    x = arr([-math.inf, 1e13], "float64")
    gradient = numerical_gradient(lambda x: xp.sum(xp.exp(x[:1])) + 3 * xp.sum(x[1:]), x)
    np.testing.assert_allclose(host(gradient), [0, 3], rtol=1e-3)


def test_a_network_without_parameters_has_no_gradient() -> None:
    net = xbp.Network([Relu()], IdentityWithLoss(), backend=backend)
    assert net.numerical_gradient(arr([[1.0]], widest), arr([[0.5]], widest)) == {}


@pytest.mark.parametrize("dtype", ["float32", widest])
def test_an_even_function_reacts(dtype: str) -> None:
    """Forth is as far as back; warnings are errors here."""
    found = numerical_gradient(lambda x: backend.xp.sum(x * x), arr([0.0, 0.0], dtype))
    np.testing.assert_array_equal(host(found), 0)


@pytest.mark.skipif(backend.name != "numpy", reason="writes to memory through NumPy")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_x_is_restored_to_the_last_bit_of_a_nan() -> None:
    bits = np.array([0x7FF0000000000001, 0x8000000000000000, 0x7FF8000000000123, 1], np.uint64)
    x = bits.view(np.float64).copy()
    with pytest.warns(RuntimeWarning, match="for each change of x"):
        numerical_gradient(lambda _: 1.0, x)
    np.testing.assert_array_equal(x.view(np.uint64), bits)


@pytest.mark.skipif(backend.name != "torch", reason="keeps a history of arrays")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_pytorch_differentiates_may_be_varied(dtype: str) -> None:
    leaf = arr([1.0, 2.0], dtype).requires_grad_()
    for x in (leaf, leaf * 1):
        history = x.grad_fn
        found = numerical_gradient(lambda x: backend.xp.sum(x * leaf), x)
        np.testing.assert_allclose(found, [1, 2])
        assert not found.requires_grad
        assert x.grad_fn is history
        np.testing.assert_array_equal(x.detach(), [1, 2])


@pytest.mark.parametrize(
    ("result", "what"),
    [("3", "text: '3'"), (b"3", "text: b'3'"), (1j, "complex"), ([1.0], "list")],
)
def test_f_returns_a_number(result: Any, what: str) -> None:
    with pytest.raises(DTypeError, match=f"is to return a number or a 0-d array, not {what}"):
        numerical_gradient(lambda _: result, arr([1.0], widest))


@pytest.mark.skipif(backend.name != "numpy", reason="says nothing about a library")
@pytest.mark.parametrize(
    ("result", "what"),
    [(np.complex128(1), "complex128"), (np.array("3"), "<U1"), (np.str_("3"), "text: ")],
)
def test_f_returns_a_real_number(result: Any, what: str) -> None:
    with pytest.raises(DTypeError, match=f"a number or a 0-d array, not {what}"):
        numerical_gradient(lambda _: result, np.ones(1))


# The check ---------------------------------------------------------------------------------------


def network() -> TwoLayerNet:
    return TwoLayerNet(4, 5, 3, weight_init_std=0.5, dtype=widest, seed=0)


def data() -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    return arr(random.normal(size=(6, 4))), arr(random.integers(0, 3, 6))


def test_a_right_gradient_passes() -> None:
    net = network()
    before = {key: host(value).copy() for key, value in net.params.items()}
    report = gradient_check(net, *data())
    assert report.passed, str(report)
    assert list(report.parameters) == ["W1", "b1", "W2", "b2"]
    for key, check in report.parameters.items():
        assert check.checked == check.size == before[key].size
        assert check.mean_absolute_difference < precise(1e-9, 1e-3)
        assert check.largest_relative_error < precise(1e-6, 1e-3)
        assert check.kinks == 0
        np.testing.assert_array_equal(host(net.params[key]), before[key])
    assert "W1: mean difference" in str(report)


def test_some_elements_only() -> None:
    report = gradient_check(network(), *data(), elements=7)
    assert [check.checked for check in report.parameters.values()] == [7, 5, 7, 3]


def _sign(backward: Any) -> Any:
    return lambda layer, dout: -backward(layer, dout)


def _doubled(backward: Any) -> Any:
    return lambda layer, dout: 2 * backward(layer, dout)


def _slightly(backward: Any) -> Any:
    return lambda layer, dout: (1 + precise(1e-5, 0.1)) * backward(layer, dout)


def _ungated(backward: Any) -> Any:
    return lambda layer, dout: dout


@except_slow
@pytest.mark.parametrize(
    ("layer", "fault", "wrong"),
    [
        (Relu, _ungated, {"W1", "b1"}),
        (Relu, _sign, {"W1", "b1"}),
        (Affine, _sign, {"W1", "b1"}),
        (Relu, _slightly, {"W1", "b1"}),
        (SoftmaxWithLoss, _slightly, {"W1", "b1", "W2", "b2"}),
        (SoftmaxWithLoss, _doubled, {"W1", "b1", "W2", "b2"}),
    ],
)
def test_a_planted_fault_is_found_and_located(
    monkeypatch: pytest.MonkeyPatch, layer: Any, fault: Any, wrong: set[str]
) -> None:
    planted = fault(layer.backward)
    monkeypatch.setattr(layer, "backward", lambda self, dout=1: planted(self, dout))
    report = gradient_check(network(), *data())
    assert not report.passed
    assert {key for key, check in report.parameters.items() if not check.passed} == wrong
    assert "b1: mean difference" in str(report)
    assert "WRONG" in str(report)


@except_slow
def test_a_transposed_product_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(layer: Affine, dout: Any) -> None:
        square = layer.x.shape[0] == layer.x.shape[1] == dout.shape[1]
        layer.dW = backend.xp.matmul(layer.x if square else layer.x.T, dout)
        layer.db = backend.xp.sum(dout, axis=0)

    monkeypatch.setattr(Affine, "backward_params", faulty)
    net = TwoLayerNet(4, 4, 4, weight_init_std=0.5, dtype=widest, seed=0)
    x = arr(np.random.default_rng(1).normal(size=(4, 4)))
    report = gradient_check(net, x, arr([0, 1, 2, 3]))
    assert {k for k, check in report.parameters.items() if not check.passed} == {"W1", "W2"}


@except_slow
@pytest.mark.parametrize("samples", [1, 6])
def test_a_kink_is_set_aside_and_a_wrong_value_there_is_not(samples: int) -> None:
    # All pre-activations are exactly 0: the loss has a kink in every element of b1 that matters.
    net = network()
    net.params["W1"] = arr(np.zeros((4, 5)))
    x, t = (array[:samples, ...] for array in data())
    report = gradient_check(net, x, t)
    assert report.passed, str(report)
    assert report.parameters["b1"].kinks == 5
    assert report.parameters["W2"].kinks == 0

    class Wrong(Relu):
        def backward(self, dout: Any) -> Any:
            return 3 * dout

    layers = [net.layers["Affine1"], Wrong(), net.layers["Affine2"]]
    report = gradient_check(xbp.Network(layers, SoftmaxWithLoss()), x, t)
    assert not report.parameters["b1"].passed


def test_a_kink_beside_the_point_is_not_taken_for_a_fault() -> None:
    # The step of 1e-4 crosses the kink at -3e-5; a smaller one does not.
    net = network()
    x, t = data()
    W, b = host(net.params["W1"]), host(net.params["b1"])
    b[2] = -(host(x) @ W)[0, 2] + 3e-5
    net.params["b1"] = arr(b)
    report = gradient_check(net, x, t)
    assert report.passed, str(report)
    if backend.has_float64:  # float32 cannot resolve a smaller step
        assert report.parameters["b1"].kinks == 0


@except_slow
def test_steep_curvature_is_no_kink() -> None:
    W = arr([[300.0]], widest)
    layers = [
        Affine(W, arr([0.5], widest)),
        Sigmoid(),
        Affine(arr([[9.0, -9.0]]), arr([0.0, 0])),
    ]
    net = xbp.Network(layers, SoftmaxWithLoss())
    report = gradient_check(net, arr([[0.01], [-0.003]], widest), arr([1, 0]))
    assert report.passed, str(report)
    assert all(check.kinks == 0 for check in report.parameters.values())


# What it reports ---------------------------------------------------------------------------------


class Claimed:
    """A loss of one parameter, and what somebody claims its gradient to be."""

    def __init__(self, W: Any, f: Any, claim: Any, where: Any = backend) -> None:
        self.params: dict[str, Any] = {"W": where.asarray(W, widest)}
        self.backend, self.f, self.claim = where, f, claim
        self.asked: list[Any] = []

    def bound_to(self, params: Any) -> Any:
        bound = copy(self)
        bound.params = params
        return bound

    def loss(self, x: Any, t: Any) -> Any:
        return self.f(self.params["W"])

    def loss_and_gradient(self, params: Any, x: Any, t: Any) -> Any:
        assert x is not None is not t
        self.asked.append(params["W"] + 0.0)  # a copy: the check varies its own in place
        return self.f(params["W"]), {"W": self.claim(params["W"])}

    def check(self, **settings: Any) -> Any:
        x = self.backend.asarray([1.0], widest)
        return gradient_check(self, x, x, **settings).parameters["W"]


def _sum_of_relus(W: Any) -> Any:
    return namespace_of(W).sum(W * _is_positive(W))


def _is_positive(W: Any) -> Any:
    return namespace_of(W).astype(W > 0, W.dtype)


@pytest.mark.parametrize(("claim", "relative"), [(5.0, 0.2), (3.0, 0.25)])
def test_a_wrong_element_is_located_and_measured(claim: float, relative: float) -> None:
    slopes = arr([[1.0, 2.0], [4.0, 8.0]], widest)
    claims = arr([[1.0, 2.0], [claim, 8.0]], widest)
    found = Claimed(np.ones((2, 2)), lambda W: backend.xp.sum(W * slopes), lambda W: claims).check()
    assert (found.size, found.checked, found.kinks, found.wrong) == (4, 4, 0, 1)
    assert not found.passed
    assert found.worst == (1, 0)
    assert found.backpropagation == claim
    assert found.numerical == pytest.approx(4, abs=precise(1e-9, 1e-2))
    assert found.mean_absolute_difference == pytest.approx(0.25, abs=precise(1e-9, 1e-2))
    # A quotient in float32 may be too rough to tell more than that it is far off.
    low = precise(relative - 1e-9, relative / 4)
    assert low < found.largest_relative_error < relative + precise(1e-9, 1e-2)


def test_the_mean_difference_of_a_single_number_is_its_own() -> None:
    found = Claimed(2.0, lambda W: 3 * W, backend.xp.ones_like).check()
    assert found.worst == ()
    assert found.mean_absolute_difference == pytest.approx(2, abs=precise(1e-9, 1e-2))


def test_of_right_elements_the_worst_is_named() -> None:
    claims = arr([0.0, -precise(1e-13, 1e-5), 0.0], widest)
    found = Claimed(np.ones(3), lambda W: 0 * backend.xp.sum(W), lambda W: claims).check()
    assert (found.wrong, found.set_aside) == (0, 3)  # nothing is large enough to be compared
    assert found.worst == (1,)
    assert found.backpropagation == float(claims[1])
    assert found.numerical == 0


@pytest.mark.parametrize("samples", [1, 7])
def test_errors_are_relative_to_what_a_quotient_can_resolve(samples: int) -> None:
    xp, claim = backend.xp, precise(1e-13, 1e-10)
    size = precise(2.0**20, 2.0**8)  # not so large that it needs a step of its own
    W = np.full((2, 5), size)
    claimed = Claimed(W, lambda W: 0 * xp.sum(W) - 3.0, lambda W: 0 * W - claim)
    x = arr(np.ones(samples), widest)
    found = gradient_check(claimed, x, x).parameters["W"]
    magnitude = 1 + 3 + W.size * size * claim
    unit = noise_of(epsilon_of(x), max(5, samples), 1.0)
    step = max(step_for(x, 1e-4), cbrt(unit))
    smallest = 2 * unit * magnitude / step / cbrt(epsilon_of(x))
    assert found.largest_relative_error == pytest.approx(claim / smallest, rel=1e-5)


def test_elements_on_a_kink_are_compared_a_step_aside() -> None:
    on_a_kink = Claimed([0.0, 1.0, -1.0], _sum_of_relus, _is_positive)
    found = on_a_kink.check()
    assert (found.checked, found.kinks, found.wrong) == (3, 1, 0)
    here, *again, aside = map(host, on_a_kink.asked)
    for other in again:  # to see whether it gives the same each time
        np.testing.assert_array_equal(here, other)
    np.testing.assert_array_equal(here, [0, 1, -1])
    assert all(aside != here)
    assert all(abs(aside - here) <= 100 * step_for(on_a_kink.params["W"], 1e-4))
    assert set(np.sign(aside - here)) == {-1, 1}


def test_nothing_is_compared_twice_where_all_is_right() -> None:
    right = Claimed([2.0, 1.0], _sum_of_relus, _is_positive)
    right.check()
    assert len(right.asked) == 2  # to see whether it gives the same twice


@pytest.mark.parametrize("settings", [{}, {"directions": 3}])
def test_what_is_right_a_step_aside_only_is_not_said_to_be_right(settings: Any) -> None:
    # As of relu(x) - relu(-x) at 0, whose kinks cancel; or of what is wrong where a number is 0.
    xp = backend.xp
    claimed = Claimed([0.0, 1.0, 0.0], xp.sum, lambda W: xp.astype(W != 0, W.dtype))
    found = claimed.check(**settings)
    count = settings.get("directions") or 2
    assert (found.checked, found.compared, found.kinks, found.wrong) == (3, 3, 0, 0)
    assert (found.verdict, found.contradicted) == ("inconclusive", count)
    if not settings:
        assert found.worst in ((0,), (2,))
        assert f"INCONCLUSIVE: 2 right a step aside only: at {found.worst} back" in str(found)
        assert "(kinks may cancel there, or backward is wrong at this very number)" in str(found)


def test_where_a_step_aside_is_wrong_too_it_is_wrong() -> None:
    xp = backend.xp
    found = Claimed([0.0, 1.0], xp.sum, lambda W: 3 * xp.astype(W != 0, W.dtype)).check()
    assert (found.verdict, found.wrong, found.contradicted) == ("wrong", 2, 0)


@pytest.mark.parametrize(
    ("f", "slope", "verdict"),
    [
        (lambda xp, W: W, lambda xp, W: 0 * W + 1, "wrong"),  # 1 beside it, whatever cancels
        (lambda xp, W: xp.abs(W), lambda xp, W: xp.sign(W), "inconclusive"),
        (
            lambda xp, W: xp.sign(W) * xp.sqrt(xp.abs(W)),
            lambda xp, W: 0.5 / xp.sqrt(xp.abs(W)),
            "inconclusive",
        ),
        (lambda xp, W: xp.sqrt(W), lambda xp, W: 0.5 / xp.sqrt(W), "inconclusive"),
    ],
    ids=["line", "kink", "steep", "edge"],
)
@pytest.mark.parametrize("claim", [math.nan, math.inf])
@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero):RuntimeWarning")
def test_what_is_not_finite_at_0_only(f: Any, slope: Any, verdict: str, claim: float) -> None:
    xp = backend.xp
    found = Claimed(
        [0.0], lambda W: xp.sum(f(xp, W)), lambda W: xp.where(W == 0, claim, slope(xp, W))
    ).check()
    assert found.verdict == verdict, found
    assert found.worst == (0,)


class LogScale(Layer):
    """Adds the logarithm of each number of a parameter, or of what is left to 1."""

    param_names = ("s",)

    def __init__(self, s: float, rest: bool) -> None:
        self.s, self.rest = arr([1 - s if rest else s] * 3, widest), rest

    def forward(self, x: Any) -> Any:
        return x + namespace_of(x).log(1 - self.s if self.rest else self.s)

    def backward(self, dout: Any) -> Any:
        total = namespace_of(dout).sum(dout, axis=0)
        self.ds = -total / (1 - self.s) if self.rest else total / self.s
        return dout


@except_slow
@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero):RuntimeWarning")
@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("s", [0.5, 2e-3, 1e-4, 1e-5])
def test_a_step_aside_stays_where_there_is_a_loss(s: float, rest: bool) -> None:
    chance = np.random.default_rng(0)
    W, V, x = (chance.normal(size=size) for size in ((4, 3), (3, 3), (5, 4)))
    W[:, 0], x[0] = 0, 0
    first = Affine(arr(W, widest), arr([0, 0.1, 0.2], widest))
    last = Affine(arr(V, widest), arr([0.0, 0, 0], widest))
    net = xbp.Network([first, Relu(), last, LogScale(s, rest)], SoftmaxWithLoss())
    for seed in range(4):
        report = gradient_check(net, arr(x), arr([0, 1, 2, 0, 1]), seed=seed)
        if backend.has_float64:
            assert report.passed, str(report)
            first_weights = report.parameters["W1"]
            assert first_weights.kinks + first_weights.set_aside > 0
        # In float32 a step is longer than s.
        assert report.verdict in ("ok", "inconclusive"), str(report)


def test_where_there_is_no_loss_a_step_aside_nothing_is_accused() -> None:
    xp = backend.xp

    def islands(W: Any) -> Any:  # one around each integer, and a kink on each
        offset = W - xp.round(W)
        return xp.sum(xp.where(xp.abs(offset) < precise(1.5e-4, 1e-2), xp.abs(offset), math.nan))

    found = Claimed([0.0, 1.0, 2.0, 3.0, 4.0], islands, lambda W: 0 * W).check()
    assert (found.verdict, found.compared, found.set_aside) == ("inconclusive", 0, 5)


def test_a_large_loss_does_not_lengthen_the_step() -> None:
    # The slope of a sigmoid at 0; a step of 100 would see it saturate.
    layers = [
        Affine(arr([[0.0, 0.0]], widest), arr([0.0, 0.0], widest)),
        Sigmoid(),
        Affine(arr([[1.0], [1.0]], widest), arr([0.0], widest)),
    ]
    net = xbp.Network(layers, IdentityWithLoss())
    report = gradient_check(net, arr([0.0], widest), arr([1e6], widest))
    # In float32 a loss of 5e11 hides every slope.
    assert report.verdict == ("ok" if backend.has_float64 else "inconclusive"), str(report)


def test_a_step_far_longer_than_a_number_may_round_more_than_that_number() -> None:
    steep = Claimed(1e-9, lambda W: 1e12 * W, lambda W: 1e12 * backend.xp.ones_like(W))
    found = steep.check()
    assert found.passed
    assert found.kinks == 0


def test_where_kinks_are_all_around_nothing_is_measured() -> None:
    class Folded(Claimed):
        """The kink is wherever the gradient is asked for."""

        def loss(self, x: Any, t: Any) -> Any:
            return backend.xp.sum(backend.xp.abs(self.params["W"] - self.asked[-1]))

    found = Folded([1.0, 2.0], lambda W: arr(0.0, widest), backend.xp.ones_like).check()
    assert not found.passed
    assert found.verdict == "inconclusive"
    assert (found.size, found.checked, found.compared, found.set_aside) == (2, 2, 0, 2)
    assert (found.kinks, found.wrong) == (0, 0)
    assert isnan(found.mean_absolute_difference)
    assert isnan(found.largest_relative_error)
    assert found.worst is found.backpropagation is found.numerical is None
    assert str(found) == (
        "mean difference nan, 0 of 2 compared, 2 set aside, INCONCLUSIVE: no difference quotient "
        "tells (the rounding is too coarse, as of a large loss or a lower precision, or there is a "
        "kink everywhere)"
    )


def test_the_seed_chooses_the_elements() -> None:
    claimed = Claimed(np.ones(50), backend.xp.sum, backend.xp.ones_like)
    chosen = [claimed.check(elements=1, seed=seed).worst for seed in range(4)]
    assert len(set(chosen)) > 1
    assert claimed.check(elements=1, seed=3).worst == chosen[3]
    assert claimed.check(elements=1).worst == chosen[0]
    assert claimed.check(elements=60).checked == 50


@pytest.mark.parametrize("elements", [-1, 2.5, "all"])
def test_elements_are_counted(elements: Any) -> None:
    with pytest.raises(SettingError, match="elements is a positive integer, not"):
        gradient_check(network(), *data(), elements=elements)


def test_the_step_is_the_one_asked_for() -> None:
    assert gradient_check(network(), *data(), elements=1).step == 1e-4
    assert gradient_check(network(), *data(), elements=1, h=1e-3).step == 1e-3


def test_arrays_stay_on_their_device() -> None:
    there = xbp.get_backend("array-api-strict:device1")
    found = Claimed([0.0, 1.0], _sum_of_relus, _is_positive, where=there).check()
    assert (found.kinks, found.wrong) == (1, 0)
    x = there.asarray([1.0, 2.0], "float32")
    gradient = numerical_gradient(lambda x: there.xp.sum(x * x), x)
    assert there.owns(gradient)
    assert dtype_of(gradient) == "float64"


@except_slow
def test_two_layers_may_share_an_array() -> None:
    W, b = arr(np.random.default_rng(0).normal(size=(4, 4)), widest), arr(np.ones(4), widest)
    net = xbp.Network([Affine(W, b), Sigmoid(), Affine(W, b)], SoftmaxWithLoss())
    report = gradient_check(net, *data())
    assert report.passed, str(report)


def test_the_report_in_words() -> None:
    right = ParameterCheck(6, 6, 2, 1.5e-11, 1e-9, (1, 2), 0.5, 0.5, wrong=0, set_aside=1)
    wrong = ParameterCheck(3_000, 3_000, 0, 0.25, 0.5, (1,), 0.5, 0.25, wrong=2_000)
    report = GradientReport({"W1": right, "b1": wrong}, "float64", 1e-4)
    assert not report.passed
    assert report.verdict == "wrong"
    assert str(report) == (
        "gradient check in float64, step 0.0001\n"
        "W1: mean difference 1.5e-11, 5 of 6 compared, 2 of them beside a kink, 1 set aside, ok\n"
        "b1: mean difference 0.25, 3,000 of 3,000 compared, WRONG in 2,000: at (1,) "
        "backpropagation says 0.5, differences say 0.25"
    )
    rough = ParameterCheck(4, 4, 0, 0.5, 0.5, (0,), 0.5, 0.5, wrong=0, set_aside=2)
    report = GradientReport({"W1": right, "b1": rough}, "float64", 1e-4)
    assert (report.passed, report.verdict, rough.verdict) == (False, "inconclusive", "inconclusive")
    assert "b1: mean difference 0.5, 2 of 4 compared, 2 set aside, INCONCLUSIVE: no" in str(report)
    assert GradientReport({"W1": right}, "float64", 1e-4).passed
    report = GradientReport({"W1": right}, "float64", 1e-4, "Dropout1.forward")
    assert (report.passed, report.verdict) == (False, "not deterministic")
    assert str(report).endswith(
        "NOT DETERMINISTIC: two equal calls of Dropout1.forward differ, so nothing can be compared"
    )


# What cannot be compared -------------------------------------------------------------------------


class Odd(Layer):
    """Gives back its input, and an obviously wrong derivative."""

    def forward(self, x: Any) -> Any:
        return self.odd(x)

    def odd(self, x: Any) -> Any:
        return x

    def backward(self, dout: Any) -> Any:
        return 7.0 * dout


class Noisy(Odd):
    chance = np.random.default_rng(0)

    def odd(self, x: Any) -> Any:
        return x * arr(self.chance.uniform(0.9, 1.1, tuple(x.shape)), dtype_of(x))


class Narrow(Odd):
    def odd(self, x: Any) -> Any:
        xp = backend.xp
        narrow = xp.float32 if backend.has_float64 else getattr(xp, "float16", None)
        return xp.astype(xp.astype(x, narrow), x.dtype)


class Stairs(Odd):
    """Steps that are finer than those of the differences."""

    def odd(self, x: Any) -> Any:
        return backend.xp.round(x * precise(3e5, 3e2)) / precise(3e5, 3e2)


def odd_network(kind: type[Layer]) -> xbp.Network:
    net = network()
    return xbp.Network(
        [net.layers["Affine1"], kind(), net.layers["Affine2"]], SoftmaxWithLoss(), backend=backend
    )


@pytest.mark.parametrize("settings", [{}, {"elements": 3}, {"directions": 3}])
def test_a_random_layer_is_named(settings: Any) -> None:
    report = gradient_check(odd_network(Noisy), *data(), **settings)
    assert (report.passed, report.verdict) == (False, "not deterministic")
    assert report.not_deterministic == "Noisy1.forward"
    assert {check.compared for check in report.parameters.values()} == {0}
    assert "two equal calls of Noisy1.forward differ" in str(report)
    assert (report.dtype, report.step) == (widest, 1e-4)
    count = settings.get("elements") or settings.get("directions") or 15
    found = report.parameters["W2"]
    assert (found.size, found.checked, found.set_aside) == (15, count, count)
    assert (found.kinks, found.wrong) == (0, 0)


def test_a_random_backward_is_named() -> None:
    class Backward(Odd):
        chance = np.random.default_rng(0)

        def backward(self, dout: Any) -> Any:
            return dout * float(self.chance.uniform(0.9, 1.1))

    report = gradient_check(odd_network(Backward), *data())
    assert report.not_deterministic == "backward, for the gradient of W1,"


def test_a_backward_that_adds_to_what_it_left_is_named() -> None:
    class Adding(Affine):
        def backward_params(self, dout: Any) -> None:
            super().backward_params(dout)
            self.total = self.dW + getattr(self, "total", 0)
            self.dW = self.total

    params, (_, *rest) = network().params, network().layers.values()
    net = xbp.Network([Adding(params["W1"], params["b1"]), *rest], SoftmaxWithLoss())
    for _ in range(2):
        report = gradient_check(net, *data())
        assert report.not_deterministic == "backward, for the gradient of W1,"
        net.gradient(*data())


def test_a_gradient_that_training_would_trace_is_asked_for() -> None:
    class Remembering(Odd):
        traceable = True
        factor = 1.0

        def backward(self, dout: Any) -> Any:
            if not isinstance(dout, original):
                Remembering.factor = 2.0  # a trace hands over something else
            return dout * self.factor

    original = type(arr([1.0]))
    report = gradient_check(odd_network(Remembering), *data())
    if backend.name.startswith("array-api-strict"):  # nothing is traced
        assert report.passed
    else:
        what = "backward, called and traced, for the gradient of W1,"
        assert report.not_deterministic == what


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (0.5, "Leaving1: backward left no array in self.db, but float"),
        ([0.0, 0.0], "Leaving1: backward left no array in self.db, but list"),
        (arr([1, 2, 3, 4, 5]), "gradient_check, the gradient of b1: real floating-point numbers"),
    ],
    ids=["number", "list", "integers"],
)
def test_a_gradient_is_an_array_of_real_numbers(gradient: Any, message: str) -> None:
    class Leaving(Affine):
        def backward_params(self, dout: Any) -> None:
            super().backward_params(dout)
            self.db = gradient

    params, (_, *rest) = network().params, network().layers.values()
    net = xbp.Network([Leaving(params["W1"], params["b1"]), *rest], SoftmaxWithLoss())
    with pytest.raises(DTypeError, match=message):
        gradient_check(net, *data())


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_is_not_finite_is_named_among_others(odd: float) -> None:
    slopes = arr([1.0, 2.0, 3.0], widest)
    claims = slopes + arr([0.0, odd, 0.0], widest)
    found = Claimed(np.ones(3), lambda W: backend.xp.sum(W * slopes), lambda _: claims).check()
    assert (found.verdict, found.wrong, found.worst) == ("wrong", 1, (1,))
    assert f"at (1,) backpropagation says {odd}, differences say 2" in str(found)


def test_a_random_loss_is_named() -> None:
    class Loss(SoftmaxWithLoss):
        chance = np.random.default_rng(0)

        def forward(self, x: Any, t: Any) -> Any:
            return super().forward(x, t) * float(self.chance.uniform(0.9, 1.1))

    report = gradient_check(xbp.Network([*network().layers.values()], Loss()), *data())
    assert report.not_deterministic == "Loss.forward"


def test_a_network_of_another_kind_may_be_random_too() -> None:
    chance = np.random.default_rng(0)
    random = Claimed([1.0, 2.0], lambda W: backend.xp.sum(W) * chance.uniform(1, 2), lambda W: W)
    x = arr([1.0], widest)
    assert gradient_check(random, x, x).not_deterministic == "the loss"


def test_what_is_random_but_says_that_it_is_traceable_is_not_taken_for_right() -> None:
    class Lying(Noisy):
        traceable = True
        calls = 0

        def odd(self, x: Any) -> Any:
            Lying.calls += 1
            return x * (1.0 if Lying.calls <= 3 else 2.0)

    report = gradient_check(odd_network(Lying), *data())
    assert report.not_deterministic == "the loss, called and traced,"


class Rarely(Layer):
    """Random, but not in each call; its backward is that of its forward."""

    def __init__(self, rate: float, seed: int, calm: int = 0) -> None:
        self.rate, self.chance, self.calls = rate, np.random.default_rng(seed), np.zeros(1)
        self.calm = calm

    def forward(self, x: Any) -> Any:
        self.calls[0] += 1
        kept = self.chance.uniform(size=tuple(x.shape)) >= self.rate
        self.kept = arr((kept | (self.calls[0] <= self.calm)).astype(widest))
        return x * self.kept

    def backward(self, dout: Any) -> Any:
        return dout * self.kept


@pytest.mark.skipif(backend.name != "numpy", reason="says nothing about a library")
@pytest.mark.parametrize("rate", [0.1, 0.02, 0.005])
@pytest.mark.parametrize("settings", [{}, {"directions": 3}])
def test_what_is_seldom_random_is_never_called_wrong(rate: float, settings: Any) -> None:
    net, verdicts = network(), set()
    for seed in range(30):
        layers = [net.layers["Affine1"], Rarely(rate, seed), net.layers["Affine2"]]
        rare = xbp.Network(layers, SoftmaxWithLoss())
        verdicts.add(gradient_check(rare, *data(), **settings).verdict)
    assert "not deterministic" in verdicts
    assert "wrong" not in verdicts


@except_slow
def test_what_is_random_only_after_two_equal_calls_is_not_called_wrong() -> None:
    net = network()
    layers = [net.layers["Affine1"], Rarely(0.5, 0, calm=4), net.layers["Affine2"]]
    report = gradient_check(xbp.Network(layers, SoftmaxWithLoss()), *data())
    assert report.verdict == "not deterministic"
    assert report.not_deterministic in ("the loss", "Rarely1.forward")


@except_slow
@pytest.mark.parametrize("kind", [Narrow, Stairs])
@pytest.mark.parametrize("settings", [{}, {"directions": 5}])
def test_what_is_not_smooth_is_not_said_to_be_right(kind: type[Layer], settings: Any) -> None:
    if kind is Narrow and not (backend.has_float64 or hasattr(backend.xp, "float16")):
        pytest.skip("there is no lower precision")
    report = gradient_check(odd_network(kind), *data(), **settings)
    assert not report.passed
    before = [report.parameters[key] for key in ("W1", "b1")]
    assert all(check.verdict in ("inconclusive", "wrong") for check in before)
    # Set aside, or found to be wrong; but for what is 0 and claimed to be 0.
    for check in before:
        assert check.set_aside + check.wrong >= check.checked / 2
    assert ("INCONCLUSIVE" in str(report)) or ("WRONG" in str(report))


class Rounded(Odd):
    """Rounded to so many decimals; its backward is right but for that, or 0."""

    def __init__(self, decimals: int, factor: float) -> None:
        self.size, self.factor = 10.0**decimals, factor

    def odd(self, x: Any) -> Any:
        return backend.xp.round(x * self.size) / self.size

    def backward(self, dout: Any) -> Any:
        return dout * self.factor


@needs_float64
@except_slow
@pytest.mark.parametrize("factor", [0.0, 1.0])
@pytest.mark.parametrize("decimals", [2, 3, 6, 9])
@pytest.mark.parametrize("settings", [{}, {"directions": 3}])
def test_what_is_rounded_on_the_way_is_neither_right_nor_wrong(
    settings: Any, decimals: int, factor: float
) -> None:
    net = network()
    layers = [net.layers["Affine1"], Rounded(decimals, factor), net.layers["Affine2"]]
    report = gradient_check(xbp.Network(layers, SoftmaxWithLoss()), *data(), **settings)
    assert report.verdict == "inconclusive", str(report)


@except_slow
def test_numbers_rounded_on_the_way_make_no_right_derivative_wrong() -> None:
    class Right(Narrow):
        def backward(self, dout: Any) -> Any:
            return dout

    if not backend.has_float64:
        pytest.skip("there is no lower precision to round to")
    report = gradient_check(odd_network(Right), *data())
    assert report.verdict == "inconclusive"
    assert {check.wrong for check in report.parameters.values()} == {0}


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("settings", [{}, {"directions": 3}])
def test_what_is_not_finite_is_wrong_and_hides_nothing_else(odd: float, settings: Any) -> None:
    W, slopes = arr([1.0, 2.0, 3.0], widest), arr([1.0, 4.0, 9.0], widest)
    claims = slopes * arr([1.0, 2.0, 1.0], widest) + arr([0.0, 0.0, odd], widest)
    found = Claimed(W, lambda W: backend.xp.sum(W * slopes), lambda _: claims).check(**settings)
    assert found.verdict == "wrong"
    assert found.wrong == (settings.get("directions") or 2)


class Rows(Layer):
    """The rows of a table whose numbers are the samples."""

    param_names = ("W",)
    takes_integers = True
    samplewise = True

    def __init__(self, W: Any) -> None:
        self.W = W

    def forward(self, x: Any) -> Any:
        xp = namespace_of(x, self.W)
        self.chosen = xp.astype(x == xp.arange(self.W.shape[0]), self.W.dtype)
        return xp.take(self.W, x[:, 0], axis=0)

    def backward(self, dout: Any) -> Any:
        self.dW = self.chosen.T @ dout


@pytest.mark.skipif(backend.name != "numpy", reason="says nothing about a library")
def test_integers_that_choose_stay_integers() -> None:
    W = np.random.default_rng(0).normal(size=(5, 3))
    net = xbp.Network([Rows(W)], SoftmaxWithLoss())
    x, t = np.array([[0], [2], [2], [4]]), np.array([0, 1, 2, 0])
    assert gradient_check(net, x, t).passed
    expected, found = net.gradient(x, t)["W1"], net.numerical_gradient(x, t)["W1"]
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.skipif(backend.name != "numpy", reason="says nothing about a library")
def test_integers_that_choose_stay_integers_behind_a_layer_that_passes_them_on() -> None:
    class Shifted(Layer):
        takes_integers = True

        def forward(self, x: Any) -> Any:
            return x + 1

    net = xbp.Network(
        [Shifted(), Rows(np.random.default_rng(0).normal(size=(5, 3)))], SoftmaxWithLoss()
    )
    x, t = np.array([[0], [2], [2], [3]]), np.array([0, 1, 2, 0])
    assert gradient_check(net, x, t).passed
    expected, found = net.gradient(x, t)["W1"], net.numerical_gradient(x, t)["W1"]
    np.testing.assert_allclose(found, expected, atol=1e-8)


@except_slow
def test_the_label_of_one_sample_may_be_a_number() -> None:
    x, t = data()
    assert gradient_check(network(), x[0, ...], int(t[0])).passed


@pytest.mark.parametrize("size", [1e3, 1e9, 1e12])
def test_large_parameters_are_compared(size: float) -> None:
    xp = backend.xp
    values = np.array([size, -size, 2 * size])

    def loss(W: Any) -> Any:
        return xp.sum(W * W) / size

    right = Claimed(values, loss, lambda W: 2 * W / size).check()
    if not backend.has_float64:  # a large loss hides its slopes
        assert right.verdict == "inconclusive"
        return
    assert (right.verdict, right.compared) == ("ok", 3)
    wrong = Claimed(values, loss, lambda W: 2.4 * W / size).check()
    assert wrong.wrong == 3


def test_what_is_too_rough_to_tell_is_set_aside() -> None:
    # A slope of 1 beside a loss of 1e18: the quotient knows nothing of it.
    xp = backend.xp
    found = Claimed([1.0, 2.0], lambda W: xp.sum(W) + 1e18, lambda W: 5 * xp.ones_like(W)).check()
    assert (found.verdict, found.set_aside) == ("inconclusive", 2)


def test_a_gradient_far_smaller_than_the_others_is_not_said_to_be_right() -> None:
    # As the first of many layers has: its part in the loss is below the rounding of the rest.
    if not backend.has_float64:
        pytest.skip("needs digits")
    xp = backend.xp

    class Two(Claimed):
        def __init__(self, factor: float) -> None:
            super().__init__([1.0, 2.0], None, None)
            self.params["V"] = arr([1.0, 2.0], widest)
            self.factor = factor

        def loss(self, x: Any, t: Any) -> Any:
            return xp.sum(self.params["W"]) + 1e-11 * xp.sum(self.params["V"])

        def loss_and_gradient(self, params: Any, x: Any, t: Any) -> Any:
            ones = xp.ones_like(params["W"])
            return self.bound_to(params).loss(x, t), {"W": ones, "V": ones * self.factor}

    x = arr([1.0], widest)
    for factor in (1e-11, 2e-11):
        report = gradient_check(Two(factor), x, x)
        assert report.parameters["W"].verdict == "ok"
        assert report.parameters["V"].verdict == "inconclusive"
    # What is 0 but for the rounding of backpropagation itself is 0.
    assert gradient_check(Two(1e-17), x, x).parameters["V"].verdict in ("inconclusive", "ok")


class Beside(Claimed):
    """A loss of two parameters, the sum of one of each."""

    def __init__(self, W: Any, V: Any) -> None:
        (values, self.f, self.claim), (others, self.g, self.claim_beside) = W, V
        super().__init__(values, self.f, self.claim)
        self.params["V"] = arr(others, widest)

    def loss(self, x: Any, t: Any) -> Any:
        return self.f(self.params["W"]) + self.g(self.params["V"])

    def loss_and_gradient(self, params: Any, x: Any, t: Any) -> Any:
        claims = {"W": self.claim(params["W"]), "V": self.claim_beside(params["V"])}
        return self.bound_to(params).loss(x, t), claims


@needs_float64
def test_what_has_no_derivative_tells_no_size() -> None:
    """Else a quotient beside it would be as exact as that is large."""
    stairs = [1.0, 2.0], lambda W: backend.xp.sum(backend.xp.round(W * 3e5) / 3e5), lambda W: 7 + W
    tiny = [1.0, 2.0], lambda V: 1e-20 * backend.xp.sum(V), lambda V: 1.1e-20 + 0 * V
    x = arr([1.0], widest)
    report = gradient_check(Beside(stairs, tiny), x, x)
    found = {key: check.verdict for key, check in report.parameters.items()}
    assert found == {"W": "inconclusive", "V": "inconclusive"}


@needs_float64
def test_what_does_not_stand_out_of_its_own_error_is_set_aside() -> None:
    """As beside an output a million times as large: twice its gradient would pass for it."""
    slopes = arr([1e6, 1e6, 1.0, 1.0], "float64")
    for factor in (1.0, 2.0):
        claims = slopes * arr([1.0, 1.0, factor, factor], "float64")
        loss = Claimed(
            np.ones(4), lambda W: backend.xp.sum(W * slopes) + 1e13, lambda W, c=claims: c
        )
        found = loss.check()
        assert (found.verdict, found.compared) == ("inconclusive", 2)


@needs_float64
def test_a_zero_that_nothing_contradicts_is_not_said_to_be_right() -> None:
    xp = backend.xp
    found = Claimed([1.0, 2.0], lambda W: xp.sum(W) + 1e18, lambda W: 0 * W).check()
    assert (found.verdict, found.compared) == ("inconclusive", 0)


@except_slow
@pytest.mark.parametrize("settings", [{}, {"directions": 2}])
def test_a_class_that_cannot_be_is_checked_too(settings: Any) -> None:
    W, b = arr(np.eye(4, 3), widest), arr([0.0, 0.5, -math.inf], widest)
    net = xbp.Network([Affine(W, b)], SoftmaxWithLoss())
    x, t = data()[0], arr([0, 1, 1, 0, 1, 0])
    report = gradient_check(net, x, t, **settings)
    assert report.passed, str(report)
    assert float(net.numerical_gradient(x, t)["b1"][2]) == 0


def test_a_parameter_without_dimensions_is_compared() -> None:
    class Times(Layer):
        param_names = ("factor",)
        samplewise = True

        def __init__(self) -> None:
            self.factor = arr(0.5, widest)

        def forward(self, x: Any) -> Any:
            self.x = x
            return x * self.factor

        def backward(self, dout: Any) -> Any:
            self.dfactor = backend.xp.sum(dout * self.x)
            return dout * self.factor

    net = xbp.Network([Times()], SoftmaxWithLoss())
    report = gradient_check(net, data()[0], data()[1])
    assert report.passed, str(report)


def test_a_label_that_is_no_integer_of_the_library_has_no_gradient() -> None:
    x = data()[0][0, :]
    with pytest.raises(DataError, match="a label is outside the classes"):
        gradient_check(network(), x, 10**30)
    assert np.isnan(host(network().numerical_gradient(x, 10**30)["b2"])).all()


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_integers_are_varied_as_floating_point_numbers(dtype: str) -> None:
    x = arr(np.asarray([1, 0], dtype))
    with pytest.warns(RuntimeWarning, match="gives the same number for each change of x"):
        found = numerical_gradient(lambda _: 1.0, x)
    assert dtype_of(found) == widest
    np.testing.assert_array_equal(host(x), [1, 0])


@pytest.mark.skipif(backend.name not in ("numpy", "torch"), reason="has no such views")
def test_elements_that_overlap_are_varied_one_by_one() -> None:
    if backend.name == "torch":
        x = arr(np.arange(5.0)).unfold(0, 3, 1)
    else:
        x = np.lib.stride_tricks.as_strided(np.arange(5.0), (3, 3), (8, 8))
    np.testing.assert_allclose(host(numerical_gradient(backend.xp.sum, x)), np.ones((3, 3)))
    np.testing.assert_array_equal(host(x)[:, 0], [0, 1, 2])


def test_a_parameter_without_an_element_is_compared_with_nothing() -> None:
    sums = [1.0, 2.0], backend.xp.sum, backend.xp.ones_like
    nothing = np.zeros((0, 3)), lambda V: 0.0, lambda V: V
    x = arr([1.0], widest)
    report = gradient_check(Beside(sums, nothing), x, x)
    assert report.not_deterministic == ""
    assert report.parameters["W"].verdict == "ok"
    assert report.parameters["V"].checked == 0


@needs_float64
def test_samples_are_computed_with_in_the_precision_of_the_check() -> None:
    x, t = data()
    narrow = arr(host(x), "float32")
    last = Affine(arr(np.eye(4, 3)), arr(np.zeros(3)))
    net = xbp.Network([Sigmoid(), last], SoftmaxWithLoss())
    expected = net.numerical_gradient(arr(host(narrow), "float64"), t)
    for key, value in net.numerical_gradient(narrow, t).items():
        np.testing.assert_array_equal(host(value), host(expected[key]))


def test_samples_that_choose_nothing_may_be_integers() -> None:
    x, t = data()
    assert gradient_check(network(), arr(np.round(4 * host(x)), "int64"), t).passed


def test_a_seed_may_be_numpys_integer() -> None:
    report = gradient_check(network(), *data(), elements=1, seed=np.int64(3))  # type: ignore[arg-type]
    assert report.passed


# Along directions --------------------------------------------------------------------------------


def deep_net() -> xbp.Network:
    return xbp.Network.fully_connected([6, 5, 4, 3], seed=3, dtype=widest, backend=backend)


def deep_data() -> tuple[Any, Any]:
    chance = np.random.default_rng(4)
    return arr(chance.normal(size=(3, 6)), widest), arr([0, 2, 1])


def test_a_right_gradient_is_right_along_any_direction() -> None:
    for seed in range(5):
        report = gradient_check(deep_net(), *deep_data(), directions=4, seed=seed)
        assert report.passed, report
        for check in report.parameters.values():
            assert check.checked == 4
            assert check.worst is not None
            assert len(check.worst) <= 1


def test_one_wrong_element_shows_in_a_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    original = xbp.layers.Affine.backward_params

    def nearly(self: Any, dout: Any) -> None:
        original(self, dout)
        if self.name == "Affine2":
            self.dW = self.dW + arr(np.eye(5, 4), widest) * (0 * self.dW + 0.1)

    monkeypatch.setattr(xbp.layers.Affine, "backward_params", nearly)
    report = gradient_check(deep_net(), *deep_data(), directions=3)
    assert [key for key, check in report.parameters.items() if not check.passed] == ["W2"]


def test_directions_ask_for_few_losses() -> None:
    calls = 0

    class Counting(xbp.Network):
        def loss(self, x: Any, t: Any) -> Any:
            nonlocal calls
            calls += 1
            return super().loss(x, t)

        traceable = False  # a replay would not be seen

    network = Counting(list(deep_net().layers.values()), SoftmaxWithLoss())
    gradient_check(network, *deep_data(), directions=2)
    # Two to either side for each of six parameters, of 92 elements, and the gradient itself.
    assert calls <= 40


def test_elements_or_directions() -> None:
    with pytest.raises(SettingError, match="either elements are compared or directions, not both"):
        gradient_check(deep_net(), *deep_data(), elements=1, directions=1)
    with pytest.raises(SettingError, match="directions is a positive integer, not 0"):
        gradient_check(deep_net(), *deep_data(), directions=0)


def test_a_direction_has_length_1() -> None:
    layer = Affine(arr([[0.5]], widest), arr([0.25], widest))
    network = xbp.Network([layer], IdentityWithLoss())
    x, t = arr([[2.0], [1.0]], widest), arr([[1.0], [3.0]], widest)
    gradient = network.gradient(x, t)
    report = gradient_check(network, x, t, directions=3)
    for key, check in report.parameters.items():
        # There and back are the only directions.
        assert abs(check.backpropagation or 0) == pytest.approx(
            abs(float(host(gradient[key]).sum()))
        )


# Many elements at once ---------------------------------------------------------------------------


@pytest.fixture
def _no_element_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, i: int) -> Any:
        def loss(step: float) -> float:
            raise AssertionError(f"element {i} was moved by itself")

        return loss

    monkeypatch.setattr("xbp.differences.Probe.along", refuse)


@except_slow
@pytest.mark.usefixtures("_no_element_alone")
def test_where_the_first_step_tells_enough_no_element_is_moved_alone() -> None:
    # The loss is quadratic in each element, so that central differences are exact.
    affine = [layer for layer in deep_net().layers.values() if isinstance(layer, Affine)]
    network = xbp.Network(affine, IdentityWithLoss())
    x, _ = deep_data()
    assert gradient_check(network, x, arr(np.ones((3, 3)), widest)).passed


def test_a_step_is_allowed_the_rounding_of_what_it_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    units = []
    original = compare

    def noting(claimed: float, f: Any, h: float, noise: float, unit: float = 0.0) -> Any:
        units.append(unit)
        return original(claimed, f, h, noise, unit)

    monkeypatch.setattr("xbp.gradients.compare", noting)
    x, t = deep_data()
    gradient_check(deep_net(), x, t, elements=1)
    assert min(units) >= epsilon_of(x)


def test_a_check_is_compiled_where_the_layers_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = 0
    original = type(backend).compile

    def counting(self: Any, function: Any, **kwargs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return original(self, function, **kwargs)

    class Own(Relu):
        """Does not say that it may be traced."""

    monkeypatch.setattr(type(backend), "compile", counting)
    gradient_check(deep_net(), *deep_data(), elements=1)
    assert compiled > 0
    compiled = 0
    layers = list(deep_net().layers.values())
    gradient_check(
        xbp.Network([layers[0], Own()], IdentityWithLoss()),
        deep_data()[0],
        arr(np.ones((3, 5)), widest),
        elements=1,
    )
    assert compiled == 0


# The parts ---------------------------------------------------------------------------------------


class Largest(random.Random):
    """Draws the largest number that it may."""

    def uniform(self, a: float, b: float) -> float:
        return b


@needs_float64
def test_a_step_aside_becomes_shorter_until_there_is_a_loss() -> None:
    never = Claimed([0.0, 1e-3, -1e-3, 1.0], lambda W: backend.xp.sum(W) * math.nan, lambda W: W)
    x, W = arr([1.0], widest), host(never.params["W"])
    assert step_aside(never, never.params, x, x, 1e-4, Largest()) is None
    limits = np.array([0.02, 1e-3, 1e-3, 0.02])
    steps = [np.full(4, 0.01), *(limits / n for n in (2, 16, 128))]
    for asked, step in zip(never.asked, steps, strict=True):
        np.testing.assert_allclose(host(asked), W + step, rtol=1e-12)


def test_what_counts_of_two_comparisons() -> None:
    uncertain = Comparison(0.0, 1.0, error=0.1)
    right, wrong = Comparison(0.0, 0.0, error=0.1), Comparison(0.0, 2.0, error=0.1)
    assert of_two(uncertain, right) == right
    assert of_two(uncertain, wrong) == wrong
    assert of_two(uncertain, None) == uncertain
    certain = Comparison(0.0, 1.0, error=0.1, certain=True)
    assert of_two(certain, right) == replace(certain, contradicted=True)
    odd = Comparison(math.inf, 1.0, error=0.1, kink=True)
    assert of_two(odd, right) == replace(odd, kink=False, contradicted=True)


def test_a_quotient_is_resolved_up_to_its_bounds() -> None:
    assert is_resolved(Comparison(0.25, -0.25, error=0.5), 0.5, 0.5)
    assert not is_resolved(Comparison(0.5, -0.25, error=0.5), 0.5, 0.5)
    assert not is_resolved(Comparison(0.25, -0.25, error=0.5), 0.49, 0.5)


def test_a_claim_of_nan_is_as_wrong_as_can_be() -> None:
    found = Claimed([1.0], backend.xp.sum, lambda W: W * math.nan).check()
    assert found.largest_relative_error == math.inf


def test_a_target_that_is_nan_is_named() -> None:
    net = xbp.Network([Affine(arr([[1.0]], widest), arr([0.0], widest))], IdentityWithLoss())
    with pytest.raises(DataError, match="the loss is nan: t holds NaN or infinity"):
        gradient_check(net, arr([[1.0]], widest), arr([[math.nan]], widest))


class Drifting(Claimed):
    """Is another, once its gradient was asked for three times; aside there is no loss."""

    def loss(self, x: Any, t: Any) -> Any:
        return super().loss(x, t) + 0.1 * (len(self.asked) > 2)

    def loss_and_gradient(self, params: Any, x: Any, t: Any) -> Any:
        loss, gradient = super().loss_and_gradient(params, x, t)
        return (loss * math.nan if len(self.asked) > 3 else loss), gradient


def test_what_begins_to_drift_is_not_called_wrong() -> None:
    x = arr([1.0], widest)
    report = gradient_check(Drifting([1.0], backend.xp.sum, lambda W: 0 * W), x, x)
    assert report.not_deterministic == "the loss, called and traced,"
    assert (report.dtype, report.step, report.parameters["W"].checked) == (widest, 1e-4, 1)


class Glitch(Claimed):
    """Is steep in its first number, until the second was moved; the claim of the second is off."""

    def __init__(self) -> None:
        xp = backend.xp
        super().__init__([1.0, 1.0], xp.sum, lambda W: arr([1.0, 3.0], widest))
        self.is_over = [False]

    def loss(self, x: Any, t: Any) -> Any:
        first, second = (float(number) for number in host(self.params["W"]))
        self.is_over[0] |= second != 1
        return super().loss(x, t) + (0 if self.is_over[0] else 8 * (first - 1))


def test_what_is_furthest_off_is_asked_again_before_it_is_called_wrong() -> None:
    x = arr([1.0], widest)
    seed = next(s for s in range(9) if random.Random(s).sample(range(2), 2) == [0, 1])
    assert gradient_check(Glitch(), x, x, seed=seed).not_deterministic == "the loss"


class Two(Claimed):
    """Has a second parameter, whose gradient is small."""

    def __init__(self, size: float) -> None:
        xp = backend.xp
        super().__init__([1.0], xp.sum, xp.ones_like)
        self.params["V"] = arr([1.0], widest)
        self.size = size

    def loss(self, x: Any, t: Any) -> Any:
        return super().loss(x, t) + self.size * backend.xp.sum(self.params["V"])

    def loss_and_gradient(self, params: Any, x: Any, t: Any) -> Any:
        gradient = {"W": params["W"] * 0 + 1, "V": params["V"] * 0 + self.size}
        return self.bound_to(params).loss(x, t), gradient


@needs_float64
def test_a_quotient_is_held_against_the_gradients_of_its_own_parameter() -> None:
    x = arr([1.0], widest)
    unit = noise_of(epsilon_of(x), 1, 1.0)
    error = 2 * unit * 3 / 1e-4  # of a loss of 1, a product of 1, and 1
    for size, set_aside in ((3 * error, 1), (30 * error, 0)):
        assert gradient_check(Two(size), x, x).parameters["V"].set_aside == set_aside


@needs_float64
@pytest.mark.parametrize(("flat", "set_aside"), [(2, 0), (3, 3)])
def test_where_most_is_flat_it_may_be_a_staircase(flat: int, set_aside: int) -> None:
    xp = backend.xp

    def stairs(W: Any) -> Any:
        return xp.sum(W[flat:]) + xp.sum(xp.floor(32 * W[:flat] + 0.3))

    claims = arr([0.0] * flat + [1.0] * (4 - flat), widest)
    found = Claimed([0.5] * 4, stairs, lambda W: claims).check()
    assert (found.checked, found.set_aside, found.wrong) == (4, set_aside, 0)
