"""Property-based tests of gradients, for your own layers and your own backends.

It needs Hypothesis and array-api-strict, and pytest for the fixtures.
"""

# ruff: noqa: E402  a missing package is reported before an import fails
from importlib.util import find_spec

for _module in ("hypothesis", "array_api_strict"):
    if find_spec(_module) is None:
        raise ImportError(f"xbp.testing needs {_module}: pip install hypothesis array-api-strict")

if not __debug__:
    raise ImportError(
        "xbp.testing proves by assertions, which python -O removes: run it without -O, and without "
        "PYTHONOPTIMIZE"
    )

from xbp.testing.assertions import assert_gradients, assert_vjp
from xbp.testing.cases import LayerCase, NetworkCase
from xbp.testing.conformance import BackendConformance
from xbp.testing.domains import Fixed, Labels, Nonzero, OneHot, Values
from xbp.testing.layers import LAYERS
from xbp.testing.proof import Proof
from xbp.testing.signatures import Signature
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
    "Nonzero",
    "OneHot",
    "Proof",
    "Signature",
    "Values",
    "arrays",
    "assert_gradients",
    "assert_vjp",
    "host_arrays",
    "layer_cases",
    "layers",
    "network_cases",
    "networks",
]
