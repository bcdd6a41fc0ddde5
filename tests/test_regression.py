"""Losses of numbers: known values, what they learn, and the errors of wrong settings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import arr, backend, both_floats, host

import xbp
from xbp.errors import DataError, SettingError
from xbp.layers import (
    AbsoluteWithLoss,
    Affine,
    HuberWithLoss,
    LossLayer,
    PoissonWithLoss,
    QuantileWithLoss,
)
from xbp.reports import evaluate_regression

X, T = [[0.5, -2.0], [3.0, 1.0]], [[0.0, 1.0], [3.0, 1.5]]


@both_floats
@pytest.mark.parametrize(
    ("loss", "value", "slope"),
    [
        (AbsoluteWithLoss(), (0.5 + 3 + 0 + 0.5) / 2, [[1, -1], [0, -1]]),
        (HuberWithLoss(), (0.125 + 2.5 + 0 + 0.125) / 2, [[0.5, -1], [0, -0.5]]),
        (HuberWithLoss(0.25), (0.09375 + 0.71875 + 0.09375) / 2, [[0.25, -0.25], [0, -0.25]]),
        (QuantileWithLoss(0.75), (0.125 + 2.25 + 0.375) / 2, [[0.25, -0.75], [0, -0.75]]),
        (
            PoissonWithLoss(),
            (np.exp(0.5) + np.exp(-2) + 2 + np.exp(3) - 9 + np.exp(1) - 1.5) / 2,
            [[np.exp(0.5), np.exp(-2) - 1], [np.exp(3) - 3, np.exp(1) - 1.5]],
        ),
    ],
    ids=repr,
)
def test_values_and_slopes(loss: LossLayer, value: float, slope: Any, dtype: str) -> None:
    rounding = 8 * float(np.finfo(dtype).eps)
    found = loss.forward(arr(X, dtype), arr(T, dtype))
    np.testing.assert_allclose(float(found), value, rtol=rounding)
    np.testing.assert_allclose(host(loss.backward()), np.asarray(slope) / 2, rtol=rounding)
    # One sample is a batch of one.
    alone = float(loss.forward(arr(X[0], dtype), arr(T[0], dtype)))
    other = float(loss.forward(arr(X[1], dtype), arr(T[1], dtype)))
    np.testing.assert_allclose((alone + other) / 2, value, rtol=rounding)


def constant(loss: LossLayer, targets: Any, *, lr: float, steps: int) -> float:
    """Return the number that a network of one number learns from targets."""
    layer = Affine(arr([[0.0]]), arr([0.0]))
    network = xbp.Network([layer], loss)
    x = np.zeros((len(targets), 1))
    trainer = xbp.Trainer(network, xbp.SGD(lr), batch_size=len(targets), seed=0)
    trainer.fit(x, np.asarray(targets)[:, None], steps=steps)
    return float(host(network.params["b1"])[0])


def test_what_a_loss_is_smallest_at_is_learned() -> None:
    targets = [0.0, 1.0, 2.0, 3.0, 100.0]
    assert constant(AbsoluteWithLoss(), targets, lr=0.05, steps=150) == pytest.approx(2, abs=0.1)
    # Four differences of b, and one of 10: 4 b - 6 = 10.
    assert constant(HuberWithLoss(10), targets, lr=0.2, steps=150) == pytest.approx(4, abs=1e-3)
    assert constant(QuantileWithLoss(0.3), targets, lr=0.2, steps=150) == pytest.approx(1, abs=0.1)
    learned = constant(PoissonWithLoss(), [1.0, 2.0, 6.0], lr=0.2, steps=60)
    assert learned == pytest.approx(np.log(3), abs=1e-3)


def test_counts_are_compared_with_rates() -> None:
    layer = Affine(arr([[1.0]]), arr([0.0]))
    network = xbp.Network([layer], PoissonWithLoss())
    x = np.log([[1.0], [2.0], [4.0], [7.0]])
    counts = np.exp(x)
    evaluation = evaluate_regression(network, x, counts)
    np.testing.assert_allclose(evaluation.outputs, counts, rtol=1e-5)
    assert evaluation.r2()[0] == pytest.approx(1)
    trainer = xbp.Trainer(network, xbp.SGD(1e-6), batch_size=4, seed=0)
    history = trainer.fit(x, counts, epochs=1, x_test=x, t_test=counts)
    assert history.test_r2[-1] == pytest.approx(1, abs=1e-3)


def test_a_negative_number_is_no_count() -> None:
    network = xbp.Network([Affine(arr([[1.0]]), arr([0.0]))], PoissonWithLoss())
    trainer = xbp.Trainer(network, xbp.SGD(0.1), batch_size=1, seed=0)
    with pytest.raises(DataError, match=r"t\[1\] is \[-1.0\], no count: targets are numbers ≥ 0"):
        trainer.fit(np.ones((2, 1)), np.asarray([[1.0], [-1.0]]), steps=1)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: HuberWithLoss(0), "HuberWithLoss: delta is a positive number, not 0"),
        (lambda: HuberWithLoss(np.nan), "HuberWithLoss: delta is a positive number, not nan"),
        (lambda: QuantileWithLoss(0), "QuantileWithLoss: q is a number between 0 and 1, not 0"),
        (lambda: QuantileWithLoss(1.0), "QuantileWithLoss: q is a number between 0 and 1, not 1.0"),
        (
            lambda: QuantileWithLoss([0.1, 0.9]),  # type: ignore[arg-type]
            r"q is a number between 0 and 1, not \[0.1, 0.9\]",
        ),
    ],
)
def test_mistakes_in_settings(make: Callable[[], LossLayer], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        make()


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's losses")
@both_floats
def test_they_agree_with_pytorchs_losses(dtype: str) -> None:
    from torch import nn  # noqa: PLC0415  only here

    random = np.random.default_rng(0)
    x, t = (arr(random.normal(size=(5, 3)) * 3, dtype) for _ in range(2))
    counts = arr(random.integers(0, 9, (5, 3)), dtype)
    for ours, theirs, targets in (
        (AbsoluteWithLoss(), nn.L1Loss(reduction="sum"), t),
        (HuberWithLoss(0.7), nn.HuberLoss(reduction="sum", delta=0.7), t),
        (PoissonWithLoss(), nn.PoissonNLLLoss(reduction="sum"), counts),
    ):
        expected = float(theirs(x, targets)) / 5
        assert float(ours.forward(x, targets)) == pytest.approx(expected, rel=1e-5)
