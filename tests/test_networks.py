"""Networks: structure, gradients against central differences, parameters that write through."""

import itertools
import math
import sys
import threading
from copy import copy, deepcopy
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import (
    SLOW,
    arr,
    arrays,
    backend,
    both_floats,
    dtype_of,
    host,
    once,
    other,
    precise,
    widest,
)

import xbp
from xbp import Network, TwoLayerNet
from xbp.calls import noted_calls
from xbp.errors import (
    DataError,
    DTypeError,
    MixedBackendError,
    SettingError,
    ShapeError,
    UndefinedOutputError,
)
from xbp.layers import (
    Affine,
    IdentityWithLoss,
    Layer,
    LeakyRelu,
    LossLayer,
    Relu,
    Rescale,
    Sigmoid,
    SoftmaxWithLoss,
)
from xbp.layers.tree import numbered
from xbp.namespace import Array, namespace_of


def small(seed: int = 0, dtype: str | None = widest) -> TwoLayerNet:
    return TwoLayerNet(4, 5, 3, weight_init_std=0.5, dtype=dtype, seed=seed)


def batch(count: int = 6) -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    return arr(random.normal(size=(count, 4))), arr(random.integers(0, 3, count))


def test_two_layer_net_is_built_as_in_the_chapter() -> None:
    network = small()
    assert list(network.layers) == ["Affine1", "Relu1", "Affine2"]
    assert list(network.params) == ["W1", "b1", "W2", "b2"]
    assert [network.params[key].shape for key in network.params] == [(4, 5), (5,), (5, 3), (3,)]
    assert isinstance(network.last_layer, SoftmaxWithLoss)
    assert network.layers["Affine2"].params["W"] is network.params["W2"]
    assert repr(network).splitlines() == [
        f"TwoLayerNet on {backend.name}:{backend.device}, {network.dtype}",
        "  Affine1          W1 (4, 5)  b1 (5,)  25",
        "  Relu1",
        "  Affine2          W2 (5, 3)  b2 (3,)  18",
        "  SoftmaxWithLoss  parameters:         43",
    ]


@given(
    st.data(),
    st.lists(st.integers(1, 4), min_size=2, max_size=6),
    st.sampled_from([Relu, Sigmoid]),
    st.sampled_from([SoftmaxWithLoss, IdentityWithLoss]),
    st.sampled_from([None, 1, 3]),
)
def test_backpropagation_agrees_with_central_differences(
    data: st.DataObject, sizes: list[int], activation: Any, loss: Any, count: int | None
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    network = Network.fully_connected(
        sizes, activation=activation, loss=loss, weight_init_std=0.7, dtype=widest, seed=seed
    )
    samples = () if count is None else (count,)
    x = arr(data.draw(arrays((*samples, sizes[0]), -2, 2)))
    if loss is SoftmaxWithLoss:
        t = arr(data.draw(arrays(samples, 0, sizes[-1])).astype(np.int64))
    else:
        t = arr(data.draw(arrays((*samples, sizes[-1]))))
    report = xbp.gradient_check(network, x, t)
    # The probability of a single class is 1, so there is no gradient to compare.
    is_constant = loss is SoftmaxWithLoss and sizes[-1] == 1
    assert report.verdict == ("inconclusive" if is_constant else "ok"), str(report)
    assert report.dtype == widest


@pytest.mark.parametrize("depth", [5] if SLOW else [5, 20])
def test_deep_networks_are_stacked_like_bricks(depth: int) -> None:
    network = Network.fully_connected([4, *[6] * (depth - 1), 3], dtype=widest, seed=2)
    assert len(network.params) == 2 * depth
    report = xbp.gradient_check(network, *batch(), elements=1 if SLOW else 3)
    checks = report.parameters.values()
    assert not any(check.wrong for check in checks), str(report)
    # Far down some biases, which are 0, stand on kinks wherever they are moved.
    assert sum(check.checked > 2 * check.set_aside for check in checks) > len(checks) / 2, str(
        report
    )


def test_a_divisor_stands_first() -> None:
    kinds: dict[str, Any] = {"divisor": 16, "backend": backend, "seed": 0}
    for dtype in (None, "float32", widest):
        network = xbp.Network.fully_connected([4, 3, 2], dtype=dtype, **kinds)
        assert list(network.layers) == ["Rescale1", "Affine1", "Relu1", "Affine2"]
        first = network.layers["Rescale1"]
        assert isinstance(first, Rescale)
        assert first.divisor == 16
        assert first.dtype == network.dtype == (dtype or backend.default_float)
        assert network.samplewise
        assert network.traceable


def test_numerical_gradient_is_the_gradient() -> None:
    network, (x, t) = small(), batch()
    numerical, backpropagated = network.numerical_gradient(x, t), network.gradient(x, t)
    assert list(numerical) == list(backpropagated) == ["W1", "b1", "W2", "b2"]
    for key, value in numerical.items():
        np.testing.assert_allclose(host(value), host(backpropagated[key]), atol=precise(1e-8, 1e-4))


def test_numerical_gradient_of_a_float32_network_is_computed_in_the_widest_dtype() -> None:
    network, (x, t) = small(dtype="float32"), batch()
    x = arr(host(x), "float32")
    numerical, backpropagated = network.numerical_gradient(x, t), network.gradient(x, t)
    for key, value in numerical.items():
        assert dtype_of(value) == widest
        assert dtype_of(backpropagated[key]) == "float32"
        np.testing.assert_allclose(host(value), host(backpropagated[key]), atol=precise(1e-6, 1e-4))


def test_one_hot_and_labels_give_the_same_loss_gradient_and_accuracy() -> None:
    network, (x, t) = small(), batch()
    one_hot = arr(np.eye(3)[host(t)])
    assert float(network.loss(x, t)) == float(network.loss(x, one_hot))
    assert network.accuracy(x, t) == network.accuracy(x, one_hot)
    for key, value in network.gradient(x, t).items():
        np.testing.assert_array_equal(host(value), host(network.gradient(x, one_hot)[key]))


def test_a_network_bound_to_other_parameters_has_them() -> None:
    network = small()
    doubled = {key: value * 2 for key, value in network.params.items()}
    bound = network.bound_to(doubled)
    assert list(bound.params) == list(doubled)
    assert all(bound.params[key] is value for key, value in doubled.items())


def test_accuracy_counts_hits() -> None:
    identity = Affine(arr(np.eye(3)), arr(np.zeros(3)))
    network = Network([identity], SoftmaxWithLoss())
    scores = arr([[3.0, 1, 2], [1, 3, 2], [1, 2, 3], [3, 1, 2]], widest)
    assert network.accuracy(scores, arr([0, 1, 2, 1])) == 0.75
    assert network.accuracy(scores[0, :], arr(0)) == 1.0
    assert isinstance(network.accuracy(scores, arr([0, 1, 2, 1])), float)


def test_params_train_the_network_on_immutable_arrays_too() -> None:
    network, (x, t) = small(), batch()
    before = float(network.loss(x, t))
    for _ in range(20):
        grads = network.gradient(x, t)
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= 0.5 * grads[key]
    assert float(network.loss(x, t)) < 0.6 * before
    assert network.layers["Affine1"].params["W"] is network.params["W1"]


def test_loss_and_gradient_is_pure() -> None:
    network, (x, t) = small(), batch()
    expected_loss, expected = float(network.loss(x, t)), network.gradient(x, t)
    params = {key: value * 2 for key, value in network.params.items()}
    layers = [*network.layers.values(), network.last_layer]
    states = [dict(vars(layer)) for layer in layers]
    network.loss_and_gradient(params, x, t)
    for layer, state in zip(layers, states, strict=True):
        assert vars(layer).keys() == state.keys()
        assert all(vars(layer)[key] is value for key, value in state.items())
    loss, grads = backend.compile(network.loss_and_gradient)(dict(network.params), x, t)
    np.testing.assert_allclose(float(loss), expected_loss, rtol=precise(1e-12, 1e-6))
    for key, value in grads.items():
        np.testing.assert_allclose(
            host(value), host(expected[key]), rtol=precise(1e-9, 1e-5), atol=precise(1e-15, 1e-7)
        )


def test_threads_share_loss_and_gradient() -> None:
    network = small()
    batches = [(arr(np.full((2, 4), float(n))), arr([0, 2])) for n in range(1, 5)]
    expected = [host(network.loss_and_gradient(network.params, *b)[0]) for b in batches]
    found: dict[int, list[Any]] = {n: [] for n in range(4)}

    def work(n: int) -> None:
        for _ in range(20):
            found[n].append(host(network.loss_and_gradient(network.params, *batches[n])[0]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        np.testing.assert_array_equal(found[n], [expected[n]] * 20)


def test_the_first_layers_input_derivative_is_not_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, (x, t) = small(), batch()
    asked: list[str] = []
    backward = Affine.backward

    def noting(layer: Affine, dout: Any) -> Any:
        asked.append(layer.name)
        return backward(layer, dout)

    monkeypatch.setattr(Affine, "backward", noting)
    network.gradient(x, t)
    assert asked == ["Affine2"]


def test_a_first_layer_with_a_backward_of_its_own_is_asked_for_that() -> None:
    class Threefold(Affine):
        def backward(self, dout: Any) -> Any:
            dx = super().backward(dout)
            self.dW = 3 * self.dW
            return dx

    network, (x, t) = small(), batch()
    expected = {key: host(value) for key, value in network.gradient(x, t).items()}
    first, *others = network.layers.values()
    own = Network([Threefold(first.params["W"], first.params["b"]), *others], SoftmaxWithLoss())
    gradient = own.gradient(x, t)
    np.testing.assert_allclose(host(gradient["W1"]), 3 * expected["W1"], rtol=1e-6)
    np.testing.assert_allclose(host(gradient["b1"]), expected["b1"], rtol=1e-6)


def test_layers_before_the_first_parameters_are_not_run_backward() -> None:
    class Untouchable(Relu):
        def backward(self, dout: Any) -> Any:
            raise AssertionError("nobody reads this derivative")

    network = Network([Untouchable(), *small().layers.values()], SoftmaxWithLoss())
    assert list(network.gradient(*batch())) == ["W1", "b1", "W2", "b2"]


# Initial parameters ------------------------------------------------------------------------------


@both_floats
def test_a_seed_gives_the_same_parameters_as_on_numpy(dtype: str) -> None:
    reference = TwoLayerNet(4, 5, 3, backend="numpy", dtype=dtype, seed=7)
    network = TwoLayerNet(4, 5, 3, dtype=dtype, seed=7)
    for key, value in network.params.items():
        assert dtype_of(value) == dtype
        np.testing.assert_array_equal(host(value), reference.params[key])
    assert not np.array_equal(host(small(8).params["W1"]), host(small(7).params["W1"]))


def test_the_default_dtype_is_the_librarys() -> None:
    assert TwoLayerNet(2, 2, 2).dtype == backend.default_float


@pytest.mark.parametrize(
    ("rule", "deviation"), [(0.01, 0.01), ("he", np.sqrt(2 / 300)), ("xavier", np.sqrt(2 / 500))]
)
def test_initial_weights_have_their_spread(rule: Any, deviation: float) -> None:
    network = TwoLayerNet(300, 200, 2, weight_init_std=rule, dtype=widest, seed=0)
    W = host(network.params["W1"])
    np.testing.assert_allclose(W.std(), deviation, rtol=0.01)
    assert abs(W.mean()) < deviation / 50
    np.testing.assert_array_equal(host(network.params["b1"]), np.zeros(200))


def test_initial_weights_are_as_small_as_in_the_chapter() -> None:
    W = host(TwoLayerNet(300, 200, 2, seed=0).params["W1"])
    np.testing.assert_allclose(W.std(), 0.01, rtol=0.01)


def test_a_deep_network_starts_with_the_rule_for_relu() -> None:
    W = host(Network.fully_connected([300, 200], seed=0).params["W1"])
    np.testing.assert_allclose(W.std(), np.sqrt(2 / 300), rtol=0.01)


@pytest.mark.parametrize("make", [TwoLayerNet, lambda *n, **how: Network.fully_connected(n, **how)])
def test_backend_dtype_and_seed_are_those_asked_for(make: Any) -> None:
    first, second = (make(4, 5, 3, backend=other, dtype="float32", seed=7) for _ in range(2))
    assert first.dtype == "float32"
    for key, value in first.params.items():
        assert other.owns(value)
        np.testing.assert_array_equal(other.to_numpy(value), other.to_numpy(second.params[key]))
    # Also one that only looks like the selected backend.
    own = copy(backend)
    assert make(4, 5, 3, backend=own).backend is own


@pytest.mark.parametrize("sizes", [(0, 5, 3), (4, -1, 3), (4, 5, 2.5)])
def test_sizes_are_positive_integers(sizes: Any) -> None:
    with pytest.raises(ShapeError, match="positive integer"):
        TwoLayerNet(*sizes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_init_std": "glorot"}, "weight_init_std is a number ≥ 0, 'he' or 'xavier'"),
        ({"weight_init_std": -1}, "weight_init_std"),
        ({"weight_init_std": float("nan")}, "weight_init_std"),
        ({"seed": -1}, "seed is an integer"),
        ({"seed": "x"}, "seed is an integer"),
    ],
)
def test_settings_that_make_no_sense(settings: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        TwoLayerNet(4, 5, 3, **settings)


@pytest.mark.parametrize("dtype", ["int64", "float128", "nonsense", np.float32])
def test_parameters_are_floats(dtype: Any) -> None:
    with pytest.raises(DTypeError, match="dtype is 'float32' or 'float64', not "):
        TwoLayerNet(4, 5, 3, dtype=dtype)


# Mistakes ----------------------------------------------------------------------------------------


def test_a_layer_is_named_where_an_array_does_not_fit() -> None:
    network, (x, t) = small(), batch()
    with pytest.raises(ShapeError, match="Affine1: samples of 4 elements"):
        network.predict(x[:, :3])
    with pytest.raises(MixedBackendError, match="Affine1: "):
        network.predict(other.asarray(host(x)))
    with pytest.raises(DTypeError, match="Affine1: expected an array, got list"):
        network.predict([[1.0, 2.0, 3.0, 4.0]])
    with pytest.raises(ShapeError, match="SoftmaxWithLoss: "):
        network.loss(x, t[:3])
    with pytest.raises(ShapeError, match=r"TwoLayerNet\.accuracy: "):
        network.accuracy(x, t[:3])
    second = Network(
        [
            Affine(arr(np.ones((4, 2))), arr(np.ones(2))),
            Relu(),
            Affine(arr(np.ones((3, 2))), arr(np.ones(2))),
        ],
        SoftmaxWithLoss(),
    )
    with pytest.raises(ShapeError, match="Affine2: samples of 3 elements"):
        second.predict(x)


def test_a_parameter_keeps_shape_dtype_and_backend() -> None:
    network = small()
    before = {key: host(value).copy() for key, value in network.params.items()}
    with pytest.raises(ShapeError, match=r"params\['W1'\] has shape \(4, 5\), not \(5, 4\)"):
        network.params["W1"] = arr(np.ones((5, 4)))
    for dtype in {"float32", "int64"} - {widest}:
        with pytest.raises(DTypeError, match=rf"params\['b1'\] has dtype {widest}, not {dtype}"):
            network.params["b1"] = arr(np.ones(5), dtype)
    with pytest.raises(MixedBackendError, match=r"params\['b1'\]: "):
        network.params["b1"] = other.asarray(np.ones(5))
    with pytest.raises(KeyError):
        network.params["W9"] = arr([1.0])
    for key, value in network.params.items():
        np.testing.assert_array_equal(host(value), before[key])


def test_what_is_no_layer_is_refused() -> None:
    affine = Affine(arr([[1.0]]), arr([1.0]))
    with pytest.raises(SettingError, match="not the class Relu: make one of it"):
        Network([affine, Relu], SoftmaxWithLoss())  # type: ignore[list-item]
    with pytest.raises(SettingError, match="the loss is"):
        Network([affine], Relu())  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"layer 1 is .*, a loss: give it as the second"):
        Network([SoftmaxWithLoss()], SoftmaxWithLoss())
    with pytest.raises(SettingError, match="stands twice"):
        Network([affine, affine], SoftmaxWithLoss())


def test_layers_of_two_backends_are_refused() -> None:
    ours = Affine(arr([[1.0]]), arr([1.0]))
    theirs = Affine(other.asarray([[1.0]]), other.asarray([1.0]))
    with pytest.raises(MixedBackendError, match=r"params\['W2'\] is not on"):
        Network([ours, theirs], SoftmaxWithLoss())
    with pytest.raises(MixedBackendError, match=r"params\['W1'\] is not on"):
        Network([theirs], SoftmaxWithLoss(), backend=backend)


def test_a_network_finds_the_backend_of_its_arrays() -> None:
    layers = [Affine(other.asarray([[1.0]]), other.asarray([1.0]))]
    assert Network(layers, SoftmaxWithLoss()).backend.name == other.name


def test_pure_parameters_have_the_networks_keys() -> None:
    network, (x, t) = small(), batch()
    with pytest.raises(SettingError, match="parameters W1, b1, W2, b2 are needed, got W1"):
        network.loss_and_gradient({"W1": network.params["W1"]}, x, t)


def test_params_are_assigned_by_item() -> None:
    with pytest.raises(AttributeError):
        small().params = {}  # type: ignore[misc, assignment]


def test_a_regression_has_no_accuracy() -> None:
    network = Network.fully_connected([4, 3], loss=IdentityWithLoss, dtype=widest, seed=0)
    with pytest.raises(SettingError, match="IdentityWithLoss knows no classes"):
        network.accuracy(*batch())


def test_accuracy_wants_labels_of_its_classes() -> None:
    network, (x, t) = small(), batch()
    with pytest.raises(DataError, match=r"t\[\d\] is 3, no label"):
        network.accuracy(x, t + 1)
    with pytest.raises(DataError, match="no label"):
        network.accuracy(x[0, :], arr(7))


@pytest.mark.parametrize(
    "activation", [LeakyRelu(0.25), lambda: LeakyRelu(0.25)], ids=["layer", "function"]
)
def test_an_activation_is_a_layer_or_a_function_that_makes_one(activation: Any) -> None:
    loss = IdentityWithLoss()
    network = Network.fully_connected([2, 3, 3, 1], activation=activation, loss=loss, seed=0)
    first: Any = network.layers["LeakyRelu1"]
    second: Any = network.layers["LeakyRelu2"]
    assert first is not second
    assert activation not in (first, second)
    assert first.slope == second.slope == 0.25
    assert isinstance(network.last_layer, IdentityWithLoss)
    assert Network.fully_connected([2, 1], loss=lambda: loss).last_layer is loss


def test_an_activation_with_parameters_is_made_for_each_place() -> None:
    def affine() -> Affine:
        return Affine(arr(np.eye(3)), arr(np.zeros(3)))

    with pytest.raises(SettingError, match="has parameters, which all layers like it would share"):
        Network.fully_connected([2, 3, 3, 1], activation=affine())
    network = Network.fully_connected([2, 3, 3, 1], activation=affine)
    assert len(network.params) == 10


def test_layers_are_given_where_layers_are_wanted() -> None:
    with pytest.raises(SettingError, match="activation is a class"):
        Network.fully_connected([1, 1], activation="relu")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="loss is a class"):
        Network.fully_connected([1, 1], loss=Relu())  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="given as a list"):
        Network(Affine(arr([[1.0]]), arr([1.0])), SoftmaxWithLoss())  # type: ignore[arg-type]


# A layer of one's own ----------------------------------------------------------------------------


class Scale(Layer):
    """Multiplies each feature by a number of its own; what it leaves as gradient can be chosen."""

    param_names = ("scale",)
    left: Any = None

    def __init__(self, scale: Any) -> None:
        self.scale = scale

    def forward(self, x: Any) -> Any:
        self.x = x
        return x * self.scale

    def backward(self, dout: Any) -> Any:
        product = dout * self.x
        self.dscale = self.left(product) if self.left else backend.xp.sum(product, axis=0)
        return dout * self.scale


class Forgetful(Scale):
    def backward(self, dout: Any) -> Any:
        return dout * self.scale


def with_scale() -> Network:
    layers = [*small().layers.values()]
    return Network([layers[0], Scale(arr(np.ones(5))), *layers[1:]], SoftmaxWithLoss())


def test_a_layer_of_ones_own_takes_part() -> None:
    network = with_scale()
    assert list(network.params) == ["W1", "b1", "scale1", "W2", "b2"]
    assert xbp.gradient_check(network, *batch()).passed


def test_a_gradient_that_is_missing_or_misshapen_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SettingError, match=r"Forgetful1: backward left no gradient in self\.dscale"
    ):
        Network([Forgetful(arr(np.ones(4)))], SoftmaxWithLoss()).gradient(*batch())
    monkeypatch.setattr(Scale, "left", lambda self, product: None)
    with pytest.raises(SettingError, match=r"Scale1: backward left no gradient in self\.dscale"):
        with_scale().gradient(*batch())
    monkeypatch.setattr(Scale, "left", lambda self, product: product)
    with pytest.raises(ShapeError, match=r"Scale1: scale has shape \(5,\), but .*\(6, 5\)"):
        with_scale().gradient(*batch())
    with pytest.raises(SettingError, match=r"Slip: param_names is a tuple, \('scale',\)"):
        type("Slip", (Layer,), {"param_names": "scale"})


# Names -------------------------------------------------------------------------------------------


class Shift(Layer):
    """Adds a parameter that is called as another's key might be."""

    param_names = ("W1", "b")

    def __init__(self) -> None:
        self.W1, self.b = arr(np.zeros(3), widest), arr(np.zeros(3), widest)

    def forward(self, x: Any) -> Any:
        return x + self.W1

    def backward(self, dout: Any) -> Any:
        xp = backend.xp
        self.dW1, self.db = xp.sum(dout, axis=0), xp.zeros_like(self.b)
        return dout


Affine1 = type("Affine1", (Shift,), {})


def test_no_two_parameters_and_no_two_layers_share_a_name() -> None:
    affine = [Affine(arr(np.eye(3), widest), arr(np.zeros(3), widest)) for _ in range(12)]
    network = Network([*affine[:11], Shift(), Affine1(), affine[11]], SoftmaxWithLoss())
    assert len(network.layers) == 14
    assert len(network.params) == 28
    assert [*network.params][:4] == ["W1", "b1", "W2", "b2"]
    assert {"W11", "W12", "W1_1", "W1_2"} <= network.params.keys()
    assert {"Affine11", "Affine12", "Affine1_1"} <= network.layers.keys()
    assert network.params["W11"] is affine[10].W
    x, t = arr(np.ones((2, 3)), widest), arr([0, 1])
    assert network.gradient(x, t)["W1_1"].shape == (3,)


@given(st.lists(st.from_regex(r"[Wb][0-9_]{0,3}", fullmatch=True), max_size=30))
def test_numbered_names_are_different(names: list[str]) -> None:
    found = list(numbered(names))
    assert len(set(found)) == len(names)
    assert all(one.startswith(name) for one, name in zip(found, names, strict=True))


# Predictions -------------------------------------------------------------------------------------


def test_a_score_that_is_not_a_number_is_no_class() -> None:
    network = small()
    x, t = batch()
    for samples, labels in ((x, t), (x[0, :], t[0])):
        network.params["W2"] = network.params["W2"] * math.nan
        with pytest.raises(
            UndefinedOutputError, match=r"TwoLayerNet.accuracy: the scores of sample 0 are Na"
        ):
            network.accuracy(samples, labels)
    rows = np.zeros((6, 3))
    rows[4, 1] = math.nan
    with pytest.raises(UndefinedOutputError, match=r"the scores of sample 4 are NaN"):
        Network([Sigmoid()], SoftmaxWithLoss(), backend=backend).accuracy(arr(rows, widest), t)
    rows[4, 1] = -math.inf
    assert 0 <= Network([], SoftmaxWithLoss(), backend=backend).accuracy(arr(rows, widest), t) <= 1


def test_names_that_end_in_a_digit_or_a_line_are_counted_too() -> None:
    assert list(numbered(["W", "W", "b"])) == ["W1", "W2", "b1"]
    assert list(numbered(["Conv1", "Conv1"])) == ["Conv1_1", "Conv1_2"]
    assert list(numbered(["b1_", "b1__", "b1"])) == ["b1_1", "b1__1", "b1___1"]


@pytest.mark.parametrize(
    ("values", "is_steady"),
    [
        ([1, 1], True),
        ([1, 2], False),
        ([np.nan, np.nan], True),
        ([np.nan, 1], False),
        ([1, np.nan], False),
    ],
)
def test_a_layer_that_gives_nan_now_and_then_is_unsteady(
    values: list[float], is_steady: bool
) -> None:
    calls = iter(values)

    class Fickle(Layer):
        def forward(self, x: Any) -> Any:
            return x * next(calls)

    network = Network([Fickle()], SoftmaxWithLoss(), backend=backend)
    found = network.unsteady_layer(arr([1.0, 2.0], widest), arr(0))
    assert found == (None if is_steady else "Fickle1")


def test_the_calls_of_a_step_are_noted_by_their_names() -> None:
    network = xbp.TwoLayerNet(2, 3, 2, seed=0)
    with noted_calls() as root:
        network.gradient(arr([[1.0, 2.0]]), arr([0]))
    assert [str(call) for call in root.parts] == [
        *("Affine1.forward", "Relu1.forward", "Affine2.forward", "SoftmaxWithLoss.forward"),
        *("SoftmaxWithLoss.backward", "Affine2.backward", "Relu1.backward", "Affine1.backward"),
    ]


class Random(Layer):
    """Gives another output each time."""

    numbers = itertools.count(1)

    def forward(self, x: Any) -> Any:
        return x * float(next(self.numbers))


class Emptying(Layer):
    """Changes its input in place where it can."""

    def forward(self, x: Any) -> Any:
        x *= 0
        return x


def test_an_unsteady_layer_is_known_though_another_changes_its_output() -> None:
    network = Network([Random(), Emptying()], SoftmaxWithLoss(), backend=backend)
    assert network.unsteady_layer(arr([1.0, 2.0], widest), arr(0)) == "Random1"


def test_an_unsteady_layer_may_give_another_shape() -> None:
    class Growing(Random):
        def forward(self, x: Any) -> Any:
            return namespace_of(x).concat([x] * next(self.numbers))

    class Looking(Network):
        def loss(self, x: Any, t: Any) -> Any:
            self.layers["Growing1"].forward(x)
            return self.last_layer.forward(x, t)

    network = Looking([Growing()], SoftmaxWithLoss(), backend=backend)
    assert network.unsteady_layer(arr([0.0, 0.0], widest), arr(0)) == "Growing1"


@pytest.mark.parametrize(("at_end", "expected"), [(False, "SoftmaxWithLoss"), (True, None)])
def test_a_layer_may_be_called_more_often_each_time(at_end: bool, expected: str | None) -> None:
    numbers = itertools.count(1)

    class Often(Network):
        def loss(self, x: Any, t: Any) -> Any:
            for is_loss in (True, False) if at_end else (False, True):
                if is_loss:
                    loss = self.last_layer.forward(x, t)
                    continue
                for _ in range(next(numbers)):
                    self.layers["Relu1"].forward(x)
            return loss

    network = Often([Relu()], SoftmaxWithLoss(), backend=backend)
    assert network.unsteady_layer(arr([1.0, 2.0], widest), arr(0)) == expected


def test_a_network_of_no_layer_takes_samples_too() -> None:
    network = Network([], SoftmaxWithLoss(), backend=backend)
    x = network.as_samples([[1, 2]])
    np.testing.assert_array_equal(host(network.predict(x)), [[1, 2]])
    with pytest.raises(DTypeError, match=r"^Network\.accuracy: expected an array, got list"):
        network.accuracy([[1.0, 2.0]], arr([0]))


@pytest.mark.parametrize("scores", [[np.inf, 0.0], [-np.inf, -np.inf]])
def test_of_infinite_scores_none_is_the_highest(scores: list[float]) -> None:
    network = Network([], SoftmaxWithLoss(), backend=backend)
    assert network.accuracy(arr([[0.0, -np.inf]], widest), arr([0])) == 1
    with pytest.raises(UndefinedOutputError, match="the scores of sample 1 are infinite"):
        network.accuracy(arr([[0.0, -np.inf], scores], widest), arr([0, 0]))


@pytest.mark.parametrize("row", [[0.0, 0.0], [np.nan, np.nan], [1.0, 1.0]])
def test_a_row_that_is_not_one_hot_names_no_class(row: list[float]) -> None:
    network = Network([], SoftmaxWithLoss(), backend=backend)
    for x, t in ((arr([[2.0, 1.0]], widest), arr([row])), (arr([2.0, 1.0], widest), arr(row))):
        with pytest.raises(DataError, match=r"t\[0\] is .*, not one-hot"):
            network.accuracy(x, t)


def test_a_network_keeps_nothing_of_what_it_predicts() -> None:
    network = Network.fully_connected([4, 5, 3], activation=Sigmoid, dtype=widest, seed=0)
    x, t = batch(1_000)
    before = {name: dict(vars(layer)) for name, layer in network.layers.items()}
    network.predict(x)
    network.accuracy(x, t)
    for name, layer in network.layers.items():
        assert vars(layer).keys() == before[name].keys()
        assert all(value is before[name][key] for key, value in vars(layer).items())
    assert vars(network.last_layer).keys() == vars(SoftmaxWithLoss()).keys()


def test_each_thread_gets_its_own_answer_of_one_network() -> None:
    network = Network.fully_connected([4, 50, 50, 3], dtype="float32", seed=0)
    random = np.random.default_rng(0)
    inputs = [arr(random.normal(size=(1 + i, 4)), "float32") for i in range(4)]
    with backend.scope():
        expected = [host(network.predict(x)) for x in inputs]
    wrong: list[int] = []

    def ask(number: int) -> None:
        with backend.scope():
            for _ in range(rounds):
                found = host(network.predict(inputs[number]))
                if not np.array_equal(found, expected[number]):
                    wrong.append(number)

    rounds = 30 if SLOW else 300
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert not wrong


@pytest.mark.skipif(backend.name != "jax", reason="is about JAX's tracers")
def test_a_prediction_that_was_compiled_leaves_no_tracer() -> None:
    import jax  # noqa: PLC0415

    network = small()
    jax.jit(network.predict)(batch()[0])
    np.testing.assert_array_equal(host(deepcopy(network).params["W1"]), host(network.params["W1"]))


@pytest.mark.parametrize(("params", "told"), [({}, "none"), (3, "3"), (None, "None")])
def test_parameters_that_are_none_are_told(params: Any, told: str) -> None:
    network = xbp.TwoLayerNet(2, 3, 2, backend=backend, seed=0)
    x = backend.asarray([[1.0, 2.0]], network.dtype)
    with pytest.raises(xbp.errors.XbpError, match=f"are needed, got {told}$"):
        network.loss_and_gradient(params, x, backend.asarray([0]))


@pytest.mark.skipif(not backend.has_float64, reason="the device has no float64")
def test_central_differences_of_parameters_beside_which_a_step_is_nothing() -> None:
    network = xbp.Network.fully_connected(
        [2, 2], loss=xbp.layers.IdentityWithLoss, backend=backend, dtype="float64", seed=0
    )
    network.params["W1"] = backend.asarray([[1e13, 2e13], [-3e13, 4e13]], "float64")
    x, t = backend.asarray([[1e-13, 2e-13]], "float64"), backend.asarray([[0.0, 3.0]], "float64")
    found, expected = network.numerical_gradient(x, t), network.gradient(x, t)
    np.testing.assert_allclose(host(found["W1"]), host(expected["W1"]), rtol=1e-3)


def test_the_label_of_one_sample_may_be_a_number() -> None:
    network = xbp.TwoLayerNet(2, 3, 2, backend=backend, seed=0)
    x = arr([1.0, 2.0], network.dtype)
    best = int(np.argmax(host(network.predict(x))))
    assert network.accuracy(x, best) == 1
    assert network.accuracy(x, 1 - best) == 0
    assert network.accuracy(x, arr(np.eye(2)[best])) == 1


def test_a_loss_says_for_itself_that_it_is_samplewise() -> None:
    class Own(SoftmaxWithLoss):
        samplewise = True

    class Both(SoftmaxWithLoss):
        samplewise = True

        def losses(self, x: Any, t: Any) -> Any:
            return super().losses(x, t)

    class Silent(SoftmaxWithLoss):
        def losses(self, x: Any, t: Any) -> Any:
            return super().losses(x, t)

    assert [kind.samplewise for kind in (Own, Both, Silent)] == [False, True, False]


def test_what_is_learned_from_is_the_gradient_that_a_network_has() -> None:
    class Doubled(xbp.TwoLayerNet):
        def gradient(self, x: Any, t: Any) -> Any:
            return {key: 2 * value for key, value in super().gradient(x, t).items()}

    x, t = arr([[1.0, 2.0]], widest), arr([1])
    network = Doubled(2, 3, 2, backend=backend, dtype=widest, seed=0)
    plain = xbp.TwoLayerNet(2, 3, 2, backend=backend, dtype=widest, seed=0)
    loss, found = network.loss_and_gradient(dict(network.params), x, t)
    assert float(loss) == float(plain.loss(x, t))
    for key, value in plain.gradient(x, t).items():
        np.testing.assert_array_equal(host(found[key]), 2 * host(value))
    assert network.backpropagate(x, t)[1].keys() == found.keys()
    # One that was set on a network, too.
    own: Any = plain
    own.gradient = lambda x, t: {"W1": x, "b1": t}
    assert own.backpropagate(x, t)[1] == {"W1": x, "b1": t}


# Layers that are put in, or exchanged ------------------------------------------------------------


def affine(inputs: int, outputs: int, seed: int = 0) -> Affine:
    W = np.random.default_rng(seed).normal(size=(inputs, outputs))
    return Affine(arr(W, widest), arr(np.zeros(outputs), widest))


def test_a_layer_that_is_put_in_is_part_of_the_network() -> None:
    network = Network([affine(2, 3), Relu()], IdentityWithLoss())
    assert list(network.params) == ["W1", "b1"]
    last = affine(3, 1, seed=1)
    network.layers["Affine2"] = last
    assert list(network.params) == ["W1", "b1", "W2", "b2"]
    assert network.param_keys["Affine2"] == {"W": "W2", "b": "b2"}
    assert "Affine2           W2 (3, 1)  b2 (1,)   4\n" in repr(network)
    assert last.name == "Affine2"
    x, t = arr([[1.0, 2.0], [0.5, -1.0]], widest), arr([[1.0], [0.0]], widest)
    assert list(network.gradient(x, t)) == list(network.params)
    assert xbp.gradient_check(network, x, t).passed
    before = host(last.W)
    xbp.Trainer(network, xbp.Momentum(0.1), batch_size=2).fit(x, t, steps=3)
    assert np.any(host(network.params["W2"]) != before)
    assert network.params["W2"] is last.W


def test_a_layer_may_take_the_place_of_another() -> None:
    network = Network([affine(2, 3), Relu(), affine(3, 2)], IdentityWithLoss())
    other = affine(3, 4, seed=1)
    network.layers["Affine2"] = other
    del network.layers["Relu1"]
    assert network.params["W2"] is other.W
    assert network.predict(arr([[1.0, 2.0]], widest)).shape == (1, 4)
    with pytest.raises(SettingError, match=r"parameters W1, b1, W2, b2 are needed, got W1$"):
        network.bound_to({"W1": other.W})


def test_what_is_put_in_is_a_layer_of_the_networks_own() -> None:
    network = Network([affine(2, 3)], IdentityWithLoss())
    first, layers = network.layers["Affine1"], cast("dict[str, Any]", network.layers)
    for wrong, error, message in (
        (3, SettingError, "layer 2 is one of xbp.layers, or of your own, not 3"),
        (first, SettingError, "a layer stands twice"),
        (IdentityWithLoss(), SettingError, "layer 2 is <IdentityWithLoss>, a loss"),
        (
            Affine(other.asarray([[1.0]]), other.asarray([0.0])),
            MixedBackendError,
            r"params\['W2'\] is not on",
        ),
    ):
        layers["Second"] = wrong
        with pytest.raises(error, match=message):
            network.params.keys()
        with pytest.raises(error, match=message):
            network.predict(arr([[1.0, 2.0]], widest))
        del network.layers["Second"]
        assert list(network.params) == ["W1", "b1"]


class Growing:
    """Puts a layer in after the first epoch."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def step(self, step: int, loss: Array) -> None:
        pass

    def evaluated(self, step: int, history: Any) -> None:
        if "Affine2" not in self.network.layers:
            self.network.layers["Affine2"] = affine(1, 1)


def test_a_network_may_grow_while_it_is_trained() -> None:
    network = Network([affine(2, 1)], IdentityWithLoss())
    x, t = arr([[1.0, 2.0], [0.5, -1.0]], widest), arr([[1.0], [0.0]], widest)
    trainer = xbp.Trainer(network, xbp.Momentum(0.05), batch_size=1, seed=0)
    trainer.fit(x, t, epochs=3, progress=Growing(network))
    assert np.any(host(network.params["W2"]) != host(affine(1, 1).W))


def test_a_loss_without_a_slope_is_an_error() -> None:
    class Absolute(LossLayer):
        classifies = False

        def forward(self, x: Any, t: Any) -> Any:
            xp = namespace_of(x)
            self.y, self.t = x, t
            return xp.mean(xp.abs(x - t))

    network = Network([affine(2, 1)], Absolute())
    x, t = arr([[1.0, 2.0]], widest), arr([[1.0]], widest)
    network.loss(x, t)
    with pytest.raises(SettingError, match=r"Absolute has no slope: write slope\(self\), which"):
        network.gradient(x, t)


@once
def test_dropout_has_a_seed_of_its_own_in_each_place() -> None:
    for seed in (3, np.random.default_rng(3), [1, 2], None):
        network = xbp.Network.fully_connected([4, 5, 5, 2], dropout=0.5, seed=seed)  # type: ignore[arg-type]
        keys = [host(key).tolist() for key in map(backend.asarray, network.state.values())]
        assert len(keys) == 2
        assert keys[0] != keys[1]
    one, other = (xbp.Network.fully_connected([4, 5, 2], dropout=0.5, seed=3) for _ in range(2))
    assert str(one.state) == str(other.state)
    assert "Dropout1" in one.layers
    assert "Dropout1" not in xbp.Network.fully_connected([4, 5, 2], dropout=0.0).layers


@once
@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        (
            ((1, 4, 4), [[1], [1], [1]], [2]),
            ShapeError,
            r"images of \(1, 4, 4\) are too small for 3",
        ),
        (((28, 28), [[1]], [2]), ShapeError, r"channels, height and width, not \(28, 28\)"),
        (((1, 0, 8), [[1]], [2]), ShapeError, "channels, height and width"),
        (((1, 8, 8), [1], [2]), SettingError, r"filters are counts .* not \[1\]"),
        (((1, 8, 8), [], [2]), SettingError, r"filters are counts .* not \[\]"),
        (((1, 8, 8), [[2]], []), ShapeError, r"the outputs at least, not \[\]"),
        (((1, 8, 8), [[2]], [0]), ShapeError, "sizes are positive integers"),
    ],
)
def test_mistakes_in_a_convolutional_network(arguments: Any, error: Any, complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        xbp.Network.convolutional(*arguments)
