"""``xbp graph``."""

from pathlib import Path
from typing import Any

import click

import xbp
from xbp.backend import Backend
from xbp.cli.common import (
    backend_option,
    count_type,
    echo,
    echo_json,
    file_type,
    json_option,
    seed_option,
    show,
    start,
    table,
)
from xbp.datasets import load_digits
from xbp.datasets.digits import DARKEST
from xbp.errors import SettingError
from xbp.files import as_path, prepare_folder, write_files
from xbp.graphs import Graph, Step
from xbp.graphs.chapter import apple, fruit, neuron
from xbp.layers import Elu, Gelu, LeakyRelu, Relu, Sigmoid, Silu, Softplus, Tanh

CHAPTER = {"apple": apple, "fruit": fruit, "neuron": neuron}
# All are written together, and each file stays open meanwhile.
_MOST_PICTURES = 200

ACTIVATIONS = {
    "relu": Relu,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "leaky-relu": LeakyRelu,
    "elu": Elu,
    "gelu": Gelu,
    "silu": Silu,
    "softplus": Softplus,
}


@click.command()
@click.argument("what", type=click.Choice([*CHAPTER, "net"]))
@click.option(
    "--out",
    metavar="FILE",
    type=file_type,
    help="Write the picture: .svg or .png, .dot, or .mmd for Mermaid text.",
)
@click.option(
    "--steps",
    is_flag=True,
    help="Write a picture after each of at most 200 steps: FILE-1, FILE-2 ...",
)
@backend_option
@click.option("--depth", type=click.IntRange(2, count_type.max), default=2, show_default=True)
@click.option("--width", type=count_type, default=50, show_default=True)
@click.option(
    "--activation", type=click.Choice(list(ACTIVATIONS)), default="relu", show_default=True
)
@click.option("--samples", type=count_type, default=100, show_default=True)
@seed_option
@json_option
@click.pass_context
def graph(
    ctx: click.Context,
    what: str,
    out: str | None,
    steps: bool,
    backend: str | None,
    depth: int,
    width: int,
    activation: str,
    samples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Show a computational graph: what each node does forward, then backward.

    The tutorial's apple and fruit, a neuron, or a net of DEPTH affine layers WIDTH wide, with a
    batch of the embedded digits. Pictures need pygraphviz, which comes with
    pip install '.[graph]'; Mermaid text does not.
    """
    if steps and out is None:
        raise SettingError("--steps writes pictures: say where with --out FILE")
    if what == "net":
        graph = _net(start(backend), [width] * (depth - 1), ACTIVATIONS[activation], samples, seed)
    else:
        _refuse_settings_of_a_net(ctx, what)
        graph = CHAPTER[what]()
    all_steps = graph.steps()
    paths = _save(as_path(out), graph, all_steps if steps else []) if out is not None else []
    if as_json:
        echo_json({"graph": what, "steps": [_record(step) for step in all_steps]})
        return
    _print(all_steps, f"{what}: {all_steps[len(graph.operations) - 1].gives[0]}")
    for path in paths:
        echo(f"drawn: {path}")


def _net(backend: Backend, hidden: list[int], activation: Any, samples: int, seed: int) -> Graph:
    (x, t), _ = load_digits(normalize=False, backend=backend)
    network = xbp.Network.fully_connected(
        [64, *hidden, 10], divisor=DARKEST, activation=activation, backend=backend, seed=seed
    )
    if samples > x.shape[0]:
        raise SettingError(f"--samples: there are {x.shape[0]:,} digits, not {samples:,}")
    return Graph.of_network(network, x[:samples, ...], t[:samples])


def _refuse_settings_of_a_net(ctx: click.Context, what: str) -> None:
    for name in ("backend", "depth", "width", "activation", "samples", "seed"):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise SettingError(f"--{name} is for the net: {what} is made of Python's numbers")


def _save(path: Path, graph: Graph, steps: list[Step]) -> list[Path]:
    """Write one picture, or one for each step, all or none, and return the paths."""
    if len(steps) > _MOST_PICTURES:
        raise SettingError(f"--steps: {len(steps):,} pictures are more than {_MOST_PICTURES}")
    prepare_folder(path.parent)
    digits = len(str(len(steps)))
    pictures = {
        path.with_stem(f"{path.stem}-{number:0{digits}}"): step.picture.content(path)
        for number, step in enumerate(steps, start=1)
    } or {path: graph.picture().content(path)}
    write_files(path.parent, {file.name: content for file, content in pictures.items()})
    return list(pictures)


def _record(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in ("direction", "label", "takes", "gives")}


def _print(steps: list[Step], title: str) -> None:
    rows = table("", "node", "takes", "gives", title=title)
    for previous, step in zip([None, *steps], steps, strict=False):
        if previous and previous.direction != step.direction:
            rows.add_section()
        figures = ("\n".join(step.takes), "\n".join(step.gives))
        rows.add_row(step.direction, step.label, *figures)
    show(rows)
