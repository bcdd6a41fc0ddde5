"""Backpropagation you can read, on any array library."""

from xbp import datasets, errors, functions, layers, saving, schedules
from xbp.backend import Backend
from xbp.differences import numerical_gradient
from xbp.gradient_report import GradientReport
from xbp.gradients import gradient_check
from xbp.networks import Network, TwoLayerNet
from xbp.optimizers import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
)
from xbp.registry import (
    available_backends,
    get_backend,
    register_backend,
    set_backend,
    use_backend,
)
from xbp.training import History, Trainer

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Backend",
    "GradientReport",
    "History",
    "Momentum",
    "Nesterov",
    "Network",
    "Optimizer",
    "RMSprop",
    "Trainer",
    "TwoLayerNet",
    "available_backends",
    "datasets",
    "errors",
    "functions",
    "get_backend",
    "gradient_check",
    "layers",
    "numerical_gradient",
    "register_backend",
    "saving",
    "schedules",
    "set_backend",
    "use_backend",
]
