"""Layers, one file per family; the forward and the backward of each stand side by side."""

from xbp.layers.activation import (
    Elu,
    Gelu,
    LeakyRelu,
    Relu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from xbp.layers.affine import Affine
from xbp.layers.arithmetic import (
    AddLayer,
    DivLayer,
    ExpLayer,
    MulLayer,
    ReciprocalLayer,
    SubLayer,
)
from xbp.layers.classification import SigmoidWithLoss, SoftmaxWithLoss
from xbp.layers.containers import Residual, Sequential
from xbp.layers.convolution import Convolution
from xbp.layers.dropout import Dropout
from xbp.layers.embedding import Embedding
from xbp.layers.flatten import Flatten
from xbp.layers.layer import Layer
from xbp.layers.loss import LossLayer
from xbp.layers.normalization import BatchNormalization, LayerNormalization
from xbp.layers.parameters import Parameters
from xbp.layers.pooling import AveragePooling, MaxPooling
from xbp.layers.preprocessing import Rescale
from xbp.layers.regression import (
    AbsoluteWithLoss,
    HuberWithLoss,
    IdentityWithLoss,
    PoissonWithLoss,
    QuantileWithLoss,
)

__all__ = [
    "AbsoluteWithLoss",
    "AddLayer",
    "Affine",
    "AveragePooling",
    "BatchNormalization",
    "Convolution",
    "DivLayer",
    "Dropout",
    "Elu",
    "Embedding",
    "ExpLayer",
    "Flatten",
    "Gelu",
    "HuberWithLoss",
    "IdentityWithLoss",
    "Layer",
    "LayerNormalization",
    "LeakyRelu",
    "LossLayer",
    "MaxPooling",
    "MulLayer",
    "Parameters",
    "PoissonWithLoss",
    "QuantileWithLoss",
    "ReciprocalLayer",
    "Relu",
    "Rescale",
    "Residual",
    "Sequential",
    "Sigmoid",
    "SigmoidWithLoss",
    "Silu",
    "SoftmaxWithLoss",
    "Softplus",
    "SubLayer",
    "Tanh",
]
