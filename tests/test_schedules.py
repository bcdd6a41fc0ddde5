"""Schedules: rates by hand, and a learning rate that follows one in every kind of step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import arr, backend, dtype_of, host, precise, widest

import xbp
from xbp import SGD, Adam, AdamW, Momentum, Optimizer, Trainer, schedules
from xbp.errors import CheckpointError, SettingError
from xbp.layers import IdentityWithLoss
from xbp.training import Checkpoints

# The same sample many times: each mini-batch is like any other, in whatever order they come.
X = np.tile(np.random.default_rng(0).standard_normal((1, 5)), (60, 1))
T = np.tile([[0.5, -1.0, 2.0]], (60, 1))

# The sums of a batch are made in another order.
TOLERANCE = 1e-9 if widest == "float64" else 1e-3


def net() -> xbp.Network:
    return xbp.Network.fully_connected([5, 7, 3], loss=IdentityWithLoss, dtype=widest, seed=0)


def fit(optimizer: Optimizer, steps: int, **more: Any) -> dict[str, Any]:
    """Return what is learned in so many steps, five of them an epoch."""
    network = net()
    Trainer(network, optimizer, batch_size=12, seed=0).fit(X, T, steps=steps, **more)
    return {key: host(value) for key, value in network.params.items()}


def by_hand(optimizer: Optimizer, rates: list[float]) -> dict[str, Any]:
    """Return what single updates lead to, each at a rate."""
    network = net()
    x, t = arr(X[:12], widest), arr(T[:12], widest)
    for rate in rates:
        optimizer.lr = rate
        optimizer.update(network.params, network.gradient(x, t))
    return {key: host(value) for key, value in network.params.items()}


def assert_same(first: dict[str, Any], second: dict[str, Any], rtol: float = TOLERANCE) -> None:
    for key, value in first.items():
        np.testing.assert_allclose(value, second[key], rtol=rtol, atol=rtol / 10, err_msg=key)


# Their rates -------------------------------------------------------------------------------------


def test_a_rate_that_falls_in_steps() -> None:
    rates = [schedules.Step(0.8, every=2, factor=0.5)(number) for number in range(5)]
    assert rates == [0.8, 0.8, 0.4, 0.4, 0.2]
    assert schedules.Step(1, every=1)(2) == pytest.approx(0.01)


def test_a_cosine_falls_to_a_last_rate_and_stays_there() -> None:
    cosine = schedules.Cosine(1.0, steps=4, last=0.2)
    expected = [1.0, 0.6 + 0.4 * np.sqrt(0.5), 0.6, 0.6 - 0.4 * np.sqrt(0.5), 0.2, 0.2]
    assert [cosine(number) for number in range(6)] == pytest.approx(expected)
    assert schedules.Cosine(1.0, steps=4)(9) == 0


def test_a_warm_up_rises_to_a_rate_or_a_schedule() -> None:
    assert [schedules.Warmup(0.8, steps=4)(n) for n in range(6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]
    )
    warm = schedules.Warmup(schedules.Step(0.8, every=1, factor=0.5), steps=2)
    assert [warm(n) for n in range(5)] == pytest.approx([0.4, 0.8, 0.8, 0.4, 0.2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.Step(0, 2), "lr is a positive number, not 0"),
        (lambda: schedules.Step(0.1, 2.5), "every is a positive integer, not 2.5"),  # type: ignore[arg-type]
        (lambda: schedules.Step(0.1, 2, 0), "factor is a positive number, not 0"),
        (lambda: schedules.Cosine(-1, 2), "lr is a positive number, not -1"),
        (lambda: schedules.Cosine(1, 0), "steps is a positive integer, not 0"),
        (lambda: schedules.Cosine(1, 2, -0.1), "last is a number of 0 or more, not -0.1"),
        (lambda: schedules.Warmup("fast", 2), "lr is a positive number, not 'fast'"),
        (lambda: schedules.Warmup(0.1, -1), "steps is a positive integer, not -1"),
    ],
)
def test_settings_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


# In a training -----------------------------------------------------------------------------------


def _branching(number: int) -> float:
    return 0.05 if number < 3 else {3: 0.02, 4: 0.0}.get(number, 0.01)


@pytest.mark.parametrize("kind", [SGD, Momentum, Adam])
@pytest.mark.parametrize(
    "schedule", [schedules.Warmup(schedules.Cosine(0.05, 9), 3), _branching], ids=["Warmup", "any"]
)
def test_each_step_has_the_rate_of_its_number(kind: Any, schedule: Any) -> None:
    optimizer = kind(schedule)
    learned = fit(optimizer, 14)
    assert optimizer.update_number == 14
    assert optimizer.lr is schedule
    assert_same(learned, by_hand(kind(), [schedule(number) for number in range(14)]))


def test_updates_by_hand_are_counted_and_a_training_goes_on_from_there() -> None:
    asked = []

    def schedule(number: int) -> float:
        asked.append(number)
        return 0.5**number

    optimizer, params = SGD(schedule), {"W": arr([1.0], widest)}
    for _ in range(2):
        optimizer.update(params, {"W": arr([1.0], widest)})
    np.testing.assert_allclose(host(params["W"]), [-0.5])
    Trainer(net(), optimizer, batch_size=12).fit(X, T, steps=3)
    assert asked == [0, 1, 2, 3, 4]
    assert optimizer.update_number == 5


def test_a_learning_rate_that_is_exchanged_by_a_watcher_holds_from_the_next_steps_on() -> None:
    optimizer = SGD(lambda number: 0.05)

    class Watcher:
        def step(self, step: int, loss: Any) -> None:
            optimizer.lr = 0.025

        def evaluated(self, step: int, history: Any) -> None:
            pass

    learned = fit(optimizer, 7, progress=Watcher())
    # Of a block of steps the rates are known before it begins.
    first = min(backend.loop_length, 5)
    assert_same(learned, by_hand(SGD(), [0.05] * first + [0.025] * (7 - first)))


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_number_and_a_schedule_may_follow_each_other(kind: Any) -> None:
    rates: list[Any] = [0.05, lambda number: 0.05, 0.05, schedules.Step(0.05, every=100)]
    first, *others = (fit(kind(rate), 7) for rate in rates)
    for other in others:
        assert_same(first, other)
    optimizer = kind(0.05)

    class Watcher:
        def step(self, step: int, loss: Any) -> None:
            optimizer.lr = lambda number: 0.05

        def evaluated(self, step: int, history: Any) -> None:
            pass

    assert_same(first, fit(optimizer, 7, progress=Watcher()))


class Falling(Optimizer):
    """Has an update of its own, which asks for the count, or for the rate of a schedule."""

    state_names = ("lr",)

    def update(self, params: Any, grads: Any) -> None:
        rate = self.rate_after(self.update_number) / (1 + self.update_number)
        for key, dW in grads.items():
            params[key] = params[key] - rate * dW


class Twice(SGD):
    """Calls another update twice."""

    state_names = ("lr",)

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, {"W1": grads["W1"], "b1": grads["b1"]})
        super().update(params, {"W2": grads["W2"], "b2": grads["b2"]})


@pytest.mark.parametrize("lr", [0.1, schedules.Step(0.1, every=2, factor=0.5)])
def test_an_update_of_ones_own_knows_its_number_and_its_rate(lr: Any, tmp_path: Path) -> None:
    rates = [lr(number) if callable(lr) else lr for number in range(8)]
    falling = [rate / (1 + number) for number, rate in enumerate(rates)]
    whole = fit(Falling(lr), 8)
    assert_same(whole, by_hand(SGD(), falling))
    assert_same(fit(Twice(lr), 8), by_hand(SGD(), rates))
    fit(Falling(lr), 5, checkpoints=Checkpoints(tmp_path))
    again = fit(Falling(lr), 8, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(whole, again, 0)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf"), None, "0.1", True])
def test_what_is_no_rate_is_an_error_that_says_when(rate: Any) -> None:
    network, optimizer = net(), SGD(lambda number: 0.05 if number < 7 else rate)
    message = r"SGD: after 7 updates the schedule .* gives .*: a learning rate is a number of 0 or"
    with pytest.raises(SettingError, match=message):
        Trainer(network, optimizer, batch_size=12).fit(X, T, steps=10)
    # The first epoch was good.
    assert_same({k: host(W) for k, W in network.params.items()}, by_hand(SGD(), [0.05] * 5))
    assert optimizer.update_number == 5


def test_a_schedule_that_fails_is_an_error_that_says_when() -> None:
    def of_two(number: int, count: int) -> float:
        return 0.1

    def late(number: int) -> float:
        return [0.1, 0.1, 0.1][number]

    for schedule, message in (
        (of_two, r"SGD: after 0 updates the schedule .*of_two.* fails with TypeError: .*count"),
        (
            late,
            r"SGD: after 3 updates the schedule .*late.* fails with IndexError: .* it takes the",
        ),
    ):
        with pytest.raises(SettingError, match=message):
            fit(SGD(schedule), 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_training_that_is_stopped_goes_on_at_the_rate_of_its_step(
    kind: Any, tmp_path: Path
) -> None:
    def schedule() -> Any:
        return schedules.Warmup(schedules.Step(0.05, every=3, factor=0.5), 4)

    whole = fit(kind(schedule()), 12)
    fit(kind(schedule()), 7, checkpoints=Checkpoints(tmp_path))
    resumed = fit(kind(schedule()), 12, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(whole, resumed, 0)


def test_another_schedule_is_not_gone_on_with(tmp_path: Path) -> None:
    fit(SGD(schedules.Step(0.05, every=3)), 4, checkpoints=Checkpoints(tmp_path))
    for other, name in (
        (schedules.Step(0.05, every=4), "schedule Step"),
        (lambda number: 0.05, "schedule Step"),
        (0.05, "optimizer.lr not"),
    ):
        with pytest.raises(CheckpointError, match=f"the training that was saved had {name}"):
            fit(SGD(other), 6, checkpoints=Checkpoints(tmp_path, resume=True))


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_another_decay_is_not_gone_on_with(kind: Any, tmp_path: Path) -> None:
    fit(kind(0.05, decay=0.1), 4, checkpoints=Checkpoints(tmp_path))
    with pytest.raises(CheckpointError, match=r"had decay 0\.1, this one has None"):
        fit(kind(0.05, decay=0.0), 6, checkpoints=Checkpoints(tmp_path, resume=True))


def test_a_function_is_known_again_by_its_name(tmp_path: Path) -> None:
    def make() -> Any:
        return lambda number: 0.05 / (1 + number)

    whole = fit(SGD(make()), 6)
    fit(SGD(make()), 4, checkpoints=Checkpoints(tmp_path))
    assert_same(whole, fit(SGD(make()), 6, checkpoints=Checkpoints(tmp_path, resume=True)), 0)


# A limit for the norm of gradients ---------------------------------------------------------------


def norm_of(gradients: dict[str, Any]) -> float:
    return float(np.sqrt(sum(float(np.sum(host(dW) ** 2)) for dW in gradients.values())))


@pytest.mark.parametrize("limit", [1e-3, 0.1, 100.0])
def test_gradients_are_no_longer_than_a_limit(limit: float) -> None:
    network = net()
    x, t = arr(X[:12], widest), arr(T[:12], widest)
    for _ in range(4):
        gradients = network.gradient(x, t)
        factor = min(1.0, limit / norm_of(gradients))
        for key, dW in gradients.items():
            network.params[key] -= 0.05 * factor * dW
    expected = {key: host(value) for key, value in network.params.items()}
    assert_same(fit(SGD(0.05), 4, clip_norm=limit), expected, precise(1e-9, 2e-3))


@pytest.mark.parametrize("size", [1e-25, 1e20, 1e30])
def test_gradients_of_any_size_are_clipped(size: float) -> None:
    dW = {"W": arr([3 * size, 0.0], "float32"), "b": arr([4 * size], "float32")}
    for limit in (1e-30, 1.0, 1e300):
        clipped = xbp.training.changes.ClipNorm(limit)(dW)
        factor = min(1.0, limit / (5 * size))
        for key, value in dW.items():
            np.testing.assert_allclose(host(clipped[key]), factor * host(value), rtol=1e-5)


def test_no_gradients_at_all_are_as_long_as_they_are() -> None:
    clip = xbp.training.changes.ClipNorm(1.0)
    assert clip({}) == {}
    np.testing.assert_array_equal(host(clip({"W": arr([0.0, 0.0])})["W"]), [0, 0])


@pytest.mark.parametrize("limit", [1e-3, 0.05])
def test_no_element_of_a_gradient_is_larger_than_a_limit(limit: float) -> None:
    network = net()
    x, t = arr(X[:12], widest), arr(T[:12], widest)
    for _ in range(4):
        gradients = {
            key: np.clip(host(dW), -limit, limit) for key, dW in network.gradient(x, t).items()
        }
        factor = min(1.0, 0.1 / np.sqrt(sum(np.sum(dW**2) for dW in gradients.values())))
        for key, dW in gradients.items():
            network.params[key] -= arr(0.05 * factor * dW, widest)
    expected = {key: host(value) for key, value in network.params.items()}
    # First by value, then by norm.
    assert_same(fit(SGD(0.05), 4, clip_value=limit, clip_norm=0.1), expected, precise(1e-9, 2e-3))


def test_a_limit_may_be_a_number_of_numpy(tmp_path: Path) -> None:
    for name in ("clip_norm", "clip_value"):
        limit = np.float32(0.125)
        folder = Checkpoints(tmp_path / name)
        network = fit(SGD(0.05), 3, checkpoints=folder, **{name: limit})
        assert_same(network, fit(SGD(0.05), 3, **{name: 0.125}), 0)
    clipped = xbp.training.changes.ClipValue(np.float64(0.01))({"W": arr([1.0], "float32")})
    assert dtype_of(clipped["W"]) == "float32"


def test_elements_of_any_size_are_clipped() -> None:
    gradient = arr([-3.0, 0.5, float("nan"), float("inf"), 1e30], "float32")
    for limit, expected in (
        (1.0, [-1, 0.5, np.nan, 1, 1]),
        (1e300, [-3, 0.5, np.nan, float(np.finfo("float32").max), 1e30]),
    ):
        clipped = xbp.training.changes.ClipValue(limit)({"W": gradient})["W"]
        assert dtype_of(clipped) == "float32"
        np.testing.assert_allclose(host(clipped), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["clip_norm", "clip_value"])
@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "1", 1e-46])
def test_a_limit_is_a_positive_number(limit: Any, name: str) -> None:
    with pytest.raises(SettingError, match=rf"{name} is (a positive number|at least 1.2e-38), not"):
        fit(SGD(0.05), 1, **{name: limit})


def test_a_training_goes_on_with_the_same_limit(tmp_path: Path) -> None:
    whole = fit(Momentum(0.05), 8, clip_norm=0.1)
    fit(Momentum(0.05), 5, clip_norm=0.1, checkpoints=Checkpoints(tmp_path))
    with pytest.raises(CheckpointError, match=r"had clip_norm 0\.1, this one has None"):
        fit(Momentum(0.05), 8, checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(CheckpointError, match=r"had clip_value None, this one has 0\.1"):
        fit(
            Momentum(0.05),
            8,
            clip_norm=0.1,
            clip_value=0.1,
            checkpoints=Checkpoints(tmp_path, resume=True),
        )
    again = fit(Momentum(0.05), 8, clip_norm=0.1, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(whole, again, 0)
