"""``xbp backends``."""

import click
from rich.console import Console
from rich.markup import escape

import xbp
from xbp.cli.common import json_option, table
from xbp.registry import describe
from xbp.saving import to_json


@click.command()
@json_option
def backends(as_json: bool) -> None:
    """List the array libraries, and say what to install for the others."""
    records = [describe(record) for record in xbp.available_backends().values()]
    if as_json:
        click.echo(to_json({record["name"]: record for record in records}))
        return
    results = table("backend", "version", "devices", "float64", "usable, or why not")
    for record in records:
        results.add_row(
            record["name"],
            record["version"] or "-",
            "\n".join(record["devices"]) or "-",
            "yes" if record["float64"] else "no" if record["usable"] else "-",
            "[green]usable[/]" if record["usable"] else escape(record["reason"]),
        )
    Console().print(results)
