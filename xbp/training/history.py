"""What is seen while training, and by whom."""

from dataclasses import dataclass, field
from typing import Protocol

from xbp.namespace import Array


@dataclass(repr=False)
class History:
    """What was seen while training.

    Attributes
    ----------
    loss : list of float
        The loss of each step on its mini-batch, before the update.
    evaluated : list of int
        The steps after which accuracies were measured: the end of each epoch, and the last step.
    train_accuracy, test_accuracy : list of float
        Shares between 0 and 1, one for each entry of `evaluated`; empty for a regression, and
        without test data.
    interrupted : bool
        Whether Ctrl-C ended the training before its last step.
    """

    loss: list[float] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    interrupted: bool = False

    def __repr__(self) -> str:
        figures = [f"loss {self.loss[-1]:.4g}"] if self.loss else []
        for name, shares in (("training", self.train_accuracy), ("test", self.test_accuracy)):
            figures += [f"{name} accuracy {shares[-1]:.2%}"] if shares else []
        return f"<history of {len(self.loss):,} steps: {', '.join(figures) or 'nothing yet'}>"


class Progress(Protocol):
    """Somebody who watches the training."""

    def step(self, step: int, loss: Array) -> None:
        """Take note of a step, or of several. The loss is still on the device: to read it waits."""

    def evaluated(self, step: int, history: History) -> None:
        """Take note of accuracies; the losses up to here are on the host."""
