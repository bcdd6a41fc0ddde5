"""Parameters in files: there and back, on another backend too, and nothing half-written."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from support import backend, host, other

from xbp import Network, TwoLayerNet
from xbp.cli.result import to_json, write_json
from xbp.errors import CheckpointError, DataError
from xbp.layers import Affine, IdentityWithLoss, Relu, Sigmoid, SoftmaxWithLoss
from xbp.saving import (
    load_parameters,
    save_parameters,
    to_safetensors,
)


def net(seed: int, **settings: Any) -> TwoLayerNet:
    return TwoLayerNet(4, 5, 3, dtype="float32", seed=seed, **settings)


def test_parameters_go_to_a_file_and_into_another_network(tmp_path: Path) -> None:
    network, again, elsewhere = net(0), net(1), net(2, backend=other)
    save_parameters(network, tmp_path / "model.safetensors")
    load_parameters(again, tmp_path / "model.safetensors")
    load_parameters(elsewhere, tmp_path / "model.safetensors")
    for key, value in network.params.items():
        np.testing.assert_array_equal(host(again.params[key]), host(value))
        np.testing.assert_array_equal(other.to_numpy(elsewhere.params[key]), host(value))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.skipif(backend.name != "numpy", reason="is about NumPy's byte orders")
def test_a_network_of_another_byte_order_gets_its_parameters_back(tmp_path: Path) -> None:
    W = np.arange(6, dtype=">f8").reshape(2, 3)
    first, again = (Network([Affine(V, V[0])], SoftmaxWithLoss()) for V in (W, W * 0))
    save_parameters(first, tmp_path / "model.safetensors")
    load_parameters(again, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.params["W1"], W)


def _unchanged(network: Network, path: Path, message: str) -> None:
    before = {key: host(value).copy() for key, value in network.params.items()}
    with pytest.raises(CheckpointError, match=message):
        load_parameters(network, path)
    for key, value in network.params.items():
        np.testing.assert_array_equal(host(value), before[key])


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    _unchanged(net(0), path, r"model.safetensors: cannot be read .*save_parameters")
    save_parameters(net(0), path)
    content = path.read_bytes()
    for damaged in (b"", b"no model", content[:20], content[:-1], content + b"\0"):
        path.write_bytes(damaged)
        _unchanged(net(1), path, "cannot be read")


def test_a_model_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    good = {key: host(value) for key, value in net(0).params.items()}
    for wrong in (
        {**good, "W1": np.zeros((4, 6), np.float32)},
        {**good, "b2": good["b2"].astype(np.float64)},
        {**good, "W3": good["W2"]},
        {key: good[key] for key in ("W1", "b1", "W2")},
    ):
        save_file(wrong, path)
        _unchanged(net(1), path, r"holds .*W1 float32\(4, .*but the network has .*same sizes")


def test_what_was_there_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_json({"loss": 1}, path)

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"result.json: cannot be written \(no space left\)"):
        write_json({"loss": 2}, path)
    assert path.read_text() == '{\n  "loss": 1\n}'
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    with pytest.raises(DataError, match="cannot be written"):
        save_parameters(net(0), tmp_path / "nowhere" / "model.safetensors")


def test_json_has_no_nan_and_no_infinity() -> None:
    found = to_json({"loss": float("nan"), "history": {"loss": [1.0, float("-inf")]}})
    assert json.loads(found) == {"loss": None, "history": {"loss": [1.0, None]}}


def of_layers(seed: int, **settings: Any) -> Network:
    return Network.fully_connected([4, 5, 3], dtype="float32", seed=seed, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation": Sigmoid}, "Affine, Sigmoid, Affine, SoftmaxWithLoss"),
        ({"loss": IdentityWithLoss}, "Affine, Relu, Affine, IdentityWithLoss"),
        ({"divisor": 16}, "Rescale(16.0), Affine, Relu, Affine, SoftmaxWithLoss"),
        ({"divisor": 255}, "Rescale(255.0), Affine, Relu, Affine, SoftmaxWithLoss"),
    ],
)
def test_a_model_of_other_layers_of_the_same_shapes(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """It would load, and give wrong numbers."""
    path = tmp_path / "model.safetensors"
    save_parameters(first := of_layers(0, **settings), path)
    load_parameters(again := of_layers(1, **settings), path)
    np.testing.assert_array_equal(host(again.params["W1"]), host(first.params["W1"]))
    for others in ({}, {"divisor": 8}):
        message = f"is of a network of {re.escape(said)}, but this one is of .*same loss and div"
        _unchanged(of_layers(1, **others), path, message)


def test_a_model_that_does_not_say_its_layers_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    arrays = {key: host(value) for key, value in net(0).params.items()}
    for metadata in (None, {"format": "np"}):
        save_file(arrays, path, metadata)
        load_parameters(again := net(1), path)
        for key, value in arrays.items():
            np.testing.assert_array_equal(host(again.params[key]), value)


def test_the_same_model_is_the_same_file() -> None:
    assert to_safetensors(net(0)) == to_safetensors(net(0))


def test_many_layers_without_parameters_come_back(tmp_path: Path) -> None:
    kind = type("A" * 999, (Relu,), {})
    first = Network([*(kind() for _ in range(2000))], SoftmaxWithLoss(), backend=backend)
    save_parameters(first, tmp_path / "model")
    load_parameters(first, tmp_path / "model")
