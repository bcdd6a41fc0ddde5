"""The metrics of a training, as curves and as a table."""

import csv
from collections.abc import Sequence
from io import BytesIO, StringIO
from math import ceil, isfinite, isnan, nan
from typing import Any

import numpy as np

from xbp.reports.evaluation import RegressionEvaluation
from xbp.training import History
from xbp.training.history import thinned

# The largest number of points in a curve.
_POINTS = 500


def metrics_csv(history: History) -> str:
    """Return the metrics as CSV, a row for each step; a metric not measured then is empty."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", "loss", *_COLUMNS])
    metrics = {
        step: [
            "" if not figures or isnan(figures[i]) else figures[i]
            for figures in (getattr(history, name) for name in _COLUMNS)
        ]
        for i, step in enumerate(history.evaluated)
    }
    for step, loss in enumerate(history.loss, start=1):
        rows.writerow([step, loss, *metrics.get(step, [""] * len(_COLUMNS))])
    return text.getvalue()


# New columns go to the end, since programs may read columns by position.
_COLUMNS = ("train_accuracy", "test_accuracy", "test_loss", "train_r2", "test_r2")


def curves_of(history: History) -> list[str]:
    """Return the names of the curves: ``"loss"``, and ``"accuracy"`` or ``"r²"`` if measured."""
    kinds = {"accuracy": history.train_accuracy, "r²": history.train_r2}
    return ["loss", *(kind for kind, figures in kinds.items() if not np.all(np.isnan(figures)))]


def draw_curves(
    history: History,
    form: str,
    *,
    curves: Sequence[str] = (),
    background: str = "white",
) -> bytes:
    """Return a picture of the curves of a training, side by side, as the bytes of a file.

    Parameters
    ----------
    history
        The history of the training.
    form
        ``"svg"`` or ``"png"``.
    curves
        Names from `curves_of`; an empty sequence takes them all.
    background
        A colour of matplotlib, or ``"none"``.
    """
    # Imported here, since it is slow.
    from matplotlib.figure import Figure  # noqa: PLC0415

    curves = curves or curves_of(history)
    figure = Figure(figsize=(4.5 * len(curves), 3.2), layout="constrained", facecolor=background)
    for curve, panel in zip(curves, figure.subplots(1, len(curves), squeeze=False)[0], strict=True):
        _CURVES[curve](history, panel)
        panel.set(xlabel="step", facecolor=background)
        panel.grid(visible=True, alpha=0.3)
    return _saved(figure, form)


def _saved(figure: Any, form: str) -> bytes:
    """Return the bytes of a picture: SVG keeps text as text, and equal data give equal bytes."""
    from matplotlib import rc_context  # noqa: PLC0415

    content = BytesIO()
    metadata = {"Date": None} if form == "svg" else None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "xbp"}):
        figure.savefig(content, format=form, dpi=150, metadata=metadata)
    return content.getvalue()


def _draw_loss(history: History, panel: Any) -> None:
    steps, losses, block = thinned(history.loss, _POINTS)
    panel.plot(
        steps, losses, label="training" if block == 1 else f"training, mean of {block} steps"
    )
    panel.set_ylabel("loss")
    _draw_measured(history, panel, test=history.test_loss)


def _draw_accuracy(history: History, panel: Any) -> None:
    panel.set_ylabel("accuracy")
    _draw_measured(history, panel, training=history.train_accuracy, test=history.test_accuracy)


def _draw_r2(history: History, panel: Any) -> None:
    panel.set_ylabel("r²")
    _draw_measured(history, panel, training=history.train_r2, test=history.test_r2)
    # Very negative values, early in a training, would squeeze the positive ones together.
    if history.train_r2[-1] > 0:
        panel.set_ylim(bottom=max(panel.get_ylim()[0], _LOWEST_R2))


def _draw_measured(history: History, panel: Any, **curves: list[float]) -> None:
    for label, figures in curves.items():
        if figures:
            finite = [figure if isfinite(figure) else nan for figure in figures]
            panel.plot(history.evaluated, finite, marker="o", markersize=3, label=label)
    panel.legend(loc="upper right")


_CURVES = {"loss": _draw_loss, "accuracy": _draw_accuracy, "r²": _draw_r2}
_LOWEST_R2 = -0.5


def draw_predictions(evaluation: RegressionEvaluation, output: int) -> bytes:
    """Return an SVG with a point for each sample: its target and the network's output.

    Parameters
    ----------
    evaluation
        The evaluation. Of many samples, every k-th is shown.
    output
        The index of the output.
    """
    # Imported here, since it is slow.
    from matplotlib.figure import Figure  # noqa: PLC0415

    step = ceil(len(evaluation.targets) / _POINTS)
    targets, outputs = (rows[::step, output] for rows in (evaluation.targets, evaluation.outputs))
    figure = Figure(figsize=(4.5, 3.2), layout="constrained", facecolor="none")
    panel = figure.subplots()
    panel.scatter(targets, np.where(np.isfinite(outputs), outputs, nan), s=9, alpha=0.6)
    ends = [targets.min(), targets.max()]
    panel.plot(ends, ends, color="gray", linewidth=1)
    panel.set(xlabel="target", ylabel="output", facecolor="none")
    panel.grid(visible=True, alpha=0.3)
    return _saved(figure, "svg")
