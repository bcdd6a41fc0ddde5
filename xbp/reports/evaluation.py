"""What a trained network makes of data: the classes it takes for others, the numbers it misses."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xbp.errors import DataError, SettingError
from xbp.functions import as_labels, as_targets, softmax
from xbp.namespace import Array
from xbp.networks import Network
from xbp.training.data import as_rows
from xbp.training.measurement import Determination, as_host_labels, outputs_of

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
    UndefinedOutputError
        If the network gives NaN, or the highest score of a sample is infinite.
    SettingError
        If the network is for a regression.
    """
    if not network.last_layer.classifies:
        raise SettingError(
            f"evaluate: {network.last_layer.name} knows no classes: take evaluate_regression"
        )
    backend = network.backend
    with backend.scope():
        samples, targets, outputs = _checked("evaluate", network, x, t)
        as_labels(targets[:1, ...], outputs, "evaluate")  # raises where they do not fit
        classes = outputs.shape[-1]
        network.last_layer.check_targets(targets, classes)
        labels = as_host_labels(backend.to_numpy(targets))
        predicted, probabilities, certainties = [], [], []
        for start, scores, found in outputs_of(network, samples):
            rows = backend.to_numpy(softmax(scores))
            each = np.arange(len(rows))
            predicted.append(found.argmax(axis=1))
            certainties.append(rows[each, predicted[-1]])
            probabilities.append(rows[each, labels[start : start + len(rows)]])
    return Evaluation(
        labels,
        np.concatenate(predicted),
        np.concatenate(probabilities),
        np.concatenate(certainties),
        classes,
    )


@dataclass(frozen=True)
class RegressionEvaluation:
    """The outputs of a network for a regression beside the targets, on the host.

    Attributes
    ----------
    targets, outputs : ndarray of float64, shape (N, M)
    """

    targets: HostArray
    outputs: HostArray

    def r2(self) -> HostArray:
        """Return r² of each output, ``(M,)``; NaN where all targets are equal."""
        found = Determination()
        found.add(self.outputs, self.targets)
        return found.by_output()

    def mean_squared_error(self) -> HostArray:
        """Return the mean over the samples of each output's squared error, ``(M,)``."""
        return np.asarray(np.square(self.outputs - self.targets).mean(axis=0))

    def mean_absolute_error(self) -> HostArray:
        """Return the mean over the samples of each output's error without its sign, ``(M,)``."""
        return np.asarray(np.abs(self.outputs - self.targets).mean(axis=0))

    def worst(self, count: int) -> list[tuple[int, int]]:
        """Return sample and output of the largest errors, the largest first.

        An error counts by the spread of its output's targets, so that outputs of several units
        can be compared.
        """
        errors = np.abs(self.outputs - self.targets)
        # Equal targets have none; what is computed of them may be next to nothing.
        varied = self.targets.min(axis=0) < self.targets.max(axis=0)
        spread = np.where(varied, self.targets.std(axis=0), 1)
        order = np.argsort(-errors / spread, axis=None, kind="stable")
        width = errors.shape[1]
        return [divmod(int(place), width) for place in order[:count]]


def evaluate_regression(network: Network, x: Any, t: Any) -> RegressionEvaluation:
    """Return the outputs of a network for a regression beside the targets.

    Parameters
    ----------
    network
        Its last layer is `IdentityWithLoss`, or another whose targets are no classes.
    x, t
        Samples, and their targets, of the shape of the outputs; on any device, as `Trainer.fit`
        takes them.

    Raises
    ------
    DataError, ShapeError, DTypeError
        If they do not fit the network, or each other.
    UndefinedOutputError
        If the network gives NaN.
    SettingError
        If the network is a classifier.
    """
    if network.last_layer.classifies:
        raise SettingError(
            f"evaluate_regression: {network.last_layer.name} is for classes: take evaluate"
        )
    with network.backend.scope():
        samples, targets, outputs = _checked("evaluate_regression", network, x, t)
        as_targets(targets[:1, ...], outputs, "evaluate_regression")  # raises where they do not fit
        network.last_layer.check_targets(targets, outputs.shape[-1])
        found = np.concatenate([rows for _, _, rows in outputs_of(network, samples)])
        expected = network.backend.to_numpy(targets)
    return RegressionEvaluation(expected.astype(np.float64), found.astype(np.float64))


def _checked(where: str, network: Network, x: Any, t: Any) -> tuple[Array, Array, Array]:
    """Return samples, targets in rows, and the outputs for the first sample."""
    samples, targets = network.as_samples(x), network.backend.asarray(t)
    if 0 in samples.shape or samples.shape[:1] != targets.shape[:1]:
        raise DataError(
            f"{where}: as many targets as samples are needed, one at least, got shapes "
            f"{tuple(samples.shape)} and {tuple(targets.shape)}"
        )
    outputs = network.predict(samples[:1, ...])
    return samples, as_rows(network, targets, outputs), outputs
