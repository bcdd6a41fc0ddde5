"""``xbp check``."""

from traceback import extract_tb
from typing import Any

import click

from xbp.cli.common import (
    complete_backend,
    count_type,
    echo,
    echo_json,
    json_option,
    show,
    start,
    styled,
    table,
    tracked,
)
from xbp.errors import SettingError


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
    results = {
        name: {"promise": promise, "failure": _failure(suite, name)}
        for name, promise in tracked(suite.checks().items(), "checking")
    }
    failures = {name: result["failure"] for name, result in results.items() if result["failure"]}
    if as_json:
        echo_json(
            {
                "backend": backend.name,
                "device": backend.device,
                "passed": not failures,
                "checks": results,
            }
        )
    else:
        _print(results, failures, f"{backend.name}:{backend.device}")
    if failures:
        raise SystemExit(1)


def _failure(suite: Any, name: str) -> str | None:
    """Return why a promise is broken; None if it is kept."""
    try:
        getattr(suite, name)()
    except AssertionError as error:
        return str(error).strip() or f"it fails: {extract_tb(error.__traceback__)[-1].line}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a backend may raise anything
        where = extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
    return None


def _print(results: dict[str, dict[str, str | None]], failures: dict[str, str], title: str) -> None:
    summary = f"{len(results) - len(failures)} of {len(results)} promises kept"
    verdicts = table("promise", "verdict", title=f"{title}: {summary}")
    for name in results:
        promise = name.removeprefix("test_").replace("_", " ")
        verdicts.add_row(
            promise, styled("broken", "red") if name in failures else styled("kept", "green")
        )
    show(verdicts)
    for name, failure in failures.items():
        echo(f"\n{name}: {results[name]['promise']}\n{failure}")
