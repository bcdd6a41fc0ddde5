"""``xbp train``."""

import hashlib
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import click

import xbp
from xbp.cli.choices import ACTIVATIONS, MODELS, OPTIMIZERS, SCHEDULES
from xbp.cli.common import (
    INTERRUPTED,
    backend_option,
    complete_data,
    count_type,
    data_dir_option,
    dtype_option,
    echo,
    echo_json,
    folder_type,
    json_option,
    seed_option,
    show,
    start,
    table,
    width_for_curves,
)
from xbp.cli.curve import loss_in_terminal
from xbp.cli.model import (
    dropout_of,
    hidden_of,
    network_of,
    optimizer_of,
    rate_of,
    shaped_for,
)
from xbp.cli.progress import TrainingProgress
from xbp.cli.result import to_json
from xbp.cli.settings import Settings
from xbp.cli.task import CLASSIFICATION, REGRESSION, TASKS, Task, task_of
from xbp.datasets.data_set import DataSet
from xbp.datasets.formats import load_data_set
from xbp.errors import CheckpointError, DataError, SettingError
from xbp.files import as_path, prepare_folder, recover, write_files
from xbp.layers import IdentityWithLoss, SoftmaxWithLoss
from xbp.saving import to_safetensors
from xbp.training import Checkpoints
from xbp.training.history import MEASURED, loss_as_text

# In the folder of --out.
CHECKPOINTS = "checkpoints"

# In characters.
_WIDEST_CURVE = 80

# Features can be learned from if the largest is between these, as it is of normally distributed
# numbers of standard deviation 1, and of fractions of 1.
_SMALL, _LARGE = 0.01, 20.0


@click.command()
@click.argument(
    "data",
    default="digits",
    metavar="[digits|mnist|FILE.npz]",
    shell_complete=complete_data,
)
@backend_option
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="What to learn from the targets: classes or numbers. [default: as they are]",
)
@click.option(
    "--model",
    type=click.Choice([*MODELS]),
    default="mlp",
    show_default=True,
    help="Affine layers alone, or convolutions first: one, or six. These learn from images.",
)
@click.option("--steps", type=count_type, help="[default: 10000 on mnist, else 2000]")
@click.option("--batch-size", type=count_type, default=100, show_default=True)
@click.option("--optimizer", type=click.Choice([*OPTIMIZERS]), default="sgd", show_default=True)
@click.option(
    "--lr",
    type=float,
    help="Learning rate. [default: 0.1 of sgd, 0.001 of adam and adamw, else 0.01]",
)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    default="constant",
    show_default=True,
    help="How the rate falls: to a tenth after each third of the steps, or as half a wave, to 0.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    metavar="STEPS",
    help="Before that, the rate rises for so many steps.",
)
@click.option(
    "--decay",
    type=float,
    default=0.0,
    show_default=True,
    help="Weight decay: the share of each weight that is added to its gradient.",
)
@click.option(
    "--hidden",
    type=count_type,
    multiple=True,
    help="Features of a hidden layer; repeat it for more layers. [default: 50, 100 of cnn]",
)
@click.option("--activation", type=click.Choice([*ACTIVATIONS]), default="relu", show_default=True)
@click.option(
    "--dropout",
    type=float,
    metavar="RATIO",
    help="Share of the hidden features that is left out in a step. [default: 0, 0.5 of deep]",
)
@click.option(
    "--init",
    metavar="STD",
    help="Spread of the initial weights: a number, he or xavier. [default: 0.01 on mnist, else he]",
)
@dtype_option
@seed_option
@data_dir_option
@click.option(
    "--out",
    metavar="DIR",
    type=folder_type,
    help="Folder for the model, metrics, curves and report.html.",
)
@click.option(
    "--checkpoint-steps",
    type=count_type,
    help="With --out: save the training after so many steps, rather than each minute.",
)
@click.option(
    "--resume",
    metavar="DIR",
    type=folder_type,
    help="Go on with a training that --out DIR had begun; --steps makes it longer.",
)
@json_option
@click.pass_context
def train(ctx: click.Context, /, resume: str | None, as_json: bool, **settings: Any) -> None:
    """Train a network on the embedded digits, on MNIST, or on your own data.

    FILE.npz holds x_train and t_train, and optionally x_test and t_test. Integers and one-hot rows
    are classes; floats are numbers to learn, one or several for each sample: a regression. Scale
    features, and such numbers, to about the size of 1; bytes are divided by 255.

    With --out the training is saved each minute and at Ctrl-C; --resume DIR goes on with it.
    """
    out = settings["out"] if resume is None else resume
    if out is None:
        _train(settings, None, as_json)
        return
    folder = as_path(out)
    if resume is not None and not os.path.isdir(folder / CHECKPOINTS):  # False for any bad name
        raise _nothing_to_resume(out)
    checkpoints = Checkpoints(folder / CHECKPOINTS, resume=resume is not None, overwrite=True)
    prepare_folder(folder)
    # No other process resumes it or writes there until the results are written.
    with checkpoints.in_use():
        recover(folder)
        if resume is not None:
            settings = _settings_of(resume, checkpoints, ctx, settings)
        _train(settings, checkpoints, as_json)


def _nothing_to_resume(folder: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} holds no training to go on with: --resume takes the folder that --out had"
    )


def _settings_of(
    folder: str, checkpoints: Checkpoints, ctx: click.Context, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings of a stopped training, with the changes that the options make."""
    last = checkpoints.latest_state()
    if last is None:
        raise _nothing_to_resume(folder)
    from_user = {
        name
        for name in options
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    changeable = {"data", "steps", "backend", "data_dir", "checkpoint_steps"}
    if unwanted := sorted(from_user - changeable):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in unwanted)
        raise SettingError(f"--resume goes on with the settings of the training: omit {names}")
    changes = {name: options[name] for name in from_user & changeable}
    saved = Settings.saved_in(last, folder)
    if saved.schedule != "constant" and changes.get("steps", saved.steps) != saved.steps:
        raise SettingError(
            f"--schedule {saved.schedule} was made for {saved.steps:,} steps, at the end of which "
            "the rate is lowest: resume without --steps, or begin anew with more"
        )
    return {**options, **asdict(saved), **changes, "out": folder}


def _prepare(checkpoints: Checkpoints, folder: Path, settings: Settings) -> None:
    """Set up the checkpoints of a training, unless it would replace a stopped one."""
    checkpoints.every_steps = settings.checkpoint_steps
    checkpoints.every_minutes = None if checkpoints.every_steps else 1
    checkpoints.settings = asdict(settings)
    last = None if checkpoints.resume else checkpoints.latest_state()
    if last and last["step"] < Settings.saved_in(last, str(folder)).steps:
        raise CheckpointError(
            f"{folder} holds a training that was stopped after step {last['step']:,}: go on with "
            f"it by --resume {folder}, or remove {checkpoints.folder}"
        )


def _train(options: Mapping[str, Any], checkpoints: Checkpoints | None, as_json: bool) -> None:
    """Train with the command's options, or with the settings of a checkpoint in their place."""
    folder = None if options["out"] is None else as_path(options["out"])
    if options["checkpoint_steps"] and folder is None:
        raise SettingError("--checkpoint-steps saves the training: say where with --out DIR")
    backend = start(options["backend"])
    data = _load(options, folder if checkpoints and checkpoints.resume else None)
    digest = data.sha256() if folder else ""
    task, data = _with_targets(data, options["data"], options["task"])
    model = options["model"]
    data = shaped_for(model, data, options["data"])
    (x, t), (x_test, t_test) = data.train, data.test
    settings = Settings(
        data=data.source,
        data_sha256=digest,
        backend=f"{backend.name}:{backend.device}",
        task=task.name,
        model=model,
        steps=options["steps"] or data.steps,
        batch_size=options["batch_size"],
        optimizer=options["optimizer"],
        lr=rate_of(options["optimizer"], options["lr"]),
        schedule=options["schedule"],
        warmup=options["warmup"],
        decay=options["decay"],
        hidden=hidden_of(model, options["hidden"]),
        activation=options["activation"],
        dropout=dropout_of(model, options["dropout"]),
        init=options["init"] or str(_spread_of(model, data)),
        dtype=options["dtype"] or "float32",
        seed=options["seed"],
        data_dir=options["data_dir"] and str(Path(options["data_dir"]).resolve()),
        checkpoint_steps=options["checkpoint_steps"],
    )
    optimizer = optimizer_of(settings)
    outputs = task.output_count(t, options["data"])
    sizes = [prod(x.shape[1:]), *settings.hidden, outputs]
    spread = _spread(settings.init)
    network = network_of(
        settings, x.shape[1:], outputs, _LOSSES[task.name], spread, data.divisor, backend
    )
    trainer = xbp.Trainer(network, optimizer, batch_size=settings.batch_size, seed=settings.seed)
    if folder and checkpoints:
        _prepare(checkpoints, folder, settings)
    if not as_json:
        echo(
            f"{options['data']}: {len(x):,} samples to learn from, "
            f"{0 if x_test is None else len(x_test):,} to test on; "
            f"network {_named(model, sizes)} on {settings.backend}; a {task.name}"
            f"{task.reason and f', {task.reason}: {task.hint}'}"
        )
    for doubt in _doubts(task, data):
        echo(doubt, err=True)
    start_time = time.perf_counter()
    samples = min(settings.batch_size, len(x))
    with TrainingProgress(settings.steps, samples) as progress, warnings.catch_warnings():
        # A loss that is not finite ends in an error that says more.
        warnings.filterwarnings("ignore", "(overflow|invalid value|divide by zero) encountered")
        history = trainer.fit(
            x,
            t,
            steps=settings.steps,
            x_test=x_test,
            t_test=t_test,
            progress=progress,
            checkpoints=checkpoints,
        )
    result = {
        "data": options["data"],
        "task": task.name,
        "backend": backend.name,
        "device": backend.device,
        "versions": {
            "python": platform.python_version(),
            "xbp": xbp.__version__,
            backend.name: backend.library.__version__,
        },
        "dtype": network.dtype,
        "divisor": data.divisor,
        "model": model,
        "layers": sizes,
        "activation": settings.activation,
        "dropout": settings.dropout,
        "steps": len(history.loss),
        "batch_size": settings.batch_size,
        "optimizer": settings.optimizer,
        "lr": settings.lr,
        "schedule": settings.schedule,
        "warmup": settings.warmup,
        "decay": settings.decay,
        "init": spread,
        "seed": settings.seed,
        "seconds": time.perf_counter() - start_time,
        **_figures(history),
    }
    try:
        if folder:
            # Imported here, since it takes a tenth of the time of a short training.
            from xbp.reports import Report  # noqa: PLC0415

            report = Report(
                network,
                history,
                *(data.train if x_test is None else data.test),
                settings=_page_settings(result),
                image_shape=data.image_shape,
            )
            _write(folder, network, result, report.files())
    finally:  # on a full disk, print the results at least
        if as_json:
            echo_json(result)
        else:
            _print_training(result, history)
    if folder and not as_json:
        echo(f"the model, metrics, curves and report.html are in {folder}")
    if history.interrupted:
        raise SystemExit(INTERRUPTED)


def _write(
    folder: Path, network: xbp.Network, result: dict[str, Any], report: Mapping[str, bytes]
) -> None:
    """Write all results of a training, or none, so that the figures are those of the model."""
    model = to_safetensors(network)
    # The digest tells which model the figures are of, even if a file is replaced later.
    result = {**result, "model_sha256": hashlib.sha256(model).hexdigest()}
    files = {
        "model.safetensors": model,
        **report,
        "result.json": to_json(result, indent=2).encode(),
    }
    try:
        write_files(prepare_folder(folder), files)
    except DataError as error:
        is_saved = Checkpoints(folder / CHECKPOINTS).latest_state() is not None
        hint = f". Once that is mended, --resume {folder} writes it" if is_saved else ""
        raise DataError(f"{error}{hint}") from error


def _load(options: Mapping[str, Any], resumed: Path | None) -> DataSet:
    """Return the data; raise `CheckpointError` if the resumed training, in a folder, had others."""
    try:
        data = load_data_set(options["data"], options["data_dir"])
    except DataError as error:
        hint = f". If it has moved: xbp train DATA --resume {resumed}" if resumed else ""
        raise DataError(f"{error}{hint}") from error
    if resumed and data.sha256() != options["data_sha256"]:
        raise CheckpointError(
            f"{options['data']} holds other data than those that the training in {resumed} began "
            f"with: name these, xbp train DATA --resume {resumed}"
        )
    return data


def _with_targets(data: DataSet, source: str, name: str | None) -> tuple[Task, DataSet]:
    """Return the task of that name, or that the targets are for, and the data with its targets."""
    (x, t), (x_test, t_test) = data.train, data.test
    task = task_of(t, source, name or data.task)
    test = (x_test, None if t_test is None else task.targets(t_test, source))
    return task, replace(data, train=(x, task.targets(t, source)), test=test)


def _doubts(task: Task, data: DataSet) -> Iterator[str]:
    """Yield what may be wrong with the data, though they can be learned from."""
    if task.doubt:
        yield f"the targets {task.doubt}: {task.hint}"
    x, _ = data.train
    if data.divisor is None and x.dtype.kind in "iuf":
        largest = max(float(x.max()), -float(x.min()))
        # NaN and infinity are errors, which the training raises.
        if isfinite(largest) and not _SMALL <= largest <= _LARGE:
            yield (
                f"the largest number in x_train is {largest:g}: features far from the size of 1 "
                "are learned badly or not at all: subtract the mean of each and divide by its "
                "standard deviation, both taken from x_train, in x_test too"
            )


def _figures(history: xbp.History) -> dict[str, Any]:
    """Return the last figure of each metric, None if there is none, and the whole history."""
    metrics = {name: getattr(history, name) for name in MEASURED}
    return {
        "loss": history.loss[-1],
        **{name: figures[-1] if figures else None for name, figures in metrics.items()},
        "interrupted": history.interrupted,
        "history": {"loss": history.loss, "evaluated": history.evaluated, **metrics},
    }


_LOSSES = {CLASSIFICATION: SoftmaxWithLoss, REGRESSION: IdentityWithLoss}


def _spread_of(model: str, data: DataSet) -> float | str:
    # The chapter's 0.01 is for its network: through more layers such small numbers vanish.
    return data.weight_init_std if model == "mlp" else "he"


def _named(model: str, sizes: list[int]) -> str:
    return "-".join(map(str, sizes)) if model == "mlp" else f"{model} {sizes[0]} … {sizes[-1]}"


def _spread(text: str) -> float | str:
    if text in ("he", "xavier"):
        return text
    try:
        return float(text)
    except ValueError:
        raise SettingError(f"--init is a number, he or xavier, not {text!r}") from None


def _page_settings(result: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the page lists."""
    names = (
        *("data", "task", "backend", "device", "dtype", "model", "activation", "dropout"),
        *("batch_size", "optimizer", "lr", "schedule", "warmup", "decay", "init", "seed"),
    )
    return {
        "samples divided by": result["divisor"] or 1,
        **{name: result[name] for name in names},
        "layers": "-".join(map(str, result["layers"])),
        "seconds": f"{result['seconds']:.2f}",
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    }


def _print_training(result: dict[str, Any], history: xbp.History) -> None:
    figures = history.last_figures()
    figure = "accuracy" if result["task"] == CLASSIFICATION else "r²"
    titles = ["test loss", f"training {figure}", f"test {figure}"]
    results = table("steps", "seconds", "loss", *titles)
    results.add_row(
        f"{result['steps']:,}",
        f"{result['seconds']:.2f}",
        loss_as_text(result["loss"]),
        *(figures.get(title, "-") for title in titles),
    )
    width = width_for_curves()
    if width is not None:
        echo(loss_in_terminal(history, min(width, _WIDEST_CURVE)))
    show(results)
    if result["interrupted"]:
        echo("interrupted: the network keeps what it has learned so far")
