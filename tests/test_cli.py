"""The command: its results, its JSON, its messages and exit statuses."""

import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file
from support import backend, except_slow, once, precise, widest
from xbp_benchmarks import plot
from xbp_benchmarks.contestant import Shape
from xbp_benchmarks.contestants import FLOOR, contestants
from xbp_benchmarks.images import ImageShape
from xbp_benchmarks.measure import Arena, ContestantError

import xbp
from xbp.cli import main
from xbp.cli.common import styled
from xbp.cli.model import optimizer_of
from xbp.cli.settings import Settings
from xbp.layers import IdentityWithLoss, Relu
from xbp.saving import load_parameters

SPEC = f"{backend.name}:{backend.device}"
# The package has a command of that name.
bench_module = import_module("xbp.cli.bench")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def results(*arguments: str) -> Any:
    result = run(*arguments, "--json", "--backend", SPEC)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(status: int, *arguments: str) -> str:
    """Return the one message of a command that fails."""
    result = run(*arguments)
    assert result.exit_code == status, (result.stdout, result.stderr)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    return result.stderr


def test_train_on_the_digits() -> None:
    found = results("train", "--steps", "60", "--hidden", "20", "--seed", "3")
    assert found["backend"] == backend.name
    assert found["device"] == backend.device
    assert found["dtype"] == "float32"
    assert found["layers"] == [64, 20, 10]
    assert (found["steps"], found["batch_size"], found["seed"]) == (60, 100, 3)
    assert found["seconds"] > 0
    history = found["history"]
    assert len(history["loss"]) == 60
    assert found["loss"] == history["loss"][-1]
    assert history["evaluated"] == [15, 30, 45, 60]
    assert found["train_accuracy"] == history["train_accuracy"][-1] > 0.5
    assert found["test_accuracy"] == history["test_accuracy"][-1] > 0.5
    assert found["test_loss"] == history["test_loss"][-1] > 0
    assert found["task"] == "classification"
    assert found["train_r2"] is found["test_r2"] is None
    assert not found["interrupted"]


def test_train_prints_a_table_and_plain_lines() -> None:
    result = run("train", "--steps", "30", "--backend", SPEC)
    assert result.exit_code == 0
    assert f"network 64-50-10 on {SPEC}" in result.stdout
    assert f"on {SPEC}; a classification\n" in result.stdout
    assert "test accuracy" in result.stdout
    assert "test loss" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr
    assert "step     30  loss " in result.stderr


@except_slow
def test_a_training_says_where_its_files_are(tmp_path: Path) -> None:
    told = run("train", "--steps=2", "--backend", SPEC, "--out", str(tmp_path / "results")).stdout
    files = "the model, metrics, curves and report.html are in"
    assert f"{files} {tmp_path / 'results'}" in told.replace("\n", " ")
    assert files not in run("train", "--steps=2", "--backend", SPEC).stdout.replace("\n", " ")


@except_slow
def test_train_deeper_and_in_another_dtype() -> None:
    found = results(
        "train", "--steps", "2", "--hidden", "9", "--hidden", "7", "--dtype", widest,
        "--init", "xavier", "--batch-size", "10", "--lr", "0.5",
    )  # fmt: skip
    assert found["layers"] == [64, 9, 7, 10]
    assert (found["dtype"], found["batch_size"], found["lr"]) == (widest, 10, 0.5)


@except_slow
@pytest.mark.parametrize(
    "choices",
    [
        {"model": "mlp", "optimizer": "adam", "schedule": "cosine", "activation": "gelu"},
        {"model": "cnn", "optimizer": "nesterov", "schedule": "step", "activation": "leaky-relu"},
        {"model": "deep", "optimizer": "adamw", "warmup": 3, "decay": 0.01, "dropout": 0.25},
        {"model": "mlp", "optimizer": "rmsprop", "dropout": 0.5, "activation": "tanh"},
        {"model": "mlp", "optimizer": "adagrad", "activation": "elu"},
        {"model": "mlp", "optimizer": "momentum", "activation": "silu"},
        {"model": "mlp", "optimizer": "sgd", "activation": "softplus"},
        {"model": "mlp", "optimizer": "sgd", "activation": "sigmoid", "init": "xavier"},
    ],
    ids=lambda choices: choices["optimizer"] + "-" + choices.get("activation", "relu"),
)
def test_what_is_chosen_by_name(choices: dict[str, Any]) -> None:
    words = [word for name, value in choices.items() for word in (f"--{name}", str(value))]
    found = results("train", "--steps", "30", *words)
    assert {name: found[name] for name in choices} == choices
    assert found["history"]["loss"][-1] < found["history"]["loss"][0]
    rates = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}
    assert found["lr"] == rates.get(choices["optimizer"], 0.01)
    assert found["layers"] == [64, 100 if choices["model"] == "cnn" else 50, 10]


@once
@pytest.mark.parametrize(
    ("choices", "rates"),
    [
        ({"schedule": "constant"}, [0.5] * 9),
        ({"schedule": "step"}, [0.5] * 3 + [0.05] * 3 + [0.005] * 3),
        ({"schedule": "cosine"}, [0.25 * (1 + np.cos(np.pi * n / 9)) for n in range(9)]),
        ({"schedule": "constant", "warmup": 2}, [0.25, *[0.5] * 8]),
        (
            {"schedule": "cosine", "warmup": 3},
            [0.5 / 3, 1 / 3, 0.5, *[0.25 * (1 + np.cos(np.pi * n / 6)) for n in range(6)]],
        ),
    ],
    ids=str,
)
def test_a_schedule_by_name(choices: dict[str, Any], rates: list[float]) -> None:
    settings = Settings(
        data="digits", data_sha256="", backend="numpy:cpu", task="classification", model="mlp",
        steps=9, batch_size=1, optimizer="adamw", lr=0.5, schedule=choices["schedule"],
        warmup=choices.get("warmup", 0), decay=0.125, hidden=[1], activation="relu", dropout=0.0,
        init="he", dtype="float32", seed=0, data_dir=None, checkpoint_steps=None,
    )  # fmt: skip
    optimizer = optimizer_of(settings)
    np.testing.assert_allclose([optimizer.rate_after(n) for n in range(9)], rates)
    assert optimizer._decay == 0.125


@once
def test_a_model_by_name_is_that_network(tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    run("train", "--model", "deep", "--steps", "2", "--out", folder, "--hidden", "7")
    model = xbp.Network.convolutional(
        (1, 8, 8), [[16, 16], [32, 32], [64, 64]], [7, 10], divisor=16, dropout=0.5, seed=0,
        dtype="float32",
    )  # fmt: skip
    load_parameters(model, f"{folder}/model.safetensors")
    _, (x_test, t_test) = xbp.datasets.load_digits()
    accuracy = model.accuracy(x_test.reshape(-1, 1, 8, 8) * 16, t_test)
    assert accuracy == json.loads((tmp_path / "out" / "result.json").read_text())["test_accuracy"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "deep" in page


@once
def test_images_of_several_channels(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    x = np.random.default_rng(0).normal(size=(40, 3, 6, 7)).astype("float32")
    np.savez(path, x_train=x, t_train=np.arange(40) % 4)
    found = results("train", str(path), "--model", "cnn", "--steps", "2", "--out", str(tmp_path))
    assert found["layers"] == [126, 100, 4]
    np.savez(path, x_train=x[:, 0], t_train=x[:, 0, 0, 0])
    found = results("train", str(path), "--model", "cnn", "--steps", "2")
    assert (found["layers"], found["task"]) == ([42, 100, 1], "regression")


@once
def test_a_schedule_goes_on_as_it_began(tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    chosen = ["--model", "cnn", "--optimizer", "adam", "--schedule", "cosine", "--warmup", "2"]
    run("train", *chosen, "--steps", "4", "--out", folder)
    told = refused(2, "train", "--resume", folder, "--steps", "6")
    assert "--schedule cosine was made for 4 steps" in told
    again = results("train", "--resume", folder)
    assert {f"--{name}": str(again[name]) for name in ("model", "optimizer", "schedule")} == {
        "--model": "cnn", "--optimizer": "adam", "--schedule": "cosine",
    }  # fmt: skip


@except_slow
def test_train_on_a_file_of_ones_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    t = np.arange(60) % 3
    x = np.eye(3)[t] + random.normal(scale=0.1, size=(60, 3))
    path = tmp_path / "own.npz"
    for targets in (t, np.eye(3)[t]):
        np.savez(path, x_train=x, t_train=targets)
        found = results("train", str(path), "--steps", "60", "--batch-size", "20", "--lr", "0.5")
        assert found["layers"] == [3, 50, 3]
        assert found["train_accuracy"] > 0.9
        assert found["test_accuracy"] is None


def regression_file(path: Path, **changes: Any) -> str:
    """Write data of which a number is to be learned, and return their file's name."""
    x = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    t = x[:, 0] - x[:, 1] ** 2
    np.savez(path, **{"x_train": x[:60], "t_train": t[:60], **changes})
    return str(path)


SMALL = ["--steps=60", "--batch-size=20", "--lr=0.05"]


@once
@pytest.mark.parametrize(
    ("x", "largest"),
    [
        (np.linspace(40, 60, 60), "60"),
        (np.linspace(-60, 5, 60), "60"),
        (np.arange(-60, 0), "60"),
        (np.linspace(-1e-3, 1e-3, 60), "0.001"),
        (np.linspace(-20, 20, 60), ""),
        (np.linspace(0, 0.01, 60), ""),
        (np.arange(60, dtype=np.uint8), ""),
        (np.arange(60) > 30, ""),
        (None, ""),
    ],
)
def test_features_that_are_far_from_1_are_told_of(x: Any, largest: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x_train=np.reshape(x, (-1, 1)), t_train=np.arange(60) % 2)
    data = "digits" if x is None else str(tmp_path / "own.npz")
    result = run("train", data, "--steps=2", "--lr=1e-3")
    assert result.exit_code == 0, result.stderr
    told = f"the largest number in x_train is {largest}: " if largest else ""
    assert result.stderr.count("largest number") == bool(largest)
    assert told in result.stderr


@except_slow
def test_train_a_regression(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(30, 3))
    t = x[:, 0] - x[:, 1] ** 2
    data = regression_file(tmp_path / "own.npz", x_test=x, t_test=t)
    found = results("train", data, *SMALL, "--out", str(tmp_path))
    assert (found["task"], found["layers"]) == ("regression", [3, 50, 1])
    assert found["train_accuracy"] is found["test_accuracy"] is None
    assert 0.5 < found["test_r2"] == found["history"]["test_r2"][-1] < 1
    assert 0.5 < found["train_r2"] == found["history"]["train_r2"][-1] < 1
    network = xbp.Network.fully_connected(
        [3, 50, 1], loss=IdentityWithLoss, dtype="float32", backend=backend
    )
    load_parameters(network, tmp_path / "model.safetensors")
    outputs = backend.to_numpy(network.predict(backend.asarray(x, "float32")))[:, 0].astype(float)
    expected = 1 - np.square(outputs - t).sum() / np.square(t - t.mean()).sum()
    np.testing.assert_allclose(found["test_r2"], expected, rtol=1e-4)
    np.testing.assert_allclose(found["test_loss"], np.mean((outputs - t) ** 2) / 2, rtol=1e-4)
    result = run("train", data, *SMALL, "--backend", SPEC)
    hint = "; a regression, since the targets are float64: for classes say --task classification\n"
    assert hint.replace("64", "32") in result.stdout
    assert f"{found['test_r2']:.4f}" in result.stdout
    assert "test loss" in result.stdout
    assert "accuracy" not in result.stdout + result.stderr
    assert re.search(r"step     60  loss \S+  test loss \S+  train r² \S+  test r² ", result.stderr)


@pytest.mark.skipif(backend.name != "numpy", reason="is about targets on the host")
@pytest.mark.parametrize(
    ("targets", "wanted", "task", "outputs"),
    [
        (np.linspace(0, 1, 60), None, "regression", 1),
        (np.linspace(0, 1, 60)[:, None], None, "regression", 1),
        (np.linspace(0, 1, 120).reshape(60, 2), None, "regression", 2),
        (np.linspace(0, 1, 60).astype(np.float16), None, "regression", 1),
        (np.arange(60.0) % 3, None, "regression", 1),
        (np.arange(60.0) % 3, "classification", "classification", 3),
        (np.arange(60.0)[:, None] % 3, "classification", "classification", 3),
        (np.arange(60) % 3, None, "classification", 3),
        (np.arange(60)[:, None] % 3, None, "classification", 3),
        (np.arange(60) % 3, "regression", "regression", 1),
        (np.arange(60) % 2 == 0, None, "classification", 2),
        (np.arange(60) % 2 == 0, "regression", "regression", 1),
        (np.eye(3)[np.arange(60) % 3], None, "classification", 3),
        (np.eye(3, dtype=bool)[np.arange(60) % 3], None, "classification", 3),
        (np.eye(3, dtype=np.uint8)[np.arange(60) % 3], None, "classification", 3),
        (np.eye(3)[np.arange(60) % 3], "regression", "regression", 3),
        (np.tile([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]], (30, 1)), None, "classification", 4),
        (np.full((60, 4), 0.5), None, "regression", 4),
        (np.tile([1.5, -0.5], (60, 1)), None, "regression", 2),
        (np.arange(120).reshape(60, 2), "regression", "regression", 2),
    ],
)
def test_what_targets_are_taken_for(
    targets: Any, wanted: str | None, task: str, outputs: int, tmp_path: Path
) -> None:
    data = regression_file(tmp_path / "own.npz", t_train=targets)
    more = [] if wanted is None else [f"--task={wanted}"]
    found = results("train", data, "--steps=2", "--lr=1e-4", *more)
    assert (found["task"], found["layers"][-1]) == (task, outputs)
    figure = "train_accuracy" if task == "classification" else "train_r2"
    assert len(found["history"][figure]) == 2
    other = ({"regression", "classification"} - {task}).pop()
    hint = "classes" if task == "regression" else "numbers"
    said = run("train", data, "--steps=1", "--lr=1e-4", *more).stdout.splitlines()[0]
    assert said.endswith(f": for {hint} say --task {other}" if wanted is None else f"; a {task}")


@except_slow
@pytest.mark.parametrize(
    ("targets", "doubt"),
    [
        (np.arange(60.0) % 3, "are numbered as classes are: for classes say --task classification"),
        (np.vstack([np.eye(3)[[0, 1] * 29], np.ones((2, 3))]), "are 0 and 1, only row 58 is not"),
        (np.linspace(0, 1, 60), ""),
        (np.arange(60.0) + 100, ""),
    ],
)
@pytest.mark.parametrize("form", [["--json"], []])
def test_a_doubt_is_spoken(targets: Any, doubt: str, form: list[str], tmp_path: Path) -> None:
    data = regression_file(tmp_path / "own.npz", t_train=targets)
    result = run("train", data, "--steps=1", "--lr=1e-9", "--backend", SPEC, *form)
    assert result.exit_code == 0
    assert ("the targets" in result.stderr) == bool(doubt)
    assert doubt in result.stderr


@except_slow
def test_train_leaves_model_and_figures_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    found = results("train", "--steps", "5", "--out", str(folder))
    written = json.loads((folder / "result.json").read_text())
    model = (folder / "model.safetensors").read_bytes()
    assert written.pop("model_sha256") == hashlib.sha256(model).hexdigest()
    assert written == found
    parameters = load_file(folder / "model.safetensors")
    assert {key: value.shape for key, value in parameters.items()} == {
        "W1": (64, 50), "b1": (50,), "W2": (50, 10), "b2": (10,),
    }  # fmt: skip
    assert found["versions"][backend.name] == backend.library.__version__


@except_slow
def test_gradcheck() -> None:
    found = results("gradcheck", "--elements", "40")
    assert found["passed"]
    assert found["dtype"] == widest
    assert list(found["parameters"]) == ["W1", "b1", "W2", "b2"]
    assert found["parameters"]["W1"]["mean_absolute_difference"] < precise(1e-8, 1e-3)
    assert found["parameters"]["b2"]["mean_absolute_difference"] < precise(1e-6, 1e-3)
    assert found["parameters"]["W1"]["checked"] == 40
    result = run("gradcheck", "--elements", "3", "--backend", SPEC)
    assert result.exit_code == 0
    assert "wrong" not in result.stdout
    assert result.stdout.count(" ok ") == 4
    assert "3 of 3,200" in result.stdout


@except_slow
def test_gradcheck_of_every_element() -> None:
    found = results("gradcheck", "--all", "--hidden", "1", "--samples", "1")
    assert [check["checked"] for check in found["parameters"].values()] == [64, 1, 10, 10]


@except_slow
def test_gradcheck_along_directions() -> None:
    found = results("gradcheck", "--directions", "2")
    assert found["directions"] == 2
    assert [check["checked"] for check in found["parameters"].values()] == [2, 2, 2, 2]
    assert "directions" in run("gradcheck", "--directions", "2", "--backend", SPEC).stdout


@except_slow
def test_gradcheck_fails_on_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relu, "backward", lambda self, dout: dout)
    result = run("gradcheck", "--elements", "30", "--backend", SPEC)
    assert result.exit_code == 1
    assert "wrong" in result.stdout
    assert "WRONG in" in result.stdout


@except_slow
def test_bench(tmp_path: Path) -> None:
    sizes = ["--batch", "10", "--width", "5", "--depth", "3", "--rounds", "1"]
    result = run("bench", *sizes, "--backend", SPEC, "--json", "--out", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "bench.json").read_text())
    assert [one["work"] for one in found["measured"]] == ["forward", "step", "loop"]
    for one in found["measured"]:
        assert (one["batch"], one["width"], one["depth"]) == (10, 5, 3)
        assert {"bare products", f"xbp, {backend.name}"} <= one["seconds"].keys()
        assert all(seconds > 0 for seconds in one["seconds"].values())
    assert found["machine"]["backends"] == {SPEC: backend.library.__version__}
    assert found["machine"]["threads"].keys() == one["seconds"].keys()
    assert found["specs"][f"xbp, {backend.name}"] == SPEC
    assert "batch 10, width 5" in (tmp_path / "bench.svg").read_text()
    result = run("bench", *sizes, "--backend", SPEC)
    assert "bare products" in result.stdout


def stop_after(measured: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let measuring end with an error after so many shapes."""
    done: list[Shape] = []

    def seconds(arena: Arena, shape: Shape, rounds: int) -> dict[str, dict[str, float]]:
        if len(done) == measured:
            raise error
        done.append(shape)
        return {"step": dict.fromkeys(arena.specs, 1.0)}

    monkeypatch.setattr(Arena, "seconds", seconds)


TWO_SHAPES = ["bench", "--batch=10", "--width=5", "--depth=2", "--depth=3", "--backend=numpy"]


@except_slow
@pytest.mark.parametrize("measured", [0, 1])
@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (ContestantError("xbp, numpy at some shape: killed"), 1, "Error: xbp, numpy at some shape"),
    ],
)
def test_bench_that_is_interrupted_keeps_what_it_measured(
    measured: int,
    error: BaseException,
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_after(measured, error, monkeypatch)
    result = run(*TWO_SHAPES, "--json", f"--out={tmp_path}")
    assert result.exit_code == status
    assert message in result.stderr
    assert [path.name for path in sorted(tmp_path.iterdir())] == (
        ["bench.json", "bench.svg"] if measured else []
    )
    if measured:
        found = json.loads(result.stdout)
        assert found == json.loads((tmp_path / "bench.json").read_text())
        assert found["interrupted"]
        assert [one["depth"] for one in found["measured"]] == [2]
        assert "measured: batch 10, width 5, depth 2" in result.stderr


@except_slow
@pytest.mark.parametrize("name", ["bench.json", "bench.svg"])
def test_bench_prints_what_it_cannot_write(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(9, KeyboardInterrupt(), monkeypatch)
    (tmp_path / name).mkdir()
    result = run(*TWO_SHAPES, f"--out={tmp_path}")
    assert result.exit_code == 1
    assert "bare products" in result.stdout
    assert f"{name}: cannot be written" in result.stderr


@once
def test_bench_says_which_contestant_cannot_run() -> None:
    result = run("bench", f"--batch={10**12}", "--width=5", "--depth=2", "--backend=numpy")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(
        r"Error: bare products at batch 10+, width 5, depth 2: \w*MemoryError: .*",
        result.stderr.strip(),
    )


@except_slow
def test_bench_of_a_convolutional_network(tmp_path: Path) -> None:
    chosen = ["--model=cnn", "--batch=2", "--rounds=1", "--backend", SPEC, f"--out={tmp_path}"]
    result = run("bench", *chosen)
    assert result.exit_code == 0, result.stderr
    assert f"xbp, {backend.name}" in result.stdout
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {(m["batch"], m["model"]) for m in found["measured"]} == {(2, "cnn")}
    assert {m["work"] for m in found["measured"]} == {"forward", "step", "loop"}
    assert not (tmp_path / "bench.svg").exists()


@once
def test_a_contestant_that_was_killed_is_named() -> None:
    shape = Shape(10, 5, 2)
    with Arena({FLOOR: "numpy"}) as arena:
        for child in psutil.Process().children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
        with pytest.raises(ContestantError, match=r"bare products at batch 10.* was killed"):
            arena.seconds(shape, 1)


@except_slow
def test_bench_measures_each_shape_once_and_on_the_backend_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_after(9, KeyboardInterrupt(), monkeypatch)
    monkeypatch.setenv("XBP_BACKEND", SPEC)
    found = json.loads(run("bench", *["--depth=2"] * 2, "--batch=1", "--width=1", "--json").stdout)
    assert len(found["measured"]) == 1
    assert set(found["specs"].values()) == {SPEC}


@once
@pytest.mark.parametrize("second", ["Arena.__exit__", "_show", "write_json", "draw"])
def test_a_second_ctrl_c_spoils_nothing(
    second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    presses = []

    def press() -> None:
        presses.append(signal.getsignal(signal.SIGINT))
        signal.raise_signal(signal.SIGINT)

    def pressing(function: Any) -> Any:
        def pressed(*arguments: Any) -> Any:
            if presses:
                press()
            return function(*arguments)

        return pressed

    def seconds(arena: Arena, shape: Shape, rounds: int) -> dict[str, dict[str, float]]:
        if shape.depth == 3:
            press()
        return {"step": dict.fromkeys(arena.specs, 1.0)}

    monkeypatch.setattr(Arena, "seconds", seconds)
    places: dict[str, tuple[Any, str]] = {
        "Arena.__exit__": (Arena, "__exit__"),
        "_show": (bench_module, "_show"),
        "write_json": (bench_module, "write_json"),
        "draw": (plot, "draw"),
    }
    owner, name = places[second]
    monkeypatch.setattr(owner, name, pressing(getattr(owner, name)))
    result = run(*TWO_SHAPES, "--json", f"--out={tmp_path}")
    assert result.exit_code == 130
    assert presses[1:] == [signal.SIG_IGN]
    assert json.loads(result.stdout) == json.loads((tmp_path / "bench.json").read_text())
    assert (tmp_path / "bench.svg").exists()


@once
def test_a_benchmark_leaves_ctrl_c_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(arena: Arena, shape: Shape, rounds: int) -> dict[str, dict[str, float]]:
        signal.raise_signal(signal.SIGINT)
        return {"step": dict.fromkeys(arena.specs, 1.0)}

    monkeypatch.setattr(Arena, "seconds", pressed)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job in the background
    result = run(*TWO_SHAPES)
    assert result.exit_code == 0
    assert "bare products" in result.stdout
    assert "interrupted" not in result.stdout + result.stderr
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@once
def test_ctrl_c_ends_a_benchmark() -> None:
    shapes = ["--batch=10", "--width=20", "--depth=2", "--depth=3000", "--rounds=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "xbp", "bench", "--backend=numpy", *shapes],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        process.stderr.readline()  # the first shape is measured, the second takes its time
        # A terminal tells all processes, those of the contestants, too.
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "bare products" in stdout
    assert "interrupted: these shapes had been measured" in stdout
    assert "Traceback" not in stderr


@except_slow
@pytest.mark.parametrize("work", ["forward", "step", "loop"])
@pytest.mark.parametrize(
    "shape",
    [Shape(batch=20, width=8, depth=3), ImageShape(6, "cnn"), ImageShape(6, "deep")],
    ids=lambda shape: shape.model,
)
def test_all_contestants_compute_the_same(work: str, shape: Any) -> None:
    losses = {}
    for title, make in contestants(backend, shape.model).items():
        contestant = make(shape)
        if title != FLOOR:
            losses[title] = [float(getattr(contestant, work)()) for _ in range(3)]
    # In so many steps of a deep network rounding moves a number across 0, at a rectifier.
    rtol = 1e-2 if (work, shape.model) == ("loop", "deep") else 1e-4
    for title, found in losses.items():
        np.testing.assert_allclose(found, losses[f"xbp, {backend.name}"], rtol=rtol, err_msg=title)
        assert (found[2] < found[0]) == (work != "forward")


@pytest.mark.skipif(backend.name != "numpy", reason="lists all libraries")
def test_backends() -> None:
    result = run("backends", "--json")
    assert result.exit_code == 0
    records = json.loads(result.stdout)
    assert {"numpy", "cupy", "torch", "jax", "dpnp", "array-api-strict"} <= records.keys()
    assert records["numpy"] == {
        "name": "numpy", "version": np.__version__, "devices": ["cpu"], "float64": True,
        "usable": True, "reason": "",
    }  # fmt: skip
    assert records[backend.name]["usable"]
    result = run("backends")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in records)


def rows_of(printed: str) -> list[list[str]]:
    """Return the cells of the tables in a text, row by row; the titles are the first."""
    lines = [line for line in printed.splitlines() if line.startswith(("┃", "│"))]
    return [[cell.strip() for cell in line[1:-1].split(line[0])] for line in lines]


@once
@pytest.mark.parametrize(
    ("command", "titles", "first"),
    [
        (
            "train --steps=2",
            ["steps", "seconds", "loss", "test loss", "training accuracy", "test accuracy"],
            ["2"],
        ),
        (
            "gradcheck --elements=1",
            [
                *("parameter", "mean difference", "largest relative error", "compared"),
                *("kinks", "aside", "verdict"),
            ],
            ["W1"],
        ),
        ("graph apple", ["", "node", "takes", "gives"], ["forward", "×"]),
        (
            "backends",
            ["backend", "version", "devices", "float64", "usable, or why not"],
            ["numpy", np.__version__, "cpu", "yes", "usable"],
        ),
        (
            "bench --batch=10 --width=5 --depth=2 --depth=3 --backend=numpy",
            ["batch", "width", "depth", "work", "contestant", "microseconds", "ratio"],
            ["10", "5", "2", "step", "bare products"],
        ),
    ],
)
def test_tables_have_titles(
    command: str, titles: list[str], first: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(1, KeyboardInterrupt(), monkeypatch)
    if command == "backends":
        monkeypatch.setattr("xbp.available_backends", lambda: {"numpy": None})
    result = CliRunner().invoke(main, command.split(), env={"COLUMNS": "200"})
    found, row, *_ = rows_of(result.stdout)
    assert found == titles
    assert row[: len(first)] == first


@once
def test_a_verdict_has_its_colour() -> None:
    assert styled("ok", "green").style == "green"
    assert styled("a\x1bb", "green").plain == "a\\x1bb"


def test_version() -> None:
    lines = run("--version").stdout.splitlines()
    assert lines[:2] == [f"xbp, version {xbp.__version__}", f"Python {platform.python_version()}"]
    assert f"numpy {np.__version__}" in lines
    assert any(line.startswith(f"{backend.name} ") for line in lines)
    assert f"array-api-strict {metadata.version('array-api-strict')}" in lines


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_XBP_COMPLETE={shell}_complete" in result.stdout


@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        ("xbp tr", 1, "plain,train"),
        ("xbp train mn", 2, "plain,mnist"),
        ("xbp train --model d", 3, "plain,deep"),
        ("xbp train --optimizer ada", 3, "plain,adagrad"),
        ("xbp train own", 2, "file,own"),
        ("xbp train --out o", 3, "dir,o"),
        ("xbp graph apple --out g", 4, "file,g"),
        ("xbp train --backend nu", 3, "plain,numpy"),
        ("xbp check array", 2, "plain,array-api-strict"),
    ],
)
def test_what_bash_is_told(words: str, last: int, expected: str) -> None:
    environment = {"_XBP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(last)}
    result = CliRunner().invoke(main, prog_name="xbp", env=environment)
    assert expected in result.stdout.splitlines()


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--backend", "nunpy"], "did you mean 'numpy'"),
        (["train", "fashion"], "digits, mnist or a file that ends in .npz, not 'fashion'"),
        (["train", "--lr", "0"], "lr is a positive number"),
        (["train", "--lr", "much"], "'much' is not a valid float"),
        (["train", "--steps", "0"], "0 is not in the range"),
        (["train", "--init", "glorot"], "--init is a number, he or xavier, not 'glorot'"),
        (["train", "--init", "-1"], "weight_init_std is a number ≥ 0, 'he' or 'xavier'"),
        (["train", "--model", "resnet"], "'resnet' is not one of 'mlp', 'cnn', 'deep'"),
        (["train", "--optimizer", "lion"], "'lion' is not one of 'sgd', 'momentum',"),
        (["train", "--warmup", "2000"], "--warmup 2000 leaves none of 2000 steps"),
        (["train", "--dropout", "1"], "ratio is a probability, 0 or more and less than 1"),
        (["train", "--decay", "-1"], "decay is a number of 0 or more"),
        (["train", "--schedule", "cosine", "--lr", "0"], "lr is a positive number"),
        (["train", "--dtype", "int8"], "'int8' is not one of 'float32', 'float64'"),
        (["gradcheck", "fashion"], "'fashion' is not one of 'digits', 'mnist'"),
        (["trian"], "No such command 'trian'"),
    ],
)
def test_a_wrong_command_line_ends_with_status_2(arguments: list[str], message: str) -> None:
    assert message in refused(2, *arguments)


def test_what_cannot_be_done_ends_with_status_1(tmp_path: Path) -> None:
    missing = tmp_path / "missing.npz"
    assert refused(1, "train", str(missing)).endswith("made by numpy.savez\n")
    assert "has no device 'nowhere'" in refused(1, "train", "--backend", f"{backend.name}:nowhere")
    assert "holds neither" in refused(1, "train", "mnist", "--data-dir", str(tmp_path))
    assert "cannot be read" in refused(1, "train", str(tmp_path / "no.npz"))
    flat = tmp_path / "flat.npz"
    np.savez(flat, x_train=np.ones((2, 4)), t_train=np.arange(2))
    told = refused(2, "train", str(flat), "--model", "cnn")
    assert "--model cnn needs images: x_train of" in told.replace("\n", " ")
    file = tmp_path / "file"
    file.write_text("in the way")
    assert "is a file" in refused(2, "train", "--out", str(file))
    path = tmp_path / "odd.npz"
    np.savez(path, x_train=np.ones((2, 2)), t_train=np.array(["a", "b"]))
    assert "np.unique(t, return_inverse=True)[1] numbers" in refused(1, "train", str(path))
    np.savez(path, x_train=np.ones((2, 2)), t_train=np.ones((2, 1, 1)))
    assert "targets are labels (N,), one-hot" in refused(1, "train", str(path))
    np.savez(path, x_train=np.ones((2, 2)), t_train=np.array([0, 10**9]))
    assert "the largest label, 1000000000, would need" in refused(1, "train", str(path))
    for odd in (np.array([["a"], ["b"]]), np.array([[0], [1]], dtype="datetime64[s]")):
        np.savez(path, x_train=odd, t_train=np.array([0, 1]))
        result = run("train", str(path), "--backend", SPEC)
        assert result.exit_code == 1
        assert "real numbers are needed" in result.stderr


@except_slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_ends_with_a_message() -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "xbp", "gradcheck", "--elements", "1", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert found.returncode == 1
    assert "No space left on device" in found.stderr
    assert "Traceback" not in found.stderr


@except_slow
def test_bytes_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x_train=np.eye(3, dtype=np.uint8) * 255, t_train=np.arange(3))
    assert results("train", str(path), "--steps", "1")["divisor"] == 255
    np.savez(path, x_train=np.eye(3), t_train=np.arange(3))
    assert results("train", str(path), "--steps", "1")["divisor"] is None


@except_slow
def test_a_batch_is_no_larger_than_the_data(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x_train=np.eye(3), t_train=np.arange(3))
    done = run("train", str(path), "--steps", "3", "--batch-size", "2147483647")
    rate = re.search(r"([\d,]+) samples/s", done.stderr)
    assert rate is not None
    assert int(rate[1].replace(",", "")) < 3e6


@except_slow
def test_labels_of_every_integer_type(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    for dtype in ("uint8", "uint64", "int32"):
        np.savez(path, x_train=np.eye(3), t_train=np.arange(3).astype(dtype))
        assert results("train", str(path), "--steps", "1")["layers"] == [3, 50, 3]


@once
def test_ctrl_c_prints_what_was_learned_so_far(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xbp", "train", "--steps", "100000000", "--json"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        process.stderr.readline()  # the first line comes with the first epoch
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    found = json.loads(stdout)
    assert found["interrupted"]
    assert 15 <= found["steps"] == len(found["history"]["loss"]) < 100_000_000
    assert json.loads((tmp_path / "result.json").read_text())["interrupted"]


@once
@pytest.mark.parametrize("pressed", [True, False])
def test_a_training_says_that_it_was_interrupted_if_it_was(
    pressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pressed:

        @contextmanager
        def interruptible() -> Iterator[Callable[[], bool]]:
            yield lambda: True

        monkeypatch.setattr("xbp.training.trainer.interruptible", interruptible)
    result = run("train", "--steps=30", "--hidden=3")
    said = "interrupted: the network keeps what it has learned so far\n"
    assert result.exit_code == (130 if pressed else 0)
    assert (said in result.stdout) == pressed
    assert ("interrupted" in result.stdout + result.stderr) == pressed


def test_import_brings_in_numpy_alone() -> None:
    code = (
        "import sys, xbp; print({'torch', 'jax', 'cupy', 'dpnp', 'rich', 'click', 'pooch', "
        "'importlib.metadata'} & sys.modules.keys() or 'nothing')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "nothing\n"
