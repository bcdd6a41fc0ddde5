"""What was seen while training, as curves and as a table."""

import csv
from collections.abc import Sequence
from io import BytesIO, StringIO
from math import ceil
from typing import Any

import numpy as np
import plotille

from xbp.training import History

# More points than these a curve does not show.
_POINTS = 500


def metrics_csv(history: History) -> str:
    """Return a table, a row for each step: its loss, and accuracies where they were measured."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", "loss", "train_accuracy", "test_accuracy"])
    accuracies = {
        step: [
            figures[i] if figures else ""
            for figures in (history.train_accuracy, history.test_accuracy)
        ]
        for i, step in enumerate(history.evaluated)
    }
    for step, loss in enumerate(history.loss, start=1):
        rows.writerow([step, loss, *accuracies.get(step, ["", ""])])
    return text.getvalue()


def curves_of(history: History) -> list[str]:
    """Return which curves there are: ``"loss"``, and for a classifier ``"accuracy"``."""
    return ["loss", "accuracy"] if history.train_accuracy else ["loss"]


def draw_curves(
    history: History,
    form: str,
    *,
    curves: Sequence[str] = (),
    background: str = "white",
) -> bytes:
    """Return what changed over the steps as a picture.

    Parameters
    ----------
    history
        Of a training.
    form
        ``"svg"`` or ``"png"``.
    curves
        Which of `curves_of`; none takes them all, side by side.
    background
        A colour, or ``"none"``.
    """
    # Slow to import.
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    curves = curves or curves_of(history)
    figure = Figure(figsize=(4.5 * len(curves), 3.2), layout="constrained", facecolor=background)
    for curve, panel in zip(curves, figure.subplots(1, len(curves), squeeze=False)[0], strict=True):
        _CURVES[curve](history, panel)
        panel.set(xlabel="step", facecolor=background)
        panel.grid(visible=True, alpha=0.3)
    content = BytesIO()
    # Text stays text, and the same figures give the same file.
    metadata = {"Date": None} if form == "svg" else None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "xbp"}):
        figure.savefig(content, format=form, dpi=150, metadata=metadata)
    return content.getvalue()


def _draw_loss(history: History, panel: Any) -> None:
    steps, losses, block = thinned(history.loss, _POINTS)
    panel.plot(steps, losses)
    panel.set_ylabel("loss" if block == 1 else f"loss, mean of {block} steps")


def _draw_accuracy(history: History, panel: Any) -> None:
    for label, figures in (("training", history.train_accuracy), ("test", history.test_accuracy)):
        if figures:
            panel.plot(history.evaluated, figures, marker="o", markersize=3, label=label)
    panel.set_ylabel("accuracy")
    panel.legend()


_CURVES = {"loss": _draw_loss, "accuracy": _draw_accuracy}


def loss_in_terminal(history: History, width: int) -> str:
    """Return the curve of the loss as text, so many characters wide."""
    steps, losses, _ = thinned(history.loss, 2 * max(width, 1))
    finite = np.isfinite(losses)
    figure = plotille.Figure()
    figure.width, figure.height = max(width - _MARGIN, 20), 10
    figure.x_label, figure.y_label = "step", "loss"
    figure.register_label_formatter(float, _short)
    figure.x_ticks_fkt = lambda low, high: f"{low:,.0f}"
    figure.set_x_limits(min_=0, max_=max(len(history.loss), 1))
    figure.set_y_limits(min_=0.0, max_=float(max(losses[finite], default=1)) or 1.0)
    figure.plot(steps[finite].tolist(), losses[finite].tolist())
    shown: str = figure.show()
    return shown


# What plotille puts on both sides of the curve.
_MARGIN = 23


def _short(value: float, chars: int, **_: Any) -> str:
    return f"{value:>{chars}.4g}"


def thinned(losses: list[float], points: int) -> tuple[Any, Any, int]:
    """Return the means of equally long blocks of steps, after the last step of each."""
    block = ceil(len(losses) / points)
    starts = np.arange(0, len(losses), block)
    stops = np.minimum(starts + block, len(losses))
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.add.reduceat(np.asarray(losses, dtype=float), starts) / (stops - starts)
    return stops, means, block
