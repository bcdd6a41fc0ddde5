"""How good a network is on data: the mean loss, and accuracy or r², from one pass over them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import nan
from typing import Any

import numpy as np

from xbp.errors import UndefinedOutputError
from xbp.layers.containers import run_forward
from xbp.namespace import Array
from xbp.networks import Network
from xbp.training.parts import strange_parts

# How many samples a network sees at once: few enough for a cache.
_BATCH = 1_000

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measurement:
    """How good a network is on data.

    Attributes
    ----------
    loss : float
        The mean over the samples, as the network's class computes it; NaN if it was not asked for.
    accuracy : float
        The share of samples that the outputs are right for, as `Network.accuracy`; NaN for a
        regression.
    r2 : float
        The mean over the outputs of their r²; NaN for a classifier, and where one of them has none.
    """

    loss: float
    accuracy: float
    r2: float


def measure(network: Network, x: Array, t: Array, *, with_loss: bool) -> Measurement:
    """Return how good a network is on data, summed up in float64. This waits for the device.

    Parameters
    ----------
    network
        It is not changed.
    x, t
        Samples and targets, as `xbp.training.data.checked_data` returns them.
    with_loss
        Whether the loss is wanted.

    Raises
    ------
    UndefinedOutputError
        As `outputs_of`.
    """
    copy = network.for_inference() if with_loss else network
    last_layer = copy.last_layer
    # A network's own loss may add to that of its outputs, as weight decay does.
    is_own = getattr(copy.loss, "__func__", None) is not Network.loss
    loss = hits = 0.0
    determination = Determination()
    for start, outputs, values in outputs_of(network, x):
        count = len(values)
        targets = t[start : start + count, ...]
        if with_loss and is_own:
            loss += float(copy.loss(x[start : start + count, ...], targets)) * count
        elif with_loss:
            loss += float(last_layer.forward(outputs, targets)) * count
        expected = network.backend.to_numpy(targets)
        if last_layer.classifies:
            hits += np.count_nonzero(last_layer.are_right(values, expected))
        elif values.shape == expected.shape:
            determination.add(values, expected)
    total = x.shape[0]
    return Measurement(
        loss / total if with_loss else nan,
        hits / total if last_layer.classifies else nan,
        determination.mean(),
    )


def outputs_of(network: Network, x: Array) -> Iterator[tuple[int, Array, HostArray]]:
    """Yield a network's outputs, some samples at a time.

    Yields
    ------
    start : int
        The number of the first sample.
    outputs : Array
        On the network's device.
    values : ndarray of float
        The targets that they stand for, on the host.

    Raises
    ------
    UndefinedOutputError
        If one is NaN, or the highest score of a sample is infinite.
    """
    predict = network.predict
    if not strange_parts(network):  # so one copy does for all samples
        predict = partial(run_forward, network.for_inference().layers.values())
    for start in range(0, x.shape[0], _BATCH):
        outputs = predict(x[start : min(start + _BATCH, x.shape[0]), ...])
        values = network.backend.to_numpy(network.last_layer.predictions(outputs))
        if not np.isfinite(values).all():
            has_highest = network.last_layer.takes_labels
            _require_defined(values.reshape(len(values), -1), start, has_highest)
        yield start, outputs, values


def _require_defined(rows: HostArray, start: int, has_highest: bool) -> None:
    undefined = np.isnan(rows).any(axis=1)
    if has_highest:
        # If the highest score is infinite, or all are minus infinity, loss and probabilities are
        # NaN.
        undefined |= np.isinf(rows.max(axis=1))
    if undefined.any():
        first = int(undefined.argmax())
        what = "NaN" if np.isnan(rows[first]).any() else "infinite"
        raise UndefinedOutputError(
            f"the network's output for x[{start + first}] is {what}: look at this sample, at the "
            "size of the data, and at the parameters"
        )


def as_host_labels(targets: HostArray) -> HostArray:
    """Return targets on the host, one-hot ``(N, C)`` or labels ``(N,)``, as labels."""
    return targets.argmax(axis=1) if targets.ndim > 1 else targets.astype(np.int64)


class Determination:
    """The coefficient of determination, r², of outputs that come some samples at a time.

    For each output it is 1 minus the sum of squared errors over the sum of squared distances of the
    targets from their mean: 1 is perfect, 0 is as good as the mean. Where all targets are equal
    there is none.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: Any = 0.0
        self._errors: Any = 0.0
        self._distances: Any = 0.0
        self._lowest: Any = np.inf
        self._highest: Any = -np.inf

    def add(self, outputs: HostArray, targets: HostArray) -> None:
        """Add outputs and targets ``(N, M)``."""
        outputs, targets = outputs.astype(np.float64), targets.astype(np.float64)
        count, mean = len(targets), targets.mean(axis=0)
        total = self._count + count
        with np.errstate(over="ignore", invalid="ignore"):
            self._errors = self._errors + np.square(outputs - targets).sum(axis=0)
            # The update of a variance by Chan, Golub and LeVeque (1983).
            shift = mean - self._mean
            self._distances = (
                self._distances
                + np.square(targets - mean).sum(axis=0)
                + shift * shift * (self._count * count / total)
            )
            self._mean = self._mean + shift * (count / total)
        self._count = total
        self._lowest = np.minimum(self._lowest, targets.min(axis=0))
        self._highest = np.maximum(self._highest, targets.max(axis=0))

    def by_output(self) -> HostArray:
        """Return r² of each output, ``(M,)``; NaN where all targets are equal."""
        # A mean is rounded, so equal targets may be at some distance from it.
        distances = np.where(self._lowest < self._highest, self._distances, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.atleast_1d(1 - self._errors / distances)

    def mean(self) -> float:
        """Return the mean over the outputs; NaN where one has none, and before the first `add`."""
        return float(self.by_output().mean())
