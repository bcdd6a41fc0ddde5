"""Optimizers: how a gradient becomes an update."""

from xbp.optimizers.adaptive import AdaGrad, Adam, AdamW, RMSprop
from xbp.optimizers.descent import SGD, Momentum, Nesterov
from xbp.optimizers.optimizer import Optimizer, Schedule, schedule_of
from xbp.optimizers.tracing import fixed_by, is_traceable, memory_of

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "fixed_by",
    "is_traceable",
    "memory_of",
    "schedule_of",
]
