"""``xbp bench``."""

import os
import platform
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import click

import xbp
from xbp.backend import Backend
from xbp.cli.common import (
    INTERRUPTED,
    complete_backend,
    count_type,
    echo,
    echo_json,
    folder_type,
    json_option,
    show,
    start,
    table,
    tracked,
)
from xbp.cli.result import write_json
from xbp.errors import BackendUnavailableError, XbpError
from xbp.files import prepare_folder

RESULT, PLOT = "bench.json", "bench.svg"


def _sizes(name: str, smallest: int, default: tuple[int, ...]) -> Callable[[Any], Any]:
    kind = click.IntRange(min=smallest)
    return click.option(name, type=kind, multiple=True, default=default, show_default=True)


@click.command()
@click.option(
    "--backend",
    "specs",
    metavar="SPEC",
    multiple=True,
    shell_complete=complete_backend,
    help="Measure only these; else that of XBP_BACKEND, or all usable ones.",
)
@click.option(
    "--model",
    type=click.Choice(["mlp", "cnn", "deep"]),
    default="mlp",
    show_default=True,
    help="Affine layers, or the convolutional networks that xbp train has by these names.",
)
@_sizes("--batch", 1, (100, 1024))
@_sizes("--width", 1, (50, 256, 1024))
@_sizes("--depth", 2, (2, 5, 20))
@click.option("--rounds", type=count_type, default=7, show_default=True)
@click.option("--out", metavar="DIR", type=folder_type, help=f"Folder for {RESULT} and {PLOT}.")
@json_option
def bench(
    specs: tuple[str, ...],
    model: str,
    batch: tuple[int, ...],
    width: tuple[int, ...],
    depth: tuple[int, ...],
    rounds: int,
    out: str | None,
    as_json: bool,
) -> None:
    """Measure the speed of xbp, of bare matrix products, of code by hand, and of autograd.

    The networks have 784 features, DEPTH affine layers WIDTH wide, and 10 classes, in float32; or
    they are convolutional, of a --model, without dropout. --batch, --width and --depth may be
    repeated; by default there are 18 shapes, which take about an hour. Each contestant runs in a
    process of its own. Each round measures every contestant once, and the median of the rounds
    counts. Ctrl-C ends it, and keeps the shapes measured so far.
    """
    # Imported here, since only this command needs them.
    try:
        from xbp_benchmarks.contestant import Shape  # noqa: PLC0415
        from xbp_benchmarks.contestants import FLOOR, RIVALS, contestants  # noqa: PLC0415
        from xbp_benchmarks.images import ImageShape  # noqa: PLC0415
        from xbp_benchmarks.measure import Arena  # noqa: PLC0415
        from xbp_benchmarks.plot import draw  # noqa: PLC0415
    except ImportError as error:
        raise BackendUnavailableError(
            f"xbp bench needs {error.name}: in a clone, pip install '.[bench]'"
        ) from error
    folder = None if out is None else prepare_folder(out)
    records = xbp.available_backends()
    usable = [name for name in RIVALS if name in records and records[name].usable]
    selected = [os.environ["XBP_BACKEND"]] if os.environ.get("XBP_BACKEND") else usable
    backends = [start(spec) for spec in specs or selected]
    specs_by_title = {
        title: f"{backend.name}:{backend.device}"
        for backend in backends
        for title in contestants(backend, model)
        if title != FLOOR
    }
    shapes: list[Any] = [ImageShape(size, model) for size in dict.fromkeys(batch)]
    if model == "mlp":
        shapes = [Shape(*sizes) for sizes in product(*map(dict.fromkeys, (batch, width, depth)))]
    result: dict[str, Any] = {
        "rounds": rounds,
        "floor": FLOOR,
        "specs": specs_by_title,
        "measured": [],
        "interrupted": False,
    }
    ending: BaseException | None = None
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    try:
        # The floor is measured once, on NumPy.
        with Arena({FLOOR: "numpy"} | specs_by_title) as arena:
            for shape in tracked(shapes, "measuring"):
                for work, seconds in arena.seconds(shape, rounds).items():
                    result["measured"].append({**asdict(shape), "work": work, "seconds": seconds})
                # Only now have the libraries started their threads.
                result["machine"] = {**_machine(backends), "threads": arena.threads()}
                if folder:
                    write_json(result, folder / RESULT)
                echo(f"measured: {shape}", err=True)
    except (KeyboardInterrupt, XbpError) as error:
        ending = error
        result["interrupted"] = True
        # Another Ctrl-C must not keep the results from being shown and written.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if result["measured"]:
        _show(result, as_json)
        if folder:
            write_json(result, folder / RESULT)
            if model == "mlp":
                draw(result, folder / PLOT)
            files = f"{RESULT} and {PLOT} are" if model == "mlp" else f"{RESULT} is"
            echo(f"{files} in {folder}", err=True)
    if isinstance(ending, XbpError):
        raise ending
    if ending:
        echo("interrupted", err=True)
        raise SystemExit(INTERRUPTED)


def _interrupt_once(signum: int, frame: Any) -> None:
    """Raise KeyboardInterrupt, and ignore any further Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _machine(backends: Sequence[Backend]) -> dict[str, Any]:
    """Return what the figures depend on: the machine, and the versions."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "backends": {
            f"{backend.name}:{backend.device}": backend.library.__version__ for backend in backends
        },
    }


def _show(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(result)
        return
    sizes = [key for key in result["measured"][0] if key not in ("work", "seconds")]
    columns = (*sizes, "work", "contestant", "microseconds", "ratio")
    figures = table(*columns, title=f"ratio: to the {result['floor']}")
    for measurement in result["measured"]:
        figures.add_section()
        labels = [str(measurement[key]) for key in (*sizes, "work")]
        floor = measurement["seconds"][result["floor"]]
        for title, seconds in measurement["seconds"].items():
            figures.add_row(*labels, title, f"{seconds * 1e6:,.0f}", f"{seconds / floor:.2f}")
            labels = [""] * len(labels)
    show(figures)
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["backends"].items())
    echo(f"{machine['cores']} cores, Python {machine['python']}, {versions}")
    for title, pools in machine["threads"].items():
        echo(f"threads of {title}: {', '.join(pools) or 'as it chooses'}")
    if result["interrupted"]:
        echo("interrupted: these shapes had been measured")
