"""The report of a training: one self-contained HTML page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from math import isnan, prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from xbp.errors import BackendUnavailableError, DataError, SettingError, UndefinedOutputError
from xbp.files import write_files
from xbp.gradient_report import GradientReport
from xbp.gradients import gradient_check
from xbp.graphs import Graph
from xbp.layers import Affine
from xbp.namespace import Array
from xbp.networks import Network
from xbp.reports.curves import curves_of, draw_curves, draw_predictions, metrics_csv
from xbp.reports.evaluation import (
    Evaluation,
    MultilabelEvaluation,
    RegressionEvaluation,
    evaluate,
    evaluate_multilabel,
    evaluate_regression,
)
from xbp.reports.images import image_uri, svg_uri
from xbp.settings import is_integer
from xbp.training import History
from xbp.training.data import as_rows
from xbp.training.history import loss_as_text

# The largest number of each that a page shows or checks.
_MISTAKES = 24
_WEIGHTS = 60
_CLASSES = 30
_OUTPUTS = 100
_PREDICTIONS = 6
_GRAPH_SAMPLES = 100
_CHECKED_SAMPLES = 3
_CHECKED_ELEMENTS = 100


@dataclass(frozen=True)
class Report:
    """The report of a training, as files or as an HTML page.

    Parameters
    ----------
    network
        A trained network, for classification or for regression.
    history
        What `Trainer.fit` returned.
    x, t
        The samples for the evaluation, usually the test data, and their targets: labels or one-hot
        rows, or floating-point numbers for regression.
    settings
        The settings that the page lists, by name; ``"data"``, if given, is in its title.
    image_shape
        Height and width in pixels, if the samples are images.

    Raises
    ------
    SettingError
        By the methods, not here: if network, history, settings or image_shape is invalid.
    DataError, ShapeError, DTypeError
        By the methods, not here: if x and t do not fit the network.
    """

    network: Network
    history: History
    x: Any
    t: Any
    settings: Mapping[str, Any]
    image_shape: tuple[int, int] | None = None

    def _check(self) -> None:
        if not isinstance(self.network, Network) or not isinstance(self.history, History):
            raise SettingError(
                "Report: first a network, then the History that Trainer.fit returned, not "
                f"{type(self.network).__name__} and {type(self.history).__name__}"
            )
        if not self.history.loss:
            raise SettingError("Report: the history is empty: give what Trainer.fit returned")
        if not isinstance(self.settings, Mapping):
            raise SettingError(f"Report: settings are a dictionary, not {self.settings!r}")

    def write(self, folder: str | Path) -> None:
        """Write `files` to a folder, all of them or none.

        Raises
        ------
        DataError
            If one cannot be written; files of these names are then unchanged.
        """
        write_files(folder, self.files())

    def files(self) -> dict[str, bytes]:
        """Return ``metrics.csv``, ``curves.svg``, ``curves.png``, ``report.html`` by name."""
        self._check()
        return {
            "metrics.csv": metrics_csv(self.history).encode(),
            **{f"curves.{form}": draw_curves(self.history, form) for form in ("svg", "png")},
            # The name of a data file in the settings may contain surrogates.
            "report.html": self.html().encode(errors="backslashreplace"),
        }

    def html(self) -> str:
        """Return the HTML page, with all pictures embedded."""
        # Imported here, since it is slow.
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

        self._check()
        network, history, backend = self.network, self.history, self.network.backend
        evaluation = _evaluation(network, self.x, self.t)
        _check_image_shape(self.image_shape, network.as_samples(self.x))
        with backend.scope():
            samples, targets = network.as_samples(self.x), backend.asarray(self.t)
            targets = as_rows(network, targets, network.predict(samples[:1, ...]))
            limits = _CHECKED_SAMPLES, _GRAPH_SAMPLES
            few, some = (min(count, samples.shape[0]) for count in limits)
            check = _gradient_check(network, samples[:few, ...], targets[:few, ...])
            graph = _graph_uri(network, samples[:some, ...], targets[:some, ...])
        template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
            files("xbp.reports").joinpath("page.html").read_text(encoding="utf-8")
        )
        return template.render(
            settings=self.settings,
            history=history,
            curves={
                curve: svg_uri(draw_curves(history, "svg", curves=[curve], background="none"))
                for curve in curves_of(history)
            },
            loss=loss_as_text(history.loss[-1]),
            figures=history.last_figures(),
            samples=samples.shape[0],
            evaluation=evaluation,
            task=_task(network),
            **_details(network, samples, evaluation, self.image_shape),
            weights=_weights(network, self.image_shape),
            check=check,
            graph=graph,
            graph_samples=some,
        )


def _check_image_shape(image_shape: Any, samples: Array) -> None:
    if image_shape is None:
        return
    pixels = prod(samples.shape[1:])
    if (
        not isinstance(image_shape, tuple)
        or len(image_shape) != 2  # noqa: PLR2004
        or not all(is_integer(length) and length > 0 for length in image_shape)
        or prod(image_shape) != pixels
    ):
        raise SettingError(
            f"Report: image_shape is height and width of {pixels} pixels, not {image_shape!r}"
        )


def _task(network: Network) -> str:
    if network.last_layer.takes_labels:
        return "classes"
    return "labels" if network.last_layer.classifies else "numbers"


AnyEvaluation: TypeAlias = Evaluation | MultilabelEvaluation | RegressionEvaluation

_EVALUATE: dict[str, Callable[[Network, Any, Any], AnyEvaluation]] = {
    "classes": evaluate,
    "labels": evaluate_multilabel,
    "numbers": evaluate_regression,
}


def _evaluation(network: Network, x: Any, t: Any) -> AnyEvaluation | str:
    """Return the evaluation of a network, or the message that says why there is none."""
    try:
        return _EVALUATE[_task(network)](network, x, t)
    except UndefinedOutputError as error:  # a diverged network gets a page, too
        return str(error)


def _details(
    network: Network,
    samples: Array,
    evaluation: AnyEvaluation | str,
    image_shape: tuple[int, int] | None,
) -> dict[str, Any]:
    """Return what the page shows of the evaluation, by the template's names."""
    if isinstance(evaluation, Evaluation):
        return {
            "confusion": _confusion(evaluation),
            "mistakes": _mistakes(network, samples, evaluation, image_shape),
        }
    if isinstance(evaluation, MultilabelEvaluation):
        return {
            "by_label": _by_label(evaluation),
            "wrong_labels": _wrong_labels(network, samples, evaluation, image_shape),
        }
    if isinstance(evaluation, RegressionEvaluation):
        return {
            "by_output": _by_output(evaluation),
            "predictions": [
                svg_uri(draw_predictions(evaluation, output))
                for output in range(min(evaluation.outputs.shape[1], _PREDICTIONS))
            ],
            "errors": _errors(network, samples, evaluation, image_shape),
        }
    return {}


def _gradient_check(network: Network, x: Array, t: Array) -> GradientReport | str:
    """Return the gradient check, or the message that says why there is none."""
    try:
        return gradient_check(network, x, t, elements=_CHECKED_ELEMENTS)
    except DataError as error:
        return str(error)


def _graph_uri(network: Network, x: Array, t: Array) -> tuple[str, str]:
    """Return the data URI of the graph's picture and ``""``, or ``""`` and why there is none."""
    try:
        svg = Graph.of_network(network, x, t).picture().svg()
    except (BackendUnavailableError, DataError) as error:
        return "", str(error)
    return svg_uri(svg.encode()), ""


def _confusion(evaluation: Evaluation) -> list[list[list[float]]] | None:
    """Return the counts, each with its share of the row; None if there are too many classes."""
    if evaluation.classes > _CLASSES:
        return None
    counts = evaluation.confusion()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells: list[list[list[float]]] = np.stack([counts, shares], axis=-1).tolist()
    return cells


def _mistakes(
    network: Network, samples: Array, evaluation: Evaluation, image_shape: tuple[int, int] | None
) -> list[dict[str, Any]]:
    """Return the worst mistakes, each with its sample's picture if samples are images."""
    return [
        {
            "number": number,
            "label": int(evaluation.labels[number]),
            "predicted": int(evaluation.predicted[number]),
            "probability": float(evaluation.probabilities[number]),
            "certainty": float(evaluation.certainties[number]),
            "image": _image(network, samples, number, image_shape),
        }
        for number in evaluation.worst(_MISTAKES)
    ]


def _by_output(evaluation: RegressionEvaluation) -> list[dict[str, Any]]:
    """Return the figures of each output, or of the first outputs if there are many."""
    r2 = [None if isnan(value) else value for value in evaluation.r2()]
    squared, absolute = evaluation.mean_squared_error(), evaluation.mean_absolute_error()
    figures = zip(r2, squared, absolute, strict=True)
    names = ("r2", "squared", "absolute")
    return [dict(zip(names, row, strict=True)) for row in islice(figures, _OUTPUTS)]


def _by_label(evaluation: MultilabelEvaluation) -> list[dict[str, Any]]:
    """Return the figures of each label, or of the first labels if there are many."""
    precision, recall = (
        [None if isnan(share) else share for share in shares]
        for shares in (evaluation.precision(), evaluation.recall())
    )
    counts = evaluation.targets.sum(axis=0)
    rows = zip(counts, evaluation.accuracy(), precision, recall, strict=True)
    names = ("count", "accuracy", "precision", "recall")
    return [dict(zip(names, row, strict=True)) for row in islice(rows, _OUTPUTS)]


def _wrong_labels(
    network: Network,
    samples: Array,
    evaluation: MultilabelEvaluation,
    image_shape: tuple[int, int] | None,
) -> list[dict[str, Any]]:
    """Return the worst mistakes, each with its sample's picture if samples are images."""
    return [
        {
            "number": number,
            "label": label,
            "target": int(evaluation.targets[number, label]),
            "probability": float(evaluation.probabilities[number, label]),
            "image": _image(network, samples, number, image_shape),
        }
        for number, label in evaluation.worst(_MISTAKES)
    ]


def _errors(
    network: Network,
    samples: Array,
    evaluation: RegressionEvaluation,
    image_shape: tuple[int, int] | None,
) -> list[dict[str, Any]]:
    """Return the largest errors, each with its sample's picture if samples are images."""
    return [
        {
            "number": number,
            "output": output,
            "target": evaluation.targets[number, output],
            "value": evaluation.outputs[number, output],
            "image": _image(network, samples, number, image_shape),
        }
        for number, output in evaluation.worst(_MISTAKES)
    ]


def _image(
    network: Network, samples: Array, number: int, shape: tuple[int, int] | None
) -> str | None:
    """Return a sample's picture; None if samples are not images."""
    if shape is None:
        return None
    pixels = network.backend.to_numpy(samples[number, ...]).reshape(shape)
    return image_uri(pixels, colours="gray_r", low=0, high=max(float(pixels.max()), 1e-9))


def _weights(network: Network, image_shape: tuple[int, int] | None) -> list[str]:
    """Return pictures of the weights of the first affine layer, one for each of its features."""
    first = next((layer for layer in network.layers.values() if isinstance(layer, Affine)), None)
    if image_shape is None or first is None or first.W.shape[0] != prod(image_shape):
        return []
    W = network.backend.to_numpy(first.W)[:, :_WEIGHTS]
    largest = max(float(np.max(np.abs(W))), 1e-9)
    return [
        image_uri(column.reshape(image_shape), colours="RdBu_r", low=-largest, high=largest)
        for column in W.T
    ]
