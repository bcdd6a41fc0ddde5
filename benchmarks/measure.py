"""Timing on a noisy machine: medians of interleaved rounds."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

# A round lasts so long at least, in seconds, that the clock's own time does not count.
ROUND = 0.02


def interleaved(
    works: Mapping[str, tuple[Callable[[], Any], Callable[[], Any]]], rounds: int
) -> dict[str, float]:
    """Return how long each work takes, in seconds: the median over the rounds.

    Every round times each of the works, one after the other, so that a slow moment of the machine
    slows all of them.

    Parameters
    ----------
    works
        By name, what to time, and what waits for it.
    rounds
        How often.
    """
    counts = {name: _calls_in_a_round(*work) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (call, wait) in works.items():
            times[name].append(_seconds(call, wait, counts[name]) / counts[name])
    return {name: median(found) for name, found in times.items()}


def _calls_in_a_round(call: Callable[[], Any], wait: Callable[[], Any]) -> int:
    """Return how often to call in a round; what is compiled or cached is so before it counts."""
    _seconds(call, wait, 2)
    count = 1
    while (took := _seconds(call, wait, count)) < ROUND:
        count = max(2 * count, int(count * ROUND / max(took, 1e-6)))
    return count


def _seconds(call: Callable[[], Any], wait: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        call()
    wait()
    return time.perf_counter() - began
