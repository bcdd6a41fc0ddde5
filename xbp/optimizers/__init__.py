"""Optimizers: how a gradient becomes an update."""

from xbp.optimizers.descent import SGD, Adam, Momentum
from xbp.optimizers.optimizer import Optimizer, Schedule, schedule_of
from xbp.optimizers.tracing import fixed_by, is_traceable, memory_of

__all__ = [
    "SGD",
    "Adam",
    "Momentum",
    "Optimizer",
    "Schedule",
    "fixed_by",
    "is_traceable",
    "memory_of",
    "schedule_of",
]
