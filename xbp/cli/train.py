"""``xbp train``."""

import platform
import time
from math import prod
from pathlib import Path
from typing import Any

import click
from rich.console import Console

import xbp
from xbp.cli.common import (
    INTERRUPTED,
    backend_option,
    class_count,
    data_dir_option,
    dtype_option,
    json_option,
    load,
    seed_option,
    start,
    table,
)
from xbp.errors import SettingError
from xbp.files import prepare_folder
from xbp.progress import TrainingProgress
from xbp.reports import loss_in_terminal, write_report
from xbp.saving import save_parameters, save_result, to_json

# Characters.
_WIDEST_CURVE = 80


@click.command()
@click.argument("data", default="digits", metavar="[digits|mnist|FILE.npz]")
@backend_option
@click.option("--steps", type=click.IntRange(min=1), help="[default: 10000 on mnist, else 2000]")
@click.option("--batch-size", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--lr", type=float, default=0.1, show_default=True, help="Learning rate.")
@click.option(
    "--hidden",
    type=click.IntRange(min=1),
    multiple=True,
    default=(50,),
    show_default="50",
    help="Features of a hidden layer; repeat it for more layers.",
)
@click.option(
    "--init",
    metavar="STD",
    help="Spread of the initial weights: a number, he or xavier. [default: 0.01 on mnist, else he]",
)
@dtype_option
@seed_option
@data_dir_option
@click.option("--out", metavar="DIR", help="Folder for the model, metrics, curves and report.html.")
@json_option
def train(
    data: str,
    backend: str | None,
    steps: int | None,
    batch_size: int,
    lr: float,
    hidden: tuple[int, ...],
    init: str | None,
    dtype: str | None,
    seed: int,
    data_dir: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Train a network on the embedded digits, on MNIST, or on your own data.

    FILE.npz holds x_train and t_train (labels or one-hot), and if you like x_test and t_test.
    """
    chosen = start(backend)
    optimizer = xbp.SGD(lr)
    folder = prepare_folder(out) if out else None
    loaded = load(data, data_dir)
    (x, t), (x_test, t_test) = loaded.train, loaded.test
    has_test = x_test is not None
    on_mnist = data == "mnist"
    steps = steps or (10_000 if on_mnist else 2_000)
    spread = _spread(init or ("0.01" if on_mnist else "he"))
    sizes = [prod(x.shape[1:]), *hidden, class_count(t, data)]
    network = xbp.Network.fully_connected(
        sizes,
        divisor=loaded.divisor,
        weight_init_std=spread,
        backend=chosen,
        dtype=dtype or "float32",
        seed=seed,
    )
    trainer = xbp.Trainer(network, optimizer, batch_size=batch_size, seed=seed)
    if not as_json:
        click.echo(
            f"{data}: {len(x):,} samples to learn from, {len(x_test) if has_test else 0:,} to "
            f"test on; network {'-'.join(map(str, sizes))} on {chosen.name}:{chosen.device}"
        )
    began = time.perf_counter()
    with TrainingProgress(steps, batch_size) as progress:
        history = trainer.fit(x, t, steps=steps, x_test=x_test, t_test=t_test, progress=progress)
    seconds = time.perf_counter() - began
    result = {
        "data": data,
        "backend": chosen.name,
        "device": chosen.device,
        "versions": {
            "python": platform.python_version(),
            "xbp": xbp.__version__,
            chosen.name: chosen.library.__version__,
        },
        "dtype": network.dtype,
        "divisor": loaded.divisor,
        "layers": sizes,
        "steps": len(history.loss),
        "batch_size": batch_size,
        "lr": lr,
        "init": spread,
        "seed": seed,
        "seconds": seconds,
        "loss": history.loss[-1],
        "train_accuracy": history.train_accuracy[-1],
        "test_accuracy": history.test_accuracy[-1] if has_test else None,
        "interrupted": history.interrupted,
        "history": {
            "loss": history.loss,
            "evaluated": history.evaluated,
            "train_accuracy": history.train_accuracy,
            "test_accuracy": history.test_accuracy,
        },
    }
    if folder:
        save_parameters(network, folder / "model.safetensors")
        save_result(result, folder / "result.json")
        write_report(
            folder,
            network,
            history,
            *(loaded.test if has_test else loaded.train),
            settings=_settings(result),
            image_shape=loaded.image_shape,
        )
    if as_json:
        click.echo(to_json(result))
    else:
        _print_training(result, history, folder)
    if history.interrupted:
        raise SystemExit(INTERRUPTED)


def _spread(text: str) -> float | str:
    if text in ("he", "xavier"):
        return text
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"--init is a number, he or xavier, not {text!r}") from None


def _settings(result: dict[str, Any]) -> dict[str, Any]:
    """Return what the training depended on, as a page shows it."""
    names = ("data", "backend", "device", "dtype", "divisor", "batch_size", "lr", "init", "seed")
    return {
        **{name: result[name] for name in names},
        "layers": "-".join(map(str, result["layers"])),
        "seconds": f"{result['seconds']:.2f}",
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    }


def _print_training(result: dict[str, Any], history: xbp.History, folder: Path | None) -> None:
    results = table("steps", "seconds", "loss", "training accuracy", "test accuracy")
    test = result["test_accuracy"]
    results.add_row(
        f"{result['steps']:,}",
        f"{result['seconds']:.2f}",
        f"{result['loss']:.4f}",
        f"{result['train_accuracy']:.2%}",
        "-" if test is None else f"{test:.2%}",
    )
    console = Console()
    if console.encoding.startswith("utf"):
        click.echo(loss_in_terminal(history, min(console.width, _WIDEST_CURVE)))
    console.print(results)
    if result["interrupted"]:
        console.print("interrupted: the network keeps what it has learned so far")
    if folder:
        click.echo(f"the model, metrics, curves and report.html are in {folder}")
