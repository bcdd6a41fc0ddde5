"""``xbp check``."""

from traceback import extract_tb
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from xbp.cli.common import complete_backend, count_type, json_option, start, table
from xbp.errors import SettingError
from xbp.saving import to_json


@click.command()
@click.argument("spec", metavar="NAME", shell_complete=complete_backend)
@click.option(
    "--examples",
    type=count_type,
    default=30,
    show_default=True,
    help="How many cases to try each layer on.",
)
@json_option
def check(spec: str, examples: int, as_json: bool) -> None:
    """Run the conformance suite on a backend: NAME, or NAME:DEVICE.

    Exit status 1 if a promise is broken.
    """
    try:
        from xbp.testing import BackendConformance  # noqa: PLC0415  needs Hypothesis
    except ImportError as error:
        raise SettingError(str(error)) from error
    backend = start(spec)
    suite = BackendConformance()
    suite.spec, suite.max_examples = spec, examples
    quiet = Console(stderr=True)
    results = {
        name: {"promise": promise, "failure": _failure(suite, name)}
        for name, promise in track(
            suite.checks().items(), "checking", console=quiet, transient=True
        )
    }
    failures = {name: found for name, found in results.items() if found["failure"]}
    if as_json:
        click.echo(
            to_json(
                {
                    "backend": backend.name,
                    "device": backend.device,
                    "passed": not failures,
                    "checks": results,
                }
            )
        )
    else:
        _print(results, f"{backend.name}:{backend.device}")
    if failures:
        raise SystemExit(1)


def _failure(suite: Any, name: str) -> str | None:
    """Return why a promise is broken; None if it is kept."""
    try:
        getattr(suite, name)()
    except AssertionError as error:
        return str(error).strip() or f"it fails: {extract_tb(error.__traceback__)[-1].line}"
    except Exception as error:  # whatever a backend's author has not thought of
        where = extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
    return None


def _print(results: dict[str, dict[str, str | None]], title: str) -> None:
    verdicts = table("promise", "verdict")
    for name, found in results.items():
        promise = name.removeprefix("test_").replace("_", " ")
        verdicts.add_row(promise, "[red]broken[/]" if found["failure"] else "[green]kept[/]")
    broken = {name: found["failure"] for name, found in results.items() if found["failure"]}
    verdicts.title = f"{title}: {len(results) - len(broken)} of {len(results)} promises kept"
    Console().print(verdicts)
    for name, failure in broken.items():
        click.echo(f"\n{name}: {results[name]['promise']}\n{failure}")
