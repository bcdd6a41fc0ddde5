"""What takes part in a benchmark: a network of a given shape that can be run and trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from xbp.initialization import initial_parameters

FEATURES, CLASSES = 784, 10
# So small that a deep network does not diverge in thousands of steps on one mini-batch.
LEARNING_RATE = 1e-3

# A loop multiplies and adds about so often, but has a hundred steps at most.
OPERATIONS_OF_A_LOOP = 2e9


@dataclass(frozen=True)
class Shape:
    """The shape of a network and of the batches that it learns from.

    Attributes
    ----------
    batch
        Samples in a mini-batch.
    width
        Features of each hidden layer.
    depth
        Number of affine layers.
    """

    batch: int
    width: int
    depth: int

    model = "mlp"

    def __str__(self) -> str:
        return f"batch {self.batch}, width {self.width}, depth {self.depth}"

    @property
    def sizes(self) -> list[int]:
        """The number of features at the input, in each hidden layer, and at the output."""
        return [FEATURES, *[self.width] * (self.depth - 1), CLASSES]

    @property
    def loop_length(self) -> int:
        """How many steps a loop has."""
        # Forward, by the weights, by the inputs: three products, each multiplies and adds.
        operations = 6 * self.batch * sum(m * n for m, n in pairwise(self.sizes))
        return int(min(max(OPERATIONS_OF_A_LOOP / operations, 2), 100))

    @cached_property
    def parameters(self) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Initial W and b of each layer, float32."""
        return [
            (W.astype(np.float32), b.astype(np.float32))
            for W, b in initial_parameters(self.sizes, "he", seed=0)
        ]

    @cached_property
    def data(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """A batch of pixels and its one-hot labels, float32."""
        chance = np.random.default_rng(0)
        x = chance.random((self.batch, FEATURES), dtype=np.float32)
        return x, np.eye(CLASSES, dtype=np.float32)[chance.integers(CLASSES, size=self.batch)]


@dataclass
class Contestant:
    """A network, ready to run.

    Attributes
    ----------
    forward
        Computes the loss of the batch, and returns it.
    step
        Computes loss, gradient and update, and returns the loss. The floor returns none.
    loop
        Does `steps` of them, and returns the last loss; None where that is one step after another.
    steps
        How many.
    wait
        Waits for the device.
    """

    forward: Callable[[], Any]
    step: Callable[[], Any]
    steps: int
    wait: Callable[[], Any] = lambda: None
    loop: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        self.loop = self.loop or self._one_after_another

    def _one_after_another(self) -> Any:
        for _ in range(self.steps - 1):
            self.step()
        return self.step()
