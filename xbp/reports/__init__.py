"""Reports of a training: curves, a table of metrics, and an HTML page."""

from xbp.reports.evaluation import (
    Evaluation,
    MultilabelEvaluation,
    RegressionEvaluation,
    evaluate,
    evaluate_multilabel,
    evaluate_regression,
)
from xbp.reports.page import Report

__all__ = [
    "Evaluation",
    "MultilabelEvaluation",
    "RegressionEvaluation",
    "Report",
    "evaluate",
    "evaluate_multilabel",
    "evaluate_regression",
]
