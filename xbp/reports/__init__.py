"""Reports of a training: curves, a table of metrics, a page to look at."""

from xbp.reports.curves import loss_in_terminal
from xbp.reports.evaluation import Evaluation, evaluate
from xbp.reports.page import Report

__all__ = ["Evaluation", "Report", "evaluate", "loss_in_terminal"]
