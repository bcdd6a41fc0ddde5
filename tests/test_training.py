"""Training: it learns, the same on every backend, checks its data, and can be interrupted."""

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest
from support import arr, backend, dtype_of, host, needs_float64, other, precise, widest

import xbp
from xbp import SGD, Adam, History, Momentum, Network, Optimizer, Trainer, TwoLayerNet
from xbp.datasets import load_digits
from xbp.errors import DataError, DivergenceError, DTypeError, SettingError, ShapeError
from xbp.layers import IdentityWithLoss, Rescale, Sigmoid


def blobs(count: int = 90) -> tuple[Any, Any]:
    """Return three clouds of points on the host, and which cloud each is from."""
    random = np.random.default_rng(0)
    t = np.arange(count) % 3
    centres = np.array([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])
    return (centres[t] + random.normal(scale=0.3, size=(count, 2))).astype(np.float32), t


def net(**settings: Any) -> TwoLayerNet:
    return TwoLayerNet(2, 8, 3, weight_init_std="he", dtype="float32", seed=0, **settings)


def parameters(network: Network) -> dict[str, Any]:
    return {key: np.array(network.backend.to_numpy(value)) for key, value in network.params.items()}


def test_it_learns() -> None:
    x, t = blobs()
    network = net()
    history = Trainer(network, SGD(0.2), batch_size=20, seed=0).fit(
        x[:60], t[:60], epochs=40, x_test=x[60:], t_test=t[60:]
    )
    assert len(history.loss) == 120
    assert history.evaluated == list(range(3, 121, 3))
    assert len(history.train_accuracy) == len(history.test_accuracy) == 40
    assert history.train_accuracy[-1] > 0.95
    assert history.test_accuracy[-1] > 0.95
    assert history.test_accuracy[-1] == network.accuracy(arr(x[60:]), arr(t[60:]))
    assert len(history.test_loss) == 40
    expected = float(network.loss(arr(x[60:]), arr(t[60:])))
    np.testing.assert_allclose(history.test_loss[-1], expected, rtol=1e-5)
    assert history.train_r2 == history.test_r2 == []
    assert np.mean(history.loss[-3:]) < 0.2 * np.mean(history.loss[:3])
    assert all(isinstance(value, float) for value in history.loss + history.train_accuracy)
    assert not history.interrupted


def test_the_digits_reach_95_percent() -> None:
    (x, t), (x_test, t_test) = load_digits()
    network = TwoLayerNet(64, 50, 10, weight_init_std="he", dtype="float32", seed=0)
    history = Trainer(network, SGD(0.1), seed=0).fit(x, t, steps=1000, x_test=x_test, t_test=t_test)
    assert history.test_accuracy[-1] >= 0.95


def test_the_same_seed_gives_the_same_curve_as_numpy() -> None:
    def curve(spec: Any) -> tuple[History, dict[str, Any]]:
        (x, t), _ = load_digits(backend=spec)
        network = TwoLayerNet(64, 50, 10, dtype="float32", seed=3, backend=spec)
        history = Trainer(network, SGD(0.1), seed=3).fit(x, t, steps=100)
        return history, parameters(network)

    (history, params), (reference, expected) = curve(backend), curve("numpy")
    np.testing.assert_allclose(history.loss, reference.loss, rtol=1e-3)
    for key, value in params.items():
        np.testing.assert_allclose(value, expected[key], atol=1e-3)


@pytest.mark.parametrize("make", [lambda: Momentum(0.1), lambda: Adam(0.01)])
def test_what_an_optimizer_remembers_is_kept_from_step_to_step(make: Any) -> None:
    x, t = blobs()

    def curve(spec: Any) -> list[float]:
        trainer = Trainer(net(backend=spec), make(), batch_size=20, seed=0)
        # Twice, for the second is to go on where the first has ended.
        return [*trainer.fit(x, t, steps=12).loss, *trainer.fit(x, t, steps=5).loss]

    np.testing.assert_allclose(curve(backend), curve("numpy"), rtol=1e-3)


def test_an_optimizer_of_ones_own_may_remember_what_it_likes() -> None:
    class Decaying(Optimizer):
        def __init__(self) -> None:
            self.lrs: list[float] = []

        def update(self, params: Any, grads: Any) -> None:
            self.lrs.append(0.2 / (1 + len(self.lrs)))
            SGD(self.lrs[-1]).update(params, grads)

    x, t = blobs()
    optimizer = Decaying()
    history = Trainer(net(), optimizer, batch_size=90).fit(x, t, steps=4)
    np.testing.assert_allclose(optimizer.lrs, [0.2, 0.1, 0.2 / 3, 0.05])
    assert history.loss[-1] < history.loss[0]


def test_a_learning_rate_may_be_changed_between_trainings() -> None:
    x, t = blobs()
    network, optimizer = net(), SGD(0.1)
    trainer = Trainer(network, optimizer, batch_size=90)
    trainer.fit(x, t, steps=1)
    assert type(optimizer.lr) is float
    assert optimizer.lr == 0.1
    before = parameters(network)
    optimizer.lr = 1e-30
    trainer.fit(x, t, steps=1)
    np.testing.assert_array_equal(parameters(network)["W1"], before["W1"])


def test_the_arrays_that_a_network_was_made_of_can_be_read_afterwards() -> None:
    x, t = blobs()
    network = net()
    W = network.params["W1"]
    Trainer(network, SGD(0.1), batch_size=20).fit(x, t, steps=3)
    assert np.all(np.isfinite(host(W)))


def test_the_order_depends_on_the_seed() -> None:
    x, t = blobs()
    first, again, different = (
        Trainer(net(), SGD(0.2), batch_size=10, seed=seed).fit(x, t, steps=5).loss
        for seed in (1, 1, 2)
    )
    assert first == again != different


def test_every_sample_is_seen_once_an_epoch() -> None:
    x = np.arange(1, 8, dtype=np.float64)[:, None]
    network = Network.fully_connected([1, 1], loss=IdentityWithLoss, dtype=widest, seed=0)
    network.params["W1"] = arr([[0.0]], widest)
    # With a learning rate of next to nothing each loss is x²/2, averaged over the batch.
    history = Trainer(network, SGD(1e-300), batch_size=3, seed=0).fit(x, x, epochs=2)
    sizes = [3, 3, 1] * 2
    for epoch in (slice(0, 3), slice(3, 6)):
        total = sum(loss * n for loss, n in zip(history.loss[epoch], sizes, strict=False))
        np.testing.assert_allclose(total, np.sum(x * x) / 2, rtol=precise(1e-7, 1e-6))
    assert history.loss[:3] != history.loss[3:]
    assert history.evaluated == [3, 6]
    assert history.train_accuracy == history.test_accuracy == []


def test_a_step_is_a_mini_batch_a_gradient_and_an_update() -> None:
    x, t = blobs(10)
    network, by_hand = net(), net()
    history = Trainer(network, SGD(0.1), batch_size=10).fit(x, t, steps=1)
    loss, grads = by_hand.loss(arr(x), arr(t)), by_hand.gradient(arr(x), arr(t))
    for key in by_hand.params:
        by_hand.params[key] -= 0.1 * grads[key]
    np.testing.assert_allclose(history.loss, [float(loss)], rtol=1e-5)
    expected = parameters(by_hand)
    for key, value in parameters(network).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-6)


def test_a_regression() -> None:
    x = np.linspace(-1, 1, 40)[:, None]
    network = Network.fully_connected(
        [1, 10, 1], activation=Sigmoid, loss=IdentityWithLoss, weight_init_std=1, seed=0
    )
    history = Trainer(network, SGD(0.5), batch_size=40).fit(
        x, x**2, steps=400, x_test=x[::3], t_test=x[::3] ** 2
    )
    assert history.loss[-1] < 0.1 * history.loss[0]
    assert history.evaluated[-1] == 400
    measured = (history.test_loss, history.train_r2, history.test_r2)
    assert [len(figures) for figures in measured] == [400] * 3
    assert history.train_accuracy == history.test_accuracy == []
    outputs = host(network.predict(arr(x[::3], network.dtype))).astype(float)
    errors = np.square(outputs - x[::3] ** 2)
    np.testing.assert_allclose(history.test_loss[-1], 0.5 * errors.mean(), rtol=1e-5)
    expected = 1 - errors.sum() / np.square(x[::3] ** 2 - np.mean(x[::3] ** 2)).sum()
    np.testing.assert_allclose(history.test_r2[-1], expected, rtol=1e-5)
    assert 0.5 < expected < history.train_r2[-1] + 0.2


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.bool_])
def test_targets_of_one_output_may_be_a_row(kind: Any) -> None:
    x = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
    t = (3 * x[:, 0] > 0).astype(kind)
    curves = [
        Trainer(
            Network.fully_connected([1, 4, 1], loss=IdentityWithLoss, dtype="float32", seed=0),
            SGD(0.1),
            batch_size=5,
            seed=0,
        ).fit(x, targets, steps=6, x_test=x[:5], t_test=targets[:5])
        for targets in (t, t[:, None].astype(np.float32))
    ]
    np.testing.assert_equal(vars(curves[0]), vars(curves[1]))
    assert len(curves[0].test_loss) == 2


def test_a_row_of_targets_never_meets_a_column_of_outputs() -> None:
    network = Network.fully_connected([2, 1], loss=IdentityWithLoss, seed=0)
    x, t = arr(X, network.dtype), arr(T, network.dtype)
    for compute in (
        lambda: network.loss(x, t),
        lambda: network.gradient(x, t),
        lambda: network.numerical_gradient(x, t),
        lambda: xbp.gradient_check(network, x, t),
        lambda: xbp.functions.sum_squared_error(network.predict(x), t),
        lambda: network.last_layer.losses(network.predict(x), t),
    ):
        with pytest.raises(ShapeError, match=r"got \(6,\): reshape them to \(N, 1\)"):
            compute()
    with pytest.raises(ShapeError, match=r"outputs of shape \(1, 2\) .* got \(1,\)$"):
        Trainer(Network.fully_connected([2, 2], loss=IdentityWithLoss, seed=0), SGD(0.1)).fit(
            X, T, steps=1
        )


@needs_float64
def test_targets_too_large_for_the_dtype_are_refused() -> None:
    network = Network.fully_connected([2, 1], loss=IdentityWithLoss, dtype="float32", seed=0)
    with pytest.raises(DataError, match=r"t holds a number of the size of 1e\+39, too large"):
        Trainer(network, SGD(0.1)).fit(X, np.full(6, -1e39), steps=1)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
def test_targets_that_are_large_are_named_when_a_training_diverges() -> None:
    x = np.linspace(-1, 1, 12)[:, None]
    network = Network.fully_connected(
        [1, 8, 1], loss=IdentityWithLoss, weight_init_std="he", dtype="float32", seed=0
    )
    with pytest.raises(DivergenceError, match=r"largest number is 1, the largest target 50000\)"):
        Trainer(network, SGD(5), batch_size=6, seed=0).fit(x, 5e4 * x[:, 0], epochs=50)


def test_data_of_any_library_are_moved_to_the_network() -> None:
    x, t = blobs(30)
    losses = [
        Trainer(net(), SGD(0.1), batch_size=10, seed=0).fit(*data, steps=3).loss
        for data in [
            (x, t),
            (x.tolist(), t.tolist()),
            (arr(x), arr(t)),
            (other.asarray(x), other.asarray(t)),
            (x.astype(np.float64), np.eye(3)[t]),
        ]
    ]
    for loss in losses:
        np.testing.assert_allclose(loss, losses[0], rtol=1e-6)


@pytest.mark.parametrize("order", ["columns", "backwards", "every other", "broadcast"])
def test_any_order_of_memory_is_learned_from(order: str) -> None:
    x, t = blobs()
    odd = {
        "columns": np.asfortranarray(x),
        "backwards": x[::-1, ::-1].copy()[::-1, ::-1],
        "every other": np.repeat(x, 2, axis=0)[::2],
        "broadcast": np.broadcast_to(x[0], x.shape),
    }[order]
    plain, expected = (np.ascontiguousarray(odd), np.ascontiguousarray(t))
    inputs = [(odd, np.repeat(t, 2)[::2])]
    if backend.name in ("torch", "dpnp"):
        columns = arr(np.ascontiguousarray(plain.T), "float32").T
        inputs.append((columns, arr(t)))
    for samples, targets in inputs:
        first, second = net(), net()
        found = Trainer(first, SGD(0.1), batch_size=20, seed=0).fit(samples, targets, steps=12)
        right = Trainer(second, SGD(0.1), batch_size=20, seed=0).fit(plain, expected, steps=12)
        assert found.loss == right.loss


@pytest.mark.skipif(backend.name not in ("numpy", "torch", "dpnp"), reason="has no strides")
def test_data_are_brought_into_the_order_of_rows_once() -> None:
    x = arr(np.arange(12.0).reshape(3, 4), "float32")
    assert backend.row_major(x) is x
    turned = backend.row_major(x.T)
    np.testing.assert_array_equal(host(turned), host(x).T)
    assert (
        turned[0, :].strides in ((4,), (1,)) if hasattr(x, "strides") else turned.stride()[1] == 1
    )


def test_images_are_flattened_by_the_first_layer() -> None:
    (x, t), _ = load_digits(flatten=False)
    assert x.shape[1:] == (1, 8, 8)
    network = TwoLayerNet(64, 10, 10, seed=0, dtype="float32")
    history = Trainer(network, SGD(0.1), seed=0).fit(x, t, steps=2)
    assert len(history.loss) == 2


def test_nothing_is_copied_to_the_host_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watch:
        """Takes note of how often something was fetched before each step."""

        def __init__(self) -> None:
            self.fetched = 0
            self.before: list[int] = []

        def step(self, step: int, loss: Any) -> None:
            self.before.append(self.fetched)

        def evaluated(self, step: int, history: History) -> None:
            pass

    watch = Watch()
    original = type(backend).to_numpy

    def counting(self: Any, x: Any) -> Any:
        watch.fetched += 1
        return original(self, x)

    monkeypatch.setattr(type(backend), "to_numpy", counting)
    x, t = blobs(30)
    Trainer(net(), SGD(0.1), batch_size=3).fit(x, t, steps=9, progress=watch)
    # A compiled loop tells of its steps at its end.
    assert watch.before == [0] * (9 if backend.loop_length == 1 else 1)
    # The losses, and what the network gives for all samples.
    assert watch.fetched == 3


# Interruption ------------------------------------------------------------------------------------


class _PressCtrlC:
    """Presses Ctrl-C while a certain step is under way."""

    def __init__(self, at: int, times: int = 1) -> None:
        self.at, self.times = at, times

    def step(self, step: int, loss: Any) -> None:
        if step >= self.at:
            self.at = 10**9
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)

    def evaluated(self, step: int, history: History) -> None:
        pass


def test_ctrl_c_ends_with_what_was_learned_so_far() -> None:
    x, t = blobs()
    network, shorter = net(), net()
    handler = signal.getsignal(signal.SIGINT)
    history = Trainer(network, SGD(0.1), batch_size=10, seed=0).fit(
        x, t, steps=1000, progress=_PressCtrlC(at=7)
    )
    # A compiled loop is not cut short; an epoch has nine batches.
    seen = 7 if backend.loop_length == 1 else 9
    assert history.interrupted
    assert len(history.loss) == seen
    assert history.evaluated == [seen]
    assert signal.getsignal(signal.SIGINT) is handler
    Trainer(shorter, SGD(0.1), batch_size=10, seed=0).fit(x, t, steps=seen)
    expected = parameters(shorter)
    for key, value in parameters(network).items():
        np.testing.assert_array_equal(value, expected[key])


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    x, t = blobs()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Trainer(net(), SGD(0.1)).fit(x, t, steps=9, progress=_PressCtrlC(at=3, times=2))
    assert signal.getsignal(signal.SIGINT) is handler


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    x, t = blobs()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job in the background
    history = Trainer(net(), SGD(0.1), batch_size=10).fit(
        x, t, steps=20, progress=_PressCtrlC(at=3, times=2)
    )
    assert len(history.loss) == 20
    assert not history.interrupted
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_training_in_a_thread_leaves_signals_alone() -> None:
    x, t = blobs()
    histories = []
    chosen = xbp.get_backend()

    def work() -> None:
        histories.append(Trainer(net(backend=chosen), SGD(0.1)).fit(x, t, steps=2))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(histories[0].loss) == 2


def test_a_batch_larger_than_the_data_is_all_of_them() -> None:
    x, t = blobs()
    networks = [net(), net()]
    for network, size in zip(networks, (len(x), 2**70), strict=True):
        Trainer(network, SGD(0.1), batch_size=size, seed=0).fit(x, t, steps=3)
    expected = parameters(networks[0])
    for key, value in parameters(networks[1]).items():
        np.testing.assert_array_equal(value, expected[key])


# Mistakes ----------------------------------------------------------------------------------------

X, T = blobs(6)
NAN = X.copy()
NAN[4, 1] = np.nan


@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        (
            X,
            T[:5],
            DataError,
            r"training data, x \(6, 2\) and t \(5,\): as many targets as samples",
        ),
        (X[:0], T[:0], DataError, "training data, .*: there are no samples"),
        (X[:, 0], T, DataError, r"training data, x \(6,\) .*reshape \(N,\) to \(N, 1\)"),
        (NAN, T, DataError, "x holds NaN or infinity in float32"),
        (X, T + 1, DataError, r"t\[2\] is 3, no label: the outputs are numbered 0 \.\.\. 2"),
        (X, T - 1, DataError, r"t\[0\] is -1, no label"),
        (X, np.zeros((6, 3)), DataError, r"t\[0\] is \[0.0, 0.0, 0.0\], not one-hot"),
        (X, np.eye(3)[T] * 2 - 0.5 + 1 / 6, DataError, r"t\[0\] is .*, not one-hot"),
        (X, T.astype(np.float32), DTypeError, "labels are integers, got float32"),
        (X, T.astype(bool), DTypeError, "labels are integers, got bool"),
        (X, T[:, None], ShapeError, "without an axis of 1"),
        (X, np.eye(4)[T], ShapeError, "SoftmaxWithLoss: "),
        (X.astype(object), T, DTypeError, "training data.*real numbers are needed, got .*object"),
        (X.astype(str), T, DTypeError, "real numbers are needed"),
        (X[:, :1], T, ShapeError, "Affine1: samples of 2 elements"),
        ([["a", "b"]] * 6, T, DTypeError, "real numbers are needed, got list"),
        ([[1.0, 2.0], [3.0]], T, ShapeError, "rows differ in length"),
        (X + 1j, T, DTypeError, "complex"),
    ],
)
def test_data_are_checked_before_anything_changes(
    x: Any, t: Any, error: type[Exception], message: str
) -> None:
    network = net()
    before = parameters(network)
    state = dict(vars(network.layers["Affine1"]))
    with pytest.raises(error, match=message):
        Trainer(network, SGD(0.1)).fit(x, t, steps=1)
    with pytest.raises(error, match=message.replace("training", "test")):
        Trainer(network, SGD(0.1)).fit(X, T, steps=1, x_test=x, t_test=t)
    assert vars(network.layers["Affine1"]).keys() == state.keys()
    for key, value in parameters(network).items():
        np.testing.assert_array_equal(value, before[key])


def test_a_target_of_a_regression_is_finite() -> None:
    network = Network.fully_connected([2, 1], loss=IdentityWithLoss, seed=0)
    t = np.zeros((6, 1))
    t[3] = np.inf
    with pytest.raises(DataError, match=r"t\[3\] is \[inf\], not finite"):
        Trainer(network, SGD(0.1)).fit(X, t, steps=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either steps or epochs"),
        ({"steps": 1, "epochs": 1}, "either steps or epochs"),
        ({"steps": 0}, "steps is a positive integer, not 0"),
        ({"epochs": 1.5}, "epochs is a positive integer, not 1.5"),
        ({"steps": 1, "x_test": X}, "x_test and t_test"),
    ],
)
def test_how_long_to_train(settings: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Trainer(net(), SGD(0.1)).fit(X, T, **settings)


def test_settings_of_a_trainer() -> None:
    with pytest.raises(
        SettingError, match=r"optimizer is one such as xbp\.SGD\(lr=0\.1\), not the class SGD"
    ):
        Trainer(net(), SGD)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"the network is an xbp\.Network, not SGD"):
        Trainer(SGD(0.1), net())  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="batch_size is a positive integer"):
        Trainer(net(), SGD(0.1), batch_size=0)
    with pytest.raises(SettingError, match="seed"):
        Trainer(net(), SGD(0.1), seed=-1)


def test_the_training_leaves_arrays_on_the_backend() -> None:
    network = net()
    Trainer(network, SGD(0.1)).fit(X, T, steps=2)
    for value in network.params.values():
        host(value)


# Data as they come -------------------------------------------------------------------------------


def pixels(count: int = 30) -> tuple[Any, Any]:
    chance = np.random.default_rng(0)
    return chance.integers(256, size=(count, 4), dtype=np.uint8), chance.integers(3, size=count)


def test_bytes_are_learned_from_as_normalized_data_are() -> None:
    x, t = pixels()
    kinds: dict[str, Any] = {"seed": 0, "dtype": "float32", "backend": backend}
    raw = xbp.Network.fully_connected([4, 5, 3], divisor=255, **kinds)
    normalized = xbp.Network.fully_connected([4, 5, 3], **kinds)
    found = Trainer(raw, SGD(0.1), batch_size=7, seed=0).fit(x, t, epochs=3)
    expected = Trainer(normalized, SGD(0.1), batch_size=7, seed=0).fit(
        np.divide(x, 255, dtype="float32"), t, epochs=3
    )
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6)
    assert found.train_accuracy == expected.train_accuracy


def test_bytes_stay_bytes_until_a_batch_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = Rescale.forward

    def noting(self: Rescale, x: Any) -> Any:
        seen.append((x.shape[0], dtype_of(x)))
        return original(self, x)

    monkeypatch.setattr(Rescale, "forward", noting)
    x, t = pixels()
    network = xbp.Network.fully_connected([4, 5, 3], divisor=255, backend=backend)
    Trainer(network, SGD(0.1), batch_size=7, seed=0).fit(x, t, epochs=2)
    assert {dtype for _, dtype in seen} == {"uint8"}
    assert {count for count, _ in seen} <= {1, 2, 7, 30}


def test_without_a_layer_that_takes_integers_bytes_become_floats() -> None:
    x, t = pixels()
    network = xbp.Network.fully_connected([4, 5, 3], backend=backend)
    assert len(Trainer(network, SGD(1e-6)).fit(x, t, steps=2).loss) == 2


def test_a_history_is_short_in_print() -> None:
    seen = History(loss=[2.0, 0.25], evaluated=[2], train_accuracy=[0.5], test_accuracy=[0.375])
    assert repr(seen) == (
        "<history of 2 steps: loss 0.25, training accuracy 50.00%, test accuracy 37.50%>"
    )
    assert repr(History()) == "<history of 0 steps: nothing yet>"
    hopeless = History([2.0], [1], train_r2=[-1.5e57])
    assert repr(hopeless) == "<history of 1 steps: loss 2, training r² -1.500e+57>"
    regression = History([2.0], [1], test_loss=[2e-7], train_r2=[-1e-9], test_r2=[float("nan")])
    assert repr(regression) == (
        "<history of 1 steps: loss 2, test loss 2.000e-07, training r² 0.0000, test r² ->"
    )
