"""The numerical gradient, and a check that finds planted faults and knows a kink."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from support import arr, arrays, backend, dtype_of, host, precise, widest

import xbp
from xbp import TwoLayerNet, gradient_check, numerical_gradient
from xbp.errors import DataError, DTypeError, SettingError
from xbp.layers import Affine, Relu, Sigmoid, SoftmaxWithLoss


@given(arrays((2, 3)))
def test_gradient_of_a_polynomial(x: Any) -> None:
    gradient = numerical_gradient(lambda x: backend.xp.sum(x**3 - 2 * x), arr(x))
    np.testing.assert_allclose(
        host(gradient), 3 * x**2 - 2, rtol=precise(1e-7, 1e-3), atol=precise(1e-7, 1e-3)
    )


def test_shapes_from_zero_dimensions_to_three() -> None:
    for shape in ((), (1,), (2, 1, 3)):
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
def test_f_may_read_x_by_reference_where_it_can_be_written_to() -> None:
    x = arr([1.0, 2.0], widest)
    gradient = numerical_gradient(lambda _: backend.xp.sum(x * x), x)
    np.testing.assert_allclose(host(gradient), [2, 4], rtol=precise(1e-7, 1e-4))


@pytest.mark.skipif(backend.name != "numpy", reason="only NumPy makes an array read-only")
def test_x_may_be_read_only() -> None:
    x = np.array([1.0, 2.0])
    x.flags.writeable = False
    np.testing.assert_allclose(numerical_gradient(lambda x: np.sum(x * x), x), [2, 4])


def test_mistakes() -> None:
    with pytest.raises(DTypeError, match="numerical_gradient: expected an array, got float"):
        numerical_gradient(lambda x: x, 1.0)
    for h in (0, -1e-4, float("nan")):
        with pytest.raises(SettingError, match="step h"):
            numerical_gradient(lambda x: x, arr(1.0), h=h)
    with pytest.raises(SettingError, match="elements"):
        gradient_check(network(), *data(), elements=0)
    with pytest.raises(SettingError, match="no parameters"):
        gradient_check(xbp.Network([Relu()], SoftmaxWithLoss(), backend=backend), *data())
    with pytest.raises(DataError, match=r"the loss is nan: .* a label is outside the classes"):
        gradient_check(network(), data()[0], data()[1] + 1)


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
        assert check.mean_absolute_difference < precise(1e-9, 1e-4)
        assert check.largest_relative_error < 1e-6
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
