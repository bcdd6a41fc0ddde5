"""Ctrl-C, between two steps of a training."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that is asked after each step.

    So no step is cut in two. A second Ctrl-C interrupts at once.
    """
    asked = threading.Event()

    def remember(signum: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.getsignal(signal.SIGINT)
    # Signals can be handled in the main thread alone, and somebody else's handler stays.
    ours = (
        threading.current_thread() is threading.main_thread()
        and previous is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, remember)
    try:
        yield asked.is_set
    finally:
        if ours:
            signal.signal(signal.SIGINT, previous)
