"""The ONNX project's own inputs and outputs of its operators: what forward gives is compared."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from support import arr, host

from xbp.layers import (
    AveragePooling,
    BatchNormalization,
    Convolution,
    Elu,
    Flatten,
    Gelu,
    Layer,
    LayerNormalization,
    LeakyRelu,
    MaxPooling,
    Relu,
    Sigmoid,
    Softplus,
    Tanh,
)

onnx = pytest.importorskip("onnx", reason="pip install onnx")

# What an operator's layer is made with, from the operator's attributes and inputs but the first;
# None if xbp has no such setting. The files that have the vectors are named like the operators.
Make = Callable[..., Layer | None]


def convolution(settings: dict[str, Any], W: Any, b: Any = None) -> Layer | None:
    pad = pad_of(settings)
    if pad is None:
        return None
    zeros = arr(np.zeros(W.shape[0]), "float32")
    return Convolution(W, zeros if b is None else b, stride=settings.get("strides", 1), pad=pad)


def pooling(kind: Any) -> Make:
    def make(settings: dict[str, Any]) -> Layer | None:
        size, pad = settings["kernel_shape"], pad_of(settings)
        if pad is None or len(size) != 2 or settings.get("count_include_pad"):
            return None
        layer: Layer = kind(size, stride=settings.get("strides", 1), pad=pad)
        return layer

    return make


def pad_of(settings: dict[str, Any]) -> list[int] | None:
    """Return the pad, if it is alike on both sides, and nothing else is asked for."""
    pads = settings.get("pads", [0, 0, 0, 0])
    odd = {"auto_pad", "ceil_mode", "dilations", "storage_order", "group"} & settings.keys()
    return list(pads[:2]) if pads[:2] == pads[2:] and len(pads) == 4 and not odd else None


def batch_normalization(
    settings: dict[str, Any], gamma: Any, beta: Any, mean: Any, variance: Any
) -> Layer:
    epsilon = settings.get("epsilon", 1e-5)
    layer = BatchNormalization(gamma, beta, momentum=settings.get("momentum", 0.9), epsilon=epsilon)
    layer.running_mean, layer.running_variance = mean, variance
    return layer if settings.get("training_mode") else layer.for_inference()


def layer_normalization(settings: dict[str, Any], gamma: Any, beta: Any) -> Layer:
    return LayerNormalization(gamma, beta, epsilon=settings.get("epsilon", 1e-5))


def flatten(settings: dict[str, Any]) -> Layer | None:
    return Flatten() if settings.get("axis", 1) == 1 else None


def gelu(settings: dict[str, Any]) -> Layer | None:
    return None if settings.get("approximate") == b"tanh" else Gelu()


MAKERS: dict[str, tuple[str, Make]] = {
    "Conv": ("conv", convolution),
    "MaxPool": ("maxpool", pooling(MaxPooling)),
    "AveragePool": ("averagepool", pooling(AveragePooling)),
    "BatchNormalization": ("batch_normalization", batch_normalization),
    "LayerNormalization": ("layernormalization", layer_normalization),
    "Gelu": ("gelu", gelu),
    "Elu": ("elu", lambda settings: Elu(settings.get("alpha", 1.0))),
    "LeakyRelu": ("leakyrelu", lambda settings: LeakyRelu(settings.get("alpha", 0.01))),
    "Softplus": ("softplus", lambda settings: Softplus()),
    "Tanh": ("tanh", lambda settings: Tanh()),
    "Relu": ("relu", lambda settings: Relu()),
    "Sigmoid": ("sigmoid", lambda settings: Sigmoid()),
    "Flatten": ("flatten", flatten),
}


def vectors() -> Iterator[Any]:
    """Yield the vectors of these operators that consist of that operator alone."""
    cases: Any = import_module("onnx.backend.test.case.node")
    for module, _ in MAKERS.values():
        import_module(f"onnx.backend.test.case.node.{module}")  # adds them to the list
    for case in cases._NodeTestCases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in MAKERS:
            yield case


def layer_of(case: Any) -> tuple[Layer | None, Any]:
    """Return the layer of a vector, and its input."""
    node = case.model.graph.node[0]
    settings = {it.name: onnx.helper.get_attribute_value(it) for it in node.attribute}
    x, *others = (arr(values, "float32") for values in case.data_sets[0][0])
    if node.op_type == "LayerNormalization" and settings.get("axis", -1) % x.ndim == 0:
        return None, x
    return MAKERS[node.op_type][1](settings, *others), x


CASES = [case for case in vectors() if layer_of(case)[0]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_a_vector(case: Any) -> None:
    layer, x = layer_of(case)
    assert layer is not None
    expected = case.data_sets[0][1]
    found = host(layer.forward(x))
    np.testing.assert_allclose(found, expected[0], rtol=1e-4, atol=1e-5)
    if isinstance(layer, BatchNormalization) and not layer.infers:
        np.testing.assert_allclose(host(layer.running_mean), expected[1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(host(layer.running_variance), expected[2], rtol=1e-4, atol=1e-5)


def test_every_operator_has_vectors() -> None:
    taken = [case.model.graph.node[0].op_type for case in CASES]
    assert set(taken) == MAKERS.keys()
    assert len(taken) > 40
    assert taken.count("Conv") >= 5
