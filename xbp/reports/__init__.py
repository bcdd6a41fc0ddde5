"""Reports of a training: curves, a table of metrics, and an HTML page."""

from xbp.reports.evaluation import (
    Evaluation,
    RegressionEvaluation,
    evaluate,
    evaluate_regression,
)
from xbp.reports.page import Report

__all__ = [
    "Evaluation",
    "RegressionEvaluation",
    "Report",
    "evaluate",
    "evaluate_regression",
]
