"""``xbp gradcheck``."""

from math import prod

import click
from click.core import ParameterSource

import xbp
from xbp.cli.common import (
    backend_option,
    count_type,
    data_dir_option,
    echo,
    echo_json,
    json_option,
    seed_option,
    show,
    start,
    styled,
    table,
)
from xbp.cli.task import class_count
from xbp.datasets.formats import NAMED, load_data_set
from xbp.errors import SettingError


@click.command()
@click.argument("data", default="digits", type=click.Choice([*NAMED]))
@backend_option
@click.option("--samples", type=count_type, default=3, show_default=True, help="Mini-batch size.")
@click.option("--hidden", type=count_type, default=50, show_default=True)
@click.option(
    "--elements",
    type=count_type,
    default=1000,
    show_default=True,
    help="Compare as many elements of each parameter, chosen at random.",
)
@click.option("--all", "every", is_flag=True, help="Compare every element.")
@click.option(
    "--directions",
    type=count_type,
    help="Move each parameter along as many random directions instead: for large networks.",
)
@seed_option
@data_dir_option
@json_option
@click.pass_context
def gradcheck(
    ctx: click.Context,
    data: str,
    backend: str | None,
    samples: int,
    hidden: int,
    elements: int,
    every: bool,
    directions: int | None,
    seed: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Compare backpropagation with central differences, on a network of two layers.

    The largest relative error is that of one element: the difference divided by the larger of its
    two values, or by the smallest value that a difference quotient can resolve. The column kinks
    counts compared elements beside a kink of the loss, such as that of ReLU at 0; the column aside
    counts elements that no difference quotient can judge, which are not compared.

    Exit status 1 if they disagree, or if most elements cannot be compared.
    """
    choices = {
        "--all": every,
        "--elements": ctx.get_parameter_source("elements") is ParameterSource.COMMANDLINE,
        "--directions": directions is not None,
    }
    if sum(choices.values()) > 1:
        names = " and ".join(name for name, is_given in choices.items() if is_given)
        raise SettingError(f"{names} exclude each other: give one of them")
    library = start(backend)
    data_set = load_data_set(data, data_dir)
    x, t = data_set.train
    x = x[:samples] / (data_set.divisor or 1)
    dtype = "float64" if library.has_float64 else "float32"
    network = xbp.TwoLayerNet(
        prod(x.shape[1:]), hidden, class_count(t, data), backend=library, dtype=dtype, seed=seed
    )
    report = xbp.gradient_check(
        network,
        library.asarray(x, dtype),
        library.asarray(t[:samples]),
        elements=None if every or directions else elements,
        directions=directions,
        seed=seed,
    )
    if as_json:
        echo_json(
            {
                "data": data,
                "backend": library.name,
                "device": library.device,
                "dtype": report.dtype,
                "step": report.step,
                "directions": directions,
                "passed": report.passed,
                "verdict": report.verdict,
                "not_deterministic": report.not_deterministic,
                "parameters": {
                    key: {
                        **vars(check),
                        "compared": check.compared,
                        "verdict": check.verdict,
                        "passed": check.passed,
                    }
                    for key, check in report.parameters.items()
                },
            }
        )
    else:
        _print_report(report, f"{data}, {library.name}:{library.device}", bool(directions))
    if not report.passed:
        raise SystemExit(1)


def _print_report(report: xbp.GradientReport, title: str, along_directions: bool) -> None:
    results = table(
        *("parameter", "mean difference", "largest relative error"),
        "directions" if along_directions else "compared",
        *("kinks", "aside", "verdict"),
        title=f"{title}: backpropagation and central differences in {report.dtype}",
    )
    for key, check in report.parameters.items():
        results.add_row(
            key,
            f"{check.mean_absolute_difference:.3g}",
            f"{check.largest_relative_error:.3g}",
            f"{check.compared:,}" + ("" if along_directions else f" of {check.size:,}"),
            f"{check.kinks:,}",
            f"{check.set_aside:,}",
            {
                "ok": styled("ok", "green"),
                "wrong": styled(f"{check.wrong:,} wrong", "red"),
                "inconclusive": styled("inconclusive", "yellow"),
            }[check.verdict],
        )
    show(results)
    if not report.passed:
        echo(str(report))
