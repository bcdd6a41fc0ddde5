"""The progress of a training: a bar on a terminal, plain lines elsewhere.

It goes to standard error, since standard output is for results.
"""

import time
from math import inf
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xbp.namespace import Array
from xbp.training.history import History, loss_as_text

# Showing a loss waits for the device, but too seldom to be felt.
_SECONDS_BETWEEN_LOSSES = 0.5
_PLAIN_LINES = 10

# A line has little room.
_SHORT = {"training accuracy": "train", "test accuracy": "test", "training r²": "train r²"}


class TrainingProgress:
    """A bar with the loss and the metrics on a terminal, about ten lines elsewhere.

    Parameters
    ----------
    steps
        How many steps the training has.
    batch_size
        How many samples a step has.
    console
        Where to show it; None takes standard error.
    """

    def __init__(self, steps: int, batch_size: int, console: Console | None = None) -> None:
        self._steps = steps
        self._batch_size = batch_size
        # The time and the number of the first step here: a resumed training has earlier ones.
        self._first: tuple[float, int] | None = None
        self._console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps, figures="")
        self._metrics = ""
        self._next_loss = 0.0
        self._next_line = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, step: int, loss: Array) -> None:
        """Advance the bar and show the loss, at most twice a second."""
        self._first = self._first or (time.monotonic(), step)
        if self._bar.disable:
            return
        now = time.monotonic()
        if now >= self._next_loss:
            self._next_loss = now + _SECONDS_BETWEEN_LOSSES
            figures = f"loss {loss_as_text(float(loss))}{self._metrics}{self._speed(step)}"
            self._bar.update(self._task, completed=step, figures=figures)

    def evaluated(self, step: int, history: History) -> None:
        """Show the metrics, on the bar or as a line."""
        self._metrics = "".join(
            f"  {_SHORT.get(title, title)} {figure}"
            for title, figure in history.last_figures().items()
        )
        figures = f"loss {loss_as_text(history.loss[-1])}{self._metrics}{self._speed(step)}"
        if not self._bar.disable:
            self._bar.update(self._task, completed=step, figures=figures)
        elif self._next_line < inf and (
            step >= self._next_line or step == self._steps or history.interrupted
        ):
            self._next_line = step + self._steps / _PLAIN_LINES
            try:
                # Not by the console, which ends the process when nobody reads.
                print(f"step {step:>6}  {figures}", file=self._console.file, flush=True)
            except OSError:
                self._next_line = inf  # nobody reads it any more, and the training goes on

    def _speed(self, step: int) -> str:
        if self._first is None or step == self._first[1]:
            return ""
        seconds, steps = time.monotonic() - self._first[0], step - self._first[1]
        return f"  {steps * self._batch_size / seconds:,.0f} samples/s"
