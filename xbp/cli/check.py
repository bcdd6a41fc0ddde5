"""``xbp check``."""

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import click

from xbp.cli.common import (
    complete_backend,
    count_type,
    echo,
    echo_json,
    file_type,
    json_option,
    start,
    tracked,
)
from xbp.errors import DataError, SettingError, described

# The most characters of a reason that is told at once.
_REASON = 160


class Verdict(NamedTuple):
    """What came of a promise: why it is broken, the cause of that, and how long it took.

    The failure is None if the promise is kept. Promises with one cause are broken by one fault.
    """

    failure: str | None
    cause: str
    seconds: float


@click.command()
@click.argument("spec", metavar="NAME", shell_complete=complete_backend)
@click.option(
    "--examples",
    type=count_type,
    default=30,
    show_default=True,
    help="How many cases to try each layer on.",
)
@click.option(
    "--only", metavar="TEXT", multiple=True, help="Only promises with this text in their names."
)
@click.option(
    "--skip", metavar="TEXT", multiple=True, help="No promise with this text in its name."
)
@click.option(
    "--xfail",
    metavar="FILE",
    type=file_type,
    help="Promises that are known to be broken, one name in each line, # for comments.",
)
@json_option
def check(
    spec: str,
    examples: int,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    xfail: str | None,
    as_json: bool,
) -> None:
    """Run the conformance suite on a backend: NAME, or NAME:DEVICE.

    Exit status 1 if a promise is broken, or if one is kept that the file of --xfail names.
    """
    try:
        from xbp.testing import BackendConformance  # noqa: PLC0415  needs Hypothesis
    except ImportError as error:
        raise SettingError(str(error)) from error
    suite = BackendConformance()
    promises = _chosen(suite.checks(), only, skip)
    known = _known_to_be_broken(xfail, suite.checks()) if xfail else set()
    backend = start(spec)
    suite.spec, suite.max_examples = spec, examples
    verdicts: dict[str, Verdict] = {}
    for name in tracked(promises, "checking") if as_json else promises:
        verdict = _verdict(suite, name)
        if not as_json:
            is_new = verdict.cause not in (it.cause for it in verdicts.values())
            _print_verdict(name, verdict, name in known, is_new)
        verdicts[name] = verdict
    unexpected = [
        name for name, it in verdicts.items() if (it.failure is not None) != (name in known)
    ]
    place = f"{backend.name}:{backend.device}"
    if as_json:
        echo_json(
            {
                "backend": backend.name,
                "device": backend.device,
                "passed": not unexpected,
                "checks": {
                    name: {
                        "promise": promises[name],
                        "failure": it.failure,
                        "known": name in known,
                        "seconds": round(it.seconds, 3),
                    }
                    for name, it in verdicts.items()
                },
            }
        )
    else:
        _print_summary(place, promises, verdicts, known)
    if unexpected:
        raise SystemExit(1)


def _chosen(
    promises: Mapping[str, str], only: Iterable[str], skip: Iterable[str]
) -> dict[str, str]:
    """Return the promises whose names have one of the first texts in them, and none of the others.

    No text at all chooses every promise.
    """
    for text in (*only, *skip):
        if not _plain(text) or not any(_plain(text) in _plain(name) for name in promises):
            raise SettingError(f"no promise has {text!r} in its name: {_listed(promises)}")
    chosen = {
        name: promise
        for name, promise in promises.items()
        if (not only or any(_plain(text) in _plain(name) for text in only))
        and not any(_plain(text) in _plain(name) for text in skip)
    }
    if not chosen:
        raise SettingError("--skip leaves no promise of those that --only names")
    return chosen


def _known_to_be_broken(path: str, promises: Iterable[str]) -> set[str]:
    """Read the names of promises from a file."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}): name a text file") from error
    by_name = {_plain(name): name for name in promises}
    known = set()
    for number, line in enumerate(lines, start=1):
        if name := _plain(line.partition("#")[0]):
            if name not in by_name:
                raise SettingError(
                    f"{path}, line {number}: no promise is called {line.strip()!r}: "
                    f"{_listed(by_name.values())}"
                )
            known.add(by_name[name])
    return known


def _plain(name: str) -> str:
    """Return a name as words: ``"it knows its own"`` for ``"test_it_knows_its_own"``."""
    return name.strip().removeprefix("test_").replace("_", " ").lower()


def _listed(names: Iterable[str]) -> str:
    return f"they are {', '.join(map(_plain, names))}"


def _verdict(suite: Any, name: str) -> Verdict:
    began = time.perf_counter()
    failure, cause = None, ""
    try:
        getattr(suite, name)()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a backend may raise anything
        is_claim = isinstance(error, AssertionError) and str(error).strip()
        failure = str(error).strip() if is_claim else described(error)
        *_, first = _causes(error)
        cause = failure if first is error else described(first)
    return Verdict(failure, cause, time.perf_counter() - began)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _print_verdict(name: str, verdict: Verdict, is_known: bool, is_new: bool) -> None:
    word = "kept" if verdict.failure is None else "known" if is_known else "BROKEN"
    echo(f"{word:<6} {verdict.seconds:7.2f} s  {_plain(name)}")
    if word == "BROKEN" and is_new:  # at once, since the rest may take long
        reason, *_ = verdict.cause.splitlines()
        echo(f"{'':<18}{shorten(reason, _REASON, placeholder=' ...')}")


def _print_summary(
    place: str, promises: Mapping[str, str], verdicts: Mapping[str, Verdict], known: set[str]
) -> None:
    broken = [name for name, it in verdicts.items() if it.failure is not None]
    groups: dict[str, list[str]] = {}
    for name in broken:
        if name not in known:
            groups.setdefault(verdicts[name].cause, []).append(name)
    for cause, names in groups.items():
        echo(f"\n{names[0]}: {promises[names[0]]}\n{verdicts[names[0]].failure}")
        if cause not in (verdicts[names[0]].failure or ""):
            echo(f"the cause: {cause}")
        if len(names) > 1:
            echo(f"of the same cause: {', '.join(names[1:])}")
    kept = len(verdicts) - len(broken)
    seconds = sum(verdict.seconds for verdict in verdicts.values())
    echo(f"\n{place}: {kept} of {len(verdicts)} promises kept, in {seconds:.1f} s")
    if named := [name for name in broken if name in known]:
        echo(f"known to be broken: {', '.join(named)}")
    if mended := [name for name in verdicts if name in known and name not in broken]:
        echo(f"kept, though the file of --xfail names them: {', '.join(mended)}: take them out")
