"""What is measured during a training, and the interface of what watches it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil, isnan
from typing import Protocol

from xbp.namespace import Array


@dataclass(repr=False)
class History:
    """What was measured during a training.

    Attributes
    ----------
    loss : list of float
        The loss of each step on its mini-batch, before the update.
    evaluated : list of int
        The steps after which the network was measured: the end of each epoch, and the last step.
        The lists below have one figure for each of them, or are empty where there is none: those
        of test data without test data.
    train_accuracy, test_accuracy : list of float
        Of a classifier: shares between 0 and 1.
    interrupted : bool
        Whether Ctrl-C ended the training before its last step.
    test_loss : list of float
        The mean loss on the test data. NaN where it was not measured: in what was restored from a
        checkpoint older than this list.
    train_r2, test_r2 : list of float
        Of a regression: r², the coefficient of determination, the mean over the outputs. 1 is
        perfect, 0 is as good as the mean of the targets. NaN where it is undefined: for a single
        sample, and where an output's targets are all equal.
    """

    loss: list[float] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    interrupted: bool = False
    test_loss: list[float] = field(default_factory=list)
    train_r2: list[float] = field(default_factory=list)
    test_r2: list[float] = field(default_factory=list)

    def __repr__(self) -> str:
        figures = [f"loss {self.loss[-1]:.4g}"] if self.loss else []
        figures += [f"{title} {figure}" for title, figure in self.last_figures().items()]
        return f"<history of {len(self.loss):,} steps: {', '.join(figures) or 'nothing yet'}>"

    def last_figures(self) -> dict[str, str]:
        """Return what was measured last, as text by its title: ``{"test accuracy": "97.50%"}``."""
        return {
            title: "-" if isnan(figures[-1]) else as_text(figures[-1])
            for name, (title, as_text) in MEASURED.items()
            if (figures := getattr(self, name))
        }


def loss_as_text(loss: float) -> str:
    """Return a loss with four digits: that of a regression may be of any size."""
    return f"{loss:.4f}" if _SHORT[0] <= abs(loss) < _SHORT[1] or loss == 0 else f"{loss:.3e}"


def r2_as_text(r2: float) -> str:
    """Return r², at most 1, with four digits: it has no lower bound."""
    return f"{r2:z.4f}" if r2 > -_SHORT[1] else f"{r2:.3e}"


_SHORT = 1e-3, 1e6

# The lists of what is measured after the steps in `History.evaluated`: their titles, and how a
# figure of theirs is printed.
MEASURED: dict[str, tuple[str, Callable[[float], str]]] = {
    "test_loss": ("test loss", loss_as_text),
    "train_accuracy": ("training accuracy", "{:.2%}".format),
    "test_accuracy": ("test accuracy", "{:.2%}".format),
    "train_r2": ("training r²", r2_as_text),
    "test_r2": ("test r²", r2_as_text),
}


def thinned(losses: list[float], points: int) -> tuple[list[int], list[float], int]:
    """Return the last step of each block of steps, the mean loss of each, and a block's length."""
    block = ceil(len(losses) / points)
    blocks = [losses[start : start + block] for start in range(0, len(losses), block)]
    stops = list(accumulate(map(len, blocks)))
    return stops, [sum(part) / len(part) for part in blocks], block


class Progress(Protocol):
    """An object that watches a training."""

    def step(self, step: int, loss: Array) -> None:
        """Note a step, or several. The loss is still on the device: reading it waits."""

    def evaluated(self, step: int, history: History) -> None:
        """Note measurements; the losses up to here are on the host."""
