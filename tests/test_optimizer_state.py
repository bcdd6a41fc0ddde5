"""What an optimizer changes of itself: it counts in the next step, is saved, and goes on."""

import random
from collections import defaultdict, deque
from dataclasses import dataclass
from enum import Enum
from math import cos
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import arr, backend, dtype_of, except_slow, host, other, precise, widest

import xbp
from xbp import SGD, Adam, Momentum, Network, Optimizer, Trainer, TwoLayerNet
from xbp.errors import (
    CheckpointError,
    MixedBackendError,
    SettingError,
    TracingError,
    XbpError,
)
from xbp.immutability import is_immutable
from xbp.layers import Affine, Layer, SoftmaxWithLoss
from xbp.namespace import Array, namespace_of
from xbp.training import Checkpoints

# The sums of a batch are made in another order.
TOLERANCE = 1e-9 if widest == "float64" else 1e-3

X = np.random.default_rng(0).standard_normal((60, 5))
T = np.arange(60) % 3


def net() -> TwoLayerNet:
    return TwoLayerNet(5, 7, 3, weight_init_std=0.5, dtype=widest, seed=0)


def values_of(network: Network) -> dict[str, Any]:
    return {key: host(value) for key, value in network.params.items()}


def fit(optimizer: Optimizer, steps: int, network: Network | None = None, **more: Any) -> Network:
    network = network or net()
    Trainer(network, optimizer, batch_size=60, seed=0).fit(X, T, steps=steps, **more)
    return network


def assert_same(first: Network, second: Network, rtol: float = 0) -> None:
    for key, value in values_of(first).items():
        np.testing.assert_allclose(value, values_of(second)[key], rtol=rtol, err_msg=key)


class Halving(SGD):
    """Halves its learning rate after each step, and tells nobody."""

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, grads)
        self.lr *= 0.5


class NamedHalving(Halving):
    """Says that it does."""

    state_names = ("lr",)


class Slowing(Optimizer):
    """Counts its steps, and looks back on numbers in a dictionary and a list."""

    state_names = ("steps", "rates", "last")

    def __init__(self) -> None:
        self.steps = 0
        self.rates = {"first": 0.5}
        self.last = [0.0]

    def update(self, params: Any, grads: Any) -> None:
        self.steps += 1
        self.last[0] = self.rates["first"] / self.steps
        for key, gradient in grads.items():
            params[key] -= self.last[0] * gradient


def by_hand(rates: list[float]) -> Network:
    """Return the network after one step at each of the rates."""
    network = net()
    x, t = arr(X, widest), arr(T)
    for rate in rates:
        for key, gradient in network.gradient(x, t).items():
            network.params[key] -= rate * gradient
    return network


# In each step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Halving, NamedHalving])
def test_a_learning_rate_that_an_optimizer_changes_is_changed(kind: type[SGD]) -> None:
    optimizer = kind(0.5)
    network = fit(optimizer, 4)
    assert type(optimizer.lr) is float
    assert optimizer.lr == 0.5**5
    assert_same(network, by_hand([0.5, 0.25, 0.125, 0.0625]), rtol=TOLERANCE)


def test_counts_and_numbers_in_dictionaries_and_lists_are_changed() -> None:
    optimizer = Slowing()
    network = fit(optimizer, 4)
    assert (optimizer.steps, optimizer.rates, optimizer.last) == (4, {"first": 0.5}, [0.125])
    assert type(optimizer.steps) is int
    assert type(optimizer.last[0]) is float
    assert_same(network, by_hand([0.5, 0.25, 0.5 / 3, 0.125]), rtol=TOLERANCE)


class HeavyBall(Optimizer):
    """Remembers the parameters of the step before (Polyak 1964); makes room in prepare alone."""

    state_names = ("old",)
    old: dict[str, Array]

    def prepare(self, params: Any) -> None:
        self.old = dict(params)

    def update(self, params: Any, grads: Any) -> None:
        old, self.old = self.old, dict(params)
        for key, gradient in grads.items():
            params[key] = params[key] - 0.3 * gradient + 0.5 * (params[key] - old[key])


class Late(Optimizer):
    """Steps by the gradient of two steps before: the newest comes first in a list."""

    state_names = ("grads",)

    def __init__(self) -> None:
        self.grads: list[dict[str, Array]] = []

    def prepare(self, params: Any) -> None:
        self.grads = [{key: W * 0 for key, W in params.items()} for _ in range(3)]

    def update(self, params: Any, grads: Any) -> None:
        self.grads = [{key: 1 * gradient for key, gradient in grads.items()}, *self.grads[:2]]
        for key, gradient in self.grads[2].items():
            params[key] = params[key] - 0.3 * gradient


class Turns(Optimizer):
    """Lets two sets of memories take turns."""

    state_names = ("first", "second")

    def __init__(self) -> None:
        self.first: dict[str, Array] = {}
        self.second: dict[str, Array] = {}

    def prepare(self, params: Any) -> None:
        self.first = {key: W * 0 for key, W in params.items()}
        self.second = {key: W * 0 for key, W in params.items()}

    def update(self, params: Any, grads: Any) -> None:
        self.first, self.second = self.second, self.first
        for key, gradient in grads.items():
            self.first[key] = 0.5 * self.first[key] + gradient
            params[key] = params[key] - 0.3 * self.first[key]


class InOrder(Optimizer):
    """Slows down from memory to memory, in the order of a dictionary, with keys of two kinds."""

    state_names = ("velocity", "rates")

    def __init__(self) -> None:
        self.velocity: dict[str, Array] = {}
        self.rates = {"n": 0.5, 0: 0.25, None: 0.125, "b": 0.0625}

    def prepare(self, params: Any) -> None:
        self.velocity = {key: W * 0 for key, W in params.items()}

    def update(self, params: Any, grads: Any) -> None:
        for rate, (key, v) in zip(self.rates.values(), self.velocity.items(), strict=True):
            self.velocity[key] = 0.5 * v + grads[key]
            params[key] = params[key] - rate * self.velocity[key]


def test_a_dictionary_keeps_its_order() -> None:
    optimizer = InOrder()
    fit(optimizer, 3)
    assert list(optimizer.velocity) == ["W1", "b1", "W2", "b2"]
    assert list(optimizer.rates.items()) == [("n", 0.5), (0, 0.25), (None, 0.125), ("b", 0.0625)]


@pytest.mark.parametrize("kind", [HeavyBall, Late, Turns])
def test_arrays_that_an_optimizer_remembers_may_change_places(kind: Any, tmp_path: Path) -> None:
    whole = fit(kind(), 7)
    fit(kind(), 4, checkpoints=Checkpoints(tmp_path))
    assert_same(fit(kind(), 7, checkpoints=Checkpoints(tmp_path, resume=True)), whole)


class Cyclic(SGD):
    """Halves its rate in every third step."""

    state_names = ("lr", "steps")

    def __init__(self) -> None:
        super().__init__(0.5)
        self.steps = 0

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, grads)
        self.steps = self.steps + 1
        self.lr = self.lr * 0.5 ** (self.steps % 3 == 0)


class Restarting(SGD):
    """Counts on, and begins again, in place."""

    state_names = ("lr", "steps", "others")

    def __init__(self) -> None:
        super().__init__(0.5)
        self.steps = 0
        self.others = [7]

    def update(self, params: Any, grads: Any) -> None:
        self.steps += 1
        self.steps %= 3
        self.others[0] &= 7
        self.others[0] //= 1
        self.lr = 0.5**self.steps
        super().update(params, grads)


def test_a_counter_that_begins_again_in_place() -> None:
    optimizer = Restarting()
    assert_same(fit(optimizer, 7), by_hand([0.5, 0.25, 1.0] * 2 + [0.5]), rtol=TOLERANCE)
    assert (optimizer.steps, optimizer.others) == (1, [7])


def test_a_schedule_by_a_remainder() -> None:
    optimizer = Cyclic()
    assert_same(fit(optimizer, 7), by_hand([0.5] * 3 + [0.25] * 3 + [0.125]), rtol=TOLERANCE)
    assert (optimizer.steps, optimizer.lr) == (7, 0.125)


class Table(SGD):
    """Looks its rate up by the number of the step."""

    state_names = ("lr", "steps")

    def __init__(self, look: Any) -> None:
        super().__init__(0.1)
        self.steps, self.look = 0, look

    def update(self, params: Any, grads: Any) -> None:
        self.steps += 1
        self.lr = 0.9 if self.look(self.steps) else 0.0
        super().update(params, grads)


@pytest.mark.parametrize(
    "look",
    [lambda step: {2: 1}.get(step, 0), lambda step: step in {2, 5}, lambda step: hash(step) == 2],
    ids=["dictionary", "set", "hash"],
)
def test_an_update_of_ones_own_may_look_a_number_up(look: Any) -> None:
    assert_same(fit(Table(look), 3), by_hand([0.0, 0.9, 0.0]), rtol=TOLERANCE)


@pytest.mark.parametrize("kind", [SGD, Momentum, Adam])
def test_an_array_of_another_library_is_named(kind: Any) -> None:
    optimizer = kind(0.1)
    optimizer.lr = other.asarray(0.1)
    network = xbp.TwoLayerNet(2, 3, 2, dtype=widest, seed=0)
    with pytest.raises(MixedBackendError, match=f"{kind.__name__}: self.lr holds an array that is"):
        Trainer(network, optimizer).fit([[1.0, 2.0]], [0], steps=1)


def test_what_does_not_change_loses_no_digits() -> None:
    optimizer = Adam(lr=0.1)
    fit(optimizer, 3)
    assert (optimizer.lr, optimizer.beta2, optimizer.epsilon) == (0.1, 0.999, 1e-8)
    assert type(optimizer.lr) is float
    assert type(optimizer.update_number) is int
    assert optimizer.update_number == 3


def test_state_names_are_not_inherited() -> None:
    class Counting(SGD):
        def __init__(self) -> None:
            super().__init__(0.1)
            self.calls = 0

        def update(self, params: Any, grads: Any) -> None:
            super().update(params, grads)
            self.calls += 1

    optimizer = Counting()
    assert optimizer.state is None
    assert_same(fit(optimizer, 5), fit(SGD(0.1), 5), rtol=TOLERANCE)
    assert optimizer.calls == 5


def saved_by_name(kind: type[Optimizer], message: str, tmp_path: Path) -> None:
    """Check that an update is called as it is written, and that it is an error to save it."""
    fit(kind(), 3)
    with pytest.raises(SettingError, match=rf"cannot be saved: self\.{message}"):
        fit(kind(), 3, checkpoints=Checkpoints(tmp_path))


@pytest.mark.parametrize("value", [0, 1.5, None, "a", (1, 2)])
def test_a_change_that_is_not_named_is_not_saved(value: Any, tmp_path: Path) -> None:
    class Forgetful(SGD):
        state_names = ("lr",)

        def __init__(self) -> None:
            super().__init__(0.1)
            self.calls = value

        def update(self, params: Any, grads: Any) -> None:
            super().update(params, grads)
            self.calls = (self.calls, 1)

    saved_by_name(Forgetful, "calls has changed from .*, and state_names does not na", tmp_path)


@pytest.mark.parametrize("value", [1.5, "an array"])
def test_an_attribute_that_is_new_is_a_change_too(value: Any, tmp_path: Path) -> None:
    class Late(SGD):
        state_names = ("lr",)

        def update(self, params: Any, grads: Any) -> None:
            super().update(params, grads)
            self.last = grads["b1"] if value == "an array" else value

    saved_by_name(Late, "last has changed from None to ", tmp_path)


def test_an_attribute_that_is_gone_is_a_change_too(tmp_path: Path) -> None:
    class Warm(SGD):
        state_names = ("lr",)

        def __init__(self) -> None:
            super().__init__(0.1)
            self.is_cold = True

        def update(self, params: Any, grads: Any) -> None:
            if hasattr(self, "is_cold"):
                del self.is_cold
            super().update(params, grads)

    saved_by_name(Warm, "is_cold has changed from True to None", tmp_path)


class Scaled(Optimizer):
    """Steps by one method, with a factor and a count of its own."""

    memory_names = ("last",)

    def __init__(self, count: bool) -> None:
        super().__init__(0.5)
        self.factor, self.count, self.calls = 1.0, count, 0

    def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
        if self.count:
            self.calls += 1
        memory["last"] = self.factor * dW
        return W - lr * memory["last"]


def test_what_a_step_changes_and_does_not_remember_is_an_error_that_names_it() -> None:
    with pytest.raises(
        TracingError, match=r"state\.py, line \d+: Scaled: Scaled.step changes self.calls, which"
    ):
        fit(Scaled(count=True), 3)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.25), ("new", 1), ("new", np.ones(2)), ("factor", None)]
)
def test_a_step_changes_no_attribute(name: str, value: Any) -> None:
    class Changing(Scaled):
        memory_names = ("last",)

        def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
            setattr(self, name, value)
            return W

    network = net()
    with pytest.raises(TracingError, match=rf"Changing.step changes self\.{name}"):
        fit(Changing(count=False), 2, network)
    assert_same(network, net())


class Delayed(Optimizer):
    """Steps by the gradient of two steps before: memories change their places."""

    memory_names = ("last", "before")

    def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
        old, memory["before"], memory["last"] = memory["before"], memory["last"], 1 * dW
        return W - lr * old


class TakingTurns(Optimizer):
    """Lets two memories take turns, and a rate by a remainder."""

    memory_names = ("first", "second")

    def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
        memory["first"], memory["second"] = memory["second"], memory["first"]
        memory["first"] = 0.5 * memory["first"] + dW
        return W - lr * 0.5 ** (self.update_number % 3) * memory["first"]


@pytest.mark.parametrize("kind", [Delayed, TakingTurns])
def test_what_a_step_remembers_may_change_places(kind: type[Optimizer]) -> None:
    as_written = type("Silent", (kind,), {"state_names": None})
    assert_same(fit(kind(0.3), 7), fit(as_written(0.3), 7), rtol=TOLERANCE)


def test_a_factor_that_a_watcher_changes_is_changed() -> None:
    optimizer = Scaled(count=False)

    class Watcher:
        def step(self, step: int, loss: Any) -> None:
            optimizer.factor = 0.5**step

        def evaluated(self, step: int, history: Any) -> None:
            pass

    network = fit(optimizer, 4, progress=Watcher())
    assert_same(network, by_hand([0.5, 0.25, 0.125, 0.0625]), rtol=TOLERANCE)
    x, t = arr(X, widest), arr(T)
    last = by_hand([0.5, 0.25, 0.125]).gradient(x, t)
    for key, dW in last.items():
        np.testing.assert_allclose(
            host(optimizer.last[key]),  # type: ignore[attr-defined]
            np.asarray(0.125 * host(dW)),
            rtol=TOLERANCE,
            atol=TOLERANCE,
        )


@pytest.mark.parametrize(
    "name", ["beta1", *(pytest.param(name, marks=except_slow) for name in ("beta2", "epsilon"))]
)
def test_a_setting_that_a_watcher_changes_is_changed(name: str) -> None:
    nets = []
    for is_traced in (True, False):
        optimizer = Adam(0.1) if is_traced else type("AsWritten", (Adam,), {"state_names": None})()
        optimizer.lr = 0.1

        class Watcher:
            def step(self, step: int, loss: Any) -> None:
                setattr(optimizer, name, getattr(optimizer, name) * 0.5)  # noqa: B023

            def evaluated(self, step: int, history: Any) -> None:
                pass

        nets.append(fit(optimizer, 4, progress=Watcher()))
    assert_same(nets[0], nets[1], rtol=TOLERANCE)


@pytest.mark.parametrize("kind", [SGD, pytest.param(Scaled, marks=except_slow)])
def test_a_rate_that_a_watcher_changes_is_changed(kind: Any) -> None:
    optimizer = kind(0.5) if kind is SGD else kind(count=False)

    class Watcher:
        def step(self, step: int, loss: Any) -> None:
            optimizer.lr *= 0.5

        def evaluated(self, step: int, history: Any) -> None:
            pass

    network = fit(optimizer, 4, progress=Watcher())
    assert_same(network, by_hand([0.5, 0.25, 0.125, 0.0625]), rtol=TOLERANCE)
    assert optimizer.lr == 0.5**5


def test_a_step_that_reads_what_may_change_unseen_is_called_as_it_is_written() -> None:
    class Listed(Scaled):
        memory_names = ("last",)

        def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
            return W - lr * self.factors[0] * dW  # type: ignore[attr-defined]

    class Watcher:
        def step(self, step: int, loss: Any) -> None:
            optimizer.factors[0] *= 0.5  # type: ignore[attr-defined]

        def evaluated(self, step: int, history: Any) -> None:
            pass

    optimizer = Listed(count=False)
    optimizer.factors = [1.0]  # type: ignore[attr-defined]
    network = fit(optimizer, 4, progress=Watcher())
    assert_same(network, by_hand([0.5, 0.25, 0.125, 0.0625]), rtol=TOLERANCE)


@pytest.mark.parametrize("rate", ["0.1", None, [0.1]])
@pytest.mark.parametrize("kind", [Momentum, Scaled])
def test_a_rate_that_is_none_is_refused(kind: Any, rate: Any) -> None:
    optimizer, network = kind(0.1) if kind is Momentum else kind(count=False), net()
    optimizer.lr = rate
    with pytest.raises(SettingError, match=f"{kind.__name__}: lr is a number or a schedule, not "):
        fit(optimizer, 2, network)
    assert_same(network, net())


@except_slow
@pytest.mark.parametrize("kind", [SGD, Momentum, Adam])
def test_a_rate_may_be_a_number_of_numpy(kind: Any) -> None:
    nets = []
    for number in (np.float32(0.25), np.float64(0.25), 0.25):
        optimizer = kind(0.5)
        optimizer.lr = number
        assert type(optimizer.rate_after(0)) is float
        nets.append(fit(optimizer, 3))
    for network in nets[:2]:
        assert_same(network, nets[2])


def test_a_step_of_ones_own_is_saved_and_goes_on(tmp_path: Path) -> None:
    whole = fit(Scaled(count=False), 6)
    fit(Scaled(count=False), 4, checkpoints=Checkpoints(tmp_path))
    again = fit(Scaled(count=False), 6, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(whole, again)


def counting() -> Any:
    calls = 0

    def rate() -> float:
        nonlocal calls
        calls += 1
        return 0.5**calls

    return rate


def counting_within() -> Any:
    inner = counting()
    return lambda: 2 * (0.5 * inner())


def counting_in_a_default() -> Any:
    def rate(*, calls: list[int] = []) -> float:  # noqa: B006  what is to be seen
        calls.append(1)
        return 0.5 ** len(calls)

    return rate


class CountingNumber(float):
    calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return 0.5**self.calls


class RatedBySomething(Optimizer):
    state_names = ()

    def __init__(self, rate: Any) -> None:
        self.rate = rate

    def update(self, params: Any, grads: Any) -> None:
        rate = self.rate()
        for key, gradient in grads.items():
            params[key] -= rate * gradient


@pytest.mark.parametrize(
    "make",
    [
        counting,
        counting_within,
        counting_in_a_default,
        CountingNumber,
        lambda: [0.125, 0.25, 0.5].pop,
        lambda: deque([0.5, 0.25, 0.125]).popleft,
    ],
)
@except_slow
def test_a_function_that_remembers_is_called_at_each_step(make: Any) -> None:
    optimizer = RatedBySomething(make())
    assert optimizer.unseen == ["rate"]
    assert_same(fit(optimizer, 3), by_hand([0.5, 0.25, 0.125]), rtol=TOLERANCE)


class Rate(Enum):
    HIGH = 0.5


def recursive() -> Any:
    def rate(n: int = 3) -> float:
        return 0.5 if n == 0 else rate(n - 1)

    return rate


@pytest.mark.parametrize(
    "make",
    [
        recursive,
        lambda: float,
        lambda: cos,
        lambda: Rate.HIGH,
        lambda: np.float64(0.5),
        lambda: recursive,
        lambda: (1, "a", None, (0.5,)),
    ],
)
def test_a_function_that_remembers_nothing_is_traced(make: Any) -> None:
    assert RatedBySomething(make()).unseen == []


class Labelled(tuple[Any, ...]):
    """A tuple with attributes of its own."""


def forgetting() -> Any:
    calls = 0

    def rate() -> float:
        nonlocal calls
        del calls
        return 0.5

    return rate


def within_a_tuple() -> Any:
    def rate() -> float:
        return 0.5 if others else 1.0

    others = (rate, 0.5)
    return rate


def within_a_method() -> Any:
    def rate() -> float:
        return 0.5 if count(rate) else 1.0

    count = (rate,).count
    return rate


@pytest.mark.parametrize(
    ("value", "is_constant"),
    [
        (within_a_tuple(), True),
        (within_a_method(), True),
        ((0.5, (1, "a")), True),
        ((0.5, [1]), False),
        (Labelled((0.5,)), False),
        (forgetting(), False),
    ],
)
def test_what_may_change_unseen_is_looked_for_everywhere(value: Any, is_constant: bool) -> None:
    assert is_immutable(value) == is_constant


def test_a_variable_without_a_value_is_no_constant() -> None:
    def make() -> Any:
        def rate() -> float:
            return later

        if not X.size:
            later = 1.0
        return rate

    assert RatedBySomething(make()).unseen == ["rate"]


@pytest.mark.parametrize("make", [list, dict, set, object, lambda: iter([0.5, 0.25, 0.125])])
def test_what_may_change_unseen_is_not_traced(make: Any, tmp_path: Path) -> None:
    class Unseen(SGD):
        state_names = ("lr",)

        def __init__(self) -> None:
            super().__init__(0.1)
            self.memory = make()

        def update(self, params: Any, grads: Any) -> None:
            if isinstance(self.memory, list):
                self.memory.append(len(self.memory))
            super().update(params, grads)

    optimizer = Unseen()
    fit(optimizer, 3)
    assert not isinstance(optimizer.memory, list) or optimizer.memory == [0, 1, 2]
    assert optimizer.state is None
    with pytest.raises(SettingError, match=r"cannot be saved: .* self.memory"):
        fit(optimizer, 3, checkpoints=Checkpoints(tmp_path))


def test_an_update_of_ones_own_may_branch() -> None:
    class Branching(Optimizer):
        state_names = ("steps",)

        def __init__(self) -> None:
            self.steps = 0

        def update(self, params: Any, grads: Any) -> None:
            self.steps += 1
            for key, gradient in grads.items():
                params[key] = params[key] - (0.25 if self.steps > 2 else 0.5) * gradient

    optimizer = Branching()
    assert_same(fit(optimizer, 4), by_hand([0.5, 0.5, 0.25, 0.25]), rtol=TOLERANCE)
    assert optimizer.steps == 4


def test_a_step_that_branches_on_a_value_is_an_error_that_names_the_line() -> None:
    class Branching(Scaled):
        memory_names = ("last",)

        def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
            return W - lr * dW if self.update_number < 2 else W

    network = net()
    if backend.writers or backend.name == "jax":  # else nothing is traced
        message = r"test_optimizer_state.py, line \d+, in step.*state_names = None of an optimizer"
        with pytest.raises(TracingError, match=message):
            fit(Branching(count=False), 2, network)
    assert_same(network, net())


class Remembering(SGD):
    """Remembers what the last step has left, of whatever kind that is."""

    state_names = ("lr", "memory")

    def __init__(self, memory: Any, change: Any) -> None:
        super().__init__(0.1)
        self.memory, self.change = memory, change

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, grads)
        self.memory = self.change(self.memory, grads["b1"])


@pytest.mark.parametrize(
    ("memory", "change", "expected"),
    [
        (0, lambda before, _: before + 0.5, 2.0),
        (0.0, lambda before, _: before + 1, 4.0),
        (None, lambda before, _: 1.0, 1.0),
        ("a", lambda before, _: f"{before}b", "abbbb"),
        (True, lambda before, _: before, True),
        (np.float32(8), lambda before, _: before * np.float32(0.5), 0.5),
    ],
)
def test_what_is_remembered_may_be_of_any_kind(memory: Any, change: Any, expected: Any) -> None:
    optimizer = Remembering(memory, change)
    Trainer(net(), optimizer, batch_size=45, seed=0).fit(X, T, steps=4)
    assert optimizer.memory == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [("lr", r"state_names is a tuple, \('lr',\)"), (("lr", "nothing"), "names 'nothing', and th")],
)
def test_names_that_make_no_sense(names: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        fit(type("Odd", (SGD,), {"state_names": names})(0.1), 1)


# What a trace cannot see --------------------------------------------------------------------------

CALLS = [0]


class SetAnew(SGD):
    """Sets what is known by another object that is equal to it."""

    state_names = ("lr",)

    def __init__(self) -> None:
        super().__init__(0.1)
        self.factor = 1000.0

    def update(self, params: Any, grads: Any) -> None:
        self.factor = float("1000")
        super().update(params, {key: value * (self.factor / 1000) for key, value in grads.items()})


def test_what_is_set_to_the_same_has_not_changed() -> None:
    assert_same(fit(SetAnew(), 8), fit(SGD(0.1), 8), rtol=precise(1e-12, 1e-5))


class Outside(Optimizer):
    """Takes a learning rate from elsewhere than its attributes."""

    def __init__(self) -> None:
        super().__init__(1.0)
        CALLS[0] = FromClass.calls = 0

    def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
        return W - self.rate() * dW

    def rate(self) -> float:
        raise NotImplementedError


class FromGlobal(Outside):
    def rate(self) -> float:
        CALLS[0] += 1
        return float(0.5 ** CALLS[0])


class FromClass(Outside):
    calls = 0

    def rate(self) -> float:
        FromClass.calls += 1
        return float(0.5**FromClass.calls)


class FromChance(Outside):
    chance = np.random.default_rng(0)

    def rate(self) -> float:
        return float(self.chance.uniform(0.1, 0.2))


@pytest.mark.parametrize("kind", [FromGlobal, FromClass, FromChance])
def test_what_a_step_reads_elsewhere_is_found_out_before_it_is_trusted(kind: Any) -> None:
    if not backend.writers and backend.name != "jax":
        pytest.skip("nothing is traced")
    network = net()
    name = kind.__name__
    message = rf"state\.py, line \d+: {name}: two equal calls of {name}.step differ"
    with pytest.raises(TracingError, match=message):
        fit(kind(), 4, network)
    assert_same(network, net())
    fit(type("Silent", (kind,), {"state_names": None})(), 2)  # called as it is written


def test_a_random_layer_that_says_it_can_be_traced_is_found_out() -> None:
    class Random(Layer):
        traceable = True
        chance = np.random.default_rng(0)

        def forward(self, x: Any) -> Any:
            self.factor = float(self.chance.uniform(0.5, 1.5))
            return x * self.factor

        def backward(self, dout: Any) -> Any:
            return dout * self.factor

    if not backend.writers and backend.name != "jax":
        pytest.skip("nothing is traced")
    network = Network([*net().layers.values(), Random()], SoftmaxWithLoss())
    with pytest.raises(TracingError, match=r"two equal calls of Random1.forward differ"):
        fit(SGD(0.1), 4, network)
    type(network.layers["Random1"]).traceable = False
    fit(SGD(0.1), 4, network)


def _counting() -> Any:
    calls = [0]

    def rate() -> float:
        calls[0] += 1
        return float(0.5 ** calls[0])

    return rate


def _counting_by_default() -> Any:
    def rate(calls: list[int] = [0]) -> float:  # noqa: B006
        calls[0] += 1
        return float(0.5 ** calls[0])

    return rate


@pytest.mark.parametrize("make", [_counting, _counting_by_default])
def test_a_function_that_remembers_is_not_traced(make: Any) -> None:
    class Scheduled(SGD):
        state_names = ("lr",)

        def __init__(self) -> None:
            super().__init__(1.0)
            self.schedule = make()

        def update(self, params: Any, grads: Any) -> None:
            self.lr = self.schedule()
            super().update(params, grads)

    assert Scheduled().state is None
    assert_same(fit(Scheduled(), 3), by_hand([0.5, 0.25, 0.125]), rtol=TOLERANCE)


def test_a_function_of_constants_is_traced() -> None:
    first, factor = 0.5, 0.5

    class Scheduled(Optimizer):
        state_names = ("steps",)

        def __init__(self) -> None:
            self.steps = 0
            self.schedule: Any = lambda step: first * factor**step

        def update(self, params: Any, grads: Any) -> None:
            for key, gradient in grads.items():
                params[key] = params[key] - self.schedule(self.steps) * gradient
            self.steps += 1

    assert Scheduled().state is not None
    assert_same(fit(Scheduled(), 3), by_hand([0.5, 0.25, 0.125]), rtol=TOLERANCE)


class Pair(NamedTuple):
    lr: float
    steps: int


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda: defaultdict(float), "defaultdict"), (lambda: [{"a": Pair(0.1, 0)}], "Pair")],
)
def test_containers_that_are_not_plain_are_refused(make: Any, name: str) -> None:
    with pytest.raises(SettingError, match=rf"self.memory holds a {name}"):
        fit(Remembering(make(), lambda before, _: before), 2)


def test_what_cannot_be_seen_in_an_optimizers_dictionary_is_refused() -> None:
    with pytest.raises(SettingError, match="leave out __slots__"):
        type("Slotted", (SGD,), {"__slots__": ("memory",)})
    kind = type("Odd", (SGD,), {"state_names": ("rate",), "rate": property(lambda self: self.lr)})
    with pytest.raises(SettingError, match="names 'rate', a property: name the attributes"):
        fit(kind(0.1), 1)


def test_an_optimizer_may_be_frozen_and_count_far() -> None:
    @dataclass(frozen=True)
    class Frozen(Optimizer):
        state_names = ("lr", "number")
        lr: float = 0.1
        number: int = 2**80

        def update(self, params: Any, grads: Any) -> None:
            for key, gradient in grads.items():
                params[key] = params[key] - self.lr * gradient

    assert_same(fit(Frozen(), 3), by_hand([0.1] * 3), rtol=TOLERANCE)


@pytest.mark.skipif(backend.name != "jax", reason="is about JAX's 64-bit mode")
def test_numbers_keep_their_digits_without_64_bits() -> None:
    with backend.library.enable_x64(False):
        network = TwoLayerNet(5, 7, 3, dtype="float32", seed=0)
        optimizer, halving = Adam(lr=0.1), NamedHalving(0.1)
        fit(optimizer, 3, network)
        fit(halving, 3, network)
    assert (optimizer.lr, optimizer.epsilon, optimizer.update_number) == (0.1, 1e-8, 3)
    assert halving.lr == pytest.approx(0.0125)


# How updates are counted, and layers prepared -----------------------------------------------------


class Noted:
    """Notes the number of each update; a base that is no optimizer."""

    update_number: int

    def update(self, params: Any, grads: Any) -> None:
        vars(self).setdefault("numbers", []).append(self.update_number)
        super().update(params, grads)  # type: ignore[misc]


class NotedAdam(Noted, Adam):
    pass


class NotedSGD(Noted, SGD):
    pass


class NotedMomentum(Noted, Momentum):
    pass


def in_batches(optimizer: Optimizer, steps: int = 12, **more: Any) -> Network:
    network = net()
    Trainer(network, optimizer, batch_size=10, seed=0).fit(X, T, steps=steps, **more)
    return network


@pytest.mark.parametrize(
    ("kind", "base", "lr"), [(NotedAdam, Adam, 0.1), (NotedSGD, SGD, lambda number: 0.5**number)]
)
def test_an_update_of_another_base_is_counted(kind: Any, base: Any, lr: Any) -> None:
    optimizer = kind(lr)
    assert_same(in_batches(optimizer), in_batches(base(lr)), rtol=TOLERANCE)
    assert optimizer.numbers == list(range(12))
    x, t = arr(X, widest), arr(T)
    another, network = kind(lr), net()
    for _ in range(2):
        another.update(network.params, network.gradient(x, t))
    assert another.update_number == 2


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_an_update_that_was_set_on_an_optimizer_is_counted_once(calls: int) -> None:
    optimizer, numbers = SGD(0.1), []

    def update(params: Any, grads: Any) -> None:
        numbers.append(optimizer.update_number)
        for _ in range(calls):
            SGD.update(optimizer, params, grads)

    optimizer.update = update
    in_batches(optimizer)
    assert [numbers[0], numbers[5], numbers[-1]] == [0, 5, 11]
    assert optimizer.update_number == 12


def count_the_call(params: Any, grads: Any) -> None:
    CALLS[0] += 1


def test_an_update_that_was_set_on_an_optimizer_is_not_saved(tmp_path: Path) -> None:
    optimizer, CALLS[0] = Momentum(0.1), 0
    optimizer.update = count_the_call
    with pytest.raises(SettingError, match=r"cannot be saved: .* let update be a method of its cl"):
        in_batches(optimizer, checkpoints=Checkpoints(tmp_path))
    assert CALLS == [0]


class InPlace(Optimizer):
    """Changes parameters in place, as the book does, and prepares each of them."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.prepared: list[str] = []

    def prepare(self, params: Any) -> None:
        self.prepared += [key for key in params if key not in self.prepared]

    def update(self, params: Any, grads: Any) -> None:
        for key, gradient in grads.items():
            assert key in self.prepared
            params[key] -= self.lr * gradient


@pytest.mark.parametrize("make", [InPlace, lambda: SGD(0.5)])
def test_a_layer_that_comes_later_is_prepared_and_its_arrays_are_its_own(make: Any) -> None:
    W, b = arr(np.eye(3), widest), arr(np.zeros(3), widest)
    network, optimizer = net(), make()

    class Watcher:
        def step(self, step: int, loss: Any) -> None:
            network.layers.setdefault("Affine3", Affine(W, b))

        def evaluated(self, step: int, history: Any) -> None:
            pass

    fit(optimizer, 4, network, progress=Watcher())
    assert list(network.params) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    assert np.any(host(network.params["W3"]) != np.eye(3))
    np.testing.assert_array_equal(host(W), np.eye(3))
    np.testing.assert_array_equal(host(b), np.zeros(3))


@pytest.mark.parametrize("kind", [Momentum, pytest.param(NotedMomentum, marks=except_slow)])
@pytest.mark.parametrize("how", ["clear", pytest.param("assign", marks=except_slow), "delete"])
def test_what_is_forgotten_begins_anew(how: str, kind: type[Momentum]) -> None:
    optimizer = kind(0.1)

    class Watcher:
        def step(self, step: int, loss: Any) -> None:
            if how == "clear":
                optimizer.velocity.clear()
            elif how == "assign":
                optimizer.velocity = {}
            else:
                del optimizer.velocity

        def evaluated(self, step: int, history: Any) -> None:
            pass

    assert_same(fit(optimizer, 3, progress=Watcher()), by_hand([0.1] * 3), rtol=TOLERANCE)


class Stairs(Optimizer):
    """Steps by a rate that falls where comparisons are added, which JAX does not as Python does."""

    def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
        n = self.update_number
        return W - lr * 0.5 ** ((n > 3) + (n > 8) + 0.0) * dW


class Lucky(Optimizer):
    """Looks at the text of a number."""

    def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
        return W - lr * (2.0 if str(self.update_number).endswith("7") else 1.0) * dW


@pytest.mark.parametrize("kind", [Stairs, Lucky])
def test_what_a_trace_counts_otherwise_later_is_found_out_before(kind: Any) -> None:
    as_written = in_batches(type("AsWritten", (kind,), {"state_names": None})(0.3), 20)
    try:
        found = in_batches(kind(0.3), 20)
    except TracingError:
        return
    assert_same(found, as_written, rtol=TOLERANCE)


class OwnStep(SGD):
    def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
        return W - lr * dW


class OwnUpdate(SGD):
    state_names = ("lr",)

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, grads)


@pytest.mark.parametrize("kind", [OwnStep, OwnUpdate])
def test_a_trial_asks_a_schedule_for_no_other_steps(kind: type[SGD], tmp_path: Path) -> None:
    def rate(number: int) -> float:
        return [0.3][number]

    assert_same(fit(kind(rate), 1), by_hand([0.3]), rtol=TOLERANCE)
    network = fit(kind(rate), 1, checkpoints=Checkpoints(tmp_path))
    assert_same(network, by_hand([0.3]), rtol=TOLERANCE)


# When a training goes on -------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [None, 0.0])
def test_what_is_not_known_before_the_first_step_goes_on(begin: Any, tmp_path: Path) -> None:
    def make() -> Any:
        return Remembering(begin, lambda before, _: 1.0 if before is None else before + 1.0)

    fit(make(), 2, checkpoints=Checkpoints(tmp_path))
    goes_on = make()
    fit(goes_on, 5, checkpoints=Checkpoints(tmp_path, resume=True))
    assert goes_on.memory == 5.0


@pytest.mark.skipif(backend.name != "numpy", reason="is about NumPy's byte orders")
def test_an_array_of_another_byte_order_goes_on(tmp_path: Path) -> None:
    def make() -> Any:
        return Remembering(np.ones(3, ">f8"), lambda before, _: before * 0.5)

    fit(make(), 2, checkpoints=Checkpoints(tmp_path))
    goes_on = make()
    fit(goes_on, 3, checkpoints=Checkpoints(tmp_path, resume=True))
    assert goes_on.memory.tolist() == [0.125] * 3


@pytest.mark.parametrize("memory", [{1: 1.0, "1": 2.0}, {"a.b": 1.0, "a": {"b": 2.0}}])
def test_two_things_of_one_name_are_not_saved_as_one(memory: Any, tmp_path: Path) -> None:
    optimizer = Remembering(memory, lambda before, _: before)
    with pytest.raises(SettingError, match=r"two things .* are both called optimizer.memory"):
        fit(optimizer, 2, checkpoints=Checkpoints(tmp_path))


@pytest.mark.parametrize("make", [lambda: NamedHalving(0.5), Slowing, lambda: Adam(0.1)])
def test_a_training_that_goes_on_has_the_numbers_that_it_had(make: Any, tmp_path: Path) -> None:
    whole, stopped = make(), make()
    expected = fit(whole, 6)
    fit(stopped, 3, checkpoints=Checkpoints(tmp_path))
    goes_on = make()
    network = fit(goes_on, 6, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(network, expected)
    assert goes_on.state.keys() == whole.state.keys()
    for name, value in whole.state.items():
        if not isinstance(value, dict):
            assert goes_on.state[name] == value
    # Twice, and with the optimizer that has learned already.
    assert_same(fit(goes_on, 6, checkpoints=Checkpoints(tmp_path, resume=True)), expected)


class Decaying(Optimizer):
    """Lets its rate decay, whatever kind of number it is."""

    state_names = ("lr", "decay")

    def __init__(self, lr: Any, decay: Any) -> None:
        self.lr, self.decay = lr, decay

    def update(self, params: Any, grads: Any) -> None:
        for key, gradient in grads.items():
            params[key] = params[key] - self.lr * gradient
        self.lr = self.lr * self.decay


@pytest.mark.parametrize("number", [np.float64, np.float32, float])
def test_numpys_numbers_are_numbers(number: Any, tmp_path: Path) -> None:
    if number is not float and backend.name == "array-api-strict":
        pytest.skip("knows no numbers of NumPy")
    fit(Decaying(number(0.5), number(0.5)), 2, checkpoints=Checkpoints(tmp_path, resume=True))
    optimizer = Decaying(number(0.5), number(0.5))
    found = fit(optimizer, 4, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(found, by_hand([0.5, 0.25, 0.125, 0.0625]), rtol=TOLERANCE)
    assert (type(optimizer.lr), optimizer.lr) == (float, 0.5**5)


@pytest.mark.parametrize("number", [float, lambda value: arr(value, widest)])
def test_a_number_of_any_kind_may_be_another_when_a_training_goes_on(
    number: Any, tmp_path: Path
) -> None:
    fit(Decaying(number(0.5), number(1.0)), 2, checkpoints=Checkpoints(tmp_path, resume=True))
    found = fit(
        Decaying(number(0.125), number(1.0)), 4, checkpoints=Checkpoints(tmp_path, resume=True)
    )
    assert_same(found, by_hand([0.5, 0.5, 0.125, 0.125]), rtol=TOLERANCE)


@pytest.mark.parametrize("number", [float, lambda value: arr(value, widest)])
def test_what_has_changed_cannot_be_another_too(number: Any, tmp_path: Path) -> None:
    fit(Decaying(number(0.5), number(0.5)), 2, checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(
        CheckpointError, match=r"began with optimizer\.lr 0\.5 and had changed it to"
    ):
        fit(Decaying(number(0.75), number(0.5)), 4, checkpoints=Checkpoints(tmp_path, resume=True))


class Resting(Optimizer):
    """Makes its memory anew in prepare."""

    state_names = ("velocity", "best")

    def __init__(self) -> None:
        self.velocity: dict[str, Array] = {}
        self.best: Any = None

    def prepare(self, params: Any) -> None:
        self.velocity = self.velocity or {key: W * 0 for key, W in params.items()}
        self.best = sum(namespace_of(W).sum(W) for W in params.values())

    def update(self, params: Any, grads: Any) -> None:
        for key, gradient in grads.items():
            self.velocity[key] = 0.5 * self.velocity[key] + gradient
            params[key] = params[key] - 0.1 * self.velocity[key]
        self.best = self.best + 1


class Shift(Layer):
    """Adds a parameter without dimensions."""

    param_names = ("a",)
    traceable = True

    def __init__(self) -> None:
        self.a = arr(0.5, widest)

    def forward(self, x: Array) -> Array:
        return x + self.a

    def backward(self, dout: Array) -> Array:
        self.da = namespace_of(dout).sum(dout)
        return dout


@pytest.mark.parametrize("is_traced", [True, False])
def test_arrays_without_dimensions_stay_arrays(is_traced: bool, tmp_path: Path) -> None:
    def network() -> Network:
        chance = np.random.default_rng(0)
        W, b = arr(chance.normal(size=(5, 3)), widest), arr(chance.normal(size=3), widest)
        shift = Shift() if is_traced else type("Plain", (Shift,), {})()
        return Network([shift, Affine(W, b)], SoftmaxWithLoss())

    expected = fit(Resting(), 4, network())
    fit(Resting(), 2, network(), checkpoints=Checkpoints(tmp_path, resume=True))
    optimizer = Resting()
    found = fit(optimizer, 4, network(), checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(found, expected)
    if backend.name != "numpy":  # whose arithmetic makes numbers of them
        assert backend.owns(optimizer.velocity["a1"])
        assert optimizer.velocity["a1"].shape == optimizer.best.shape == ()


class Growing(Optimizer):
    """Remembers more and more."""

    state_names = ("memory",)

    def __init__(self, memory: Any, grow: Any) -> None:
        self.memory, self.grow = memory, grow

    def update(self, params: Any, grads: Any) -> None:
        self.memory = self.grow(self.memory, grads)
        for key, gradient in grads.items():
            params[key] = params[key] - 0.1 * gradient


@pytest.mark.parametrize(
    ("memory", "grow", "message"),
    [
        (
            [],
            lambda memory, grads: [*memory, 0.5],
            r"memory\.0 is not at first, and 0\.5",
        ),
        (
            {},
            lambda memory, grads: dict(grads),
            r"memory\.W1 is not at first, and of",
        ),
        (None, lambda memory, grads: grads["b1"] * 1, r"memory is not at first, and of"),
        (1e300, lambda memory, grads: memory * 1e300, r"memory is 1e\+300 at first, and inf after"),
    ],
    ids=["list", "dictionary", "none", "infinite"],
)
def test_what_nobody_could_go_on_with_is_not_saved(
    memory: Any, grow: Any, message: str, tmp_path: Path
) -> None:
    network, before = net(), values_of(net())
    with pytest.raises(SettingError, match=f"cannot be saved: .*{message}.* make room for it in"):
        fit(Growing(memory, grow), 3, network, checkpoints=Checkpoints(tmp_path, resume=True))
    for key, value in values_of(network).items():
        np.testing.assert_array_equal(value, before[key])
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_grows_late_is_not_saved_either(tmp_path: Path) -> None:
    """What was saved before stays there to go on with."""
    silent = {"n": 0}

    def grow(memory: Any, grads: Any) -> Any:
        silent["n"] += 1
        return memory if silent["n"] < 20 else [*memory, 0.5]

    class Late(Growing):
        state_names = ("memory",)

    optimizer = Late([0.25], grow)
    with pytest.raises(SettingError, match="cannot be saved"):
        fit(optimizer, 60, checkpoints=Checkpoints(tmp_path, every_steps=5, resume=True))


def test_a_setting_may_be_another_when_a_training_goes_on(tmp_path: Path) -> None:
    fit(Adam(0.1), 3, checkpoints=Checkpoints(tmp_path))
    optimizer = Adam(0.05)
    fit(optimizer, 6, checkpoints=Checkpoints(tmp_path, resume=True))
    assert (optimizer.lr, optimizer.update_number) == (0.05, 6)


def test_a_number_that_both_have_changed_is_an_error(tmp_path: Path) -> None:
    fit(NamedHalving(0.5), 3, checkpoints=Checkpoints(tmp_path))
    network, before, optimizer = net(), values_of(net()), NamedHalving(0.4)
    with pytest.raises(CheckpointError, match=r"began with optimizer.lr 0.5 and .* to 0.0625, "):
        fit(optimizer, 6, network, checkpoints=Checkpoints(tmp_path, resume=True))
    assert optimizer.lr == 0.4
    for key, array in values_of(network).items():
        np.testing.assert_array_equal(array, before[key])


class Scale(Layer):
    """Multiplies all by one number, whose array has no dimensions."""

    param_names = ("s",)
    traceable = True

    def __init__(self, s: Array) -> None:
        self.s = s

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * self.s

    def backward(self, dout: Array) -> Array:
        self.ds = namespace_of(dout).sum(dout * self.x)
        return dout * self.s


class OwnMomentum(Momentum):
    state_names = ("lr", "velocity")

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, grads)


class FromElsewhere(Optimizer):
    """Takes its rate from outside of its attributes."""

    state_names = ("lr",)
    count = 0
    table: dict[str, Any] = {}  # noqa: RUF012  what is to be seen

    def __init__(self, rate: Any) -> None:
        super().__init__(0.1)
        self.rate = rate

    def update(self, params: Any, grads: Any) -> None:
        rate = self.rate(type(self))
        for key, gradient in grads.items():
            params[key] = params[key] - rate * gradient


def count_up(kind: Any) -> float:
    kind.count += 1
    return float(0.5**kind.count)


def fill(kind: Any) -> float:
    kind.table["rate"] = 0.5 * kind.table.get("rate", 1.0)
    return float(kind.table["rate"])


class Averaged(Optimizer):
    """Begins its mean with the parameters themselves, and changes them in place."""

    state_names = ("mean",)

    def __init__(self) -> None:
        super().__init__(0.1)
        self.mean: dict[str, Any] = {}

    def prepare(self, params: Any) -> None:
        self.mean = self.mean or dict(params)

    def update(self, params: Any, grads: Any) -> None:
        for key, gradient in grads.items():
            params[key] -= 0.1 * gradient
            self.mean[key] = 0.9 * self.mean[key] + 0.1 * params[key]


class AveragedLater(Averaged):
    """Goes on from the mean itself."""

    state_names = ("mean",)

    def prepare(self, params: Any) -> None:
        self.mean = self.mean or {key: 1 * W for key, W in params.items()}

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, grads)
        params.update(self.mean)


in_place_only = pytest.mark.skipif(not backend.writers, reason="changes no array in place")


@pytest.mark.parametrize(
    "make",
    [
        lambda: FromElsewhere(count_up),
        lambda: FromElsewhere(fill),
        lambda: FromElsewhere(lambda kind: float(np.random.uniform())),
        lambda: FromElsewhere(lambda kind: random.random()),
        lambda: FromElsewhere(lambda kind: 0.1 if random.random() < 1 - 1e-9 else 0.2),
        pytest.param(Averaged, marks=in_place_only),
        pytest.param(AveragedLater, marks=in_place_only),
    ],
    ids=["count", "table", "NumPy's", "Python's", "rarely", "alias", "a later alias"],
)
def test_what_lies_elsewhere_is_not_saved(make: Any, tmp_path: Path) -> None:
    FromElsewhere.count = 0
    FromElsewhere.table.clear()
    before = random.getstate(), repr(np.random.get_state())
    network = net()
    with pytest.raises(SettingError, match="cannot be saved: it depends on more than its"):
        fit(make(), 3, network, checkpoints=Checkpoints(tmp_path))
    assert_same(network, net())
    assert (random.getstate(), repr(np.random.get_state())) == before


def test_what_began_as_nan_goes_on(tmp_path: Path) -> None:
    def make() -> Any:
        return Remembering(arr(np.nan, widest), lambda before, _: arr(np.nan, widest) * 0 + 1.0)

    def number() -> Any:
        return Remembering(float("nan"), lambda before, _: 1.0)

    for kind, folder in ((make, "array"), (number, "number")):
        fit(kind(), 2, checkpoints=Checkpoints(tmp_path / folder))
        fit(kind(), 3, checkpoints=Checkpoints(tmp_path / folder, resume=True))


@pytest.mark.parametrize("make", [SGD, Momentum, Adam, OwnMomentum])
def test_a_parameter_without_dimensions_goes_on(make: Any, tmp_path: Path) -> None:
    def scaled() -> Network:
        affine = Affine(arr(np.eye(5, 3), widest), arr(np.zeros(3), widest))
        return Network([affine, Scale(arr(2.0, widest))], SoftmaxWithLoss())

    expected = fit(make(0.1), 6, scaled())
    fit(make(0.1), 3, scaled(), checkpoints=Checkpoints(tmp_path))
    network = fit(make(0.1), 6, scaled(), checkpoints=Checkpoints(tmp_path, resume=True))
    assert network.params["s1"].shape == ()
    assert float(network.params["s1"]) != 2
    assert_same(network, expected)


# When a training ends in an error ----------------------------------------------------------------


class Failing:
    """Ends a training after some steps."""

    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.at, self.error = step, error

    def step(self, step: int, loss: Array) -> None:
        if step >= self.at:
            raise self.error

    def evaluated(self, step: int, history: xbp.History) -> None:
        pass


# Each of them compiles anew where there is a compiler.
ERRORS = [ValueError, KeyboardInterrupt, MemoryError][: None if backend.name != "jax" else 1]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("make", [lambda: Momentum(0.1), lambda: Halving(0.5), Slowing])
def test_an_error_leaves_what_the_last_epoch_has_left(make: Any, error: Any) -> None:
    network, optimizer = net(), make()
    arrays = dict(network.params)
    trainer = Trainer(network, optimizer, batch_size=20, seed=0)
    with pytest.raises(error):
        trainer.fit(X, T, steps=9, progress=Failing(1, error))
    assert all(network.params[key] is array for key, array in arrays.items())
    assert_same(network, net())
    assert vars(optimizer) == vars(make())
    # An epoch has three steps.
    whole, other = net(), make()
    Trainer(whole, other, batch_size=20, seed=1).fit(X, T, steps=3)
    trainer = Trainer(network, optimizer, batch_size=20, seed=1)
    with pytest.raises(error):
        trainer.fit(X, T, steps=9, progress=Failing(4, error))
    assert_same(network, whole)
    assert {n: v for n, v in vars(optimizer).items() if isinstance(v, float)} == {
        n: v for n, v in vars(other).items() if isinstance(v, float)
    }


class Wrapping(Optimizer):
    """Has another do the work, and remembers in many ways."""

    def __init__(self, inner: Momentum) -> None:
        self.inner, self.last = inner, deque([0.0], maxlen=2)
        self.rates: Any = defaultdict(lambda: 0.5)

    def update(self, params: Any, grads: Any) -> None:
        self.inner.lr *= self.rates["lr"]
        self.inner.update(params, grads)
        self.last.append(self.inner.lr)


def test_an_error_leaves_also_what_an_optimizer_has_inside() -> None:
    network, inner = net(), Momentum(0.1)
    optimizer = Wrapping(inner)
    fit(optimizer, 2, network)
    before = dict(inner.velocity)
    velocity = {key: host(value).copy() for key, value in before.items()}
    with pytest.raises(ValueError, match=r"^$"):
        fit(optimizer, 9, network, progress=Failing(1, ValueError))
    assert optimizer.inner is inner
    assert inner.lr == 0.025
    assert list(optimizer.last) == [0.05, 0.025]
    assert optimizer.rates["another"] == 0.5
    for key, value in velocity.items():
        np.testing.assert_array_equal(host(inner.velocity[key]), value)


# What cannot be changed in place -----------------------------------------------------------------


@pytest.mark.parametrize("make", [SGD, Momentum, Adam])
@pytest.mark.parametrize("key", ["W1", "b1"])
def test_what_cannot_be_written_to_is_replaced(make: Any, key: str) -> None:
    network, expected = net(), net()
    x, t = arr(X, widest), arr(T)
    kept = network.params[key]
    if backend.name == "numpy":
        kept.flags.writeable = False
    elif backend.name == "torch":
        kept.requires_grad_()
    before = np.array(backend.to_numpy(kept))
    first, second = make(0.1), make(0.1)
    for _ in range(2):
        first.update(network.params, network.gradient(x, t))
        second.update(expected.params, expected.gradient(x, t))
    for name, value in network.params.items():
        np.testing.assert_array_equal(backend.to_numpy(value), host(expected.params[name]))
    if backend.name in ("numpy", "torch"):
        np.testing.assert_array_equal(backend.to_numpy(kept), before)


# Half precision ----------------------------------------------------------------------------------


def half() -> str | None:
    names = ("float16", "bfloat16")
    return next((name for name in names if hasattr(backend.xp, name)), None)


@pytest.mark.skipif(half() is None, reason="the library has no half precision")
def test_adam_in_half_precision() -> None:
    xp, dtype = backend.xp, getattr(backend.xp, half() or "")
    params = {"W": xp.astype(arr([1.0, 1.0, 1.0], "float32"), dtype)}
    optimizer = Adam(lr=0.125)
    for _ in range(2):
        # The square of the second is 0 in float16.
        optimizer.update(params, {"W": xp.astype(arr([0.0, 1e-5, -1.0], "float32"), dtype)})
    assert params["W"].dtype == dtype
    assert dtype_of(optimizer.mean_square["W"]) == "float32"
    found = backend.to_numpy(xp.astype(params["W"], xp.float32))
    np.testing.assert_allclose(found, [1.0, 0.75, 1.25], rtol=4e-3)


def test_an_epsilon_that_is_nothing_is_refused() -> None:
    with pytest.raises(XbpError, match=r"epsilon is at least 1.2e-38, not 1e-50"):
        Adam(epsilon=1e-50)
