"""Layers within layers: trained, checked, counted, drawn, saved, resumed and proven like others."""

from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from support import SLOW, arr, backend, dtype_of, except_slow, host, precise, widest

import xbp
from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.graphs import Graph
from xbp.layers import (
    Affine,
    IdentityWithLoss,
    Layer,
    Relu,
    Rescale,
    Residual,
    Sequential,
    Sigmoid,
    SoftmaxWithLoss,
)
from xbp.layers.checks import Call
from xbp.layers.layer import _Roles
from xbp.namespace import Array, namespace_of
from xbp.saving import load_parameters, save_parameters
from xbp.testing import assert_gradients
from xbp.training import Checkpoints

random = np.random.default_rng(7)
X, T = random.normal(size=(30, 4)), random.integers(0, 3, 30)


def affine(inputs: int, outputs: int, seed: int) -> Affine:
    chance = np.random.default_rng(seed)
    W = chance.normal(size=(inputs, outputs)) / np.sqrt(inputs)
    return Affine(arr(W, widest), arr(chance.normal(size=outputs) / 9, widest))


def parts() -> list[Layer]:
    return [affine(4, 5, 0), Relu(), affine(5, 5, 1), Sigmoid(), affine(5, 3, 2)]


def flat() -> xbp.Network:
    return xbp.Network(parts(), SoftmaxWithLoss())


def nested() -> xbp.Network:
    first, relu, second, sigmoid, last = parts()
    blocks = [Sequential(first, Sequential(relu, second)), sigmoid, Sequential(last)]
    return xbp.Network(blocks, SoftmaxWithLoss())


class Gate(Layer):
    """A block of a stranger's: its layers are attributes, in a list and in a dictionary."""

    traceable = True
    samplewise = True
    param_names = ("scale",)

    def __init__(self) -> None:
        self.scale = arr([1.0, 0.5, -1.0, 2.0, 1.0], widest)
        self.inner = affine(5, 5, 3)
        self.behind: list[Any] = [Sigmoid(), {"last": affine(5, 5, 4)}]

    def forward(self, x: Array) -> Array:
        self.x = x
        y = self.behind[0].forward(self.inner.forward(x))
        self.y = self.behind[1]["last"].forward(y)
        return self.scale * self.y

    def backward(self, dout: Array) -> Array:
        self.dscale = namespace_of(dout).sum(dout * self.y, axis=0)
        dy = self.behind[1]["last"].backward(dout * self.scale)
        return self.inner.backward(self.behind[0].backward(dy))


def deep() -> xbp.Network:
    layers = [affine(4, 5, 0), Residual(Gate(), Relu(), Residual(affine(5, 5, 5))), affine(5, 3, 2)]
    return xbp.Network(layers, SoftmaxWithLoss())


def part(network: xbp.Network, *names: str) -> Any:
    """Return a layer by the names on the way to it."""
    found: Any = network
    for name in names:
        found = found.layers[name]
    return found


def fit(network: xbp.Network, **settings: Any) -> xbp.Trainer:
    trainer = xbp.Trainer(network, xbp.Momentum(0.1), batch_size=8, seed=0)
    trainer.fit(X, T, **({"epochs": 3} | settings))
    return trainer


def test_blocks_train_as_their_layers_do() -> None:
    one, other = flat(), nested()
    assert list(one.params) == list(other.params) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    for network in (one, other):
        fit(network)
    for key, value in one.params.items():
        np.testing.assert_array_equal(host(value), host(other.params[key]))


def test_a_tree_has_names_keys_and_a_count() -> None:
    network = deep()
    assert list(network.all_layers) == [
        "Affine1",
        "Residual1",
        "Residual1.Gate1",
        "Residual1.Gate1.inner",
        "Residual1.Gate1.Sigmoid1",
        "Residual1.Gate1.last",
        "Residual1.Relu1",
        "Residual1.Residual1",
        "Residual1.Residual1.Affine1",
        "Affine2",
        "SoftmaxWithLoss",
    ]
    assert network.param_keys["Residual1.Gate1"] == {"scale": "scale1"}
    assert network.param_keys["Residual1.Gate1.last"] == {"W": "W3", "b": "b3"}
    assert list(network.params) == [
        *("W1", "b1", "scale1", "W2", "b2", "W3", "b3", "W4", "b4", "W5", "b5"),
    ]
    lines = [line.split() for line in repr(network).splitlines()]
    assert ["Residual1.Gate1.inner", "W2", "(5,", "5)", "b2", "(5,)", "30"] in lines
    assert lines[-1] == ["SoftmaxWithLoss", "parameters:", "138"]
    block = part(network, "Residual1")
    assert list(block.params) == ["scale1", "W1", "b1", "W2", "b2", "W3", "b3"]
    assert block.params["W1"] is network.params["W2"]
    network.params["W2"] = arr(np.ones((5, 5)), widest)
    assert float(block.layers["Gate1"].inner.W[0, 0]) == 1


def test_the_gradient_of_a_tree_is_checked_and_proven() -> None:
    network = deep()
    x, t = arr(X[:4], widest), arr(T[:4])
    report = xbp.gradient_check(network, x, t, elements=2 if SLOW else None)
    assert report.passed, report
    assert set(report.parameters) == set(network.params)

    class Wrong(Affine):
        samplewise = True

        def backward(self, dout: Array) -> Array:
            dx = super().backward(dout)
            self.dW = 2 * self.dW
            return dx

    inner = part(network, "Residual1", "Gate1").inner
    part(network, "Residual1", "Gate1").inner = Wrong(inner.W, inner.b)
    report = xbp.gradient_check(network, x, t, elements=2 if SLOW else None)
    assert not report.passed
    assert report.parameters["W2"].wrong


def test_many_elements_of_a_block_are_moved_at_once() -> None:
    network = deep()
    x, t = arr(X[:4], widest), arr(T[:4])
    assert network.moves_together(x, t)
    for key in ("W2", "b3", "scale1", "W4", "W1", "b5"):
        shape = network.params[key].shape
        elements = range(int(np.prod(shape)))
        found = [
            float(loss)
            for losses in network.perturbed_losses(x, t, key, elements, 0.1)
            for loss in host(losses)
        ]
        for i, loss in zip(elements, found, strict=True):
            moved = host(network.params[key])
            moved.reshape(-1)[i] += 0.1
            other = network.bound_to({**network.params, key: arr(moved, widest)})
            np.testing.assert_allclose(loss, float(other.loss(x, t)), rtol=precise(1e-10, 1e-4))


def test_proofs_of_blocks() -> None:
    def make(W1: Array, b1: Array, W2: Array, b2: Array) -> Layer:
        return Residual(Affine(W1, b1), Sigmoid(), Sequential(Affine(W2, b2)))

    assert_gradients(
        make,
        inputs={"x": ("N", "D")},
        params={"W1": ("D", "H"), "b1": ("H",), "W2": ("H", "D"), "b2": ("D",)},
        backend=backend,
        largest=3.0,
    )


def test_a_copy_of_a_tree_is_apart() -> None:
    network = deep()
    x = arr(X, widest)
    before = host(network.predict(x))
    bound = network.bound_to({key: value * 0 for key, value in network.params.items()})
    assert not np.any(host(bound.predict(x)) - host(bound.predict(x))[0])
    np.testing.assert_array_equal(host(network.predict(x)), before)
    inner = part(bound, "Residual1", "Gate1")
    assert inner.behind[1]["last"] is not part(network, "Residual1", "Gate1").behind[1]["last"]
    assert float(inner.behind[1]["last"].W[0, 0]) == 0
    block = network.layers["Residual1"].bound_to({"W1": arr(np.zeros((5, 5)), widest)})
    assert float(block.params["W1"][0, 0]) == 0 != float(network.params["W2"][0, 0])


def test_a_tree_is_saved_and_resumed(tmp_path: Path) -> None:
    network, other = deep(), deep()
    fit(network)
    save_parameters(network, tmp_path / "model")
    load_parameters(other, tmp_path / "model")
    for key, value in network.params.items():
        np.testing.assert_array_equal(host(value), host(other.params[key]))
    with pytest.raises(xbp.errors.CheckpointError, match=r"Residual\(Gate\(Affine, Sigmoid, Aff"):
        load_parameters(
            xbp.Network([Sequential(*deep().layers.values())], SoftmaxWithLoss()),
            tmp_path / "model",
        )
    whole, first, second = deep(), deep(), deep()
    fit(whole, epochs=6)
    fit(first, checkpoints=Checkpoints(tmp_path / "c"))
    fit(second, epochs=6, checkpoints=Checkpoints(tmp_path / "c", resume=True))
    for key, value in whole.params.items():
        np.testing.assert_array_equal(host(value), host(second.params[key]))


def test_a_tree_is_drawn() -> None:
    network = xbp.Network(
        [
            affine(4, 5, 0),
            Residual(Sequential(affine(5, 5, 1), Relu())),
            Sequential(affine(5, 3, 2)),
        ],
        SoftmaxWithLoss(),
    )
    x, t = arr(X[:4], widest), arr(T[:4])
    graph = Graph.of_network(network, x, t)
    assert [operation.label for operation in graph.operations] == [
        "Affine1",
        "Residual1.Sequential1.Affine1",
        "Residual1.Sequential1.Relu1",
        "Residual1 +",
        "Sequential1.Affine1",
        "SoftmaxWithLoss",
    ]
    gradients = network.gradient(x, t)
    drawn = {node.label: node.gradient for node in graph.variables if node.label in gradients}
    assert drawn.keys() == gradients.keys()
    for key, value in gradients.items():
        np.testing.assert_allclose(host(drawn[key]), host(value), rtol=1e-6, atol=1e-7)


def test_what_a_block_of_a_strangers_holds_is_drawn_as_one() -> None:
    network = deep()
    graph = Graph.of_network(network, arr(X[:4], widest), arr(T[:4]))
    gate = next(node for node in graph.operations if node.label == "Residual1.Gate1")
    assert [variable.label for variable in gate.params.values()] == [
        *("scale1", "W2", "b2", "W3", "b3"),
    ]


def test_a_branch_has_the_shape_of_what_it_is_added_to() -> None:
    block = Residual(affine(4, 1, 0))
    with pytest.raises(ShapeError, match=r"Residual: x has shape \(30, 4\), and what .* \(30, 1\)"):
        block.forward(arr(X, widest))


def test_a_layer_stands_at_one_place() -> None:
    layer = affine(4, 4, 0)
    with pytest.raises(SettingError, match="stands twice"):
        Sequential(layer, layer)
    with pytest.raises(SettingError, match="stands twice"):
        xbp.Network([layer, Residual(layer)], IdentityWithLoss())
    block = Sequential(layer)
    network = xbp.Network([block], IdentityWithLoss())
    block.layers["itself"] = block
    with pytest.raises(SettingError, match="stands twice"):
        network.predict(arr(X, widest))
    with pytest.raises(SettingError, match=r"layer 1 is .* not the class Relu: make one of it"):
        Sequential(Relu)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"layer 2 is .* a loss"):
        Sequential(Relu(), SoftmaxWithLoss())


def test_a_block_takes_what_its_first_layer_takes() -> None:
    network = xbp.Network([Sequential(Rescale(255, widest), affine(4, 3, 0))], SoftmaxWithLoss())
    raw = arr(np.arange(8).reshape(2, 4), "uint8" if "uint8" in backend.dtypes else None)
    assert dtype_of(network.as_samples(raw)) == dtype_of(raw)
    assert network.predict(raw).shape == (2, 3)
    with pytest.raises(DTypeError, match="Residual"):
        Residual(affine(4, 4, 0)).forward(raw)


def test_layers_that_come_later_are_part_of_the_tree() -> None:
    network = nested()
    part(network, "Sequential1").layers["Relu9"] = Relu()
    part(network, "Sequential1").layers["Affine9"] = affine(5, 5, 9)
    assert list(network.params)[4:6] == ["W3", "b3"]
    assert network.params["W3"] is part(network, "Sequential1", "Affine9").W
    x, t = arr(X, widest), arr(T)
    assert list(network.gradient(x, t)) == list(network.params)
    assert part(network, "Sequential1", "Relu9").name == "Sequential1.Relu9"


def test_a_loss_may_be_trained_too() -> None:
    class Tempered(IdentityWithLoss):
        traceable = True
        param_names = ("scale",)

        def __init__(self) -> None:
            self.scale = arr([2.0], widest)

        def forward(self, x: Array, t: Array) -> Array:
            self.x = x
            return super().forward(self.scale * x, t)

        def backward(self, dout: Any = 1) -> Array:
            dy = super().backward(dout)
            self.dscale = namespace_of(dy).reshape(namespace_of(dy).sum(dy * self.x), (1,))
            return self.scale * dy

    network = xbp.Network([affine(4, 3, 0)], Tempered())
    assert network.param_keys["Tempered"] == {"scale": "scale1"}
    t = random.normal(size=(30, 3))
    assert xbp.gradient_check(network, arr(X[:4], widest), arr(t[:4], widest)).passed
    xbp.Trainer(network, xbp.SGD(0.05), batch_size=10, seed=0).fit(X, t, epochs=1)
    assert float(network.params["scale1"][0]) != 2


class Parts(NamedTuple):
    first: Layer
    second: Layer


class Chain(Layer):
    """Runs layers that stand in a container of whatever kind."""

    traceable = True

    def __init__(self, parts: Any) -> None:
        self.parts = parts

    def within(self) -> list[Layer]:
        return list(self.parts.values() if isinstance(self.parts, dict) else self.parts)

    def forward(self, x: Array) -> Array:
        for layer in self.within():
            x = layer.forward(x)
        return x

    def backward(self, dout: Array) -> Array:
        for layer in reversed(self.within()):
            dout = layer.backward(dout)
        return dout


@pytest.mark.parametrize(
    "kind",
    [
        lambda a, b: OrderedDict(a=a, b=b),
        lambda a, b: defaultdict(None, {"a": a, "b": b}),
        lambda a, b: deque([a, b], maxlen=2),
        Parts,
        lambda a, b: ((a,), b)[0] + (b,),
    ],
    ids=["ordered", "default", "deque", "named", "tuple"],
)
def test_layers_are_found_in_containers_of_every_kind(kind: Any) -> None:
    nets = []
    for make in (kind, lambda a, b: [a, b]):
        layers = [Chain(make(affine(4, 5, 0), Sigmoid())), affine(5, 3, 1)]
        nets.append(xbp.Network(layers, SoftmaxWithLoss()))
        assert list(nets[-1].params) == ["W1", "b1", "W2", "b2"]
        fit(nets[-1])
    for key, value in nets[0].params.items():
        np.testing.assert_array_equal(host(value), host(nets[1].params[key]))
    assert xbp.gradient_check(nets[0], arr(X[:3], widest), arr(T[:3])).passed


def test_layers_in_a_list_are_counted_by_kind() -> None:
    chain: Any = Chain([affine(4, 4, n) for n in range(3)])
    chain.Affine2 = affine(4, 4, 3)
    net = xbp.Network([chain, affine(4, 3, 4)], SoftmaxWithLoss())
    names = ["Affine1", "Affine3", "Affine4", "Affine2"]
    found = [path for path in net.all_layers if path.startswith("Chain1.")]
    assert found == [f"Chain1.{name}" for name in names]
    assert net.params["W2"] is chain.parts[1].W
    assert net.params["W4"] is chain.Affine2.W


class Named(Affine):
    """Keeps one of its methods under another name."""

    traceable = True

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__(W, b)
        self.product = self.multiplied

    def multiplied(self, x: Array) -> Array:
        self.x = x
        return x @ self.W + self.b

    def forward(self, x: Array) -> Array:
        return self.product(x)

    def backward(self, dout: Array) -> Array:
        return super().backward(dout)


def test_a_method_under_another_name_is_that_of_the_copy() -> None:
    first, second = affine(4, 5, 0), affine(5, 3, 1)
    layers = [Named(first.W, first.b), Sigmoid(), second]
    network = xbp.Network(layers, SoftmaxWithLoss())
    assert xbp.gradient_check(network, arr(X[:3], widest), arr(T[:3])).passed
    other = xbp.Network([affine(4, 5, 0), Sigmoid(), affine(5, 3, 1)], SoftmaxWithLoss())
    for net in (network, other):
        fit(net)
    for key, value in network.params.items():
        tolerance = precise(1e-10, 1e-4)
        np.testing.assert_allclose(
            host(value), host(other.params[key]), rtol=tolerance, atol=tolerance
        )


class Sometimes(Layer):
    """Runs its branch in every second call alone."""

    def __init__(self) -> None:
        self.inner = affine(4, 4, 0)
        self.calls = 0

    def forward(self, x: Array) -> Array:
        self.calls += 1
        return self.inner.forward(x) if self.calls % 2 else x * 1

    def backward(self, dout: Array) -> Array:
        return self.inner.backward(dout) if self.calls % 2 else dout * 1


def test_a_layer_that_was_not_run_has_no_gradient_of_the_step_before() -> None:
    network = xbp.Network([Sometimes(), affine(4, 3, 1)], SoftmaxWithLoss())
    x, t = arr(X, widest), arr(T)
    network.gradient(x, t)
    with pytest.raises(
        SettingError, match=r"Sometimes1\.inner: backward left no gradient in self\.dW"
    ):
        network.gradient(x, t)


@dataclass(eq=True)
class Gain(Layer):
    """Is equal to another whose gain is so."""

    gain: Array

    param_names = ("gain",)
    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * self.gain

    def backward(self, dout: Array) -> Array:
        self.dgain = namespace_of(dout).reshape(namespace_of(dout).sum(dout * self.x), (1,))
        return dout * self.gain


@except_slow
def test_equal_layers_are_checked_and_drawn_each_by_itself() -> None:
    gains = [Gain(arr([2.0], widest)) for _ in range(2)]
    network = xbp.Network(
        [gains[0], affine(4, 4, 0), Sigmoid(), gains[1], affine(4, 3, 1)], SoftmaxWithLoss()
    )
    x, t = arr(X[:4], widest), arr(T[:4])
    gradient, numerical = network.gradient(x, t), network.numerical_gradient(x, t)
    assert float(gradient["gain1"][0]) != float(gradient["gain2"][0])
    for key, value in gradient.items():
        np.testing.assert_allclose(
            host(numerical[key]), host(value), rtol=precise(1e-5, 0.1), atol=precise(1e-7, 0.05)
        )
    labels = [node.label for node in Graph.of_network(network, x, t).variables]
    assert {"gain1", "gain2"} <= set(labels)


@dataclass(eq=True)
class Valued(Layer):
    """Is equal to another of the same factor."""

    factor: float

    traceable = True

    def forward(self, x: Array) -> Array:
        return x * self.factor

    def backward(self, dout: Array) -> Array:
        return dout * self.factor


def test_layers_are_told_apart_by_identity() -> None:
    network = xbp.Network([Valued(2.0), affine(4, 3, 1)], SoftmaxWithLoss())
    other = Valued(2.0)
    network.layers["Valued1"] = other
    assert network.all_layers["Valued1"] is other
    network.loss(arr(X, widest), arr(T))
    assert other.output_shape == (30, 4)
    twice = xbp.Network([Valued(2.0), Valued(2.0), affine(4, 3, 1)], SoftmaxWithLoss())
    assert len(twice.all_layers) == 4
    fit(twice)


def test_names_with_dots_and_numbers_lead_to_their_layers() -> None:
    network = flat()
    network.layers = {"enc.0": affine(4, 5, 0), "enc.1": Relu(), "dec": affine(5, 3, 1)}
    gradient = network.gradient(arr(X, widest), arr(T))
    assert list(gradient) == ["W1", "b1", "W2", "b2"]
    network.layers = {"Residual1": Residual(affine(4, 4, 0)), "Residual1.Affine1": affine(4, 3, 1)}
    with pytest.raises(SettingError, match=r"two layers are called Residual1\.Affine1"):
        network.predict(arr(X, widest))
    network.layers = {1: affine(4, 3, 0)}  # type: ignore[dict-item]
    with pytest.raises(SettingError, match="layers are named by text, not by 1"):
        network.predict(arr(X, widest))
    block = Sequential()
    block.layers = {0: affine(4, 5, 0), "a.b": Relu(), "Affine1": affine(5, 3, 1)}  # type: ignore[dict-item]
    net = xbp.Network([block], SoftmaxWithLoss())
    assert list(net.all_layers) == [
        "Sequential1",
        "Sequential1.Affine2",
        "Sequential1.Relu1",
        "Sequential1.Affine1",
        "SoftmaxWithLoss",
    ]
    assert xbp.gradient_check(net, arr(X[:3], widest), arr(T[:3])).passed


def test_what_is_no_layer_is_refused_in_a_block_too() -> None:
    block = Sequential(affine(4, 3, 0))
    network = xbp.Network([block], SoftmaxWithLoss())
    block.layers["Relu1"] = Relu  # type: ignore[assignment]
    with pytest.raises(SettingError, match=r"layer 2 is one of .* the class Relu: make one of it"):
        network.predict(arr(X, widest))


def test_a_layer_returns_an_array() -> None:
    class Listing(Layer):
        def forward(self, x: Array) -> Any:
            return [1, 2]

    with pytest.raises(DTypeError, match=r"^Listing\.forward returned \[1, 2\]: a layer returns"):
        Listing().forward(arr(X, widest))


def test_a_network_without_parameters_is_tried_out_as_others_are() -> None:
    class Double(Layer):
        traceable = True

        def forward(self, x: Array) -> Array:
            return 2 * x

        def backward(self, dout: Array) -> Array:
            return 2 * dout

    network = xbp.Network([Double()], IdentityWithLoss(), backend=backend)
    history = xbp.Trainer(network, xbp.SGD(0.1), batch_size=10, seed=0).fit(
        X.astype(network.dtype), X.astype(network.dtype), epochs=1
    )
    assert len(history.loss) == 3


def test_a_layer_of_the_class_is_refused() -> None:
    with pytest.raises(SettingError, match=r"Shared: the class holds a layer, inner, which all"):
        type("Shared", (Layer,), {"inner": Relu()})


class Closed(Affine):
    """Reaches itself through functions that it holds."""

    traceable = True

    def __init__(self, W: Array, b: Array, kind: str) -> None:
        super().__init__(W, b)
        if kind == "closure":
            self.product: Any = lambda x: x @ self.W
        else:
            self.product = partial(self.multiplied, 1)

    def multiplied(self, factor: int, x: Array) -> Array:
        return factor * (x @ self.W)

    def forward(self, x: Array) -> Array:
        self.x = x
        return self.product(x) + self.b

    def backward(self, dout: Array) -> Array:
        return super().backward(dout)


@pytest.mark.parametrize("kind", ["closure", "partial"])
def test_functions_that_know_a_layer_know_its_copy(kind: str) -> None:
    first = affine(4, 5, 0)
    network = xbp.Network([Closed(first.W, first.b, kind), affine(5, 3, 1)], SoftmaxWithLoss())
    x, t = arr(X[:3], widest), arr(T[:3])
    assert xbp.gradient_check(network, x, t).passed
    moved = network.bound_to({**network.params, "W1": network.params["W1"] * 2})
    assert float(moved.loss(x, t)) != float(network.loss(x, t))


class Helper:
    """No layer, but one of its methods is held by one."""

    def halved(self, x: Array) -> Array:
        return x * 0.5


def with_functions() -> Any:
    """Return a layer that holds functions of many kinds."""
    layer: Any = affine(4, 3, 0)
    factor = 3.0

    def named(x: Array, power: int = 2, *, scale: float = 0.25) -> Array:
        return scale * (x @ layer.W) ** power

    def multiplied(x: Array, by: float) -> Array:
        return by * (x @ layer.W)

    named.__name__ = "renamed"
    named.note = "a remark"  # type: ignore[attr-defined]
    layer.closed = lambda x: factor * (x @ layer.W)
    layer.named = named
    layer.partial = partial(multiplied, by=5.0)
    layer.halved = Helper().halved
    return layer


def test_a_copied_function_is_the_same_but_for_the_layer() -> None:
    layer, x = with_functions(), arr(X[:3], widest)
    copy = layer.bound_to({"W": layer.W * 2})
    for name, factor in (("closed", 2), ("named", 4), ("partial", 2), ("halved", 1)):
        found, expected = host(getattr(copy, name)(x)), host(getattr(layer, name)(x))
        np.testing.assert_allclose(found, factor * expected, rtol=1e-5, err_msg=name)
    assert copy.named.__name__ == "renamed"
    assert copy.named.note == "a remark"
    assert copy.halved.__self__ is layer.halved.__self__


def test_a_function_may_know_what_is_not_there_yet() -> None:
    layer: Any = affine(4, 3, 0)

    def first(x: Array) -> Array:
        return second(x)

    layer.function = first
    copy = layer.bound_to({})

    def second(x: Array) -> Array:
        return x * 2

    np.testing.assert_array_equal(host(copy.function(arr([1.0, 2.0]))), [2, 4])


@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_functions_that_know_a_container_know_its_copy(kind: Any) -> None:
    inner, layer = affine(4, 3, 1), cast(Any, affine(4, 3, 0))
    branches = layer.branches = kind([inner])
    x = arr(X[:3], widest)

    def run(x: Array) -> Array:
        return branches[0].forward(x)

    layer.run = run
    copy = layer.bound_to({"W2": inner.W * 0, "b2": inner.b * 0})
    assert not np.any(host(copy.run(x)))
    assert np.any(host(layer.run(x)))


def test_what_a_layer_holds_twice_its_copy_holds_twice() -> None:
    layer: Any = affine(4, 3, 0)
    layer.seen = layer.log = [1]
    layer.pair = layer.again = (1, [2])
    layer.table = layer.index = {"a": 1}
    copy = layer.bound_to({})
    assert copy.seen is copy.log
    assert copy.pair is copy.again
    assert copy.table is copy.index
    copy.seen.append(2)
    copy.pair[1].append(3)
    copy.table["b"] = 2
    assert (layer.seen, layer.pair, layer.table) == ([1], (1, [2]), {"a": 1})


def test_a_container_may_hold_itself() -> None:
    layer: Any = affine(4, 3, 0)
    parts: list[Any] = [affine(4, 3, 1)]
    table: dict[str, Any] = {"parts": parts, "last": affine(4, 3, 2)}
    parts += [parts, table]
    table["itself"] = table
    layer.parts = parts
    assert list(layer.params) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    copy = layer.bound_to({})
    assert copy.parts[1] is copy.parts is not parts
    assert copy.parts[2]["itself"]["parts"] is copy.parts
    assert copy.parts[0] is not parts[0]


def test_a_layer_that_is_made_in_forward_is_refused_by_a_training() -> None:
    class Lazy(Layer):
        def forward(self, x: Array) -> Array:
            self.inner = getattr(self, "inner", None) or affine(4, 4, 0)
            return self.inner.forward(x)

        def backward(self, dout: Array) -> Array:
            return self.inner.backward(dout)

    network = xbp.Network([Lazy(), affine(4, 3, 1)], SoftmaxWithLoss())
    with pytest.raises(SettingError, match="made in forward is not trained"):
        fit(network)
    assert list(network.gradient(arr(X, widest), arr(T))) == ["W1", "b1", "W2", "b2"]


class Insert:
    """Puts a layer in after the first epoch, and may fail after the second."""

    def __init__(self, network: xbp.Network, layer: Layer, error: Exception | None) -> None:
        self.network, self.layer, self.error = network, layer, error
        self.calls = 0

    def step(self, step: int, loss: Any) -> None:
        pass

    def evaluated(self, step: int, history: xbp.History) -> None:
        self.calls += 1
        if self.calls == 1:
            layers = dict(self.network.layers)
            self.network.layers.clear()
            self.network.layers.update({"new": self.layer, **layers})
        elif self.error:
            raise self.error


def fit_with(network: xbp.Network, progress: Insert) -> None:
    trainer = xbp.Trainer(network, xbp.SGD(0.1), batch_size=5, seed=0)
    trainer.fit(X, T, epochs=2, progress=progress)


def test_what_goes_back_goes_to_the_layers_that_it_is_of() -> None:
    network, other = flat(), flat()
    fit(other, epochs=1)
    before = {key: host(value) for key, value in network.params.items()}
    with pytest.raises(ValueError, match="mine"):
        fit_with(network, Insert(network, affine(4, 4, 9), ValueError("mine")))
    # The last that was good are those after the second epoch.
    assert list(network.layers) == ["new", "Affine1", "Relu1", "Affine2", "Sigmoid1", "Affine3"]

    class Now(Insert):
        def evaluated(self, step: int, history: xbp.History) -> None:
            super().evaluated(step, history)
            raise ValueError("mine")

    network = flat()
    with pytest.raises(ValueError, match="mine"):
        fit_with(network, Now(network, affine(4, 4, 9), None))
    assert list(network.layers) == ["Affine1", "Relu1", "Affine2", "Sigmoid1", "Affine3"]
    for key, value in network.params.items():
        assert tuple(value.shape) == before[key].shape
        assert np.all(np.isfinite(host(value)))


def test_a_layer_that_is_put_in_brings_arrays_of_its_own() -> None:
    network, owner = flat(), affine(4, 4, 9)
    W = host(owner.W)
    shared = Affine(owner.W, owner.b)
    fit_with(network, Insert(network, shared, None))
    np.testing.assert_array_equal(host(owner.W), W)
    assert np.any(host(shared.W) != W)


class Shaped(Layer):
    """Has attributes of the names that layers have, and two outputs."""

    def __init__(self) -> None:
        self.children = [1, 2]

    def forward(self, x: Array) -> Any:
        self.input_shape = x.shape
        self.output_shape = (1,)
        return x, 2 * x

    def backward(self, first: Array, second: Array) -> Array:  # type: ignore[override]
        return first + 2 * second


def test_a_layer_may_have_such_names_and_several_outputs() -> None:
    class Block(Layer):
        def __init__(self) -> None:
            self.inner = Shaped()

        def forward(self, x: Array) -> Array:
            one, other = self.inner.forward(x)
            return one + other

        def backward(self, dout: Array) -> Array:
            return self.inner.backward(dout, dout)

    network = xbp.Network([affine(4, 5, 0), Block(), affine(5, 3, 1)], SoftmaxWithLoss())
    assert xbp.gradient_check(network, arr(X[:3], widest), arr(T[:3])).passed


def test_what_a_layer_holds_is_known_by_its_kind() -> None:
    class Mine(list[Any]):
        pass

    roles = _Roles()
    kinds: tuple[type, ...] = (
        Affine,
        partial,
        type(len),
        type(roles.get),
        Mine,
        dict,
        tuple,
        deque,
        frozenset,
    )
    kinds += (type(lambda: 0), type(Affine.__repr__), type(Relu().forward), Call, int, str)
    assert [roles[kind] for kind in kinds] == [
        *("layer", "function", "", "", *["container"] * 5),
        *("function", "function", "function", "", "", ""),
    ]
    assert dict(roles) == {kind: roles[kind] for kind in kinds}


def test_a_layer_that_infers_may_call_its_own_forward() -> None:
    class Halved(Layer):
        factor = 3.0

        def forward(self, x: Array) -> Array:
            return self.factor * x

        def infer(self, x: Array) -> Array:
            return 0.5 * self.forward(x)

    np.testing.assert_array_equal(host(Halved().for_inference().forward(arr([2.0]))), [3.0])
