"""The kit that proves gradients: for a layer of your own, for a backend of your own.

It needs Hypothesis and array-api-strict, and pytest for the fixtures.
"""

try:
    import array_api_strict as _
    import hypothesis as _  # noqa: F401, F811
except ImportError as error:
    raise ImportError(
        f"xbp.testing needs {error.name}: pip install hypothesis array-api-strict"
    ) from error

from xbp.testing.assertions import assert_gradients
from xbp.testing.cases import LayerCase, NetworkCase
from xbp.testing.conformance import BackendConformance
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
    "BackendConformance",
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
