"""What each mistake is answered with: the rows of mistakes.toml, on the backend under test."""

import re
import shlex
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support import arr, backend, except_slow, widest

import xbp
from xbp import (
    SGD,
    Adam,
    History,
    Network,
    Trainer,
    TwoLayerNet,
    get_backend,
    gradient_check,
    numerical_gradient,
    register_backend,
    set_backend,
    use_backend,
)
from xbp.cli import main
from xbp.datasets import load_digits, load_mnist, load_npz, read_idx
from xbp.errors import XbpError
from xbp.functions import one_hot, softmax
from xbp.graphs import Graph, Operation, Variable
from xbp.layers import Affine, IdentityWithLoss, MulLayer, Relu, SoftmaxWithLoss
from xbp.reports import Report, evaluate, evaluate_regression
from xbp.saving import load_parameters, save_parameters
from xbp.training import Checkpoint, Checkpoints

TABLE = tomllib.loads((Path(__file__).parent / "mistakes.toml").read_text())
CALLS: list[dict[str, str]] = TABLE["call"]
COMMANDS: list[dict[str, Any]] = TABLE["command"]

# Networks that rows have used, and what they were before.
_networks: list[tuple[Network, dict[str, Any]]] = []


def net() -> TwoLayerNet:
    """Return a network that must stay as it is."""
    network = TwoLayerNet(2, 3, 2, dtype=widest, seed=0)
    before = {key: np.array(backend.to_numpy(value)) for key, value in network.params.items()}
    _networks.append((network, before))
    return network


def trainer(network: Network | None = None) -> Trainer:
    return Trainer(network or net(), SGD(0.1), seed=0)


def regression() -> Network:
    return Network.fully_connected([2, 1], loss=IdentityWithLoss, dtype="float32", seed=0)


def sample() -> Any:
    return arr([[1.0, 2.0]], widest)


def written(name: str, content: bytes) -> str:
    Path(name).write_bytes(content)
    return name


def saved(name: str, **arrays: Any) -> str:
    np.savez(name, **arrays)
    return name


def model_of_another_shape() -> str:
    save_parameters(TwoLayerNet(4, 3, 2, dtype=widest), "other.safetensors")
    return "other.safetensors"


def model_of_another_loss() -> str:
    network = Network.fully_connected([2, 3, 2], loss=IdentityWithLoss, dtype=widest)
    save_parameters(network, "other.safetensors")
    return "other.safetensors"


def masked() -> Any:
    return np.ma.masked_array([[1.0, 2.0]], [[True, False]])


def products() -> MulLayer:
    """Return a layer that has multiplied integers."""
    layer = MulLayer()
    layer.forward(arr([1, 2]), 3)
    return layer


def loss_of(t: Any) -> SoftmaxWithLoss:
    """Return a layer that has computed a loss."""
    layer = SoftmaxWithLoss()
    layer.forward(sample(), t)
    return layer


class Forgetful(SGD):
    """Changes what it does not remember."""

    calls = 0

    def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
        self.calls += 1
        return super().step(W, dW, memory, lr)


def folder_of_another_run() -> str:
    checkpoints = Checkpoints("run")
    checkpoints.start()
    checkpoints.save(Checkpoint({"step": 1}, {}))
    return "run"


NAMES: dict[str, Any] = {
    **{thing.__name__: thing for thing in (SGD, Network, Trainer, TwoLayerNet, Graph, Operation)},
    **{thing.__name__: thing for thing in (Variable, Affine, Relu, SoftmaxWithLoss)},
    **{thing.__name__: thing for thing in (Checkpoint, Checkpoints, get_backend, set_backend)},
    **{thing.__name__: thing for thing in (register_backend, gradient_check, numerical_gradient)},
    **{thing.__name__: thing for thing in (load_digits, load_mnist, load_npz, read_idx)},
    **{thing.__name__: thing for thing in (load_parameters, save_parameters, net, trainer)},
    **{thing.__name__: thing for thing in (sample, written, saved, arr, masked, loss_of)},
    **{thing.__name__: thing for thing in (products, MulLayer, softmax, one_hot, History, Report)},
    **{thing.__name__: thing for thing in (use_backend, Adam, Forgetful, regression)},
    **{thing.__name__: thing for thing in (evaluate, evaluate_regression)},
    "model_of_another_shape": model_of_another_shape,
    "model_of_another_loss": model_of_another_loss,
    "folder_of_another_run": folder_of_another_run,
    "backend": backend,
    "widest": widest,
}


@pytest.fixture(autouse=True)
def _nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and see afterwards that no network was changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XBP_DATA_DIR", raising=False)
    _networks.clear()
    yield
    for network, before in _networks:
        for key, value in network.params.items():
            np.testing.assert_array_equal(backend.to_numpy(value), before[key])


def assert_says(found: str, expected: str) -> None:
    """Compare a message with that of the table, in which … stands for what differs."""
    pattern = ".*".join(map(re.escape, expected.split("…")))
    assert re.search(pattern, found, flags=re.DOTALL), f"{found!r} is not {expected!r}"


def test_there_are_a_hundred_rows() -> None:
    assert len(CALLS) + len(COMMANDS) >= 100
    assert len({row["code"] for row in CALLS}) == len(CALLS)


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row["code"][:60])
def test_a_call(row: dict[str, str]) -> None:
    with warnings.catch_warnings():
        # A damaged checkpoint is warned of, a single class too.
        warnings.simplefilter("ignore")
        with pytest.raises(XbpError) as caught:
            eval(row["code"], dict(NAMES))
    assert type(caught.value).__name__ == row["error"]
    assert_says(str(caught.value), row["message"])


@except_slow
@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row["line"])
def test_a_command(row: dict[str, Any]) -> None:
    np.savez("odd.npz", x_train=np.ones((2, 2)), t_train=np.array([0.5, 1.5]))
    np.savez("infinite.npz", x_train=np.ones((2, 2)), t_train=np.array([0.0, np.inf]))
    bytes_ = np.ones((2, 2), np.uint8)
    np.savez("bytes.npz", x_train=bytes_ / 255, t_train=[0, 1], x_test=bytes_, t_test=[0, 1])
    np.savez("text.npz", x_train=np.array([["a"], ["b"]]), t_train=np.array([0, 1]))
    np.savez("gap.npz", x_train=np.ones((2, 2)), t_train=np.array([0, 10**9]))
    np.savez("nan.npz", x_train=np.full((2, 2), np.nan), t_train=np.array([0, 1]))
    np.savez("counts.npz", x_train=np.ones((0, 10**6)), t_train=np.array([0, 1]))
    np.savez("negative.npz", x_train=np.ones((2, 2)), t_train=np.array([0, -1]))
    np.savez("objects.npz", x_train=np.array([{}, {}]), t_train=np.array([0, 1]))
    np.savez("counted.npz", x_train=np.ones((2, 2)), t_train=np.array([[0, 1], [2, 3]]))
    np.savez("names.npz", x_train=np.ones((2, 2)), t_train=np.array(["a", "b"]))
    x = np.linspace(-3.0, 3.0, 40)
    np.savez("large.npz", x_train=x[:, None], t_train=x / 3 * 5e4)
    Path("file").write_text("in the way")
    _, *arguments = shlex.split(row["line"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy says when it overflows
        result = CliRunner().invoke(main, arguments, env={"COLUMNS": "1000"})
    assert result.exit_code == row["status"], (result.stdout, result.stderr, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr
    assert_says(result.stderr, row["message"])


def test_the_selection_is_as_it_was() -> None:
    with pytest.raises(XbpError):
        set_backend("torhc")
    assert xbp.get_backend().name == backend.name
