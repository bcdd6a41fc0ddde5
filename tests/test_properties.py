"""The proofs: what holds for every layer and every network, whatever it is given."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from networks_by_hand import relu_inputs, run
from support import HostArray, arr, backend, host, widest

import xbp
from xbp.differences import RESOLUTION, noise_of
from xbp.layers import Relu, SoftmaxWithLoss
from xbp.testing import (
    LAYERS,
    LayerCase,
    LayerTrial,
    NetworkCase,
    Signature,
    host_arrays,
    layer_cases,
    network_cases,
)
from xbp.testing.assertions import prove
from xbp.testing.derivative import backward_is_the_derivative

NUMPY = xbp.get_backend("numpy")
EPSILON = float(backend.xp.finfo(backend.dtype(widest)).eps)


@given(st.sampled_from(LAYERS).flatmap(layer_cases))
def test_every_property_of_every_layer(case: LayerCase) -> None:
    prove(case, backend)


RELU = Signature(Relu)


@given(layer_cases(RELU))
def test_the_kinks_of_relu_are_its_zeros_and_nothing_else_is_set_aside(case: LayerCase) -> None:
    trial = LayerTrial(case, backend, widest)
    found = backward_is_the_derivative(trial)
    x = case.arrays["x"]
    assert found.compared == x.size**2
    # A step that stays on one side of a kink this close tells no slope to a thousandth.
    close = 16 * 2 * trial.unit * float(np.max(trial.magnitude)) / RESOLUTION
    assert np.count_nonzero(x == 0) <= found.kinks <= np.count_nonzero(abs(x) < close)


@given(st.data(), st.sampled_from([(3,), (2, 3)]), st.floats(-1e6, 1e6, width=32))
def test_softmax_forgets_a_shift(data: st.DataObject, shape: tuple[int, ...], shift: float) -> None:
    x = data.draw(host_arrays(shape))
    t = arr(np.zeros(shape[:-1], dtype=np.int64))
    here, there = SoftmaxWithLoss(), SoftmaxWithLoss()
    losses = [
        float(here.forward(arr(x, widest), t)),
        float(there.forward(arr(x + shift, widest), t)),
    ]
    # Rounding the shifted scores moves each of them, by which no derivative is larger than 1.
    bound = noise_of(EPSILON, x.size, 1 + 2 * float(np.max(abs(x))) + 2 * abs(shift))
    assert abs(losses[0] - losses[1]) <= bound
    assert np.all(abs(host(here.backward()) - host(there.backward())) <= bound)


# Networks ----------------------------------------------------------------------------------------


@given(network_cases(), st.integers(0, 99))
def test_the_gradients_of_a_network_are_its_derivatives(case: NetworkCase, seed: int) -> None:
    network, x, t = case.on(backend, widest)
    report = xbp.gradient_check(network, x, t, elements=1, seed=seed)
    # Where a loss is all but 0, no difference quotient tells.
    assert report.verdict in ("ok", "inconclusive"), f"{report}\n{case}"
    event(report.verdict)
    event(f"{sum(check.kinks > 0 for check in report.parameters.values())} parameters with kinks")


def gradients(
    case: NetworkCase, dtype: str = widest, on: xbp.Backend = backend
) -> dict[str, HostArray]:
    network, x, t = case.on(on, dtype)
    return {key: np.array(on.to_numpy(value)) for key, value in network.gradient(x, t).items()}


def unit_of(case: NetworkCase, dtype: str = widest) -> float:
    """Return how far rounding can put off a number of size 1, once for each layer."""
    epsilon = float(backend.xp.finfo(backend.dtype(dtype)).eps)
    longest = max(length for W, _ in case.weights for length in (*W.shape, *case.x.shape))
    return len(case.weights) * noise_of(epsilon, longest, 1.0)


def away_from_kinks(case: NetworkCase, unit: float) -> bool:
    """Tell whether rounding leaves each input of a ReLU on its side of 0."""
    # A number below the smallest of float32 is 0 there.
    tiny = np.finfo(np.float32).tiny
    return not any(
        np.any((abs(y) <= np.maximum(64 * unit * size, tiny)) & (size > 0))
        for y, size in relu_inputs(case)
    )


def rounding(case: NetworkCase, unit: float) -> dict[str, HostArray]:
    """Return how far rounding can put off each gradient.

    That is how far it moves when every number moves by its roundings, and what the roundings of
    the probabilities, of size 1, and of the activations come to on the way back. All libraries
    round alike, so that the fastest may tell.
    """
    here = gradients(case, "float64", NUMPY)
    others = [gradients(case.nudged(unit, seed), "float64", NUMPY) for seed in range(3)]
    bounds = {key: 4 * np.ptp([here[key], *(one[key] for one in others)], axis=0) for key in here}
    *inputs, y = run(case)
    # What float32 cannot hold is lost there, whatever it would be multiplied by.
    lost = 1e6 * float(np.finfo(np.float32).tiny)
    upstream = unit * (1 + np.max(abs(y - case.t if y.shape == case.t.shape else y * 0)))
    for number, x in reversed(list(enumerate(inputs, start=1))):
        W = case.weights[number - 1][0]
        bounds[f"W{number}"] += lost + upstream * np.max(abs(x)) + unit * abs(here[f"W{number}"])
        bounds[f"b{number}"] += lost + upstream + unit * abs(here[f"b{number}"])
        upstream *= max(1.0, np.max(np.sum(abs(W), axis=1)))
    return bounds


def assert_within(
    found: Mapping[str, HostArray],
    expected: Mapping[str, HostArray],
    bounds: Mapping[str, HostArray],
    case: NetworkCase,
) -> None:
    for key, bound in bounds.items():
        apart = abs(found[key] - expected[key])
        assert np.all(apart <= bound), f"{key}: {apart} > {bound}\n{case}"


@given(network_cases(batch=True))
def test_the_gradient_of_a_batch_is_the_mean_of_those_of_its_samples(case: NetworkCase) -> None:
    unit = unit_of(case)
    assume(away_from_kinks(case, unit))
    count = len(case.x)
    alone = [gradients(case.samples([n])) for n in range(count)]
    mean = {key: np.mean([one[key] for one in alone], axis=0) for key in alone[0]}
    bounds = [rounding(case.samples([n]), unit) for n in range(count)]
    assert_within(
        gradients(case),
        mean,
        {key: np.mean([bound[key] for bound in bounds], axis=0) for key in mean},
        case,
    )


@given(st.data(), network_cases(batch=True))
def test_the_order_of_the_batch_does_not_matter(data: st.DataObject, case: NetworkCase) -> None:
    unit = unit_of(case)
    assume(away_from_kinks(case, unit))
    order = data.draw(st.permutations(range(len(case.x))))
    assert_within(gradients(case.samples(order)), gradients(case), rounding(case, unit), case)


@given(network_cases())
def test_labels_and_one_hot_give_the_same(case: NetworkCase) -> None:
    if case.t.dtype.kind != "i":
        return
    one_hot = np.eye(case.weights[-1][1].size)[case.t]
    other = NetworkCase(case.weights, case.activations, case.loss, case.x, one_hot)
    ours, theirs = gradients(case), gradients(other)
    for key, value in theirs.items():
        np.testing.assert_array_equal(value, ours[key])


@given(network_cases(), st.sampled_from(["float32", widest]))
def test_a_gradient_leaves_everything_as_it_was(case: NetworkCase, dtype: str) -> None:
    network, x, t = case.on(backend, dtype)
    kept = {"x": x, "t": t, **network.params}
    before = {key: host(value) for key, value in kept.items()}
    gradient = network.gradient(x, t)
    for key, value in kept.items():
        np.testing.assert_array_equal(host(value), before[key])
        assert key in ("x", "t") or network.params[key] is value
    assert gradient.keys() == network.params.keys()
    for key, value in gradient.items():
        assert value.shape == network.params[key].shape
        assert value.dtype == network.params[key].dtype
        assert backend.owns(value)


@pytest.mark.skipif(not backend.has_float64, reason="there is no float64 to compare with")
@given(network_cases())
def test_float32_agrees_with_float64_as_far_as_it_can(case: NetworkCase) -> None:
    unit = unit_of(case, "float32")
    assume(away_from_kinks(case, unit))
    assert_within(gradients(case, "float32"), gradients(case), rounding(case, unit), case)
