"""What is somebody's own is tried out before it is traced, and traced anew when it has changed."""

import logging
import random
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import arr, backend, except_slow, host, widest

import xbp
from xbp import Network, Optimizer, Trainer
from xbp.errors import SettingError, TracingError
from xbp.layers import Affine, Layer, Relu, Rescale, Sigmoid, SoftmaxWithLoss
from xbp.namespace import Array, namespace_of
from xbp.recording import Traced
from xbp.training import Checkpoints
from xbp.training.learner import Learner
from xbp.training.trial import try_out

TOLERANCE = 1e-9 if widest == "float64" else 1e-3

X = np.random.default_rng(0).standard_normal((24, 4))
T = np.arange(24) % 3

traces = backend.name == "jax" or bool(backend.writers)


class Scale(Layer):
    """Multiplies by a number, which a test may change."""

    traceable = True

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def forward(self, x: Array) -> Array:
        self.x = x  # it may keep what it likes
        return self.factor * x

    def backward(self, dout: Array) -> Array:
        return self.factor * dout


def network(*layers: Layer, loss: Any = None) -> Network:
    chance = np.random.default_rng(1)
    first, last = (
        Affine(arr(chance.normal(size=shape), widest), arr(np.zeros(shape[1]), widest))
        for shape in ((4, 5), (5, 3))
    )
    return Network([first, *layers, last], loss or SoftmaxWithLoss())


def fit(net: Network, optimizer: Optimizer | None = None, **more: Any) -> Network:
    Trainer(net, optimizer or xbp.SGD(0.5), batch_size=8, seed=0).fit(X, T, epochs=3, **more)
    return net


def assert_same(one: Network, other: Network) -> None:
    for key, value in one.params.items():
        np.testing.assert_allclose(
            host(value), host(other.params[key]), rtol=TOLERANCE, atol=TOLERANCE
        )


# What may not be traced --------------------------------------------------------------------------


class RunningMean(Scale):
    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.mean = 0.0

    def forward(self, x: Array) -> Array:
        self.mean = 0.9 * self.mean + 0.1 * namespace_of(x).mean(x)
        return super().forward(x)


class Counting(Scale):
    traceable = True
    calls: int = 0

    def forward(self, x: Array) -> Array:
        self.calls += 1
        return super().forward(x) / self.calls


class CountingBackward(Scale):
    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.calls = [0]

    def backward(self, dout: Array) -> Array:
        self.calls[0] += 1
        return super().backward(dout) / self.calls[0]


class Rarely(Scale):
    traceable = True

    def forward(self, x: Array) -> Array:
        return super().forward(x) if random.random() < 1 - 1e-9 else x


class Drawing(Scale):
    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.chance = np.random.default_rng(0)

    def backward(self, dout: Array) -> Array:
        return super().backward(dout) if self.chance.random() < 0.999 else dout


class Previous(Scale):
    traceable = True
    previous: Any = 0.0

    def forward(self, x: Array) -> Array:
        now, self.previous = x + 0.5 * self.previous, x
        return super().forward(now)


class FirstBatch(Scale):
    """Standardizes by the first batch that it sees."""

    traceable = True
    mean: Any = None

    def forward(self, x: Array) -> Array:
        if self.mean is None:
            self.mean = namespace_of(x).mean(x)
        return super().forward(x - self.mean)


class Largest(Scale):
    traceable = True
    largest: Any = -100.0

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        now = xp.max(x)
        self.largest = xp.where(now > self.largest, now, self.largest)
        return super().forward(x) / (1 + xp.abs(self.largest))


class CountingElsewhere(Scale):
    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.memory = SimpleNamespace(calls=0)

    def forward(self, x: Array) -> Array:
        self.memory.calls += 1
        return super().forward(x) * (1.0 if self.memory.calls < 20 else 0.5)


class Seldom(Scale):
    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.chance = random.Random(0)

    def forward(self, x: Array) -> Array:
        return super().forward(x) if self.chance.random() < 0.999 else x


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [
        (RunningMean, r"self\.mean"),
        (Counting, r"self\.calls"),
        (CountingBackward, r"self\.calls"),
        (Drawing, r"self\.chance"),
        (FirstBatch, r"self\.\w+"),
        (Largest, r"self\.largest"),
        (CountingElsewhere, r"self\.memory"),
        (Seldom, r"self\.chance"),
    ],
)
def test_a_layer_that_remembers_is_named(kind: Callable[[], Layer], attribute: str) -> None:
    net = network(kind())
    before = {key: host(W) for key, W in net.params.items()}
    name = kind.__name__
    message = rf"test_trial\.py, line \d+: {name}: {name}1: {attribute} depends on the calls"
    with pytest.raises(TracingError, match=message):
        fit(net)
    for key, W in net.params.items():
        np.testing.assert_array_equal(host(W), before[key])


CALLS: list[int] = []


class CountedElsewhere(SoftmaxWithLoss):
    """Tells another loss each time, and the same gradient."""

    traceable = True

    def forward(self, x: Array, t: Array) -> Array:
        CALLS.append(1)
        return super().forward(x, t) * (1 + 1 / len(CALLS))


@pytest.mark.skipif(not traces, reason="traces nothing")
def test_a_loss_that_remembers_elsewhere_is_named() -> None:
    layers = network().layers.values()
    with pytest.raises(
        TracingError,
        match=r"line \d+: CountedElsewhere: two equal calls of CountedElsewhere.forward differ",
    ):
        fit(xbp.Network([*layers], CountedElsewhere()))


@pytest.mark.skipif(not traces, reason="traces nothing")
def test_a_layer_that_is_random_now_and_then_is_named() -> None:
    learner, state = Learner(network(Rarely()), xbp.SGD(0.1)), random.getstate()
    with pytest.raises(TracingError, match=r"line \d+: Rarely: Rarely1 draws random numbers"):
        try_out(learner, arr(X, widest), arr(T))
    assert random.getstate() == state  # the trial has used up none


@pytest.mark.skipif(not traces, reason="traces nothing")
def test_a_layer_that_looks_back_is_named() -> None:
    with pytest.raises(TracingError, match=r"Previous1: self\.\w+ depends on the calls before"):
        fit(network(Previous()))


def test_what_is_not_traced_may_remember_what_it_likes() -> None:
    layer = type("Plain", (CountingBackward,), {})()
    fit(network(layer))
    assert layer.calls == [9]  # the trial has changed nothing


class Weighted(SoftmaxWithLoss):
    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.calls = [0]

    def forward(self, x: Array, t: Array) -> Array:
        self.calls[0] += 1
        return super().forward(x, t) / self.calls[0]


@pytest.mark.skipif(not traces, reason="traces nothing")
def test_a_loss_that_remembers_is_named() -> None:
    with pytest.raises(TracingError, match=r"Weighted: self\.calls depends on the calls before"):
        fit(network(loss=Weighted()))


def test_an_update_that_was_set_on_an_optimizer_is_called_as_it_is_written() -> None:
    optimizer, calls = xbp.SGD(0.1), []

    def update(params: Any, grads: Any) -> None:
        calls.append(len(params))
        xbp.SGD(0.5).update(params, grads)

    optimizer.update = update
    assert_same(fit(network(), optimizer), fit(network()))
    assert calls == [4] * 9


class TwoNames(Optimizer):
    """One array under two names, which it changes in place."""

    memory_names = ("velocity", "last")

    def step(self, W: Array, dW: Array, memory: Any, lr: Any) -> Array:
        last, velocity = memory["last"], memory["velocity"]
        velocity *= 0.9
        velocity += dW
        memory["velocity"] = memory["last"] = velocity
        return W - 0.1 * last


class Conf(Optimizer):
    """Keeps its settings in a dictionary, and looks them up where they are asked for."""

    state_names = ("conf", "lr")

    def __init__(self) -> None:
        self.conf = {"lr": 0.5}

    def __getattr__(self, name: str) -> Any:
        if name == "conf":
            raise AttributeError(name)
        return self.conf[name]

    def update(self, params: Any, grads: Any) -> None:
        self.conf["lr"] = self.lr * 0.5
        for key, gradient in grads.items():
            params[key] = params[key] - self.lr * gradient


@pytest.mark.skipif(not backend.writers, reason="changes no array in place")
def test_an_array_that_is_two_is_not_changed_in_place() -> None:
    net = network()
    before = {key: host(W) for key, W in net.params.items()}
    with pytest.raises(TracingError, match=r"TwoNames.step differ: .* one array under two names"):
        fit(net, TwoNames())
    for key, W in net.params.items():
        np.testing.assert_array_equal(host(W), before[key])


def is_traced(x: Array) -> bool:
    return "Trace" in type(x).__name__


class Shy(Scale):
    """Does something else while it is looked at."""

    traceable = True

    def forward(self, x: Array) -> Array:
        return super().forward(x) * (2.0 if is_traced(x) else 1.0)


class ShyOptimizer(xbp.SGD):
    def step(self, W: Array, dW: Array, memory: Any, lr: Any) -> Array:
        return W - lr * dW * (1.1 if is_traced(W) else 1.0)


@pytest.mark.skipif(not traces, reason="traces nothing")
@pytest.mark.parametrize("name", ["Shy", "ShyOptimizer"])
def test_steps_that_are_traced_do_what_is_written(name: str) -> None:
    net = network(Shy()) if name == "Shy" else network()
    optimizer = ShyOptimizer(0.5) if name == "ShyOptimizer" else None
    message = rf"line \d+: {name}: steps that are traced lead to another params\..*{name}1? does"
    with pytest.raises(TracingError, match=message):
        fit(net, optimizer)


def test_what_is_named_is_an_attribute_of_its_own() -> None:
    with pytest.raises(SettingError, match=r"Conf: state_names names 'lr', and there is no such"):
        fit(network(), Conf())


class Lion(Optimizer):
    """Steps by signs alone, so that rounding can turn a step round (Chen et al. 2023)."""

    memory_names = ("mean",)

    def step(self, W: Array, dW: Array, memory: Any, lr: Any) -> Array:
        mean = memory["mean"]
        memory["mean"] = 0.99 * mean + 0.01 * dW
        return W - 0.01 * namespace_of(dW).sign(0.9 * mean + 0.1 * dW)


@except_slow
@pytest.mark.parametrize("seed", range(8))
def test_what_is_right_is_traced(seed: int) -> None:
    net = Network.fully_connected([4, 30, 20, 3], seed=seed, weight_init_std="he")
    net = Network([*net.layers.values(), Scale(1.0)], net.last_layer)
    fit(net, Lion())


# What has changed between steps ------------------------------------------------------------------


class Each:
    """Does something after each measurement."""

    def __init__(self, change: Callable[[], object]) -> None:
        self.change = change

    def step(self, step: int, loss: Array) -> None:
        pass

    def evaluated(self, step: int, history: Any) -> None:
        self.change()


class Lowered(SoftmaxWithLoss):
    traceable = True

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Array, t: Array) -> Array:
        return self.weight * super().forward(x, t)

    def backward(self, dout: Any = 1) -> Array:
        return super().backward(self.weight * dout)


class Unnamed(Optimizer):
    """Reads a rate that it never changes."""

    state_names = ()

    def __init__(self) -> None:
        self.lr: Any = 0.5

    def update(self, params: Any, grads: Any) -> None:
        for key, gradient in grads.items():
            params[key] = params[key] - self.lr * gradient


def halve(thing: Any, name: str) -> Callable[[], None]:
    return lambda: setattr(thing, name, getattr(thing, name) * 0.5)


def plain(kind: type) -> Any:
    return type("Plain", (kind,), {})


@pytest.mark.parametrize("kind", [Scale, Rescale])
def test_a_number_of_a_layer_that_has_changed_is_another(kind: Any) -> None:
    found, expected = kind(2.0), plain(kind)(2.0)
    name = "factor" if kind is Scale else "divisor"
    one, other = network(found), network(expected)
    fit(one, progress=Each(halve(found, name)))
    fit(other, progress=Each(halve(expected, name)))
    assert_same(one, other)
    assert getattr(found, name) == 0.25


@dataclass(slots=True)
class Slots:
    a: float


class Call:
    def __init__(self, a: float) -> None:
        self.a = a

    def __call__(self) -> float:
        return self.a


class Held(Scale):
    """Holds its factor somewhere else."""

    traceable = True

    def __init__(self, held: Any, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.held, self.read = held, read

    def forward(self, x: Array) -> Array:
        self.factor = self.read(self.held)
        return super().forward(x)


@except_slow
@pytest.mark.parametrize(
    ("held", "read", "change"),
    [
        ({"a": 1.0}, lambda held: held["a"], lambda held: held.update(a=0.5)),
        ([1.0], lambda held: held[0], lambda held: held.__setitem__(0, 0.5)),
        (SimpleNamespace(a=1.0), lambda held: held.a, lambda held: setattr(held, "a", 0.5)),
        (Scale(1.0), lambda held: held.factor, lambda held: setattr(held, "factor", 0.5)),
        (
            {"a": arr(1.0, widest)},
            lambda held: held["a"],
            lambda held: held.update(a=arr(0.5, widest)),
        ),
        (np.asarray([1.0]), lambda held: float(held[0]), lambda held: held.__imul__(0.5)),
        ({1}, lambda held: 1.0 / len(held), lambda held: held.add(len(held) + 1)),
        (deque([1.0]), lambda held: held[0], lambda held: held.appendleft(held[0] / 2)),
        (Slots(1.0), lambda held: held.a, lambda held: setattr(held, "a", 0.5)),
        (Call(1.0), lambda held: held(), lambda held: setattr(held, "a", 0.5)),
        (partial(sum, [1.0]), lambda held: held(), lambda held: held.args[0].append(-0.2)),
    ],
    ids=[
        *("dictionary", "list", "object", "layer", "array", "array in place", "set", "deque"),
        *("slots", "call", "arguments of a function"),
    ],
)
def test_what_a_layer_holds_may_change(held: Any, read: Any, change: Any) -> None:
    nets = []
    for kind in (Held, plain(Held)):
        own = deepcopy(held) if not isinstance(held, dict) else dict(held)
        net = network(kind(own, read))
        nets.append(fit(net, progress=Each(partial(change, own))))
    assert_same(*nets)


@pytest.mark.skipif(not traces, reason="traces nothing")
def test_what_is_exchanged_is_tried_out_too() -> None:
    net = network(Scale())
    with pytest.raises(TracingError, match=r"Scale1: self\.\w+ depends on the calls before"):
        fit(net, progress=Each(lambda: net.layers.update(Scale1=Counting())))


def test_a_layer_that_is_not_traced_may_take_the_place_of_one_that_is() -> None:
    nets = [network(Scale()), network(plain(Scale)())]
    for net in nets:
        layer = plain(Counting)()
        fit(net, progress=Each(partial(setattr, net, "last_layer", plain(Weighted)())))
        assert layer.calls == 0
    assert_same(*nets)


def test_a_number_of_a_loss_that_has_changed_is_another() -> None:
    one, other = network(loss=Lowered()), network(loss=plain(Lowered)())
    for net in (one, other):
        fit(net, progress=Each(halve(net.last_layer, "weight")))
    assert_same(one, other)


def test_a_number_of_an_optimizer_that_has_changed_is_another() -> None:
    one, other = network(), network()
    for net, optimizer in ((one, Unnamed()), (other, plain(Unnamed)())):
        fit(net, optimizer, progress=Each(halve(optimizer, "lr")))
    assert_same(one, other)


@except_slow
def test_a_number_that_has_changed_and_is_not_named_is_not_saved(tmp_path: Path) -> None:
    optimizer = Unnamed()
    with pytest.raises(SettingError, match=r"self\.lr has changed from 0\.5 to 0\.25, and state_n"):
        fit(
            network(),
            optimizer,
            progress=Each(halve(optimizer, "lr")),
            checkpoints=Checkpoints(tmp_path, every_steps=1),
        )


@pytest.mark.parametrize("kind", [np.float32, lambda value: arr(value, widest)])
def test_a_number_may_become_one_of_another_kind(kind: Any) -> None:
    if kind is np.float32 and backend.name == "array-api-strict":
        pytest.skip("knows no numbers of NumPy")
    one, other = network(), network()
    for net, optimizer in ((one, Unnamed()), (other, xbp.SGD(0.5))):
        fit(
            net,
            optimizer,
            progress=Each(lambda of=optimizer: setattr(of, "lr", kind(0.25))),  # type: ignore[misc]
        )
    assert_same(one, other)


@except_slow
def test_a_layer_may_be_exchanged() -> None:
    one, other = network(), network()
    for net, optimizer in ((one, xbp.SGD(0.5)), (other, Adapter())):
        fit(net, optimizer, progress=Each(partial(setattr, net, "last_layer", Lowered(0.25))))
    assert_same(one, other)


class Adapter(Optimizer):
    """Does each step as it is written."""

    def update(self, params: Any, grads: Any) -> None:
        xbp.SGD(0.5).update(params, grads)


@pytest.mark.skipif(not traces or backend.name == "jax", reason="arrays cannot be changed")
def test_a_mask_may_be_changed_in_place() -> None:
    class Masked(Scale):
        traceable = True

        def __init__(self) -> None:
            super().__init__()
            self.mask = arr(np.ones(5, bool))

        def forward(self, x: Array) -> Array:
            self.factor = namespace_of(x).astype(self.mask, x.dtype)
            return x * self.factor  # dpnp's arrays know nothing that is traced

        def backward(self, dout: Array) -> Array:
            return dout * self.factor

    def prune(layer: Any) -> None:
        layer.mask[int(host(layer.mask).argmax())] = False

    nets = []
    for kind in (Masked, plain(Masked)):
        layer = kind()
        nets.append(fit(network(layer), progress=Each(partial(prune, layer))))
        assert host(layer.mask).sum() == 2
    assert_same(*nets)


# What a layer keeps of a pass --------------------------------------------------------------------


class Cached(Scale):
    """Keeps what backward needs in a container of its own."""

    traceable = True

    def __init__(self, cache: Any) -> None:
        super().__init__()
        self.cache = cache

    def forward(self, x: Array) -> Array:
        self.cache["x"] = x
        return super().forward(x)

    def backward(self, dout: Array) -> Array:
        return super().backward(dout) + 0 * self.cache["x"]


class Block(Scale):
    """Has layers within it."""

    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.inner = [Relu(), Sigmoid()]

    def forward(self, x: Array) -> Array:
        y = x
        for layer in self.inner:
            y = layer.forward(y)
        return super().forward(x + y)

    def backward(self, dout: Array) -> Array:
        dout = super().backward(dout)
        dy = dout
        for layer in reversed(self.inner):
            dy = layer.backward(dy)
        return dout + dy


class Constants(Scale):
    """Makes an array once for each size of a batch."""

    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.ones: dict[int, Array] = {}

    def forward(self, x: Array) -> Array:
        if x.shape[0] not in self.ones:
            self.ones[x.shape[0]] = namespace_of(x).zeros_like(x) + 1
        return super().forward(x + self.ones[x.shape[0]])


class Furnished(Scale):
    """Holds what is large, and leads in circles."""

    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.log = logging.getLogger(__name__)
        self.backend, self.module = backend, np
        shared: list[Any] = []
        for _ in range(30):
            shared = [shared, shared]
        shared.append(shared)
        self.shared = shared

    def forward(self, x: Array) -> Array:
        self.xp = namespace_of(x)
        return super().forward(x)


class Wrapping(SoftmaxWithLoss):
    """Asks another loss."""

    traceable = True

    def __init__(self) -> None:
        super().__init__()
        self.inner = SoftmaxWithLoss()

    def forward(self, x: Array, t: Array) -> Array:
        return self.inner.forward(x, t)

    def backward(self, dout: Any = 1) -> Array:
        return self.inner.backward(dout)


def made_by(part: Any) -> Network:
    return network(loss=part) if isinstance(part, SoftmaxWithLoss) else network(part)


@pytest.mark.parametrize("kind", [partial(Cached, {}), Block, Constants, Furnished, Wrapping])
def test_what_a_part_keeps_of_a_pass_is_its_own(kind: Any) -> None:
    part = kind()
    before = {key: host(W) for key, W in made_by(part).params.items()}
    net = fit(made_by(part))
    assert any(bool(np.any(host(W) != before[key])) for key, W in net.params.items())
    own = getattr(part, "inner", [])
    for layer in (part, *(own if isinstance(own, list) else [own])):
        assert not any(isinstance(x, Traced) for x in vars(layer).values())
    cache = getattr(part, "cache", {}) | getattr(part, "ones", {})
    assert not any(isinstance(x, Traced) for x in cache.values())
    other = type("Plain", (type(part),), {})
    assert_same(net, fit(made_by(other({}) if isinstance(part, Cached) else other())))


def test_a_setting_within_a_block_may_change() -> None:
    class Inner(Scale):
        traceable = True

        def __init__(self) -> None:
            super().__init__()
            self.inner = [Scale(2.0)]

        def forward(self, x: Array) -> Array:
            return super().forward(self.inner[0].forward(x))

        def backward(self, dout: Array) -> Array:
            return self.inner[0].backward(super().backward(dout))

    nets = []
    for kind in (Inner, plain(Inner)):
        layer = kind()
        nets.append(fit(network(layer), progress=Each(halve(layer.inner[0], "factor"))))
    assert_same(*nets)


def test_what_a_pass_leaves_is_not_taken_for_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[Learner] = []

    def counting(learner: Learner, x: Array, t: Array) -> None:
        times.append(learner)
        try_out(learner, x, t)

    monkeypatch.setattr(xbp.training.trainer, "try_out", counting)
    net = network(Scale())
    fit(net, progress=Each(lambda: net.loss(arr(X, widest), arr(T))))
    assert len(times) == 1


# A network of one's own --------------------------------------------------------------------------


class Decayed(Network):
    """Has weight decay, as in the book: in the loss, and in the gradient."""

    decay = 0.1

    def loss(self, x: Array, t: Array) -> Array:
        xp = namespace_of(x)
        squares = sum(xp.sum(self.params[key] ** 2) for key in ("W1", "W2"))
        return super().loss(x, t) + 0.5 * self.decay * squares

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        grads = super().gradient(x, t)
        return grads | {key: grads[key] + self.decay * self.params[key] for key in ("W1", "W2")}


def of_kind(kind: Any, **attributes: Any) -> Any:
    layers = network().layers.values()
    net = kind([*layers], SoftmaxWithLoss())
    vars(net).update(attributes)
    return net


def test_a_network_learns_by_its_own_gradient() -> None:
    net = of_kind(Decayed)
    x, t = arr(X, widest), arr(T)
    assert xbp.gradient_check(net, x[:4, ...], t[:4]).passed
    W = {key: host(value) for key, value in net.params.items()}
    grads = {key: host(value) for key, value in net.gradient(x, t).items()}
    loss, found = net.loss_and_gradient(dict(net.params), x, t)
    assert abs(float(loss) - float(net.loss(x, t))) < 1e-5
    Trainer(net, xbp.SGD(0.5), batch_size=24).fit(X, T, steps=1)
    for key, value in net.params.items():
        np.testing.assert_allclose(host(found[key]), grads[key], rtol=1e-5, atol=1e-6)
        expected = W[key] - 0.5 * grads[key]
        np.testing.assert_allclose(host(value), expected, rtol=1e-4, atol=1e-5)


def test_what_is_measured_is_a_networks_own_loss() -> None:
    net = of_kind(Decayed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xbp.training.measurement._BATCH", 10)
        history = Trainer(net, xbp.SGD(1e-30), batch_size=24).fit(
            X, T, epochs=1, x_test=X, t_test=T
        )
    assert abs(history.test_loss[-1] - float(net.loss(arr(X, widest), arr(T)))) < 1e-5
    assert abs(history.test_loss[-1] - history.loss[-1]) < 1e-5


def test_what_a_network_holds_may_change() -> None:
    untraced = type("Plain", (Decayed,), {"traceable": False})
    nets = []
    for kind in (Decayed, untraced):
        net = of_kind(kind, decay=0.4)
        nets.append(fit(net, progress=Each(halve(net, "decay"))))
        assert net.decay == 0.05
    assert_same(*nets)


class CountingNetwork(Network):
    calls = 0

    def loss(self, x: Array, t: Array) -> Array:
        self.calls += 1
        return super().loss(x / self.calls, t)


class NoisyNetwork(Network):
    def loss(self, x: Array, t: Array) -> Array:
        return super().loss(x * (1 + 1e-30 * random.random()), t)


@pytest.mark.skipif(not traces, reason="traces nothing")
def test_a_network_that_remembers_or_is_random_is_named() -> None:
    with pytest.raises(TracingError, match=r"CountingNetwork: self\.calls depends on the calls"):
        fit(of_kind(CountingNetwork))
    with pytest.raises(TracingError, match="NoisyNetwork draws random numbers"):
        fit(of_kind(NoisyNetwork))


def test_a_network_that_says_so_is_not_traced() -> None:
    net = of_kind(type("Plain", (CountingNetwork,), {"traceable": False}))
    fit(net)
    assert net.calls == 9


def test_the_pure_function_of_a_network_follows_from_the_others() -> None:
    with pytest.raises(SettingError, match="Wrong: loss_and_gradient gives the loss and the grad"):
        type("Wrong", (Network,), {"loss_and_gradient": lambda *_: None})


@pytest.mark.skipif(not traces, reason="traces nothing")
def test_a_forward_that_was_set_on_a_layer_is_tried_too() -> None:
    net = network(Relu())
    relu: Any = net.layers["Relu1"]
    calls = [0]

    def forward(x: Array) -> Array:
        calls[0] += 1
        return type(relu).forward(relu, x) / calls[0]

    relu.forward = forward
    with pytest.raises(TracingError):
        fit(net)


def test_a_loss_of_ones_own_is_given_the_labels_as_they_are() -> None:
    shapes = []

    class Seen(SoftmaxWithLoss):
        def forward(self, x: Array, t: Array) -> Array:
            shapes.append(tuple(t.shape))
            return super().forward(x, t)

    fit(network(loss=Seen()))
    assert all(len(shape) == 1 for shape in shapes)
