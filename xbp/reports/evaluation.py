"""What a trained classifier makes of data: which classes it takes for which, and how surely."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xbp.errors import DataError
from xbp.functions import as_labels, softmax
from xbp.networks import Network

# How many samples a network sees at once.
_BATCH = 1_000

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Evaluation:
    """The answers of a classifier, sample by sample, on the host.

    Attributes
    ----------
    labels, predicted : ndarray of int, shape (N,)
        The class of each sample, and the one that it is taken for.
    probabilities, certainties : ndarray of float, shape (N,)
        How probable the network finds the one, and how probable the other.
    classes : int
    """

    labels: HostArray
    predicted: HostArray
    probabilities: HostArray
    certainties: HostArray
    classes: int

    def confusion(self) -> HostArray:
        """Return how often a class, the row, is taken for a class, the column: ``(C, C)``."""
        pairs = self.labels * self.classes + self.predicted
        counts = np.bincount(pairs, minlength=self.classes**2)
        return counts.reshape(self.classes, self.classes)

    def worst(self, count: int) -> list[int]:
        """Return the numbers of misclassified samples, those of the least probable labels first."""
        wrong = np.flatnonzero(self.labels != self.predicted)
        order = np.argsort(self.probabilities[wrong], kind="stable")
        return [int(number) for number in wrong[order[:count]]]


def evaluate(network: Network, x: Any, t: Any) -> Evaluation:
    """Return a classifier's answers.

    Parameters
    ----------
    network
        Its last layer is `SoftmaxWithLoss`, or another for classification.
    x, t
        Samples, and their labels or one-hot rows; on any device, as `Trainer.fit` takes them.

    Raises
    ------
    DataError, ShapeError, DTypeError
        If they do not fit the network, or each other.
    """
    backend = network.backend
    with backend.scope():
        samples, targets = network.as_samples(x), backend.asarray(t)
        if 0 in samples.shape or samples.shape[:1] != targets.shape[:1]:
            raise DataError(
                f"evaluate: as many targets as samples are needed, one at least, got shapes "
                f"{tuple(samples.shape)} and {tuple(targets.shape)}"
            )
        outputs = network.predict(samples[:1, ...])
        as_labels(targets[:1, ...], outputs, "evaluate")  # raises where they do not fit
        classes = outputs.shape[-1]
        network.last_layer.check_targets(targets, classes)
        targets = backend.to_numpy(targets)
        labels = targets.argmax(axis=1) if targets.ndim > 1 else targets.astype(np.int64)
        predicted, probabilities, certainties = [], [], []
        for start in range(0, len(labels), _BATCH):
            stop = min(start + _BATCH, len(labels))
            scores = network.predict(samples[start:stop, ...])
            rows = backend.to_numpy(softmax(scores))
            each = np.arange(len(rows))
            predicted.append(rows.argmax(axis=1))
            certainties.append(rows[each, predicted[-1]])
            probabilities.append(rows[each, labels[start:stop]])
    return Evaluation(
        labels,
        np.concatenate(predicted),
        np.concatenate(probabilities),
        np.concatenate(certainties),
        classes,
    )
