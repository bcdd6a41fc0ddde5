"""What takes part in a benchmark: a network of a given shape that can be run and trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xbp.initialization import initial_parameters

FEATURES, CLASSES = 784, 10
LEARNING_RATE = 0.1


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

    @property
    def sizes(self) -> list[int]:
        """The number of features at the input, in each hidden layer, and at the output."""
        return [FEATURES, *[self.width] * (self.depth - 1), CLASSES]

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


@dataclass(frozen=True)
class Contestant:
    """A network, ready to run.

    Attributes
    ----------
    forward
        Computes the loss of the batch, and returns it.
    step
        Computes loss, gradient and update, and returns the loss. The floor returns none.
    wait
        Waits for the device.
    """

    forward: Callable[[], Any]
    step: Callable[[], Any]
    wait: Callable[[], Any] = lambda: None
