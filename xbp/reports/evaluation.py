"""Evaluation of a trained network: mistakes in classes, errors of numbers, labels one by one."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xbp.errors import DataError, SettingError
from xbp.functions import as_labels, as_targets
from xbp.layers.classification import EVEN
from xbp.namespace import Array, dtype_name
from xbp.networks import Network
from xbp.training.data import as_rows
from xbp.training.measurement import Determination, as_host_labels, outputs_of

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Evaluation:
    """The predictions of a classifier for each sample, as NumPy arrays.

    Attributes
    ----------
    labels, predicted : ndarray of int, shape (N,)
        The true class of each sample, and the predicted one.
    probabilities, certainties : ndarray of float, shape (N,)
        The probability that the network gives to the true class, and to the predicted one.
    classes : int
        The number of classes, C.
    """

    labels: HostArray
    predicted: HostArray
    probabilities: HostArray
    certainties: HostArray
    classes: int

    def confusion(self) -> HostArray:
        """Return the confusion matrix ``(C, C)``: a row is a true class, a column a predicted."""
        pairs = self.labels * self.classes + self.predicted
        counts = np.bincount(pairs, minlength=self.classes**2)
        return counts.reshape(self.classes, self.classes)

    def worst(self, count: int) -> list[int]:
        """Return the indices of at most ``count`` wrong samples, least probable label first."""
        wrong = np.flatnonzero(self.labels != self.predicted)
        order = np.argsort(self.probabilities[wrong], kind="stable")
        return [int(number) for number in wrong[order[:count]]]


def evaluate(network: Network, x: Any, t: Any) -> Evaluation:
    """Return a classifier's predictions for some samples.

    Parameters
    ----------
    network
        A network whose last layer is `SoftmaxWithLoss`, or another for classification.
    x, t
        Samples, and their labels or one-hot rows; on any device, as `Trainer.fit` takes them.

    Raises
    ------
    DataError, ShapeError, DTypeError
        If x and t do not fit the network or each other, or there is no sample.
    UndefinedOutputError
        If the network gives NaN, or the highest score of a sample is infinite.
    SettingError
        If the network's last layer is not for classification.
    """
    if not network.last_layer.takes_labels:
        other = "multilabel" if network.last_layer.classifies else "regression"
        raise SettingError(
            f"evaluate: {network.last_layer.name} knows no classes: take evaluate_{other}"
        )
    backend = network.backend
    with backend.scope():
        samples, targets, outputs = _checked("evaluate", network, x, t)
        as_labels(targets[:1, ...], outputs, "evaluate")  # raises where they do not fit
        classes = outputs.shape[-1]
        network.last_layer.check_targets(targets, classes)
        labels = as_host_labels(backend.to_numpy(targets))
        predicted, probabilities, certainties = [], [], []
        for start, scores, host_scores in outputs_of(network, samples):
            rows = backend.to_numpy(network.last_layer.probabilities(scores))
            each = np.arange(len(rows))
            predicted.append(host_scores.argmax(axis=1))
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
    """The targets and the outputs of a network for regression, as NumPy arrays.

    Attributes
    ----------
    targets, outputs : ndarray of float64, shape (N, M)
        A row for each of N samples, a column for each of M outputs.
    """

    targets: HostArray
    outputs: HostArray

    def r2(self) -> HostArray:
        """Return r² of each output, ``(M,)``; NaN where all targets are equal."""
        determination = Determination()
        determination.add(self.outputs, self.targets)
        return determination.by_output()

    def mean_squared_error(self) -> HostArray:
        """Return the mean over the samples of each output's squared error, ``(M,)``."""
        return np.asarray(np.square(self.outputs - self.targets).mean(axis=0))

    def mean_absolute_error(self) -> HostArray:
        """Return the mean over the samples of each output's absolute error, ``(M,)``."""
        return np.asarray(np.abs(self.outputs - self.targets).mean(axis=0))

    def worst(self, count: int) -> list[tuple[int, int]]:
        """Return the indices (sample, output) of the ``count`` largest errors, the largest first.

        Each error is divided by the standard deviation of its output's targets, so that outputs
        in different units can be compared.
        """
        errors = np.abs(self.outputs - self.targets)
        # The deviation of equal targets may be computed as a tiny number instead of 0.
        varied = self.targets.min(axis=0) < self.targets.max(axis=0)
        spread = np.where(varied, self.targets.std(axis=0), 1)
        order = np.argsort(-errors / spread, axis=None, kind="stable")
        width = errors.shape[1]
        return [divmod(int(place), width) for place in order[:count]]


def evaluate_regression(network: Network, x: Any, t: Any) -> RegressionEvaluation:
    """Return the targets and the outputs of a network for regression.

    Parameters
    ----------
    network
        A network whose last layer is `IdentityWithLoss`, or another for regression.
    x, t
        Samples, and their targets, of the shape of the outputs; on any device, as `Trainer.fit`
        takes them.

    Raises
    ------
    DataError, ShapeError, DTypeError
        If x and t do not fit the network or each other, or there is no sample.
    UndefinedOutputError
        If the network gives NaN.
    SettingError
        If the network is a classifier.
    """
    if network.last_layer.classifies:
        other = "evaluate" if network.last_layer.takes_labels else "evaluate_multilabel"
        raise SettingError(
            f"evaluate_regression: {network.last_layer.name} is for classes: take {other}"
        )
    return RegressionEvaluation(*_targets_and_outputs("evaluate_regression", network, x, t))


@dataclass(frozen=True)
class MultilabelEvaluation:
    """The targets and the probabilities of labels that are each 0 or 1, as NumPy arrays.

    Attributes
    ----------
    targets : ndarray of bool, shape (N, M)
        Whether a sample has a label: a row for each of N samples, a column for each of M labels.
    predicted : ndarray of bool, shape (N, M)
        Whether the network gives it a probability of more than 0.5, that is, a score above 0.
    probabilities : ndarray of float64, shape (N, M)
        What the network gives each label.
    """

    targets: HostArray
    predicted: HostArray
    probabilities: HostArray

    def accuracy(self) -> HostArray:
        """Return the share of samples for which each label is right, ``(M,)``."""
        return np.asarray((self.predicted == self.targets).mean(axis=0))

    def precision(self) -> HostArray:
        """Return how many of those that get each label have it, ``(M,)``; NaN if none gets it."""
        return self._share_of(self.predicted)

    def recall(self) -> HostArray:
        """Return how many of those that have each label get it, ``(M,)``; NaN if none has it."""
        return self._share_of(self.targets)

    def worst(self, count: int) -> list[tuple[int, int]]:
        """Return the indices (sample, label) of at most ``count`` mistakes, the surest first."""
        wrong = self.predicted != self.targets
        distances = np.where(wrong, np.abs(self.probabilities - self.targets), -1)
        order = np.argsort(-distances, axis=None, kind="stable")[:count]
        width = self.targets.shape[1]
        return [divmod(int(place), width) for place in order if wrong.flat[place]]

    def _share_of(self, those: HostArray) -> HostArray:
        hits = (self.predicted & self.targets).sum(axis=0)
        with np.errstate(invalid="ignore"):  # 0 / 0
            return np.asarray(hits / those.sum(axis=0))


def evaluate_multilabel(network: Network, x: Any, t: Any) -> MultilabelEvaluation:
    """Return the targets and the probabilities of labels that are each 0 or 1.

    Parameters
    ----------
    network
        A network whose last layer is `SigmoidWithLoss`.
    x, t
        Samples, and for each output 0 or 1; on any device, as `Trainer.fit` takes them. A target
        between is taken for 1 from more than 0.5 on.

    Raises
    ------
    DataError, ShapeError, DTypeError
        If x and t do not fit the network or each other, or there is no sample.
    UndefinedOutputError
        If the network gives NaN.
    SettingError
        If the network's last layer is another.
    """
    last_layer = network.last_layer
    if not last_layer.classifies or last_layer.takes_labels:
        other = "evaluate" if last_layer.classifies else "evaluate_regression"
        raise SettingError(
            f"evaluate_multilabel: {last_layer.name} has no labels of 0 and 1: take {other}"
        )
    targets, outputs = _targets_and_outputs("evaluate_multilabel", network, x, t)
    return MultilabelEvaluation(targets > EVEN, outputs > 0, last_layer.probabilities(outputs))


def _targets_and_outputs(
    where: str, network: Network, x: Any, t: Any
) -> tuple[HostArray, HostArray]:
    """Return the targets of samples, and what a network says, in float64."""
    with network.backend.scope():
        samples, targets, outputs = _checked(where, network, x, t)
        as_targets(targets[:1, ...], outputs, where)  # raises where they do not fit
        targets = network.backend.asarray(targets, dtype_name(outputs.dtype))
        network.last_layer.check_targets(targets, outputs.shape[-1])
        predictions = np.concatenate([rows for _, _, rows in outputs_of(network, samples)])
        expected = network.backend.to_numpy(targets)
    return expected.astype(np.float64), predictions.astype(np.float64)


def _checked(where: str, network: Network, x: Any, t: Any) -> tuple[Array, Array, Array]:
    """Return the samples, the targets with a row for each, and the outputs of the first sample."""
    samples, targets = network.as_samples(x), network.backend.asarray(t)
    if 0 in samples.shape or samples.shape[:1] != targets.shape[:1]:
        raise DataError(
            f"{where}: as many targets as samples are needed, one at least, got shapes "
            f"{tuple(samples.shape)} and {tuple(targets.shape)}"
        )
    outputs = network.predict(samples[:1, ...])
    return samples, as_rows(network, targets, outputs), outputs
