"""Timing on a noisy machine: medians of interleaved rounds, each contestant in its own process."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from statistics import median
from typing import Any, Self, TypeVar

import psutil
from threadpoolctl import threadpool_info

from xbp.registry import get_backend

from .contestant import Contestant, Shape

Result = TypeVar("Result")

WORKS = ("forward", "step", "loop")

# A turn lasts so long at least, in seconds, that the clock's own time does not count; before it
# counts, caches and threads are warmed for a part of that.
TURN = 0.05
WARMING = 5


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
        self._stack.close()

    def threads(self) -> dict[str, list[str]]:
        """Return for each contestant its libraries' thread pools, and their sizes."""
        return {title: process.run(_threads) for title, process in self._processes.items()}

    def seconds(self, shape: Shape, rounds: int) -> dict[str, dict[str, float]]:
        """Return how long each work takes each contestant: medians over the rounds.

        In every round all take their turn, so that a slow moment of the machine slows all of them.
        A loop counts by the step.
        """
        for title, process in self._processes.items():
            process.run(_prepare, self.specs[title], title, shape)
        found = {}
        for work in WORKS:
            times: dict[str, list[float]] = {title: [] for title in self._processes}
            for _ in range(rounds):
                for title, process in self._processes.items():
                    times[title].append(process.run(_take_a_turn, work))
            found[work] = {title: median(those) for title, those in times.items()}
        return found


class _Process:
    """A process that is suspended unless it is its turn.

    For after their work the threads of many libraries keep looking for more, up to 0.2 seconds,
    and would take the cores from the next.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(1, context, _leave_ctrl_c_to_the_parent)
        self._process = psutil.Process(self._executor.submit(os.getpid).result())
        self._process.suspend()

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return the function's result there."""
        self._process.resume()
        try:
            return self._executor.submit(function, *args).result()
        finally:
            self._process.suspend()

    def close(self) -> None:
        """End it, once it has done what it is at."""
        self._process.resume()
        self._executor.shutdown()


# In the process of a contestant ------------------------------------------------------------------

_contestant: Contestant
_calls_in_a_turn: dict[str, int]


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _prepare(spec: str, title: str, shape: Shape) -> None:
    global _contestant, _calls_in_a_turn  # noqa: PLW0603  a process is for one contestant
    from .contestants import contestants  # noqa: PLC0415  imports what this process measures

    _contestant = contestants(get_backend(spec))[title](shape)
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
