"""How good a network is: loss, accuracy and r², batch by batch, and what cannot be said."""

from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import arr, backend, precise, widest

import xbp
from xbp import SGD, History, Network, Trainer
from xbp.errors import DivergenceError, UndefinedOutputError
from xbp.layers import Affine, IdentityWithLoss, Layer, LossLayer, SoftmaxWithLoss
from xbp.namespace import Array, namespace_of
from xbp.training.measurement import Determination, measure, outputs_of


def unchanged(width: int, loss: type[LossLayer]) -> Network:
    """Return a network whose outputs are its input."""
    layer = Affine(arr(np.eye(width), widest), arr(np.zeros(width), widest))
    return Network([layer], loss())


def r2_of(outputs: Any, targets: Any, *, at_once: int = 10**9) -> Any:
    """Return r² of each output, noted so many samples at a time."""
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    found = Determination()
    for start in range(0, len(outputs), at_once):
        found.add(outputs[start : start + at_once], targets[start : start + at_once])
    return found.by_output()


@pytest.mark.parametrize("loss", [SoftmaxWithLoss, IdentityWithLoss])
@given(st.integers(1, 7), st.integers(1, 15), st.integers(0, 100))
def test_batches_give_what_all_at_once_gives(
    loss: type[LossLayer], batch: int, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    network = unchanged(3, loss)
    x = random.normal(size=(count, 3))
    classifies = loss is SoftmaxWithLoss
    t = random.integers(0, 3, count) if classifies else random.normal(size=(count, 3))
    samples, targets = arr(x, widest), arr(t, None if classifies else widest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xbp.training.measurement._BATCH", batch)
        found = measure(network, samples, targets, with_loss=True)
    whole = float(network.loss(samples, targets))
    np.testing.assert_allclose(found.loss, whole, rtol=precise(1e-12, 1e-5))
    if classifies:
        assert found.accuracy == np.mean(x.argmax(axis=1) == t)
        assert isnan(found.r2)
    else:
        assert isnan(found.accuracy)
        errors = np.square(x - t).sum(axis=0)
        distances = np.square(t - t.mean(axis=0)).sum(axis=0)
        expected = (1 - errors / distances).mean() if count > 1 else nan
        np.testing.assert_allclose(found.r2, expected, rtol=precise(1e-9, 1e-3))


class Drifting(Layer):
    """Adds what has gone through it before, also where it infers."""

    state_names = ("total",)

    def __init__(self) -> None:
        self.total = 0.0

    def forward(self, x: Array) -> Array:
        y = x + self.total
        self.total = self.total + namespace_of(x).sum(x)
        return y

    def backward(self, dout: Array) -> Array:
        return dout


def test_each_part_of_the_samples_is_measured_as_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network([Drifting()], IdentityWithLoss(), backend=backend)
    x = arr([[1.0], [2.0], [4.0]], widest)
    monkeypatch.setattr("xbp.training.measurement._BATCH", 1)
    found = [float(values[0, 0]) for _, _, values in outputs_of(network, x)]
    assert found == [1.0, 2.0, 4.0]


def test_measuring_leaves_no_trace_in_the_loss() -> None:
    network = unchanged(2, SoftmaxWithLoss)
    x = arr([[1.0, 0.0]], widest)
    measure(network, x, arr([0]), with_loss=True)
    assert network.last_layer.loss is None


@pytest.mark.skipif(backend.name != "numpy", reason="is about figures on the host")
@pytest.mark.parametrize("at_once", [1, 2, 3, 9])
def test_r2_is_that_of_the_textbooks(at_once: int) -> None:
    one = r2_of([[2.5], [0.0], [2.0], [8.0]], [[3.0], [-0.5], [2.0], [7.0]], at_once=at_once)
    np.testing.assert_allclose(one, [0.9486081370449679])
    two = r2_of(
        [[0.0, 2.0], [-1.0, 2.0], [8.0, -5.0]],
        [[0.5, 1.0], [-1.0, 1.0], [7.0, -6.0]],
        at_once=at_once,
    )
    np.testing.assert_allclose(two, [0.965438, 0.908163], rtol=1e-6)
    # Far from zero no digit is lost.
    far = r2_of(
        [[1e9 + 2.5], [1e9], [1e9 + 2.0], [1e9 + 8.0]],
        [[1e9 + 3.0], [1e9 - 0.5], [1e9 + 2.0], [1e9 + 7.0]],
        at_once=at_once,
    )
    np.testing.assert_allclose(far, [0.9486081370449679])


@pytest.mark.skipif(backend.name != "numpy", reason="is about figures on the host")
def test_where_there_is_no_r2() -> None:
    assert np.isnan(r2_of([[1.0]], [[2.0]])).all()
    for at_once in (1, 2, 7):
        # The mean of so many 0.1 is not 0.1.
        found = r2_of(np.ones((7, 2)), [[0.1, i] for i in range(7)], at_once=at_once)
        assert [isnan(value) for value in found] == [True, False]
    assert isnan(Determination().mean())
    assert r2_of([[inf], [0.0]], [[1.0], [0.0]]) == [-inf]


def regression() -> Network:
    return Network.fully_connected([1, 1], loss=IdentityWithLoss, dtype=widest, seed=0)


def test_a_single_sample_and_equal_targets_are_trained_on_all_the_same() -> None:
    x = np.arange(4.0)[:, None]
    history = Trainer(regression(), SGD(0.01), batch_size=4).fit(
        x, np.full(4, 0.1), steps=2, x_test=x[:1], t_test=[1.0]
    )
    assert all(map(isnan, [*history.train_r2, *history.test_r2]))
    assert len(history.train_r2) == len(history.test_r2) == 2
    assert all(np.isfinite(history.test_loss))


class Root(Layer):
    """Of a negative number there is none: NaN."""

    def forward(self, x: Any) -> Any:
        return backend.xp.sqrt(x)

    def backward(self, dout: Any) -> Any:
        return dout


class Indifferent(IdentityWithLoss):
    """Gives a finite loss whatever the outputs are."""

    def forward(self, x: Any, t: Any) -> Any:
        return super().forward(backend.xp.zeros_like(x), t)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_nan_is_not_measured() -> None:
    def fit(**data: Any) -> History:
        layers = [Affine(arr([[1.0]], widest), arr([0.0], widest)), Root()]
        trainer = Trainer(Network(layers, Indifferent()), SGD(1e-30), batch_size=3)
        return trainer.fit(steps=1, **data)

    x, t = np.array([[1.0], [2.0], [-1.0]]), np.zeros(3)
    with pytest.raises(
        UndefinedOutputError, match=r"^after step 1, test data: .*output for x\[2\] is NaN"
    ):
        fit(x=x[:2], t=t[:2], x_test=x, t_test=t)
    with pytest.raises(
        DivergenceError, match=r"^after step 1, training data: .*x\[2\] is NaN.*smaller learning"
    ):
        fit(x=x, t=t)
    assert len(fit(x=x[:2], t=t[:2]).train_r2) == 1


@pytest.mark.parametrize("scores", [[inf, 0.0], [-inf, -inf]])
def test_scores_without_a_finite_highest_are_not_measured(scores: list[float]) -> None:
    network = Network([], SoftmaxWithLoss(), backend=backend)
    x, t = arr([[0.0, -inf], scores], widest), arr([0, 1])
    with pytest.raises(UndefinedOutputError, match=r"output for x\[1\] is infinite"):
        measure(network, x, t, with_loss=False)
    assert measure(network, x[:1, ...], t[:1, ...], with_loss=True).loss == 0
    # A number may be anything.
    network = Network([], IdentityWithLoss(), backend=backend)
    assert measure(network, x, arr(np.ones((2, 2)), widest), with_loss=True).loss == inf


def test_a_loss_of_ones_own_may_take_other_targets() -> None:
    class Likelihood(LossLayer):
        """Of two outputs, a mean and a spread, for each target."""

        classifies = False

        def forward(self, x: Any, t: Any) -> Any:
            self.x, self.t = x, t
            xp = backend.xp
            self.loss = xp.mean(0.5 * (x[:, :1] - t) ** 2 + x[:, 1:] ** 2)
            return self.loss

        def backward(self, dout: Any = 1) -> Any:
            xp, count = backend.xp, self.x.shape[0]
            return xp.concat([self.x[:, :1] - self.t, 2 * self.x[:, 1:]], axis=1) * (dout / count)

    network = Network.fully_connected([1, 2], loss=Likelihood, dtype=widest, seed=0)
    x = np.linspace(-1, 1, 6)[:, None]
    history = Trainer(network, SGD(0.1), batch_size=6).fit(x, x, steps=3, x_test=x, t_test=x)
    assert all(map(isnan, history.train_r2))
    assert history.test_loss[-1] < history.loss[0]
    assert xbp.History().test_loss == []
