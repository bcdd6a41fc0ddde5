"""Ctrl-C, between two steps of a training."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed, to be called after each step.

    So no step is cut in two. A second Ctrl-C interrupts at once.
    """
    event = threading.Event()

    def remember(signum: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.getsignal(signal.SIGINT)
    # Only the main thread can handle signals, and another handler stays.
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and previous is signal.default_int_handler
    )
    if is_ours:
        signal.signal(signal.SIGINT, remember)
    try:
        yield event.is_set
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, previous)
