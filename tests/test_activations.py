"""Activations: exact to a few units in the last place, finite at the extremes, their settings."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import arr, backend, both_floats, dtype_of, host

from xbp.errors import SettingError
from xbp.layers import Elu, Gelu, Layer, LeakyRelu, Relu, Sigmoid, Silu, Softplus, Tanh

mpmath = pytest.importorskip("mpmath")
Real = Callable[[Any], Any]

KINDS: list[Any] = [Relu, Sigmoid, Tanh, LeakyRelu, Elu, Gelu, Silu, Softplus]


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def logistic(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def distribution(x: Any) -> Any:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


# Each function and its derivative, with as many digits as are asked for.
EXACT: dict[Any, tuple[Real, Real]] = {
    Tanh: (mpmath.tanh, lambda x: 1 / mpmath.cosh(x) ** 2),
    LeakyRelu: (
        lambda x: x if x > 0 else mpmath.mpf(0.01) * x,
        lambda x: 1 if x > 0 else mpmath.mpf(0.01),
    ),
    Elu: (lambda x: x if x > 0 else mpmath.expm1(x), lambda x: 1 if x > 0 else mpmath.exp(x)),
    Gelu: (lambda x: x * distribution(x), lambda x: distribution(x) + x * mpmath.npdf(x)),
    Silu: (
        lambda x: x * logistic(x),
        lambda x: logistic(x) * (1 + x * logistic(-x)),
    ),
    Softplus: (
        lambda x: max(x, 0) + mpmath.log1p(mpmath.exp(-abs(x))),
        logistic,
    ),
}

DIFFERENCES = [EXACT[Gelu][1], EXACT[Silu][1]]

# In units in the last place; NumPy's own functions are off by up to 3.
CLOSE = 12


def points(dtype: str) -> Any:
    """Return numbers of all sizes for which no result is smaller than a normal number."""
    random = np.random.default_rng(0)
    farthest = 36 if dtype == "float64" else 12
    small = 10.0 ** random.uniform(-8, 0, 40)
    wide = random.uniform(-farthest, farthest, 120)
    return np.concatenate([wide, small, -small, [0.0], random.normal(size=60)]).astype(dtype)


@both_floats
@pytest.mark.parametrize("kind", EXACT)
def test_digits_are_right_over_the_whole_range(kind: type[Layer], dtype: str) -> None:
    layer, x = kind(), points(dtype)
    y = layer.forward(arr(x, dtype))
    slope = layer.backward(arr(np.ones_like(x), dtype))
    assert dtype_of(y) == dtype_of(slope) == dtype
    epsilon = float(np.finfo(dtype).eps)
    with mpmath.workdps(50):
        for result, exact in zip((y, slope), EXACT[kind], strict=True):
            expected = [exact(mpmath.mpf(float(number))) for number in x]
            for number, found, true in zip(x, host(result).tolist(), expected, strict=True):
                # Near its zero a slope is a difference of larger numbers.
                size = abs(true) + (0.2 if exact in DIFFERENCES and -3 < number < 0 else 0)
                assert abs(found - true) <= CLOSE * epsilon * size, (number, found, float(true))


@both_floats
@pytest.mark.parametrize("kind", KINDS)
def test_the_extremes_are_those_of_the_function(kind: type[Layer], dtype: str) -> None:
    layer = kind()
    x = np.asarray([-np.inf, -1e30, -1e4, 1e4, 1e30, np.inf])
    y = host(layer.forward(arr(x, dtype)))
    slope = host(layer.backward(arr(np.ones(6), dtype)))
    is_bounded = kind in (Sigmoid, Tanh)
    np.testing.assert_allclose(y[3:], [1, 1, 1] if is_bounded else x[3:], rtol=1e-6)
    low: dict[type[Layer], Any] = {Tanh: [-1.0] * 3, Elu: [-1.0] * 3, LeakyRelu: 0.01 * x[:3]}
    np.testing.assert_allclose(y[:3], low.get(kind, [0.0] * 3), rtol=1e-6)
    np.testing.assert_allclose(slope[3:], [0.0 if is_bounded else 1.0] * 3, rtol=1e-6)
    np.testing.assert_allclose(slope[:3], [0.01 if kind is LeakyRelu else 0.0] * 3, rtol=1e-6)


@both_floats
@pytest.mark.parametrize("kind", KINDS)
def test_not_a_number_stays_one(kind: type[Layer], dtype: str) -> None:
    assert np.isnan(host(kind().forward(arr([np.nan], dtype)))[0])


def test_settings_are_used_and_shown() -> None:
    x, dout = arr([-2.0, 3.0]), arr([1.0, 1.0])
    leaky, elu = LeakyRelu(0.25), Elu(2)
    np.testing.assert_allclose(host(leaky.forward(x)), [-0.5, 3.0])
    np.testing.assert_allclose(host(leaky.backward(dout)), [0.25, 1.0])
    np.testing.assert_allclose(host(elu.forward(x)), [2 * np.expm1(-2.0), 3.0], rtol=1e-6)
    np.testing.assert_allclose(host(elu.backward(dout)), [2 * np.exp(-2.0), 1.0], rtol=1e-6)
    assert repr(leaky) == "<LeakyRelu: slope 0.25>"
    assert repr(elu) == "<Elu: alpha 2>"


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: LeakyRelu(np.inf), "LeakyRelu: slope is a number, not inf"),
        (
            lambda: LeakyRelu("0.1"),  # type: ignore[arg-type]
            "LeakyRelu: slope is a number, not '0.1'",
        ),
        (lambda: Elu(0), "Elu: alpha is a positive number, not 0"),
        (lambda: Elu(-1.0), "Elu: alpha is a positive number, not -1.0"),
        (
            lambda: Elu(None),  # type: ignore[arg-type]
            "Elu: alpha is a positive number, not None",
        ),
    ],
)
def test_mistakes_in_settings(make: Callable[[], Layer], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        make()


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's modules")
@both_floats
def test_they_agree_with_pytorchs_modules(dtype: str) -> None:
    from torch import nn  # noqa: PLC0415  only here

    theirs = {
        Tanh: nn.Tanh(),
        LeakyRelu: nn.LeakyReLU(),
        Elu: nn.ELU(),
        Gelu: nn.GELU(),
        Silu: nn.SiLU(),
        Softplus: nn.Softplus(),
        Sigmoid: nn.Sigmoid(),
        Relu: nn.ReLU(),
    }
    x = arr(points(dtype), dtype)
    for kind, module in theirs.items():
        # Their softplus is x beyond 20, their GELU subtracts from 1.
        np.testing.assert_allclose(
            host(kind().forward(x)), module(x).detach().numpy(), rtol=1e-4, atol=1e-6
        )
