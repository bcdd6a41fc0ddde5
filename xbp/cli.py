"""The command ``xbp``: train a network, check gradients, list backends.

Results go to standard output, progress and complaints to standard error. A user's mistake ends in
one message and exit status 2 (the command line is wrong) or 1 (what it asks for cannot be done).
"""

import time
from math import prod
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import xbp
from xbp.backend import Backend
from xbp.datasets import load_digits, load_mnist, load_npz
from xbp.errors import BackendNotFoundError, DataError, SettingError, XbpError
from xbp.progress import TrainingProgress
from xbp.registry import describe
from xbp.saving import prepare_folder, save_parameters, save_result, to_json

INTERRUPTED = 130
MOST_CLASSES = 100_000


class _Commands(click.Group):
    """Turns errors that xbp raises on purpose into one message and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (XbpError, OSError) as error:
            raise _Failure(error) from error


class _Failure(click.ClickException):
    """What is printed of an error: its message alone."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        is_usage = isinstance(error, BackendNotFoundError | SettingError)
        self.exit_code = 2 if is_usage else 1  # type: ignore[misc]


backend_option = click.option(
    "--backend", metavar="SPEC", help="Array library, and device: numpy, torch:cuda:0, jax ..."
)
dtype_option = click.option("--dtype", type=click.Choice(["float32", "float64"]))
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Folder of the MNIST files; else they are downloaded."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(xbp.__version__, prog_name="xbp")
def main() -> None:
    """Backpropagation you can read, on any array library."""


@main.command()
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
@click.option("--out", metavar="DIR", help="Folder for model.safetensors and result.json.")
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
    chosen = _start(backend)
    optimizer = xbp.SGD(lr)
    folder = prepare_folder(out) if out else None
    (x, t), (x_test, t_test) = _load(data, data_dir)
    has_test = x_test is not None
    on_mnist = data == "mnist"
    steps = steps or (10_000 if on_mnist else 2_000)
    spread = _spread(init or ("0.01" if on_mnist else "he"))
    sizes = [prod(x.shape[1:]), *hidden, _class_count(t, data)]
    network = xbp.Network.fully_connected(
        sizes,
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
    start = time.perf_counter()
    with TrainingProgress(steps) as progress:
        history = trainer.fit(x, t, steps=steps, x_test=x_test, t_test=t_test, progress=progress)
    seconds = time.perf_counter() - start
    result = {
        "data": data,
        "backend": chosen.name,
        "device": chosen.device,
        "versions": {"xbp": xbp.__version__, chosen.name: chosen.library.__version__},
        "dtype": network.dtype,
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
    if as_json:
        click.echo(to_json(result))
    else:
        _print_training(result, folder)
    if history.interrupted:
        raise SystemExit(INTERRUPTED)


@main.command()
@click.argument("data", default="digits", type=click.Choice(["digits", "mnist"]))
@backend_option
@click.option(
    "--samples", type=click.IntRange(min=1), default=3, show_default=True, help="Mini-batch size."
)
@click.option("--hidden", type=click.IntRange(min=1), default=50, show_default=True)
@click.option(
    "--elements",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Compare as many elements of each parameter, chosen at random.",
)
@click.option("--all", "every", is_flag=True, help="Compare every element.")
@seed_option
@data_dir_option
@json_option
def gradcheck(
    data: str,
    backend: str | None,
    samples: int,
    hidden: int,
    elements: int,
    every: bool,
    seed: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Compare backpropagation with central differences, on the chapter's network.

    Exit status 1 if they disagree.
    """
    chosen = _start(backend)
    (x, t), _ = _load(data, data_dir)
    dtype = "float64" if chosen.has_float64 else "float32"
    network = xbp.TwoLayerNet(
        prod(x.shape[1:]), hidden, _class_count(t, data), backend=chosen, dtype=dtype, seed=seed
    )
    report = xbp.gradient_check(
        network,
        chosen.asarray(x[:samples], dtype),
        chosen.asarray(t[:samples]),
        elements=None if every else elements,
        seed=seed,
    )
    if as_json:
        click.echo(
            to_json(
                {
                    "data": data,
                    "backend": chosen.name,
                    "device": chosen.device,
                    "dtype": report.dtype,
                    "step": report.step,
                    "passed": report.passed,
                    "parameters": {
                        key: {**vars(check), "passed": check.passed}
                        for key, check in report.parameters.items()
                    },
                }
            )
        )
    else:
        _print_report(report, f"{data}, {chosen.name}:{chosen.device}")
    if not report.passed:
        raise SystemExit(1)


@main.command()
@json_option
def backends(as_json: bool) -> None:
    """List the array libraries, and say what to install for the others."""
    records = [describe(record) for record in xbp.available_backends().values()]
    if as_json:
        click.echo(to_json({record["name"]: record for record in records}))
        return
    table = _table("backend", "version", "devices", "float64", "usable, or why not")
    for record in records:
        table.add_row(
            record["name"],
            record["version"] or "-",
            "\n".join(record["devices"]) or "-",
            "yes" if record["float64"] else "no" if record["usable"] else "-",
            "[green]usable[/]" if record["usable"] else escape(record["reason"]),
        )
    Console().print(table)


def _start(spec: str | None) -> Backend:
    """Return the backend to work on, in full precision: this process is the command's own."""
    backend = xbp.get_backend(spec)
    backend.enable_float64()
    return backend


def _load(name: str, data_dir: str | None) -> tuple[Any, Any]:
    """Return data on the host: the trainer moves them."""
    if name == "digits":
        return load_digits(backend="numpy")
    if name == "mnist":
        return load_mnist(backend="numpy", data_dir=data_dir)
    if Path(name).suffix == ".npz":
        return load_npz(name)
    raise SettingError(f"the data are digits, mnist or a file that ends in .npz, not {name!r}")


def _class_count(t: Any, source: str) -> int:
    """Return the number of classes among labels, or the width of one-hot targets."""
    if t.ndim == 2 and t.shape[1] > 1:  # noqa: PLR2004
        return int(t.shape[1])
    if t.ndim != 1 or t.size == 0 or t.dtype.kind not in "iu":
        raise DataError(
            f"{source}: targets are integer labels (N,) or one-hot (N, C), got {t.dtype} of shape "
            f"{t.shape}"
        )
    classes = int(t.max()) + 1
    if classes > MOST_CLASSES:
        raise DataError(
            f"{source}: the largest label, {classes - 1}, would need {classes:,} outputs: number "
            "the classes from 0 without gaps"
        )
    return classes


def _spread(text: str) -> float | str:
    if text in ("he", "xavier"):
        return text
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"--init is a number, he or xavier, not {text!r}") from None


def _print_training(result: dict[str, Any], folder: Path | None) -> None:
    table = _table("steps", "seconds", "loss", "training accuracy", "test accuracy")
    test = result["test_accuracy"]
    table.add_row(
        f"{result['steps']:,}",
        f"{result['seconds']:.2f}",
        f"{result['loss']:.4f}",
        f"{result['train_accuracy']:.2%}",
        "-" if test is None else f"{test:.2%}",
    )
    console = Console()
    console.print(table)
    if result["interrupted"]:
        console.print("interrupted: the network keeps what it has learned so far")
    if folder:
        click.echo(f"model.safetensors and result.json are in {folder}")


def _print_report(report: xbp.GradientReport, title: str) -> None:
    table = _table(
        "parameter", "mean abs. difference", "largest rel. error", "kinks", "compared", "verdict"
    )
    table.title = f"{title}: backpropagation and central differences in {report.dtype}"
    for key, check in report.parameters.items():
        table.add_row(
            key,
            f"{check.mean_absolute_difference:.3g}",
            f"{check.largest_relative_error:.3g}",
            f"{check.kinks}",
            f"{check.checked:,} of {check.size:,}",
            "[green]agree[/]" if check.passed else f"[red]{check.wrong} wrong[/]",
        )
    Console().print(table)
    if not report.passed:
        click.echo(str(report))


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column)
    return table
