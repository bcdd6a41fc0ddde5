"""Timing on a noisy machine: medians of interleaved rounds, each contestant in its own process."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager, suppress
from statistics import median
from typing import Any, Self, TypeVar

import psutil
from threadpoolctl import threadpool_info

from xbp.errors import XbpError
from xbp.registry import get_backend

from .contestant import Contestant, Shape
from .images import ImageShape

Result = TypeVar("Result")

WORKS = ("forward", "step", "loop")

# A turn lasts so long at least, in seconds, that the clock's own time does not count; before it
# counts, caches and threads are warmed for a part of that.
TURN = 0.05
WARMING = 5


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Let nobody interrupt what is quick, nor the processes that it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal comes here
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class ContestantError(XbpError, RuntimeError):
    """A contestant cannot run: for most there is too little memory."""


class Arena:
    """The processes in which contestants run, one for each.

    Parameters
    ----------
    specs
        For each title of a contestant, the spec of the backend that it runs on.
    """

    def __init__(self, specs: Mapping[str, str]) -> None:
        self.specs = specs
        self._stack = ExitStack()
        self._processes: dict[str, _Process] = {}

    def __enter__(self) -> Self:
        with self._stack:
            for title in self.specs:
                self._processes[title] = self._stack.enter_context(closing(_Process()))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with _ctrl_c_ignored():
            self._stack.close()

    def threads(self) -> dict[str, list[str]]:
        """Return for each contestant its libraries' thread pools, and their sizes."""
        return {title: process.run(_threads) for title, process in self._processes.items()}

    def seconds(self, shape: Shape | ImageShape, rounds: int) -> dict[str, dict[str, float]]:
        """Return how long each work takes each contestant: medians over the rounds.

        In every round all take their turn, so that a slow moment of the machine slows all of them.
        A loop counts by the step.

        Raises
        ------
        ContestantError
            If one fails.
        """
        for title in self._processes:
            self._run(title, shape, _prepare, self.specs[title], title, shape)
        found = {}
        for work in WORKS:
            times: dict[str, list[float]] = {title: [] for title in self._processes}
            for _ in range(rounds):
                for title in self._processes:
                    times[title].append(self._run(title, shape, _take_a_turn, work))
            found[work] = {title: median(those) for title, those in times.items()}
        return found

    def _run(
        self, title: str, shape: Shape | ImageShape, function: Callable[..., Result], *args: Any
    ) -> Result:
        try:
            return self._processes[title].run(function, *args)
        except (BrokenProcessPool, psutil.NoSuchProcess):
            reason = "its process was killed, perhaps for want of memory"
        except Exception as error:  # each library fails in its own way
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ContestantError(f"{title} at {shape}: {reason}")


class _Process:
    """A process that is suspended unless it is its turn.

    For after their work the threads of many libraries keep looking for more, up to 0.2 seconds,
    and would take the cores from the next.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(1, context)
        with _ctrl_c_ignored():  # there, too: it is for the parent
            pid = self._executor.submit(os.getpid)
        self._process = psutil.Process(pid.result())
        self._process.suspend()

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return the function's result there."""
        self._process.resume()
        try:
            return self._executor.submit(function, *args).result()
        finally:
            with suppress(psutil.NoSuchProcess):
                self._process.suspend()

    def close(self) -> None:
        """End it at once."""
        with suppress(psutil.NoSuchProcess):
            self._process.kill()
        self._executor.shutdown()


# In the process of a contestant ------------------------------------------------------------------

_contestant: Contestant
_calls_in_a_turn: dict[str, int]


def _prepare(spec: str, title: str, shape: Shape | ImageShape) -> None:
    global _contestant, _calls_in_a_turn  # noqa: PLW0603  a process is for one contestant
    from .contestants import contestants  # noqa: PLC0415  imports what this process measures

    _contestant = contestants(get_backend(spec), shape.model)[title](shape)
    _calls_in_a_turn = {work: _calls_lasting(TURN, getattr(_contestant, work)) for work in WORKS}


def _calls_lasting(seconds: float, call: Callable[[], Any]) -> int:
    # What is compiled or recorded at the first calls is so before it counts.
    _seconds(call, 3)
    count = 1
    while (took := _seconds(call, count)) < seconds:
        count = max(2 * count, int(count * seconds / max(took, 1e-6)))
    return count


def _take_a_turn(work: str) -> float:
    call, count = getattr(_contestant, work), _calls_in_a_turn[work]
    _seconds(call, count // WARMING + 1)
    steps = _contestant.steps if work == "loop" else 1
    return _seconds(call, count) / count / steps


def _seconds(call: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        call()
    _contestant.wait()
    return time.perf_counter() - began


def _threads() -> list[str]:
    return [f"{pool['internal_api']}: {pool['num_threads']}" for pool in threadpool_info()]
