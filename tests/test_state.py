"""Two modes and a state: what layers carry from step to step, and what inferring leaves alone."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from secrets import randbits
from typing import Any

import numpy as np
import pytest
from support import (
    SLOW,
    arr,
    backend,
    dtype_of,
    except_slow,
    host,
    needs_float64,
    other,
    precise,
    widest,
)

import xbp
from xbp.errors import (
    CallOrderError,
    CheckpointError,
    DTypeError,
    MixedBackendError,
    ParameterNotFoundError,
    SettingError,
    ShapeError,
)
from xbp.layers import Affine, Layer, Residual, SoftmaxWithLoss
from xbp.namespace import Array, namespace_of
from xbp.randomness import random_key, uniform_like
from xbp.saving import load_parameters, save_parameters, to_safetensors
from xbp.testing import assert_gradients
from xbp.training import Checkpoints
from xbp.training.measurement import measure

random = np.random.default_rng(3)
X, T = random.normal(size=(20, 4)) + 2, random.integers(0, 3, 20)


class Centred(Layer):
    """Takes away a running mean of what it has seen."""

    state_names = ("mean",)
    traceable = True

    def __init__(self, width: int = 4, momentum: float = 0.9) -> None:
        self.mean: Any = (0.0,) * width
        self.momentum = momentum

    def forward(self, x: Array) -> Array:
        y = x - self.mean
        now = namespace_of(x).mean(x, axis=0)
        self.mean = self.momentum * self.mean + (1 - self.momentum) * now
        return y

    def infer(self, x: Array) -> Array:
        return x - self.mean

    def backward(self, dout: Array) -> Array:
        return dout


class InPlace(Centred):
    """The same, without another array."""

    state_names = ("mean",)
    traceable = True

    def forward(self, x: Array) -> Array:
        y = x - self.mean
        self.mean *= self.momentum
        self.mean += (1 - self.momentum) * namespace_of(x).mean(x, axis=0)
        return y


class Noise(Layer):
    """Multiplies by random numbers around 1 to learn, and by 1 to infer."""

    state_names = ("key",)
    traceable = True
    samplewise = True

    def __init__(self, seed: int = 5) -> None:
        self.key = random_key(seed)

    def forward(self, x: Array) -> Array:
        numbers, self.key = uniform_like(x, self.key)
        self.factor = 0.5 + numbers
        return x * self.factor

    def infer(self, x: Array) -> Array:
        return x

    def backward(self, dout: Array) -> Array:
        return dout * self.factor


def network_of(*layers: Layer) -> xbp.Network:
    chance = np.random.default_rng(0)
    last = Affine(arr(chance.normal(size=(4, 3)), widest), arr(np.zeros(3), widest))
    return xbp.Network([*layers, last], SoftmaxWithLoss())


def plain(kind: type[Layer]) -> Any:
    """Return the class, whose layers are not traced."""
    return type(kind.__name__, (kind,), {"state_names": kind.state_names, "traceable": False})


def fit(network: xbp.Network, epochs: int = 2 if SLOW else 4, **settings: Any) -> xbp.History:
    trainer = xbp.Trainer(network, xbp.Momentum(0.1), batch_size=8, seed=0)
    return trainer.fit(X, T, epochs=epochs, **settings)


def arrays_of(network: xbp.Network) -> dict[str, Any]:
    return {key: host(value) for key, value in {**network.params, **network.state}.items()}


def assert_same(one: xbp.Network, other: xbp.Network, tolerance: float = 0.0) -> None:
    found, expected = arrays_of(one), arrays_of(other)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [Centred, InPlace])
def test_a_running_mean_is_that_of_the_batches(kind: type[Centred]) -> None:
    layer = kind()
    mean = np.zeros(4)
    for rows in (X[:3], X[3:7], X[7:]):
        np.testing.assert_allclose(
            host(layer.forward(arr(rows, widest))), rows - mean, rtol=precise(1e-12, 1e-4)
        )
        mean = 0.9 * mean + 0.1 * rows.mean(axis=0)
    np.testing.assert_allclose(host(layer.state["mean"]), mean, rtol=precise(1e-12, 1e-5))
    assert dtype_of(layer.mean) == widest


@pytest.mark.parametrize("kind", [Centred, InPlace, Noise])
def test_a_state_is_the_same_in_steps_that_are_traced(kind: type[Layer]) -> None:
    traced, untraced = (network_of(k(), Residual(k())) for k in (kind, plain(kind)))
    before = arrays_of(traced)
    histories = [fit(network) for network in (traced, untraced)]
    assert_same(traced, untraced, precise(1e-12, 1e-5))
    np.testing.assert_allclose(histories[0].loss, histories[1].loss, rtol=precise(1e-12, 1e-4))
    for key, value in arrays_of(traced).items():
        assert np.any(value != before[key]), key
    # Keys are the same bits.
    for key in traced.state:
        if key.startswith("key"):
            np.testing.assert_array_equal(host(traced.state[key]), host(untraced.state[key]))


def test_a_state_is_trained_by_hand_too() -> None:
    network = network_of(Centred())
    assert list(network.state) == ["mean1"]
    np.testing.assert_array_equal(host(network.state["mean1"]), np.zeros(4))
    x, t = arr(X, widest), arr(T)
    network.gradient(x, t)
    np.testing.assert_allclose(host(network.state["mean1"]), 0.1 * X.mean(axis=0), rtol=1e-5)
    # A pure function leaves all as it was.
    before = arrays_of(network)
    network.loss_and_gradient(dict(network.params), x, t)
    xbp.gradient_check(network, x[:3, ...], t[:3])
    network.numerical_gradient(x[:3, ...], t[:3])
    for key, value in arrays_of(network).items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("kind", [Centred, InPlace, Noise])
def test_what_infers_leaves_nothing(kind: type[Layer]) -> None:
    network = network_of(kind(), Residual(kind()))
    x, t = arr(X, widest), arr(T)
    network.loss(x, t)
    layers = network.all_layers.values()
    before, arrays = [dict(vars(layer)) for layer in layers], arrays_of(network)
    scores = network.predict(x)
    network.accuracy(x, t)
    measure(network, x, t, with_loss=True)
    for layer, held in zip(layers, before, strict=True):
        assert vars(layer).keys() == held.keys()
        assert all(vars(layer)[name] is value for name, value in held.items())
    for key, value in arrays_of(network).items():
        np.testing.assert_array_equal(value, arrays[key])
    expected = X if kind is Noise else X - arrays["mean1"]
    expected = 2 * expected if kind is Noise else 2 * expected - arrays["mean2"]
    expected = expected @ arrays["W1"]
    np.testing.assert_allclose(host(scores), expected, rtol=precise(1e-10, 1e-3), atol=1e-5)


def test_what_does_not_say_how_to_infer_runs_forward_on_a_copy() -> None:
    class Counted(Layer):
        state_names = ("mean",)

        def __init__(self) -> None:
            self.mean = (0.0,) * 4
            self.seen: list[int] = []
            self.cache: dict[str, Any] = {}

        def forward(self, x: Array) -> Array:
            self.mean += namespace_of(x).mean(x, axis=0)
            self.seen.append(x.shape[0])
            self.cache["x"] = x
            return x - self.mean

        def backward(self, dout: Array) -> Array:
            return dout

    layer = Counted()
    network = network_of(layer)
    for _ in range(2):
        scores = network.predict(arr(X, widest))
    np.testing.assert_array_equal(host(layer.mean), np.zeros(4))
    assert layer.seen == []
    assert layer.cache == {}
    expected = (X - X.mean(axis=0)) @ host(network.params["W1"])
    np.testing.assert_allclose(host(scores), expected, rtol=precise(1e-8, 1e-3), atol=1e-4)


def test_inferring_may_call_forward() -> None:
    class Doubled(Layer):
        def forward(self, x: Array) -> Array:
            return 1 * x

        def infer(self, x: Array) -> Array:
            return 2 * self.forward(x)

        def backward(self, dout: Array) -> Array:
            return dout

    network = network_of(Doubled())
    for _ in range(2):
        scores = host(network.predict(arr(X, widest)))
        np.testing.assert_allclose(scores, 2 * X @ host(network.params["W1"]), rtol=1e-4)


def test_inferring_may_be_told_options() -> None:
    class Scaled(Layer):
        def forward(self, x: Array, *, factor: float = 1.0) -> Array:  # type: ignore[override]
            return factor * x

        def infer(self, x: Array, *, factor: float = 1.0) -> Array:  # type: ignore[override]
            return -self.forward(x, factor=factor)

    layer, x = Scaled(), arr([1.0, 2.0])
    np.testing.assert_array_equal(host(layer.forward(x, factor=3.0)), [3, 6])
    copy: Any = layer.for_inference()
    np.testing.assert_array_equal(host(copy.forward(x, factor=3.0)), [-3, -6])
    np.testing.assert_array_equal(host(copy.forward(x)), [-1, -2])


def test_many_threads_infer_on_one_network() -> None:
    network = network_of(Centred(), Noise(), Residual(InPlace()))
    network.loss(arr(X, widest), arr(T))
    batches = [arr(X[i : i + 5] * i, widest) for i in range(8)]
    expected = [host(network.predict(batch)) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(pool.map(network.predict, batches))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(host(one), other)


def test_test_data_are_measured_by_inferring() -> None:
    network = network_of(Noise())
    history = fit(network, x_test=X, t_test=T)
    x, t = arr(X, widest), arr(T)
    assert history.test_accuracy[-1] == network.accuracy(x, t)
    loss = float(network.for_inference().loss(x, t))
    assert abs(history.test_loss[-1] - loss) < 1e-5


@pytest.mark.parametrize("kind", [Centred, Noise])
def test_a_state_is_saved_and_resumed_bit_by_bit(kind: type[Layer], tmp_path: Path) -> None:
    whole, first, second = (network_of(kind()) for _ in range(3))
    half = 1 if SLOW else 3
    fit(whole, epochs=2 * half)
    fit(first, epochs=half, checkpoints=Checkpoints(tmp_path / "c"))
    fit(second, epochs=2 * half, checkpoints=Checkpoints(tmp_path / "c", resume=True))
    assert_same(second, whole)
    save_parameters(whole, tmp_path / "model")
    other = network_of(kind())
    load_parameters(other, tmp_path / "model")
    assert_same(other, whole)
    # Half a model is none.
    with pytest.raises(CheckpointError, match=r"state\.\w+1 \w+\(\d,\), but the network has W1"):
        load_parameters(network_of(), _moved(tmp_path, whole))


def _moved(tmp_path: Path, network: xbp.Network) -> Path:
    path = tmp_path / "other"
    path.write_bytes(to_safetensors(network))
    return path


def test_a_training_that_fails_leaves_the_state_as_it_was() -> None:
    network = network_of(Centred())
    fit(network)
    before = arrays_of(network)

    class Stop:
        def step(self, step: int, loss: Any) -> None:
            raise KeyboardInterrupt

        def evaluated(self, step: int, history: xbp.History) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        fit(network, progress=Stop())
    for key, value in arrays_of(network).items():
        np.testing.assert_array_equal(value, before[key])


def test_a_network_shares_no_state_with_what_it_is_trained_beside() -> None:
    layer = InPlace()
    network = network_of(layer)
    given = network.state["mean1"]
    fit(network)
    np.testing.assert_array_equal(host(given), np.zeros(4))
    copy = deepcopy(network) if backend.name != "dpnp" else network.bound_to(network.params)
    copy.loss(arr(X, widest), arr(T))
    assert np.any(host(copy.state["mean1"]) != host(network.state["mean1"]))


def test_random_numbers_are_the_same_on_every_library() -> None:
    layer, on_host = Noise(), Noise()
    x = np.ones((3, 4))
    with xbp.use_backend("numpy") as numpy:
        for _ in range(3):
            expected = on_host.forward(numpy.asarray(x, widest))
            np.testing.assert_array_equal(host(layer.forward(arr(x, widest))), expected)
    assert len({float(v) for v in expected.reshape(-1)}) == 12
    np.testing.assert_array_equal(host(layer.key), on_host.key)
    assert random_key() != random_key()


def test_a_state_keeps_its_shape_and_dtype() -> None:
    class Growing(Centred):
        state_names = ("mean",)

        def forward(self, x: Array) -> Array:
            self.mean = namespace_of(x).concat([self.mean, self.mean])
            return x

    class Number(Centred):
        state_names = ("mean",)

        def forward(self, x: Array) -> Array:
            self.mean = 0.5
            return x

    class Narrow(Centred):
        state_names = ("mean",)

        def forward(self, x: Array) -> Array:
            self.mean = namespace_of(x).astype(self.mean, namespace_of(x).int32)
            return x

    x = arr(X, widest)
    with pytest.raises(ShapeError, match=r"Growing: forward changed self\.mean .* to \(8,\)"):
        Growing().forward(x)
    with pytest.raises(ShapeError, match=r"Number: forward changed self\.mean .* \(4,\) to 0\.5:"):
        Number().forward(x)
    message = (
        rf"Narrow: .* self\.mean from {widest} to int32: .*; 0\.0 makes floats of it, 0 integers$"
    )
    with pytest.raises(DTypeError, match=message):
        Narrow().forward(x)


def test_a_state_is_named_as_parameters_are() -> None:
    with pytest.raises(SettingError, match=r"Texts: state_names is a tuple, \('mean',\) with"):
        type("Texts", (Layer,), {"state_names": "mean"})
    with pytest.raises(SettingError, match=r"Odd: state_names names 'x', a property"):
        type("Odd", (Layer,), {"state_names": ("x",), "x": property(lambda self: 1)})
    network = network_of(Centred())
    assert repr(network.state) == "<state mean1: (4,)>"
    with pytest.raises(ParameterNotFoundError, match="there is no array of the state 'k'"):
        network.state["k"]
    with pytest.raises(ShapeError, match=r"state\['mean1'\] has shape \(4,\), not \(2,\)"):
        network.state["mean1"] = arr([1.0, 2.0], widest)
    silent: Any = type("Silent", (Centred,), {})
    assert silent.state_names == ()
    layer = Centred()
    layer.mean = other.asarray([0.0] * 4)
    with pytest.raises(MixedBackendError, match=r"state\['mean1'\] is not on"):
        network_of(layer)


def test_an_attribute_called_state_is_refused() -> None:
    class Own(Layer):
        def __init__(self) -> None:
            self.state = 1

    with pytest.raises(SettingError, match=r"Own: self\.state is all that state_names names: call"):
        Own()


class Regularized(xbp.Network):
    """Has a gradient of its own, as the book's network with weight decay."""

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        grads = super().gradient(x, t)
        return {key: value + 0 * self.params[key] for key, value in grads.items()}


def test_each_step_moves_the_state_once() -> None:
    nets = []
    for kind, settings in (
        (xbp.Network, {}),
        (Regularized, {}),
        (type("Untraced", (Regularized,), {"traceable": False}), {}),
        (xbp.Network, {"check_finite": True}),
    ):
        net = kind([*network_of(Centred(), Noise()).layers.values()], SoftmaxWithLoss())
        xbp.Trainer(net, xbp.SGD(0.1), batch_size=8, seed=0, **settings).fit(X, T, epochs=1)
        nets.append(net)
    for net in nets[1:]:
        assert_same(net, nets[0], precise(1e-10, 1e-4))


def test_a_loss_and_its_gradient_are_of_one_state() -> None:
    plain_net = network_of(Noise())
    own = Regularized([*network_of(Noise()).layers.values()], SoftmaxWithLoss())
    x, t = arr(X, widest), arr(T)
    for _ in range(2):
        (loss, gradient), (expected, others) = (n.backpropagate(x, t) for n in (own, plain_net))
        np.testing.assert_allclose(float(loss), float(expected), rtol=precise(1e-12, 1e-5))
        for key, value in gradient.items():
            np.testing.assert_allclose(host(value), host(others[key]), rtol=1e-5, atol=1e-6)


class Before(Layer):
    """Adds the weights of the step before, as they were then."""

    param_names = ("W",)
    state_names = ("W_before",)
    traceable = True

    def __init__(self) -> None:
        self.W = arr([1.0, 2.0, 3.0, 4.0], widest)
        self.W_before: Any = (0.0,) * 4

    def forward(self, x: Array) -> Array:
        self.x = x
        y = x * self.W + self.W_before
        self.W_before = self.W
        return y

    def infer(self, x: Array) -> Array:
        return x * self.W + self.W_before

    def backward(self, dout: Array) -> Array:
        self.dW = namespace_of(dout).sum(dout * self.x, axis=0)
        return dout * self.W


class Last(Layer):
    """Keeps what it was last given, twice."""

    state_names = ("x_before", "x_again")

    def __init__(self) -> None:
        self.x_before: Any = (0.0,) * 4
        self.x_again: Any = (0.0,) * 4

    def forward(self, x: Array) -> Array:
        self.x_before = self.x_again = x
        return 1 * x


class Twice(Last):
    """Keeps twice what nobody has given it."""

    state_names = ("x_before", "x_again")

    def forward(self, x: Array) -> Array:
        self.x_before = self.x_again = 2 * x
        return 1 * x


def test_a_state_is_an_array_of_its_own() -> None:
    last = Last()
    x = arr(X[0], widest)
    last.forward(x)
    assert last.x_before is not x
    assert last.x_again is not last.x_before
    twice = Twice()
    twice.forward(x)
    assert twice.x_again is not twice.x_before
    np.testing.assert_array_equal(host(twice.x_again), host(twice.x_before))
    W = host(Before().W)
    nets = []
    for kind in (Before, plain(Before)):
        net = network_of(kind())
        trainer = xbp.Trainer(net, xbp.SGD(0.1), batch_size=8, seed=0)
        trainer.fit(X[:16], T[:16], steps=1)
        np.testing.assert_allclose(host(net.state["W_before1"]), W)
        trainer.fit(X[:16], T[:16], steps=9)
        nets.append(net)
    assert_same(nets[0], nets[1], precise(1e-10, 1e-4))


@pytest.mark.parametrize("spec", [f"{backend.name}:{backend.device}", "array-api-strict:device1"])
def test_a_state_becomes_an_array_beside_the_input(spec: str) -> None:
    there = xbp.get_backend(spec)
    for dtype in {"float32", widest}:
        layer = Centred()
        for _ in range(2):
            y = layer.forward(there.asarray(X, dtype))
        assert there.owns(layer.mean)
        assert dtype_of(layer.mean) == dtype_of(y) == dtype


def test_a_state_beside_numbers_is_an_array_already() -> None:
    class Total(Layer):
        state_names = ("total",)
        takes_numbers = True

        def __init__(self) -> None:
            self.total = arr(1.0, widest)

        def forward(self, x: Any) -> Any:
            self.total = self.total + x
            return x

    layer = Total()
    assert layer.forward(2.5) == 2.5
    assert float(layer.total) == 3.5


def test_a_layer_is_bound_to_a_state() -> None:
    layer = InPlace()
    x = arr(X, widest)
    layer.forward(x)
    before, given = host(layer.mean), arr([1.0, 2.0, 3.0, 4.0], widest)
    bound = layer.bound_to({}, {"mean": given})
    np.testing.assert_array_equal(host(bound.mean), host(given))
    bound.forward(x)
    np.testing.assert_array_equal(host(given), [1, 2, 3, 4])
    np.testing.assert_array_equal(host(layer.mean), before)
    np.testing.assert_array_equal(host(layer.bound_to({}).mean), before)


def test_where_there_is_a_state_one_element_is_moved_at_a_time() -> None:
    network = network_of(Noise())
    assert network.samplewise
    x, t = arr(X[:3], widest), arr(T[:3])
    assert not network.moves_together(x, t)
    # From one state on, twice.
    numerical, (_, gradient) = (
        network.numerical_gradient(x, t),
        network.loss_and_gradient(dict(network.params), x, t),
    )
    for key, value in gradient.items():
        np.testing.assert_allclose(
            host(numerical[key]), host(value), rtol=precise(1e-5, 0.1), atol=precise(1e-7, 0.05)
        )


# As people write them ----------------------------------------------------------------------------


def test_a_network_in_float32_with_a_state_is_checked_in_float64() -> None:
    layers = xbp.Network.fully_connected([4, 3], dtype="float32", seed=0).layers.values()
    network = xbp.Network([Centred(), *layers], SoftmaxWithLoss())
    assert dtype_of(network.state["mean1"]) == "float32"
    x, t = arr(X[:3], "float32"), arr(T[:3])
    assert xbp.gradient_check(network, x, t).passed
    network.numerical_gradient(x, t)
    network.loss(arr(X, widest), arr(T))
    assert dtype_of(network.state["mean1"]) == "float32"


class Counting(Centred):
    """Counts its calls where nobody carries the count on."""

    state_names = ("mean",)
    calls = 0

    def forward(self, x: Array) -> Array:
        self.calls += 1
        return super().forward(x) + self.calls


class Dicing(Centred):
    """Random, beside its state."""

    state_names = ("mean",)

    def forward(self, x: Array) -> Array:
        return super().forward(x) + float(np.random.default_rng().uniform())


class Careless(Centred):
    """Loses digits in float32 that it need not lose."""

    state_names = ("mean",)

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        return y * 1.001 if dtype_of(y) == "float32" else y


class Overwritten(Centred):
    """Returns its buffer."""

    state_names = ("mean",)
    buffer: Any = None

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        if self.buffer is None:
            self.buffer = namespace_of(x).zeros((9, 4), dtype=x.dtype, device=x.device)
        view = self.buffer[: x.shape[0], ...]
        view[...] = y
        return view


class Unprepared(Centred):
    """Its derivative is that of the first step."""

    state_names = ("mean",)

    def __init__(self) -> None:
        super().__init__()
        self.mean = (0.5, -0.5, 1.5, 2.5)

    def forward(self, x: Array) -> Array:
        mean, self.x = self.mean, x
        super().forward(x)
        return x * (1 + mean)

    def backward(self, dout: Array) -> Array:
        return dout


@except_slow
@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (Counting, "a layer that has seen other inputs differs in the output"),
        (Dicing, "two layers that are made alike differ, as if random, in the output"),
        (Overwritten, "a later call overwrites the output"),
        (Unprepared, "backward is wrong"),
        (Careless, "float32 and float64 differ in the output" if backend.has_float64 else "differ"),
    ],
)
def test_a_fault_of_a_layer_with_a_state_is_found(kind: type[Layer], complaint: str) -> None:
    if kind is Overwritten and backend.name == "jax":
        pytest.skip("its arrays cannot be changed")
    assert_gradients(Centred, inputs={"x": ("B", 4)}, backend=backend)
    with pytest.raises(AssertionError, match=complaint):
        assert_gradients(kind, inputs={"x": ("B", 4)}, backend=backend)


@except_slow
def test_layers_with_a_state_are_proven() -> None:
    assert_gradients(Noise, inputs={"x": ("N", "D")}, backend=backend)
    # The numbers that nobody chose are the same in all that is compared.
    some: dict[str, Any] = {"inputs": {"x": ("N", "D")}, "backend": backend, "max_examples": 10}
    assert_gradients(lambda: Noise(randbits(60)), **some)

    class Wrong(Noise):
        state_names = ("key",)

        def backward(self, dout: Array) -> Array:
            return 1.01 * super().backward(dout)

    with pytest.raises(AssertionError, match="backward is wrong"):
        assert_gradients(Wrong, **some)

    class Coarse(Noise):
        """Loses digits in float32."""

        state_names = ("key",)

        def forward(self, x: Array) -> Array:
            y = super().forward(x)
            return y * 1.001 if dtype_of(y) == "float32" else y

    if backend.has_float64:
        with pytest.raises(AssertionError, match="float32 and float64 differ in the output"):
            assert_gradients(Coarse, **some)


@except_slow
@needs_float64
def test_a_random_number_beside_a_threshold_is_no_fault() -> None:
    class Dropped(Noise):
        """Drops the numbers below a threshold, which one of this key is nearly equal to."""

        state_names = ("key",)

        def forward(self, x: Array) -> Array:
            xp = namespace_of(x)
            numbers, self.key = uniform_like(x, self.key)
            self.factor = xp.where(numbers > threshold, 0 * x + 1, 0 * x)
            return x * self.factor

    key = arr(np.asarray(random_key(5)), "int32")
    wide, narrow = (
        float(host(uniform_like(arr(np.zeros(1), dtype), key)[0])[0])
        for dtype in ("float64", "float32")
    )
    assert wide != narrow
    threshold = (wide + narrow) / 2
    example = {"x": [[1.0]], "dout": [[1.0]]}
    assert_gradients(Dropped, backend=backend, max_examples=1, examples=[example])


class Drifting(Layer):
    """Does the same to learn and to infer, and goes on each time."""

    state_names = ("mean",)

    def __init__(self) -> None:
        self.mean: Any = (0.0,) * 4

    def forward(self, x: Array) -> Array:
        self.mean = self.mean + namespace_of(x).mean(x, axis=0)
        return x - self.mean

    def backward(self, dout: Array) -> Array:
        return dout


def test_a_copy_that_infers_may_be_asked_by_many_threads() -> None:
    network = network_of(Centred(), Noise(), Drifting())
    x, t = arr(X, widest), arr(T)
    network.loss(x, t)
    server = network.for_inference()
    expected, before = float(server.loss(x, t)), arrays_of(server)
    with ThreadPoolExecutor(4) as pool:
        assert {float(loss) for loss in pool.map(lambda _: server.loss(x, t), range(40))} == {
            expected
        }
    for key, value in arrays_of(server).items():
        np.testing.assert_array_equal(value, before[key])


def test_a_copy_that_infers_has_no_gradient() -> None:
    network = network_of(Centred(), Noise())
    x, t = arr(X, widest), arr(T)
    network.gradient(x[:7, ...], t[:7])  # what it left is that of another batch
    copy = network.for_inference()
    for layer in (copy.layers["Affine1"], network.layers["Affine1"].for_inference()):
        assert "dW" not in vars(layer)
    copy.loss(x, t)
    params = dict(copy.params)
    for ask in (
        lambda: copy.gradient(x, t),
        copy.backward,
        lambda: copy.loss_and_gradient(params, x, t),
        lambda: xbp.gradient_check(copy, x, t),
        lambda: xbp.Trainer(copy, xbp.SGD(0.1), seed=0).fit(x, t, steps=1),
    ):
        with pytest.raises(
            CallOrderError,
            match=r"a copy for inference keeps nothing for backward: ask the layer or the network "
            r"that it is a copy of$",
        ):
            ask()
    for name, has_none in (("Affine1", False), ("Centred1", True)):
        layer = network.layers[name].for_inference()
        with pytest.raises(CallOrderError, match=f"{name}: a copy for inference"):
            layer.backward(x)
        y = layer.forward(x)
        assert layer.output_shape == y.shape
        if has_none:
            with pytest.raises(CallOrderError, match=f"{name}: a copy for inference"):
                layer.backward(y)
        else:  # it infers as it learns
            layer.backward(y)
            np.testing.assert_allclose(
                host(layer.grads["W"]), host(x).T @ host(y), rtol=precise(1e-12, 1e-5)
            )
    assert host(network.gradient(x, t)["b1"]).shape == host(network.params["b1"]).shape


def test_a_state_that_is_changed_in_place_is_the_same_for_each_check() -> None:
    report = xbp.gradient_check(network_of(InPlace()), arr(X, widest), arr(T))
    assert report.passed
    assert not report.not_deterministic


def test_a_derivative_of_0_is_not_called_another_each_time() -> None:
    """What a bias adds is taken away again, so that only roundings are left of its derivative."""

    class Whole(Layer):
        traceable = True

        def forward(self, x: Array) -> Array:
            return x - namespace_of(x).mean(x, axis=0)

        def backward(self, dout: Array) -> Array:
            return dout - namespace_of(dout).mean(dout, axis=0)

    xp = backend.xp
    for seed in range(5):
        bricks = xbp.Network.fully_connected([4, 6, 3], dtype=widest, seed=seed).layers
        layers = [bricks["Affine1"], Whole(), xbp.layers.Sigmoid(), bricks["Affine2"]]
        network = xbp.Network(layers, SoftmaxWithLoss())
        x, t = arr(X, widest), arr(T)
        report = xbp.gradient_check(network, x, t)
        assert not report.not_deterministic, seed
        assert float(xp.max(xp.abs(network.gradient(x, t)["b1"]))) < precise(1e-15, 1e-6)


def test_a_training_goes_on_with_the_same_settings_of_layers(tmp_path: Path) -> None:
    class Counting(Layer):
        def __init__(self, calls: int = 0) -> None:
            self.calls = calls

        def forward(self, x: Array) -> Array:
            self.calls += 1
            return x

        def backward(self, dout: Array) -> Array:
            return dout

    def fit(momentum: Any, steps: int, *, resume: bool) -> None:
        network = network_of(Centred(momentum=momentum), Counting())
        network.predict(arr(X, widest))
        checkpoints = Checkpoints(tmp_path, resume=resume)
        xbp.Trainer(network, xbp.SGD(0.1), seed=0).fit(X, T, steps=steps, checkpoints=checkpoints)

    fit(0.9, 2, resume=False)
    fit(np.float64(0.9) if backend.name == "numpy" else 0.9, 3, resume=True)
    message = r"had layers .*'momentum': 0\.9.*, this one has .*'momentum': 0\.5.*: go on with the"
    with pytest.raises(CheckpointError, match=message):
        fit(0.5, 4, resume=True)


def test_a_training_goes_on_with_the_same_functions_in_its_layers(tmp_path: Path) -> None:
    class Apply(Layer):
        def __init__(self, function: Any) -> None:
            self._function = function

        def forward(self, x: Array) -> Array:
            return self._function(x)

        def backward(self, dout: Array) -> Array:
            return dout

    def fit(function: Any, steps: int) -> None:
        checkpoints = Checkpoints(tmp_path, resume=True)
        network = network_of(Apply(function))
        xbp.Trainer(network, xbp.SGD(0.1), seed=0).fit(X, T, steps=steps, checkpoints=checkpoints)

    fit(xbp.functions.sigmoid, 2)
    fit(xbp.functions.sigmoid, 3)
    with pytest.raises(CheckpointError, match=r"had layers .*sigmoid.*, this one has .*softmax"):
        fit(xbp.functions.softmax, 4)


def test_what_infers_is_said_by_each_class() -> None:
    class Other(Centred):
        state_names = ("mean",)

        def forward(self, x: Array) -> Array:
            return 3 * super().forward(x)

    network = network_of(Other())
    expected = 3 * X @ host(network.params["W1"])
    np.testing.assert_allclose(
        host(network.predict(arr(X, widest))), expected, rtol=1e-4, atol=1e-4
    )


def test_networks_share_no_state() -> None:
    mean = arr(np.zeros(4), widest)
    nets = []
    for _ in range(2):
        layer = InPlace()
        layer.mean = mean
        nets.append(network_of(layer))
    nets[0].loss(arr(X, widest), arr(T))
    for array in (mean, nets[1].state["mean1"]):
        np.testing.assert_array_equal(host(array), np.zeros(4))
    nets[0].state["mean1"] = mean
    nets[0].loss(arr(X, widest), arr(T))
    np.testing.assert_array_equal(host(mean), np.zeros(4))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"state_names names 'mean', which holds None: let it be an array, a number"),
        ("text", "which holds 'text': let it be an array"),
        ((), r"which holds \(\)"),
        (3_000_000_000, "holds 3000000000, which an integer of 32 bits does not"),
    ],
)
def test_a_state_that_is_none_is_refused(value: Any, message: str) -> None:
    layer = Centred()
    layer.mean = value
    with pytest.raises(SettingError, match=rf"^Centred1?: .*{message}"):
        network_of(layer)
    with pytest.raises(SettingError, match=message):
        layer.forward(arr(X, widest))


@pytest.mark.parametrize("flag", ["traceable", "samplewise", "takes_integers", "takes_numbers"])
def test_a_flag_of_a_class_is_true_or_false(flag: str) -> None:
    with pytest.raises(SettingError, match=f"^Loud: {flag} is True or False, not 'yes'$"):
        type("Loud", (Layer,), {flag: "yes"})


def test_names_that_name_nothing_are_refused() -> None:
    typo: Any = type("Typo", (Centred,), {"state_names": ("maen",)})
    with pytest.raises(SettingError, match="state_names names 'maen', which holds None"):
        network_of(typo())
    typo = type("Typo", (Centred,), {"param_names": ("W",)})
    with pytest.raises(SettingError, match="there is no attribute 'W', which param_names names"):
        network_of(typo())
    with pytest.raises(
        SettingError,
        match=r"'mean' is named in param_names and in .*: it is either trained or carried$",
    ):
        type("Both", (Centred,), {"param_names": ("mean",), "state_names": ("mean",)})
    network = network_of(layer := Centred())
    layer.mean = (0.0,) * 4
    with pytest.raises(SettingError, match=r"self\.mean is \(0\.0, .* no array: assign one to"):
        network.state["mean1"]


def test_a_float_beside_bytes_stays_a_float() -> None:
    class Bytes(Layer):
        state_names = ("half",)
        takes_integers = True

        def __init__(self) -> None:
            self.half: Any = 0.5

        def forward(self, x: Array) -> Array:
            return x

    layer = Bytes()
    layer.forward(arr([1, 2]))
    assert float(layer.half) == 0.5
