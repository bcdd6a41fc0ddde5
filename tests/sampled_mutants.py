"""Mutants drawn by chance in the rooms whose tests are slow: run by ``nox -s sampled_mutants``.

mutmut makes the mutants. Each is a copy of the project with one small change, and meets the tests
that see its room. What survives is either a gap in the tests, or is listed in
equivalent_mutants.toml with the reason why no test can tell it from the original.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from difflib import ndiff
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from random import Random
from tempfile import TemporaryDirectory

from libcst import Module
from mutmut.mutation.file_mutation import Mutation, create_mutations

HOUSE = Path(__file__).parent.parent
EQUIVALENT = HOUSE / "tests" / "equivalent_mutants.toml"
ROOMS = tomllib.loads((HOUSE / "tests" / "sampled_mutants.toml").read_text())


@dataclass(frozen=True)
class Mutant:
    """A file's content with one change: the lines that it takes out, and those it puts in."""

    path: Path
    content: str
    original: str
    mutant: str


def drawn(room: str, number: int, seed: int) -> list[Mutant]:
    """Return mutants of a room's functions, drawn by chance."""
    every = []
    for path in sorted(path for pattern in ROOMS[room]["files"] for path in HOUSE.glob(pattern)):
        module, mutations, *_ = create_mutations(str(path), path.read_text())
        every += [
            (path.relative_to(HOUSE), module, mutation)
            for mutation in mutations
            if mutation.contained_by_top_level_function
        ]
    return [made(*it) for it in Random(f"{seed} {room}").sample(every, min(number, len(every)))]


def made(path: Path, module: Module, mutation: Mutation) -> Mutant:
    """Return a file with one of its mutations."""
    content = module.deep_replace(mutation.original_node, mutation.mutated_node).code
    lines = list(ndiff(module.code.splitlines(), content.splitlines()))
    out, put_in = (
        "\n".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return Mutant(path, content, out, put_in)


class Copy:
    """A copy of the project to plant mutants into, which is imported in place of the original."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("xbp", "backends", "benchmarks", "tests", "examples", "docs"):
            shutil.copytree(HOUSE / name, folder / name, ignore=shutil.ignore_patterns("_build"))
        for path in HOUSE.iterdir():
            if path.is_file():
                shutil.copy2(path, folder)
        for name in ("backends", "benchmarks"):
            (folder / f"xbp_{name}").symlink_to(folder / name)

    def passes(self, tests: list[str], seconds: float) -> bool:
        """Tell whether tests pass in time."""
        paths = [f"tests/test_{name}.py" for name in tests]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths]
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "XBP_BACKEND": "numpy",
            "OMP_NUM_THREADS": "1",
        }
        running = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return running.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            with suppress(ProcessLookupError):  # and those that it has started
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()

    def kills(self, mutant: Mutant, tests: list[str], seconds: float) -> bool:
        """Tell whether tests fail on a mutant."""
        path = self.folder / mutant.path
        before = path.read_text()
        path.write_text(mutant.content)
        try:
            return not self.passes(tests, seconds)
        finally:
            path.write_text(before)


def survivors_in(room: str, sample: list[Mutant], copies: "SimpleQueue[Copy]") -> list[Mutant]:
    """Return the mutants on which no test of their room fails."""
    tests = ROOMS[room]["tests"]
    copy = copies.get()
    began = time.monotonic()
    if not copy.passes(tests, 600):
        raise SystemExit(f"{room}: its tests fail on what was not changed")
    seconds = 30 + 3 * (time.monotonic() - began)
    copies.put(copy)

    def survives(mutant: Mutant) -> bool:
        copy = copies.get()
        try:
            return not copy.kills(mutant, tests, seconds)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(copies.qsize()) as workers:
        verdicts = list(workers.map(survives, sample))
    return [mutant for mutant, alive in zip(sample, verdicts, strict=True) if alive]


def main() -> int:
    """Print each survivor that nothing explains, and the scores; return the exit status."""
    say = partial(print, flush=True)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", default=[], help=f"of {', '.join(ROOMS)}; or all")
    parser.add_argument("--number", type=int, default=20, help="of mutants in each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    listed = {
        (mutant["original"], mutant["mutant"])
        for mutant in tomllib.loads(EQUIVALENT.read_text())["sampled"]
    }
    unexplained = 0
    with TemporaryDirectory() as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(asked.workers):
            (Path(folder) / str(number)).mkdir()
            copies.put(Copy(Path(folder) / str(number)))
        for room in asked.rooms or ROOMS:
            sample = drawn(room, asked.number, asked.seed)
            survivors = survivors_in(room, sample, copies)
            gaps = [it for it in survivors if (it.original, it.mutant) not in listed]
            for mutant in gaps:
                say(f"{mutant.path}\n  - {mutant.original}\n  + {mutant.mutant}")
            killed, equivalent = len(sample) - len(survivors), len(survivors) - len(gaps)
            say(
                f"{room}, seed {asked.seed}: {killed} of {len(sample) - equivalent} mutants "
                f"killed, {equivalent} more are equivalent, {len(gaps)} survive"
            )
            unexplained += len(gaps)
    return bool(unexplained)


if __name__ == "__main__":
    sys.exit(main())
