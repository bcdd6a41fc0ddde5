"""What the commands share: options, completion, printing, tables."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

import click
import rich.table
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.progress import track
from rich.text import Text

import xbp
from xbp.backend import Backend
from xbp.cli.result import to_json
from xbp.datasets.formats import NAMED

Item = TypeVar("Item")

# The exit status of what Ctrl-C ended.
INTERRUPTED = 130


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the backends that begin with a text, without names that a shell would misread."""
    return [
        name
        for name in xbp.available_backends()
        if name.startswith(incomplete) and name.isprintable() and " " not in name
    ]


def complete_data(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the data sets that begin with a text; if there is none, the shell offers files."""
    items = [CompletionItem(name) for name in NAMED if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]


# A count, at most the largest length of an array.
count_type = click.IntRange(1, 2**31 - 1)

# A shell completes these by names of files and folders.
file_type, folder_type = click.Path(), click.Path(file_okay=False)

backend_option = click.option(
    "--backend",
    metavar="SPEC",
    help="Array library, and device: numpy, torch:cuda:0, jax ...",
    shell_complete=complete_backend,
)
dtype_option = click.option("--dtype", type=click.Choice(["float32", "float64"]))
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
data_dir_option = click.option(
    "--data-dir",
    metavar="DIR",
    type=folder_type,
    help="Folder of the MNIST files; else they are downloaded.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def start(spec: str | None) -> Backend:
    """Return a backend with float64 enabled for the whole process, which is the command's own."""
    backend = xbp.get_backend(spec)
    backend.enable_float64()
    return backend


# Progress apart, all of xbp.cli prints by these functions, as a test checks, since the names of
# files, plugins and versions may contain control characters.


def printable(text: str) -> str:
    """Return text with escapes for the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def echo(text: str, *, err: bool = False) -> None:
    """Print a text on standard output; or on standard error, where failing is no error."""
    with suppress(OSError) if err else nullcontext():
        click.echo(printable(text), err=err)


def echo_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object; of what a terminal would obey, JSON itself escapes all but DEL."""
    click.echo(to_json(values).replace("\x7f", "\\u007f"))


class Table(rich.table.Table):
    """A table of plain texts: nothing in them is markup."""

    def add_row(self, *cells: Any, **settings: Any) -> None:
        """Add a row of texts, and of what `styled` returns."""
        super().add_row(*map(_plain, cells), **settings)


def table(*columns: str, title: str = "") -> Table:
    """Return an empty table with these columns."""
    empty = Table(title=_plain(title) if title else None)
    for column in columns:
        # Wrapped rather than cut, since half a message tells nothing.
        empty.add_column(_plain(column), overflow="fold")
    return empty


def styled(text: str, style: str) -> Text:
    """Return the text of a cell in a style, ``"green"``."""
    return Text(printable(text), style)


def _plain(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(printable(cell))


def show(results: Table) -> None:
    """Print a table on standard output."""
    Console().print(results)


def width_for_curves() -> int | None:
    """Return the width of standard output in characters; None if it cannot print curves."""
    console = Console()
    return console.width if console.encoding.startswith("utf") else None


def tracked(items: Iterable[Item], description: str) -> Iterable[Item]:
    """Return the items, and show on standard error how many are done."""
    console = Console(stderr=True)
    return track(
        items, description, console=console, transient=True, disable=not console.is_terminal
    )
