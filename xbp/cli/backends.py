"""``xbp backends``."""

import click

import xbp
from xbp.cli.common import echo_json, json_option, show, styled, table
from xbp.probe import descriptions

# What is said of it; a plugin need not say.
_FLOAT64 = {True: "yes", False: "no", None: "unknown"}


@click.command()
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=60,
    show_default=True,
    help="How long to wait for each of them.",
)
@json_option
def backends(timeout: float, as_json: bool) -> None:
    """List the array libraries, and say what to install for the others.

    Each is tried in a process of its own, so that one that hangs or crashes affects no other.
    """
    records = descriptions(xbp.available_backends(), timeout)
    if as_json:
        echo_json({record["name"]: record for record in records})
        return
    results = table("backend", "version", "devices", "float64", "usable, or why not")
    for record in records:
        results.add_row(
            record["name"],
            record["version"] or "-",
            "\n".join(record["devices"]) or "-",
            _FLOAT64[record["float64"]] if record["usable"] else "-",
            styled("usable", "green") if record["usable"] else record["reason"],
        )
    show(results)
