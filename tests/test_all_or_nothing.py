"""A mistake changes nothing, and a training changes no array that is somebody else's."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import arr, backend, both_floats, dtype_of, host, widest

import xbp
from xbp import SGD, Adam, Momentum, Network, Optimizer, Trainer, TwoLayerNet
from xbp.errors import CheckpointError, DTypeError, SettingError, ShapeError, XbpError
from xbp.layers import Affine, SoftmaxWithLoss
from xbp.saving import load_parameters, save_parameters
from xbp.training import Checkpoint, Checkpoints

X, T = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1])
OPTIMIZERS = pytest.mark.parametrize("make", [SGD, Momentum, Adam])


def net(seed: int = 0, dtype: str = widest) -> TwoLayerNet:
    return TwoLayerNet(2, 3, 2, weight_init_std=0.5, dtype=dtype, seed=seed)


def values_of(network: Network) -> dict[str, Any]:
    return {key: host(value) for key, value in network.params.items()}


def assert_unchanged(network: Network, before: dict[str, Any]) -> None:
    for key, value in values_of(network).items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def fit(network: Network, optimizer: Optimizer | None = None, **more: Any) -> None:
    Trainer(network, optimizer or SGD(0.1), seed=0).fit(X, T, steps=3, **more)


# A training and the arrays of others ------------------------------------------------------------


@OPTIMIZERS
def test_weights_that_were_taken_over_stay_as_they_were(make: Any) -> None:
    first, second = net(0), net(1)
    second.params.update(first.params)
    before = values_of(first)
    fit(second, make())
    assert_unchanged(first, before)
    assert not np.array_equal(values_of(second)["W1"], before["W1"])


@pytest.mark.skipif(backend.name != "numpy", reason="only NumPy makes an array read-only")
def test_arrays_that_cannot_be_written_to_are_learned_from() -> None:
    network = net()
    for value in network.params.values():
        value.flags.writeable = False
    before = values_of(network)
    fit(network)
    assert not np.array_equal(values_of(network)["W1"], before["W1"])


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's autograd")
def test_arrays_with_a_history_are_learned_from() -> None:
    W, b = arr(np.eye(2), widest).requires_grad_(), arr([0.0, 0.0], widest)
    network = Network([Affine(W, b)], SoftmaxWithLoss())
    fit(network)
    assert not network.params["W1"].requires_grad
    np.testing.assert_array_equal(host(W.detach()), np.eye(2))


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's autograd")
def test_an_update_by_hand_has_no_history() -> None:
    params = {"W": arr([1.0, 2.0], widest).requires_grad_()}
    xbp.Momentum(0.5).update(params, {"W": arr([2.0, 2.0], widest)})
    assert not params["W"].requires_grad
    np.testing.assert_array_equal(host(params["W"]), [0, 1])


# All or nothing ----------------------------------------------------------------------------------


def test_parameters_are_replaced_together() -> None:
    network = net()
    before = values_of(network)
    good = arr(np.ones((2, 3)), widest)
    with pytest.raises(ShapeError, match=r"params\['b1'\] has shape \(3,\), not \(2, 3\)"):
        network.params.update({"W1": good}, b1=good)
    with pytest.raises(XbpError, match="there is no parameter 'W3'"):
        network.params.update(W1=good, W3=good)
    assert_unchanged(network, before)
    network.params.update([("W1", good)])
    np.testing.assert_array_equal(values_of(network)["W1"], 1)


@OPTIMIZERS
@pytest.mark.parametrize("wrong", [None, 1.0, [1.0, 1.0], "shape", "key"])
def test_an_update_changes_all_parameters_or_none(make: Any, wrong: Any) -> None:
    network = net()
    before, optimizer = values_of(network), make()
    grads = network.gradient(arr(X, widest), arr(T))
    good = dict(grads)
    grads["b2"] = arr([[1.0, 1.0]], widest) if wrong == "shape" else wrong
    if wrong == "key":
        grads = {**good, "W3": good["W1"]}
    with pytest.raises(XbpError, match=f"{make.__name__}.update, the gradient of (b2|W3)"):
        optimizer.update(network.params, grads)
    assert_unchanged(network, before)
    optimizer.update(network.params, good)
    other = net()
    make().update(other.params, good)
    assert_unchanged(network, values_of(other))


@OPTIMIZERS
def test_a_gradient_is_taken_in_the_dtype_of_its_parameter(make: Any) -> None:
    network, exact = net(dtype="float32"), net(dtype="float32")
    x, t = arr(X, "float32"), arr(T)
    make().update(network.params, network.numerical_gradient(x, t))
    make().update(exact.params, exact.gradient(x, t))
    for key, value in network.params.items():
        assert dtype_of(value) == "float32"
        np.testing.assert_allclose(host(value), host(exact.params[key]), atol=1e-2)


def test_a_model_of_two_dtypes_comes_back(tmp_path: Path) -> None:
    def mixed(value: float) -> Network:
        layers = [
            Affine(arr(np.full((2, 2), value), dtype), arr([value, value], dtype))
            for dtype in ("float32", widest)
        ]
        return Network(layers, SoftmaxWithLoss())

    save_parameters(mixed(1.0), tmp_path / "model")
    network = mixed(0.0)
    load_parameters(network, tmp_path / "model")
    assert_unchanged(network, values_of(mixed(1.0)))


# Before a training, not after it ----------------------------------------------------------------


class Remembering(Optimizer):
    """Remembers what no file can hold."""

    state_names = ("thing",)
    thing = object()


def test_what_cannot_be_saved_is_found_out_before_the_first_step(tmp_path: Path) -> None:
    network = net()
    before = values_of(network)
    with pytest.raises(SettingError, match="remembers beside arrays are a dictionary of what JSON"):
        fit(network, Remembering(), checkpoints=Checkpoints(tmp_path))
    with pytest.raises(SettingError, match="settings are a dictionary of what JSON can hold"):
        Checkpoints(tmp_path, settings={"lr": np.float32(0.1)})
    for wrong in (print, True, object()):
        with pytest.raises(SettingError, match="progress is an object with the methods"):
            fit(network, progress=wrong)
    assert_unchanged(network, before)


def test_a_training_goes_on_with_the_layers_that_it_had(tmp_path: Path) -> None:
    sizes = [2, 3, 2]
    relu = Network.fully_connected(sizes, dtype=widest, seed=0)
    fit(relu, checkpoints=Checkpoints(tmp_path))
    sigmoid = Network.fully_connected(sizes, activation=xbp.layers.Sigmoid, dtype=widest, seed=1)
    before = values_of(sigmoid)
    with pytest.raises(CheckpointError, match=r"had layers .*<Relu1>.*, this one has .*<Sigmoid1>"):
        fit(sigmoid, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_unchanged(sigmoid, before)


def test_a_training_goes_on_with_the_divisor_that_it_had(tmp_path: Path) -> None:
    networks = [
        Network.fully_connected([2, 3, 2], divisor=divisor, dtype=widest, seed=0)
        for divisor in (1, 1000)
    ]
    fit(networks[0], checkpoints=Checkpoints(tmp_path))
    with pytest.raises(CheckpointError, match=r"divides by 1>.*this one has .*divides by 1000>"):
        fit(networks[1], checkpoints=Checkpoints(tmp_path, resume=True))


@pytest.mark.parametrize("numbers", [{"optimizer.steps": "a"}, {}, [], {"optimizer.steps": True}])
def test_an_optimizer_takes_no_strange_numbers(numbers: Any, tmp_path: Path) -> None:
    fit(net(), Adam(), checkpoints=Checkpoints(tmp_path))
    (path,) = tmp_path.glob("*.safetensors")
    read = Checkpoint.from_bytes(path.read_bytes())
    if isinstance(numbers, dict) and numbers:
        numbers = {**read.state["numbers"], **numbers}
    path.write_bytes(Checkpoint({**read.state, "numbers": numbers}, read.arrays).to_bytes())
    network = net(5)
    before = values_of(network)
    with pytest.raises(CheckpointError):
        fit(network, Adam(), checkpoints=Checkpoints(tmp_path, resume=True))
    assert_unchanged(network, before)


# What a value is ---------------------------------------------------------------------------------


def test_boolean_one_hot_targets() -> None:
    first, second = net(), net()
    fit(first)
    Trainer(second, SGD(0.1), seed=0).fit(X, np.eye(2, dtype=bool)[T], steps=3)
    assert_unchanged(first, values_of(second))


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_subclasses_of_numpys_array() -> None:
    plain, matrix, masked = net(), net(), net()
    fit(plain)
    for network, x in ((matrix, np.asmatrix(X)), (masked, np.ma.masked_array(X))):
        Trainer(network, SGD(0.1), seed=0).fit(x, T, steps=3)
        assert_unchanged(network, values_of(plain))
    if backend.name == "numpy":
        with pytest.raises(DTypeError, match=r"Affine1: expected an array, got numpy.*matrix"):
            plain.predict(np.asmatrix(X))


@pytest.mark.skipif(backend.name != "jax", reason="is about JAX's 64-bit mode")
def test_jax_drops_no_half_of_an_integer() -> None:
    with backend.library.enable_x64(False):
        np.testing.assert_array_equal(host(backend.asarray([3, -4])), [3, -4])
        for large in ([2**31], [-(2**31) - 1], np.array([2**32], np.uint64)):
            with pytest.raises(DTypeError, match=r"has no u?int64: .*x64"):
                backend.asarray(large)
        with pytest.raises(DTypeError, match=r"has no int64: .*x64"):
            backend.asarray(1, "int64")


def test_a_selection_is_looked_up_before_the_block() -> None:
    with pytest.raises(XbpError, match="no backend is named 'torhc'"):
        xbp.use_backend("torhc")


# Copies ------------------------------------------------------------------------------------------


@pytest.mark.skipif(backend.name == "dpnp", reason="dpnp's arrays cannot be copied so")
@both_floats
def test_a_copy_of_a_network_learns_alone(dtype: str) -> None:
    first = net(dtype=dtype)
    second = copy.deepcopy(first)
    assert repr(second.backend) == repr(first.backend)
    before = values_of(first)
    fit(second)
    assert_unchanged(first, before)
    third = net(dtype=dtype)
    fit(third)
    assert_unchanged(third, values_of(second))


def test_a_backend_is_pickled_by_its_names() -> None:
    again = pickle.loads(pickle.dumps(backend))
    assert repr(again) == repr(backend)
    assert again.owns(arr([1.0]))
    assert again.owns(again.asarray([1.0]))
