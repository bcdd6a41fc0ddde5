"""What is compiled for a structure serves every training of that structure."""

import gc
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import pytest
from support import arr, backend, host, precise, widest

import xbp
from xbp.layers import Affine, Layer, Relu, Rescale, Residual, Sigmoid, SoftmaxWithLoss
from xbp.namespace import Array
from xbp.training.learner import Learner

random = np.random.default_rng(1)
X, T = random.normal(size=(50, 4)), random.integers(0, 3, 50)

compiles = pytest.mark.skipif(backend.name != "jax", reason="compiles nothing")
compiles_or_records = pytest.mark.skipif(
    backend.name != "jax" and not backend.writers, reason="runs each step as it is written"
)


def network(*layers: Layer, seed: int = 0) -> xbp.Network:
    own = xbp.Network.fully_connected([4, 6, 3], dtype=widest, seed=seed).layers
    return xbp.Network([*layers, *own.values()], SoftmaxWithLoss())


def fit(net: xbp.Network, optimizer: Any = None, count: int = 50, **settings: Any) -> xbp.History:
    trainer = xbp.Trainer(net, optimizer or xbp.Momentum(0.1), batch_size=10, seed=0)
    return trainer.fit(X[:count], T[:count], **({"steps": 12} | settings))


def structure_of(net: xbp.Network, optimizer: xbp.Optimizer | None = None) -> Any:
    return Learner(net, optimizer or xbp.SGD(0.1)).structure


class Own(Relu):
    traceable = True


def test_a_structure_is_all_that_a_trace_has_for_good() -> None:
    assert structure_of(network()) == structure_of(network(seed=5)) is not None
    others = [
        structure_of(network(Sigmoid())),
        structure_of(network(Residual(Sigmoid()))),
        structure_of(network(Rescale(2.0, widest))),
        structure_of(network(Rescale(3.0, widest))),
        structure_of(network(), xbp.Momentum(0.1)),
        structure_of(xbp.Network.fully_connected([4, 7, 3], dtype=widest, seed=0)),
    ]
    assert len({*others, structure_of(network())}) == 7
    # Numbers of an optimizer are part of what changes.
    assert structure_of(network(), xbp.SGD(0.5)) == structure_of(network())
    # Of somebody else's part nobody can say all that it computes.
    assert structure_of(network(Own())) is None

    class Mine(xbp.SGD):
        state_names = ("lr",)

    assert structure_of(network(), Mine()) is None
    rescale = Rescale(2.0, widest)
    rescale.divisor = np.float64(2.0)
    assert structure_of(network(rescale)) not in (structure_of(network(Rescale(2.0, widest))), None)
    rescale.divisor = arr(2.0, widest)
    assert structure_of(network(rescale)) is None or not hasattr(rescale.divisor, "__dlpack__")
    rescale.divisor = np.asarray([2.0]).tolist()
    assert structure_of(network(rescale)) is None
    net = network(Sigmoid())
    net.layers["Sigmoid1"].forward = lambda x: x  # type: ignore[method-assign, misc]
    assert structure_of(net) is None


def test_another_method_is_another_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structure_of(network())

    def backward(self: Any, dout: Array) -> Array:
        return dout

    monkeypatch.setattr(Relu, "backward", backward)
    assert structure_of(network()) != before


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often a step is run as it is written."""
    counted: list[int] = []
    learn: Callable[..., Any] = Learner.learn

    def counting(learner: Learner, x: Array, t: Array) -> Array:
        counted.append(1)
        return learn(learner, x, t)

    monkeypatch.setattr(Learner, "learn", counting)
    return counted


@compiles_or_records
def test_a_later_training_traces_nothing(traces: list[int]) -> None:
    fit(network(Sigmoid()))
    assert traces
    traces.clear()
    fit(network(Sigmoid(), seed=3))
    net = network(Sigmoid())
    fit(net, steps=4)
    fit(net, steps=14)
    assert not traces
    fit(network(Relu()))
    assert traces


@compiles
def test_other_settings_of_an_optimizer_compile_nothing(traces: list[int]) -> None:
    fit(network(Sigmoid()))
    traces.clear()
    fit(network(Sigmoid()), xbp.Momentum(0.3, momentum=0.5), steps=7)
    assert not traces


@compiles_or_records
def test_a_later_training_learns_as_the_first() -> None:
    """Also with other settings, with other data, and while another of its kind goes on."""

    def learned(net: xbp.Network, rate: float = 0.1, **settings: Any) -> list[Array]:
        fit(net, xbp.Adam(rate), **settings)
        return [host(W) for W in net.params.values()]

    def forget() -> None:
        vars(backend).pop("_programs", None)

    cases: list[tuple[float, dict[str, Any]]] = [
        (0.1, {"count": 47}),
        (0.1, {"count": 47, "clip_norm": 0.5}),
        (0.1, {"count": 45}),
        (0.2, {"count": 47}),
        (0.1, {"count": 47, "steps": 3}),
    ]
    first = []
    for rate, settings in cases:
        forget()
        first.append(learned(network(Sigmoid()), rate, **settings))
    forget()
    for _ in range(2):
        for before, (rate, settings) in zip(first, cases, strict=True):
            later = learned(network(Sigmoid()), rate, **settings)
            for one, other in zip(before, later, strict=True):
                np.testing.assert_array_equal(one, other)

    class Another:
        """Trains a second network of the structure in the middle of the first one's training."""

        def step(self, step: int, loss: Array) -> None:
            if step in (4, 7):
                learned(network(Sigmoid(), seed=step), count=47)

        def evaluated(self, *args: Any) -> None:
            pass

    for one, other in zip(
        first[0], learned(network(Sigmoid()), count=47, progress=Another()), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@compiles
def test_a_few_samples_more_compile_nothing(traces: list[int]) -> None:
    x, t = np.tile(X, (21, 1)), np.tile(T, 21)
    for count in (1000, 1020, 970):
        trainer = xbp.Trainer(network(), xbp.Momentum(0.1), batch_size=10, seed=0)
        trainer.fit(x[:count], t[:count], steps=12)
        if count == 1000:
            traces.clear()
    assert not traces


@compiles
def test_what_is_compiled_is_bounded() -> None:
    loops = import_module("xbp_backends.jax")._loops
    for divisor in range(2, 20):
        fit(network(Rescale(float(divisor), widest)), steps=1)
    assert 0 < len(loops) <= 16


@pytest.mark.skipif(not backend.writers, reason="nothing is recorded")
def test_what_is_recorded_is_bounded(traces: list[int]) -> None:
    def is_traced(divisor: int) -> bool:
        traces.clear()
        fit(network(Rescale(float(divisor), widest)), steps=1)
        return bool(traces)

    assert all(map(is_traced, range(2, 30)))
    assert [is_traced(divisor) for divisor in (29, 14, 13)] == [False, False, True]


@compiles_or_records
@pytest.mark.skipif(backend.name == "dpnp", reason="its arrays have no weak references")
def test_what_is_kept_for_later_trainings_keeps_no_array() -> None:
    net = network(Sigmoid())
    fit(net, steps=1)
    refs = [weakref.ref(value) for value in net.params.values()]
    del net
    gc.collect()
    assert not any(ref() is not None for ref in refs)


def test_trainings_of_one_structure_are_apart() -> None:
    nets = [network(seed=seed) for seed in (1, 2)]
    alone = [network(seed=seed) for seed in (1, 2)]
    for net in nets:
        fit(net, steps=5)
    fit(nets[0], steps=9)
    plain = xbp.Trainer(alone[0], xbp.Momentum(0.1), batch_size=10, seed=0, check_finite=True)
    plain.fit(X, T, steps=5)
    xbp.Trainer(alone[0], xbp.Momentum(0.1), batch_size=10, seed=0, check_finite=True).fit(
        X, T, steps=9
    )
    for key, value in nets[0].params.items():
        np.testing.assert_allclose(
            host(value), host(alone[0].params[key]), rtol=precise(1e-9, 1e-4), atol=1e-6
        )
    assert np.any(host(nets[1].params["W1"]) != host(nets[0].params["W1"]))


def test_a_network_without_arrays_is_bound_as_others_are() -> None:
    net = network(Sigmoid())
    net.gradient(arr(X, widest), arr(T))
    bare = net.without_arrays()
    for layer in bare.all_layers.values():
        assert not any(hasattr(value, "__dlpack__") for value in vars(layer).values())
    bound = bare.bound_to(net.params)
    np.testing.assert_array_equal(
        host(bound.predict(arr(X, widest))), host(net.predict(arr(X, widest)))
    )
    assert isinstance(net.layers["Affine1"], Affine)


@pytest.mark.skipif(backend.name != "numpy", reason="is about a backend of a stranger's")
def test_a_compiler_of_a_strangers_is_used_by_trainings() -> None:
    calls: list[Any] = []

    class Compiling(type(backend)):  # type: ignore[misc]
        name = "compiling"
        writers: ClassVar[dict[str, Any]] = {}

        def compile(self, function: Any, *, donate: Any = ()) -> Any:
            def call(*args: Any) -> Any:
                calls.append(donate)
                return function(*args)

            return call

    nets = []
    for own in (backend, Compiling()):
        layers = xbp.Network.fully_connected([4, 6, 3], backend=own, seed=0)
        nets.append(layers)
        fit(layers, xbp.Adam(0.1), steps=12, x_test=X, t_test=T)
    assert len(calls) == 12
    assert list(map(tuple, calls)) == [(0,)] * 12
    for key, value in nets[0].params.items():
        np.testing.assert_allclose(value, nets[1].params[key], rtol=1e-10)
