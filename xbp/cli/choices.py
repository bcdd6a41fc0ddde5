"""What ``xbp train`` offers by name: models, activations, optimizers, schedules."""

from collections.abc import Mapping
from typing import Any

import xbp
from xbp import layers

ACTIVATIONS: Mapping[str, type[layers.Layer]] = {
    "relu": layers.Relu,
    "sigmoid": layers.Sigmoid,
    "tanh": layers.Tanh,
    "leaky-relu": layers.LeakyRelu,
    "elu": layers.Elu,
    "gelu": layers.Gelu,
    "silu": layers.Silu,
    "softplus": layers.Softplus,
}

OPTIMIZERS: Mapping[str, type[xbp.Optimizer]] = {
    "sgd": xbp.SGD,
    "momentum": xbp.Momentum,
    "nesterov": xbp.Nesterov,
    "adagrad": xbp.AdaGrad,
    "rmsprop": xbp.RMSprop,
    "adam": xbp.Adam,
    "adamw": xbp.AdamW,
}

SCHEDULES = ("constant", "step", "cosine")

# A multilayer perceptron, and the convolutional networks of the book's chapters 7 and 8: the groups
# of filters, their size and pad; the hidden features and the dropout by default.
MODELS: Mapping[str, tuple[Mapping[str, Any], int, float]] = {
    "mlp": ({}, 50, 0.0),
    "cnn": ({"filters": [[30]], "filter_size": 5, "pad": 0}, 100, 0.0),
    "deep": ({"filters": [[16, 16], [32, 32], [64, 64]]}, 50, 0.5),
}

# By the name of the option.
CHOICES: Mapping[str, Any] = {
    "model": MODELS,
    "activation": ACTIVATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
