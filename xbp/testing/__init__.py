"""The kit that proves gradients: for a layer of your own, for a backend of your own.

It needs Hypothesis, and pytest for the fixtures: ``pip install hypothesis pytest``.
"""

from xbp.testing.assertions import assert_gradients
from xbp.testing.cases import LayerCase, NetworkCase
from xbp.testing.layers import LAYERS
from xbp.testing.signatures import Fixed, Labels, OneHot, Signature
from xbp.testing.strategies import (
    arrays,
    host_arrays,
    layer_cases,
    layers,
    network_cases,
    networks,
)
from xbp.testing.trial import LayerTrial

__all__ = [
    "LAYERS",
    "Fixed",
    "Labels",
    "LayerCase",
    "LayerTrial",
    "NetworkCase",
    "OneHot",
    "Signature",
    "arrays",
    "assert_gradients",
    "host_arrays",
    "layer_cases",
    "layers",
    "network_cases",
    "networks",
]
