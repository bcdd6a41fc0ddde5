"""A training that goes astray stops, says where, and goes back to what was good."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support import arr, backend, except_slow, host

import xbp
from xbp.calls import innermost_call, noted_calls
from xbp.cli import main
from xbp.errors import DivergenceError
from xbp.layers import Affine, Layer, Residual, Sigmoid, SoftmaxWithLoss
from xbp.namespace import Array
from xbp.training import Checkpoints
from xbp.training.finite import first_not_finite

SPEC = f"{backend.name}:{backend.device}"


@pytest.fixture(autouse=True)
def _numpy_may_overflow() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        yield


def network_of(**settings: Any) -> xbp.Network:
    settings = {"backend": backend, "dtype": "float32", "seed": 0, **settings}
    return xbp.Network.fully_connected([4, 6, 3], **settings)


def data(scale: float = 1.0) -> tuple[Any, Any]:
    chance = np.random.default_rng(0)
    return chance.normal(size=(60, 4)) * scale, chance.integers(0, 3, 60)


def params_of(network: xbp.Network) -> dict[str, Any]:
    return {key: host(value) for key, value in network.params.items()}


@pytest.mark.parametrize(
    "make", [lambda: xbp.SGD(1e30), lambda: xbp.Momentum(1e30)], ids=["SGD", "Momentum"]
)
def test_a_training_that_diverges_stops_and_says_where(make: Any) -> None:
    network = network_of()
    before = params_of(network)
    trainer = xbp.Trainer(network, make(), batch_size=10, seed=0)
    with pytest.raises(
        DivergenceError,
        match=r"the loss of step \d is (nan|inf): in step \d, Affine\d.forward gave NaN or "
        r"infinity first\. The network is now as it was after step 0\. Try a smaller learning "
        r"rate \(\w+\(lr=1e\+30.*the largest number is \d",
    ):
        trainer.fit(*data(), steps=12)
    for key, value in params_of(network).items():
        np.testing.assert_array_equal(value, before[key])


def test_the_network_goes_back_to_the_last_good_epoch() -> None:
    whole, network = network_of(), network_of()
    # An epoch has six steps.
    xbp.Trainer(whole, Exploding(), batch_size=10, seed=0).fit(*data(), steps=24)
    trainer = xbp.Trainer(network, Exploding(), batch_size=10, seed=0)
    with pytest.raises(DivergenceError, match=r"the loss of step \d\d .* was after step 24"):
        trainer.fit(*data(), steps=60)
    for key, value in params_of(network).items():
        np.testing.assert_array_equal(value, params_of(whole)[key])


class Exploding(xbp.Momentum):
    """Plain descent, while what is added to it grows past what float32 can hold."""

    state_names = (*xbp.Momentum.state_names, "factor")

    def __init__(self) -> None:
        super().__init__(0.1, 0.0)
        self.factor: dict[str, Array] = {}

    def prepare(self, params: Any) -> None:
        super().prepare(params)
        for key, value in params.items():
            self.factor.setdefault(key, value * 0 + 1e-33)

    def update(self, params: Any, grads: Any) -> None:
        super().update(params, grads)
        for key in params:
            self.factor[key] *= 100.0
            params[key] += self.factor[key] * 1e-3


def test_a_checkpoint_never_holds_what_has_diverged(tmp_path: Path) -> None:
    trainer = xbp.Trainer(network_of(), xbp.SGD(1e30), batch_size=10, seed=0)
    with pytest.raises(DivergenceError):
        trainer.fit(*data(), steps=12, checkpoints=Checkpoints(tmp_path, every_steps=1))
    for path in tmp_path.glob("*.safetensors"):
        assert np.isfinite(np.frombuffer(path.read_bytes()[-40:], np.float64)[0])


def test_a_layer_that_is_not_traceable_and_an_optimizer_that_tells_nothing() -> None:
    class Silent(xbp.Optimizer):
        def update(self, params: Any, grads: Any) -> None:
            for key in params:
                params[key] = params[key] * float("nan")

    trainer = xbp.Trainer(network_of(), Silent(), batch_size=10, seed=0)
    with pytest.raises(DivergenceError, match=r"step 2 is nan\. The network .* after step 0\. Try"):
        trainer.fit(*data(), steps=3)


class Plain(Layer):
    """A layer of somebody's own, which does not say that it may be traced."""

    def forward(self, x: Array) -> Array:
        return x * 1.0

    def backward(self, dout: Array) -> Array:
        return dout * 1.0


def test_a_network_with_a_layer_of_ones_own_goes_back_too() -> None:
    first, second = network_of().layers["Affine1"], network_of().layers["Affine2"]
    network = xbp.Network([first, Plain(), second], SoftmaxWithLoss())
    before = params_of(network)
    trainer = xbp.Trainer(network, xbp.SGD(1e30), batch_size=10, seed=0)
    with pytest.raises(DivergenceError, match=r"in step \d, .* gave NaN or infinity first\. The"):
        trainer.fit(*data(), steps=12)
    for key, value in params_of(network).items():
        np.testing.assert_array_equal(value, before[key])


class Poisoned(Layer):
    """Sends NaN back."""

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dout: Array) -> Array:
        return dout * float("nan")


def test_check_finite_stops_before_the_update() -> None:
    first, second = network_of().layers["Affine1"], network_of().layers["Affine2"]
    network = xbp.Network([first, Sigmoid(), Poisoned(), second], SoftmaxWithLoss())
    before = params_of(network)
    trainer = xbp.Trainer(network, xbp.SGD(0.1), seed=0, check_finite=True)
    with pytest.raises(DivergenceError, match=r"Poisoned1\.backward gave NaN or infinity"):
        trainer.fit(*data(), steps=1)
    for key, value in params_of(network).items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("check_finite", [False, True])
def test_the_last_update_is_looked_at_too(check_finite: bool, tmp_path: Path) -> None:
    network = network_of()
    before = params_of(network)
    # The loss is finite, what one step of this rate makes of the parameters is not.
    trainer = xbp.Trainer(network, xbp.SGD(3e38), batch_size=60, seed=0, check_finite=check_finite)
    x, t = data()
    with pytest.raises(
        DivergenceError,
        match=r"in step 1, the update of params\['W\d'\] gave NaN or infinity first\. The network "
        r"is now as it was after step 0\. Try a smaller learning rate \(SGD\(lr=3e\+38\)\)",
    ):
        trainer.fit(x * 100, t, steps=1, checkpoints=Checkpoints(tmp_path, every_steps=1))
    for key, value in params_of(network).items():
        np.testing.assert_array_equal(value, before[key])
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("check_finite", [False, True])
def test_the_message_is_the_same_however_much_is_looked_at(check_finite: bool) -> None:
    network = network_of()
    before = params_of(network)
    trainer = xbp.Trainer(network, xbp.SGD(1e30), batch_size=10, seed=0, check_finite=check_finite)
    with pytest.raises(
        DivergenceError,
        match=r"in step 2, Affine\d.forward gave NaN or infinity first\. The network is now as it "
        r"was after step 0\. Try a smaller learning rate",
    ):
        trainer.fit(*data(), steps=12)
    for key, value in params_of(network).items():
        np.testing.assert_array_equal(value, before[key])


def test_a_loss_that_has_risen_far_is_pointed_out() -> None:
    trainer = xbp.Trainer(network_of(), xbp.SGD(1e3), batch_size=10, seed=0)
    with pytest.warns(RuntimeWarning, match=r"the loss has risen from .* to .*: try a smaller"):
        trainer.fit(*data(), steps=3)


def test_check_finite_learns_what_is_learned_without() -> None:
    one, other = network_of(), network_of()
    for network, check_finite in ((one, False), (other, True)):
        trainer = xbp.Trainer(
            network, xbp.SGD(0.1), batch_size=10, seed=0, check_finite=check_finite
        )
        trainer.fit(*data(), steps=8)
    for key, value in params_of(one).items():
        np.testing.assert_allclose(params_of(other)[key], value, rtol=1e-5, atol=1e-6)


def test_where_it_is_first() -> None:
    x, t = (arr(values, dtype) for values, dtype in zip(data(), ("float32", None), strict=True))
    network = network_of()
    assert first_not_finite(network, x, t) is None
    network.params["b2"] = network.params["b2"] + float("inf")
    assert first_not_finite(network, x, t) == "params['b2']"
    W = arr(np.full((4, 3), 3e38), "float32")
    large = xbp.Network([Affine(W, arr(np.zeros(3), "float32"))], SoftmaxWithLoss())
    assert first_not_finite(large, x * 10, t) == "Affine1.forward"
    assert first_not_finite(large, x * float("nan"), t) == "x"


def test_it_is_found_within_blocks_and_in_what_a_network_does_itself() -> None:
    x, t = (arr(values, dtype) for values, dtype in zip(data(), ("float32", None), strict=True))
    W = arr(np.full((4, 4), 3e38), "float32")
    block = Residual(Sigmoid(), Residual(Affine(W, arr(np.zeros(4), "float32"))))
    network = xbp.Network([Sigmoid(), block], SoftmaxWithLoss())
    assert first_not_finite(network, x, t) == "Residual1.Residual1.Affine1.forward"
    poisoned = xbp.Network([Residual(Poisoned()), *network_of().layers.values()], SoftmaxWithLoss())
    assert first_not_finite(poisoned, x, t) is None  # nobody asks the first layers for it
    behind = xbp.Network([*network_of().layers.values(), Residual(Poisoned())], SoftmaxWithLoss())
    assert first_not_finite(behind, x, t) == "Residual1.Poisoned1.backward"

    class Scaled(xbp.Network):
        def loss(self, x: Array, t: Array) -> Array:
            return super().loss(x / 1e38, t) * float("inf")

    large = Scaled([Affine(W[:, :3], arr(np.zeros(3), "float32"))], SoftmaxWithLoss())
    assert first_not_finite(large, x, t) == "the loss"


class InPlaceBad(Layer):
    """Writes NaN over its input."""

    def forward(self, x: Array) -> Array:
        x *= float("nan")
        return x

    def backward(self, dout: Array) -> Array:
        return dout


class Branches(Layer):
    """Runs its parts in threads of its own, and numbers beside arrays."""

    def __init__(self, *parts: Layer) -> None:
        self.parts = parts
        self.product = xbp.layers.MulLayer()

    def forward(self, x: Array) -> Array:
        factor = self.product.forward(2.0, 0.5)
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(copy_context().run, part.forward, x) for part in self.parts]
            return sum((run.result() for run in runs), 0 * x) * factor

    def backward(self, dout: Array) -> Array:
        return sum((part.backward(dout) for part in self.parts), 0 * dout)


def test_the_layer_that_wrote_it_is_named_and_none_is_in_the_way() -> None:
    x, t = (arr(values, dtype) for values, dtype in zip(data(), ("float32", None), strict=True))
    network = xbp.Network([Sigmoid(), InPlaceBad()], SoftmaxWithLoss())
    assert first_not_finite(network, x, t) == "InPlaceBad1.forward"
    losing = xbp.Network([Sigmoid()], xbp.layers.IdentityWithLoss())
    far = arr(np.full((60, 4), 3e38), "float32")
    assert first_not_finite(losing, x, far) == "IdentityWithLoss.forward"
    network = xbp.Network([Branches(*(Sigmoid() for _ in range(20)))], SoftmaxWithLoss())
    for _ in range(5):
        assert first_not_finite(network, x, t) is None
        assert network.unsteady_layer(x, t) is None


class Tries(Layer):
    """Goes on with another part where the first ends in an error."""

    def __init__(self, first: Layer, second: Layer) -> None:
        self.first, self.second = first, second

    def forward(self, x: Array) -> Array:
        try:
            return self.first.forward(x)
        except NotImplementedError:
            return self.second.forward(x)

    def backward(self, dout: Array) -> Array:
        return self.second.backward(dout)


def test_a_call_that_ended_in_an_error_is_none() -> None:
    class Missing(Layer):
        def forward(self, x: Array) -> Array:
            raise NotImplementedError

    x, t = (arr(values, dtype) for values, dtype in zip(data(), ("float32", None), strict=True))
    network = xbp.Network([Tries(Missing(), Sigmoid())], SoftmaxWithLoss())
    assert first_not_finite(network, x, t) is None
    assert network.unsteady_layer(x, t) is None
    network = xbp.Network([Sigmoid(), Tries(Missing(), InPlaceBad())], SoftmaxWithLoss())
    assert first_not_finite(network, x, t) == "Tries1.second.forward"


def test_outside_of_layers_no_layer_is_at_work() -> None:
    assert innermost_call() == ""
    with noted_calls():
        assert innermost_call() == ""


def test_a_single_class_is_pointed_out() -> None:
    x, _ = data()
    trainer = xbp.Trainer(network_of(), xbp.SGD(0.1), batch_size=10, seed=0)
    for t in (np.full(60, 2), np.eye(3)[np.full(60, 2)]):
        with pytest.warns(UserWarning, match="training data: all 60 samples are of class 2"):
            trainer.fit(x, t, steps=1)


@except_slow
def test_the_command_ends_with_a_message(tmp_path: Path) -> None:
    arguments = ["train", "--lr=1e30", "--steps=30", f"--backend={SPEC}", f"--out={tmp_path}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "gave NaN or infinity first" in result.stderr
    assert "Traceback" not in result.stderr
