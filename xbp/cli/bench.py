"""``xbp bench``."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track

import xbp
from xbp.backend import Backend
from xbp.cli.common import INTERRUPTED, json_option, start, table
from xbp.errors import BackendUnavailableError
from xbp.files import prepare_folder
from xbp.saving import save_result, to_json

RESULT, PLOT = "bench.json", "bench.svg"


@click.command()
@click.option(
    "--backend", "specs", metavar="SPEC", multiple=True, help="Only these; else all usable ones."
)
@click.option("--batch", type=click.IntRange(min=1), multiple=True, default=(100, 1024))
@click.option("--width", type=click.IntRange(min=1), multiple=True, default=(50, 256, 1024))
@click.option("--depth", type=click.IntRange(min=2), multiple=True, default=(2, 5, 20))
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--out", metavar="DIR", help=f"Folder for {RESULT} and {PLOT}.")
@json_option
def bench(
    specs: tuple[str, ...],
    batch: tuple[int, ...],
    width: tuple[int, ...],
    depth: tuple[int, ...],
    rounds: int,
    out: str | None,
    as_json: bool,
) -> None:
    """Measure the speed of xbp beside the bare matrix products, code by hand, and autograd.

    Networks of 784 features, DEPTH affine layers WIDTH wide, and 10 classes, in float32; --batch,
    --width and --depth may be repeated. Each contestant runs in a process of its own. In each round
    all take their turn, and medians count. Ctrl-C ends it with what was measured so far.
    """
    # Only this command needs them.
    try:
        from xbp_benchmarks.contestant import Shape  # noqa: PLC0415
        from xbp_benchmarks.contestants import FLOOR, RIVALS, contestants  # noqa: PLC0415
        from xbp_benchmarks.measure import Arena  # noqa: PLC0415
        from xbp_benchmarks.plot import draw  # noqa: PLC0415
    except ImportError as error:
        raise BackendUnavailableError(
            f"xbp bench needs {error.name}: in a clone, pip install '.[bench]'"
        ) from error
    folder = prepare_folder(out) if out else None
    records = xbp.available_backends()
    usable = [name for name in RIVALS if name in records and records[name].usable]
    backends = [start(spec) for spec in specs or usable]
    specs_by_title = {
        title: f"{backend.name}:{backend.device}"
        for backend in backends
        for title in contestants(backend)
        if title != FLOOR
    }
    shapes = [Shape(*sizes) for sizes in product(batch, width, depth)]
    result: dict[str, Any] = {
        "rounds": rounds,
        "floor": FLOOR,
        "specs": specs_by_title,
        "measured": [],
        "interrupted": False,
    }
    progress = Console(stderr=True)
    try:
        # The floor is NumPy's, once.
        with Arena({FLOOR: "numpy"} | specs_by_title) as arena:
            for shape in track(shapes, "measuring", console=progress, transient=True):
                for work, seconds in arena.seconds(shape, rounds).items():
                    result["measured"].append({**asdict(shape), "work": work, "seconds": seconds})
                # Known when the libraries have started their threads.
                result["machine"] = {**_machine(backends), "threads": arena.threads()}
                if folder:
                    save_result(result, folder / RESULT)
                progress.print(f"measured: {shape}", highlight=False)
    except KeyboardInterrupt:
        if not result["measured"]:
            raise
        result["interrupted"] = True
    if folder:
        save_result(result, folder / RESULT)
        draw(result, folder / PLOT)
    if as_json:
        click.echo(to_json(result))
    else:
        _print(result, folder)
    if result["interrupted"]:
        raise SystemExit(INTERRUPTED)


def _machine(backends: Sequence[Backend]) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "backends": {
            f"{backend.name}:{backend.device}": backend.library.__version__ for backend in backends
        },
    }


def _print(result: Mapping[str, Any], folder: Path | None) -> None:
    figures = table("batch", "width", "depth", "work", "", "microseconds", "ratio")
    figures.title = f"ratio: to the {result['floor']}"
    for found in result["measured"]:
        figures.add_section()
        labels = [str(found[key]) for key in ("batch", "width", "depth", "work")]
        floor = found["seconds"][result["floor"]]
        for title, seconds in found["seconds"].items():
            figures.add_row(*labels, title, f"{seconds * 1e6:,.0f}", f"{seconds / floor:.2f}")
            labels = [""] * len(labels)
    console = Console()
    console.print(figures)
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["backends"].items())
    click.echo(f"{machine['cores']} cores, Python {machine['python']}, {versions}")
    for title, pools in machine["threads"].items():
        click.echo(f"threads of {title}: {', '.join(pools) or 'as it chooses'}")
    if result["interrupted"]:
        click.echo("interrupted: these shapes had been measured")
    if folder:
        click.echo(f"{RESULT} and {PLOT} are in {folder}")
