"""Many networks at once lose what each of them loses alone."""

from math import cbrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import arr, backend, except_slow, host, precise, widest

import xbp
from xbp.differences import moved
from xbp.errors import SettingError
from xbp.layers import (
    Affine,
    IdentityWithLoss,
    Layer,
    LossLayer,
    Relu,
    Residual,
    SoftmaxWithLoss,
)
from xbp.namespace import Array, epsilon_of, namespace_of
from xbp.networks.perturbation import perturbed_outputs
from xbp.networks.samplewise import require_samplewise
from xbp.testing import NetworkCase, network_cases


@except_slow
@given(network_cases(), st.sampled_from([1.0, 2.0**12]), st.sampled_from([0.5, -0.25]))
def test_they_lose_what_each_of_them_loses_alone(
    case: NetworkCase, memory: float, step: float
) -> None:
    network, x, t = case.on(backend, widest)
    assert network.samplewise
    for key, parameter in network.params.items():
        elements = list(range(int(np.prod(parameter.shape))))[::-2]
        found = [
            float(loss)
            for some in network.perturbed_losses(x, t, key, elements, step, memory)
            for loss in host(some)
        ]
        params = dict(network.params)
        alone = [
            float(network.bound_to({**params, key: moved(parameter, i, step)}).loss(x, t))
            for i in elements
        ]
        np.testing.assert_allclose(found, alone, rtol=precise(1e-12, 1e-4), err_msg=f"{key} {case}")


@given(network_cases(batch=True))
def test_the_loss_is_the_mean_of_the_losses_of_the_samples(case: NetworkCase) -> None:
    network, x, t = case.on(backend, widest)
    losses = host(network.last_layer.losses(network.predict(x), t))
    assert losses.shape == (x.shape[0],)
    np.testing.assert_allclose(losses.mean(), float(network.loss(x, t)), rtol=precise(1e-12, 1e-5))


def net(layer: type[Affine] = Affine, loss: type[LossLayer] = SoftmaxWithLoss) -> xbp.Network:
    chance = np.random.default_rng(0)
    return xbp.Network(
        [
            layer(arr(chance.normal(size=(6, 5)), widest), arr(chance.normal(size=5), widest)),
            Relu(),
            layer(arr(chance.normal(size=(5, 3)), widest), arr(chance.normal(size=3), widest)),
        ],
        loss(),
    )


def data(count: int = 2) -> tuple[Array, Array]:
    return arr(np.random.default_rng(1).normal(size=(count, 6)), widest), arr([0, 2][:count])


@except_slow
def test_the_layers_behind_run_once_for_many_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    original = Relu.forward

    def counting(self: Relu, x: Array) -> Array:
        nonlocal calls
        calls += 1
        return original(self, x)

    monkeypatch.setattr(Relu, "forward", counting)
    net().numerical_gradient(*data())
    # For each of four parameters, to either side: 53 elements are moved 106 times. And four times
    # before, to see that all fits, and that many may be moved at once.
    assert calls <= 12
    calls = 0
    net().numerical_gradient(*data(), memory=1)
    assert calls >= 2 * (6 * 5 + 5)


def test_an_affine_layer_runs_twice_for_many_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    original = Affine.forward

    def counting(self: Affine, x: Array) -> Array:
        nonlocal calls
        calls += 1
        return original(self, x)

    layer = next(iter(net().layers.values()))
    x, _ = data()
    monkeypatch.setattr(Affine, "forward", counting)
    perturbed_outputs(layer, x, "W", range(30), 0.5)
    assert calls == 2


@except_slow
@pytest.mark.parametrize("check", [False, True])
def test_memory_bounds_how_many_are_moved_at_once(
    monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    counts = set()

    def noting(layer: Layer, x: Array, name: str, elements: Any, step: float) -> Array:
        counts.add(len(elements))
        return perturbed_outputs(layer, x, name, elements, step)

    monkeypatch.setattr("xbp.networks.perturbation.perturbed_outputs", noting)
    itemsize = 8 if backend.has_float64 else 4
    # Eight arrays of (2 samples + 1) rows, of 6 numbers at the most, for each of 8 elements.
    memory = 8 * (2 + 1) * 6 * itemsize * 8
    if check:
        xbp.gradient_check(net(), *data(), memory=memory)
    else:
        net().numerical_gradient(*data(), memory=memory)
    assert max(counts) == 8


class Doubled(Affine):
    """An affine layer whose outputs are not columns of a product."""

    samplewise = True

    def forward(self, x: Array) -> Array:
        y = super().forward(x)
        return y * y

    def backward(self, dout: Array) -> Array:
        raise NotImplementedError


def test_a_layer_that_derives_from_affine_is_run_for_each_element() -> None:
    network = net(Doubled)
    x, t = data()
    for key, parameter in network.params.items():
        (found,) = network.perturbed_losses(x, t, key, [0, 1], 0.5)
        alone = [
            float(network.bound_to({**network.params, key: moved(parameter, i, 0.5)}).loss(x, t))
            for i in (0, 1)
        ]
        np.testing.assert_allclose(host(found), alone, rtol=precise(1e-12, 1e-4))


class Centred(Layer):
    """Takes the mean of the batch away: no sample is by itself."""

    def forward(self, x: Array) -> Array:
        return x - backend.xp.mean(x, axis=0, keepdims=True)

    def backward(self, dout: Array) -> Array:
        return dout - backend.xp.mean(dout, axis=0, keepdims=True)


class OwnLoss(IdentityWithLoss):
    """A loss that does not say that it treats each sample by itself."""


@pytest.mark.parametrize(
    ("layers", "loss"), [([Centred()], SoftmaxWithLoss), ([], OwnLoss)], ids=["layer", "loss"]
)
def test_what_is_not_samplewise_is_moved_one_element_at_a_time(layers: Any, loss: Any) -> None:
    network = xbp.Network([*net().layers.values(), *layers], loss())
    assert not network.samplewise
    x, t = data()
    if loss is OwnLoss:
        t = arr([[1.0, 0.0, 0.5], [0.0, 2.0, 1.0]], widest)
    numerical, gradient = network.numerical_gradient(x, t), network.gradient(x, t)
    for key, value in gradient.items():
        np.testing.assert_allclose(
            host(numerical[key]), host(value), rtol=precise(1e-6, 0.05), atol=precise(1e-8, 0.1)
        )
    assert xbp.gradient_check(network, x, t).passed


class Half(IdentityWithLoss):
    """Another loss than that whose `losses` it inherits; backward is not told of it."""

    samplewise = True

    def forward(self, x: Array, t: Array) -> Array:
        self.loss = super().forward(x, t) * 0.5
        return self.loss


class HalfAll(Half):
    """Its `losses` are not those of its forward either."""

    samplewise = True

    def losses(self, x: Array, t: Array) -> Array:
        return super().losses(x, t)


class HalfRight(Half):
    samplewise = True

    def losses(self, x: Array, t: Array) -> Array:
        return super().losses(x, t) * 0.5

    def slope(self) -> Array:
        return super().slope() * 0.5


class Penalized(xbp.Network):
    """A network with a loss of its own, that does not get its share of the gradient."""

    def loss(self, x: Array, t: Array) -> Array:
        W = self.params["W1"]
        return super().loss(x, t) + 0.1 * namespace_of(W).sum(W * W)


class Lying(Centred):
    samplewise = True


def alone(network: xbp.Network, x: Array, t: Array) -> dict[str, Array]:
    """Return the numerical gradient of a network that is asked for one loss at a time."""
    params = dict(network.params)

    def by(key: str) -> Array:
        return xbp.numerical_gradient(
            lambda W: network.bound_to({**params, key: W}).loss(x, t), params[key]
        )

    return {key: by(key) for key in params}


@except_slow
@pytest.mark.filterwarnings("ignore:numerical_gradient. the function gives the same number")
@pytest.mark.parametrize(
    ("loss", "network_type", "verdict"),
    [
        (Half, xbp.Network, "wrong"),
        (HalfAll, xbp.Network, "wrong"),
        (HalfRight, xbp.Network, "ok"),
        (IdentityWithLoss, Penalized, "wrong"),
    ],
    ids=["half", "losses", "right", "network"],
)
def test_the_loss_is_that_of_the_network(loss: Any, network_type: Any, verdict: str) -> None:
    network = network_type([*net().layers.values()], loss())
    x, t = data()[0], arr([[1.0, 0.0, 0.5], [0.0, 2.0, 1.0]], widest)
    for key, expected in alone(network, x, t).items():
        found = host(network.numerical_gradient(x, t)[key])
        np.testing.assert_allclose(found, host(expected), atol=precise(1e-8, 1e-2))
    assert xbp.gradient_check(network, x, t).verdict == verdict
    assert not OwnLoss.samplewise
    assert not Half.samplewise
    assert HalfAll.samplewise


def test_no_backward_is_involved(monkeypatch: pytest.MonkeyPatch) -> None:
    for layer in (Affine, Relu, LossLayer):
        monkeypatch.delattr(layer, "backward")
    monkeypatch.delattr(Affine, "backward_params")
    assert net().numerical_gradient(*data()).keys() == {"W1", "b1", "W2", "b2"}


# What is said is verified ------------------------------------------------------------------------


def lying(layer: Layer) -> xbp.Network:
    first, relu, second = net().layers.values()
    return xbp.Network([first, relu, layer, second], SoftmaxWithLoss())


def test_a_layer_that_is_not_samplewise_is_named_with_file_and_line() -> None:
    message = r"test_perturbation\.py, line \d+: Lying says samplewise = True, but Lying1\.forward"
    for call in (xbp.gradient_check, lambda net, x, t: net.numerical_gradient(x, t)):
        with pytest.raises(SettingError, match=message):
            call(lying(Lying()), *data())
        with pytest.raises(SettingError, match=message.replace("Lying1", "Residual1")):
            call(lying(Residual(Lying())), *data())
    assert xbp.gradient_check(lying(Centred()), *data()).passed
    x, t = data()
    # Of a single sample nothing can be told.
    lying(Lying()).numerical_gradient(x[:1, ...], t[:1])
    lying(Lying()).numerical_gradient(x[0, ...], t[0])
    # Samples of one feature are samples too.
    with pytest.raises(SettingError, match="Lying says samplewise = True"):
        require_samplewise([Lying()], x[:, :1])
    # Of several in a block it may be each.
    with pytest.raises(SettingError, match=r": Centred; .*, line \d+: Lying says samplewise = Tr"):
        require_samplewise([Residual(Centred(), Lying())], x)


def test_a_class_without_a_file_is_named() -> None:
    made: Any = type("Made", (Lying,), {"samplewise": True, "__module__": "nowhere"})
    with pytest.raises(SettingError, match=r"^Made says samplewise = True, but Made1\.forward"):
        lying(made()).numerical_gradient(*data())


class Altered(Layer):
    """Gives these numbers for a sample alone, and those for a batch."""

    samplewise = True

    def __init__(self, alone: Any, within: Any) -> None:
        self.alone, self.within = alone, within

    def forward(self, x: Array) -> Array:
        return x * 0 + (self.alone if x.shape[0] == 1 else self.within)


def require_alike(alone: Any, within: Any, dtype: str = widest) -> None:
    layer = Altered(arr(alone, dtype), arr(within, dtype))
    require_samplewise([layer], arr(np.zeros((3, 2)), dtype))


@pytest.mark.parametrize("odd", [0, 2])
def test_the_first_sample_and_the_last_are_looked_at(odd: int) -> None:
    within = np.zeros((3, 2))
    require_alike([0.0, 0.0], within)
    within[odd] = 1
    with pytest.raises(
        SettingError,
        match=r": Altered says samplewise = True, but Altered\.forward gives for a sample in a "
        r"batch something else than for the sample alone: say samplewise = False$",
    ):
        require_alike([0.0, 0.0], within)


def test_what_a_sample_gives_alone_has_the_shape_that_it_has_in_a_batch() -> None:
    class Flat(Layer):
        samplewise = True

        def forward(self, x: Array) -> Array:
            return x[0, :] if x.shape[0] == 1 else 1 * x

    with pytest.raises(SettingError, match=r"Flat says samplewise = True, but Flat\.forward"):
        require_samplewise([Flat()], data()[0])


def test_samples_may_be_rounded_otherwise_in_a_batch() -> None:
    bound = cbrt(epsilon_of(arr(0.0, widest)))
    largest = np.asarray(bound, widest)
    largest = largest if float(largest) <= bound else np.nextafter(largest, largest * 0)
    require_alike([0.0, float(largest)], [0.0, 0.0])
    # Beside large numbers that is more.
    require_alike([1e6 + 1, 1.0], [1e6, 0.0])
    for share in (1.01, 1.5):
        with pytest.raises(SettingError, match="Altered says"):
            require_alike([0.0, share * bound], [0.0, 0.0])
        with pytest.raises(SettingError, match="Altered says"):
            require_alike([np.inf, share * bound], [1.0, 0.0])


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("odd", [np.inf, np.nan])
def test_where_there_is_no_number_there_is_nothing_to_compare(odd: float) -> None:
    for alone, within in ((odd, odd), (odd, 1.0), (1.0, odd)):
        require_alike([alone, 0.5], [within, 0.5])


def test_of_the_layers_of_this_library_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    original = Relu.forward

    def counting(self: Relu, x: Array) -> Array:
        nonlocal calls
        calls += 1
        return original(self, x)

    monkeypatch.setattr(Relu, "forward", counting)
    require_samplewise([Relu(), Altered(arr(0.0, widest), arr(0.0, widest))], data()[0])
    assert calls == 1
