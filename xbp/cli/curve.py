"""The curve of the loss, for a terminal."""

from math import isfinite
from typing import Any

import plotille

from xbp.training.history import History, thinned


def loss_in_terminal(history: History, width: int) -> str:
    """Return the curve of the loss as text for a terminal, ``width`` characters wide."""
    steps, losses, _ = thinned(history.loss, 2 * max(width, 1))
    points = [(step, loss) for step, loss in zip(steps, losses, strict=True) if isfinite(loss)]
    figure = plotille.Figure()
    figure.width, figure.height = max(width - _MARGIN, 20), 10
    figure.x_label, figure.y_label = "step", "loss"
    figure.register_label_formatter(float, _short)
    figure.x_ticks_fkt = lambda low, high: f"{low:,.0f}"
    figure.set_x_limits(min_=0, max_=max(len(history.loss), 1))
    figure.set_y_limits(min_=0.0, max_=max((loss for _, loss in points), default=1.0) or 1.0)
    figure.plot([step for step, _ in points], [loss for _, loss in points])
    text: str = figure.show()
    return text


# The width, in characters, that plotille adds to that of the curve.
_MARGIN = 23


def _short(value: float, chars: int, **_: Any) -> str:
    return f"{value:>{chars}.4g}"
