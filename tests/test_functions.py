"""Sigmoid, softmax and losses: known values, extremes, and the errors of wrong input."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from support import (
    arr,
    arrays,
    backend,
    both_floats,
    dtype_of,
    host,
    numbers,
    other,
    precise,
    widest,
)

import xbp
from xbp.errors import DTypeError, MixedBackendError, ShapeError
from xbp.functions import (
    as_labels,
    cross_entropy_error,
    log_softmax,
    one_hot,
    sigmoid,
    softmax,
    sum_squared_error,
)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.mark.parametrize("label", [-(10**30), -1, 3, 10**30])
def test_a_number_that_is_no_label_gives_nan(label: int) -> None:
    assert np.isnan(float(cross_entropy_error(arr([0.25, 0.25, 0.5]), label)))


def test_labels_and_what_they_are_like_live_in_one_place() -> None:
    with pytest.raises(MixedBackendError):
        one_hot(arr([0, 1]), 2, like=other.asarray([1.0]))


@both_floats
def test_sigmoid_is_finite_at_the_extremes(dtype: str) -> None:
    y = sigmoid(arr([-1e4, -1.0, 0.0, 1.0, 1e4], dtype))
    assert dtype_of(y) == dtype
    np.testing.assert_allclose(
        host(y), [0, 0.2689414213699951, 0.5, 0.7310585786300049, 1], rtol=1e-6
    )


def test_sigmoid_keeps_its_relative_precision_far_left() -> None:
    np.testing.assert_allclose(
        host(sigmoid(arr([-40.0], widest))), [np.exp(-40.0)], rtol=precise(1e-14, 1e-6)
    )


def test_sigmoid_of_a_positive_number_is_the_formula_to_the_last_digit() -> None:
    x = arr(np.linspace(0, 3, 301), widest)
    np.testing.assert_array_equal(host(sigmoid(x)), host(1.0 / (1.0 + backend.xp.exp(-x))))


@given(arrays((4, 3), -30, 30))
def test_sigmoid_is_symmetric(x: Any) -> None:
    np.testing.assert_allclose(
        host(sigmoid(arr(x))) + host(sigmoid(arr(-x))), 1, rtol=precise(1e-14, 1e-6)
    )


@both_floats
def test_softmax_is_exact_at_the_extremes(dtype: str) -> None:
    x = arr([[1e4, 0, -1e4], [-1e4, -1e4, -3e4]], dtype)
    assert dtype_of(softmax(x)) == dtype
    np.testing.assert_array_equal(host(softmax(x)), [[1, 0, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(
        host(log_softmax(x)),
        [[0, -1e4, -2e4], [-np.log(2), -np.log(2), -2e4 - np.log(2)]],
        rtol=1e-6,
    )


@given(arrays((2, 3, 4), -20, 20), numbers(-100, 100))
def test_softmax_sums_to_one_and_forgets_a_shift(x: Any, shift: float) -> None:
    for axis in (0, 1, 2, -1):
        y = host(softmax(arr(x), axis=axis))
        np.testing.assert_allclose(y.sum(axis=axis), 1, rtol=precise(1e-14, 1e-6))
        np.testing.assert_allclose(
            host(softmax(arr(x + shift), axis=axis)), y, rtol=precise(1e-11, 1e-4)
        )
        np.testing.assert_allclose(
            np.exp(host(log_softmax(arr(x), axis=axis))), y, rtol=precise(1e-13, 1e-5), atol=1e-300
        )


@both_floats
def test_cross_entropy_of_probability_zero_is_large_and_finite(dtype: str) -> None:
    y = arr([[0, 1], [1, 0]], dtype)
    loss = cross_entropy_error(y, arr([0, 0]))
    assert dtype_of(loss) == dtype
    assert loss.shape == ()
    smallest = np.finfo(dtype).smallest_normal
    np.testing.assert_allclose(host(loss), -np.log(smallest) / 2, rtol=1e-6)


def test_cross_entropy_takes_one_hot_and_labels_batches_and_samples() -> None:
    y = arr([[0.3, 0.2, 0.5], [0.1, 0.8, 0.1]], widest)
    expected = -(np.log(0.2) + np.log(0.8)) / 2
    for t in ([1, 1], [[0, 1, 0], [0, 1, 0]], [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]):
        np.testing.assert_allclose(
            host(cross_entropy_error(y, arr(t))), expected, rtol=precise(1e-15, 1e-6)
        )
    for target in (arr(1), 1, arr([0, 1, 0])):
        loss = cross_entropy_error(y[0, :], target)
        np.testing.assert_allclose(host(loss), -np.log(0.2), rtol=precise(1e-15, 1e-6))


@pytest.mark.parametrize("spec", [f"{backend.name}:{backend.device}", "array-api-strict:device1"])
def test_a_number_is_a_label_on_the_device_of_the_outputs(spec: str) -> None:
    y = xbp.get_backend(spec).asarray([0.25, 0.75], "float32")
    assert float(cross_entropy_error(y, 1)) == pytest.approx(-np.log(0.75), rel=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_one_hot_targets_become_labels(dtype: str) -> None:
    y = arr([[0.3, 0.2, 0.5], [0.1, 0.8, 0.1]])
    rows = arr(np.array([[0, 1, 0], [1, 0, 0]], dtype))
    np.testing.assert_array_equal(host(as_labels(rows, y, "test")), [1, 0])
    assert int(as_labels(rows[0, :], y[0, :], "test")) == 1


def test_labels_stay_labels() -> None:
    y = arr([[0.3, 0.2, 0.5], [0.1, 0.8, 0.1]])
    np.testing.assert_array_equal(host(as_labels(arr([1, 0]), y, "test")), [1, 0])
    assert int(as_labels(2, y[0, :], "test")) == 2


def test_sum_squared_error_is_half_the_sum_and_the_mean_over_the_batch() -> None:
    y, t = arr([[1.0, 2.0], [3.0, 5.0]], widest), arr([[0.0, 2.0], [3.0, 1.0]], widest)
    assert float(sum_squared_error(y[0, :], t[0, :])) == 0.5
    assert float(sum_squared_error(y, t)) == (0.5 + 8) / 2
    yes_or_no = arr(np.asarray([True, False]))
    assert float(sum_squared_error(arr([1.0, 1.0]), yes_or_no)) == 0.5


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64"])
def test_one_hot(dtype: str) -> None:
    rows = one_hot(arr(np.array([2, 0], dtype)), 3, like=arr([0.5], "float32"))
    assert dtype_of(rows) == "float32"
    np.testing.assert_array_equal(host(rows), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("function", [sigmoid, softmax, log_softmax])
def test_a_function_names_what_it_was_given_instead_of_floats(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(DTypeError, match=rf"{function.__name__}: .*int64.*asarray"):
        function(arr([1, 2], "int64"))
    with pytest.raises(DTypeError, match=rf"{function.__name__}: expected an array, got list"):
        function([1.0, 2.0])


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_softmax_needs_an_element_along_its_axis(function: Callable[..., Any]) -> None:
    with pytest.raises(ShapeError, match="axis 2"):
        function(arr([[1.0, 2.0]]), axis=2)
    with pytest.raises(ShapeError, match="axis -1"):
        function(backend.xp.zeros((3, 0), device=backend.native_device))


@pytest.mark.parametrize("loss", [cross_entropy_error, sum_squared_error])
def test_a_loss_refuses_targets_that_do_not_fit(loss: Callable[..., Any]) -> None:
    y = arr([[0.5, 0.5], [0.5, 0.5]])
    for t in ([0, 1, 0], [[0, 1]], [[0, 1, 0], [0, 1, 0]], 1):
        with pytest.raises(ShapeError, match=loss.__name__):
            loss(y, arr(t))
    with pytest.raises(ShapeError, match="at least"):
        loss(backend.xp.zeros((0, 2), device=backend.native_device), arr([0]))
    with pytest.raises(MixedBackendError, match=loss.__name__):
        loss(y, other.asarray([[0.0, 1.0], [0.0, 1.0]]))


def test_a_label_outside_the_classes_cannot_be_overlooked() -> None:
    y = arr([[0.5, 0.5], [0.5, 0.5]])
    for labels in ([0, 2], [-1, 1]):
        assert np.isnan(host(cross_entropy_error(y, arr(labels))))


@pytest.mark.parametrize("loss", [cross_entropy_error, sum_squared_error])
def test_a_loss_is_of_arrays(loss: Callable[..., Any]) -> None:
    with pytest.raises(DTypeError, match=f"{loss.__name__}: expected an array, got list"):
        loss([0.5, 0.5], [1.0, 0.0])
    with pytest.raises(DTypeError, match=f"{loss.__name__}: expected an array, got list"):
        loss(arr([0.5, 0.5]), [1.0, 0.0])


def test_labels_are_integers() -> None:
    with pytest.raises(DTypeError, match="labels are integers, got float32"):
        cross_entropy_error(arr([[0.5, 0.5]]), arr([1.0], "float32"))
