"""A fault planted in any backward is found, and the message names the layer and shows the case."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from planted_faults import FAULTS, Fault, cannot_be, find
from support import backend, except_slow, once

from xbp.layers import Layer, MulLayer
from xbp.namespace import Array, namespace_of
from xbp.testing import LAYERS, Signature, assert_gradients

pytestmark = except_slow

Backward = Callable[..., Any]


def each(gradients: Any, change: Callable[[Array], Array]) -> Any:
    """Change what a backward returned: one derivative or several."""
    return tuple(map(change, gradients)) if isinstance(gradients, tuple) else change(gradients)


def sign(backward: Backward) -> Backward:
    return lambda layer, dout: each(backward(layer, dout), lambda dx: -dx)


def one_sign(backward: Backward) -> Backward:
    """Turn the sign of a single element."""

    def change(dx: Array) -> Array:
        xp = namespace_of(dx)
        flat = xp.reshape(dx, (-1,))
        flat = xp.where(xp.arange(flat.shape[0], device=backend.native_device) == 0, -flat, flat)
        return xp.reshape(flat, dx.shape)

    return lambda layer, dout: each(backward(layer, dout), change)


def nearly(backward: Backward) -> Backward:
    return lambda layer, dout: each(backward(layer, dout), lambda dx: dx * 1.01)


def changes_dout(backward: Backward) -> Backward:
    def faulty(layer: Layer, dout: Array) -> Any:
        gradients = each(backward(layer, dout), lambda dx: dx + 0)
        dout[...] = 7.0
        return gradients

    return faulty


def keeps_the_first_dout(backward: Backward) -> Backward:
    def faulty(layer: Any, dout: Array) -> Any:
        layer.kept = getattr(layer, "kept", dout)
        return backward(layer, layer.kept)

    return faulty


def in_double_precision(backward: Backward) -> Backward:
    def change(dx: Array) -> Array:
        xp = namespace_of(dx)
        return xp.astype(dx, xp.float64 if dx.dtype == xp.float32 else xp.float32)

    return lambda layer, dout: each(backward(layer, dout), change)


ANYWHERE = [sign, one_sign, nearly, changes_dout, keeps_the_first_dout]
if backend.has_float64:
    ANYWHERE.append(in_double_precision)


# One of each layer.
KINDS = list({signature.name: signature for signature in reversed(LAYERS)}.values())


def found(signature: Signature) -> str:
    """Return what the proof says of a layer with a fault."""
    finding = find(signature, backend)
    assert finding
    return finding.message


@pytest.mark.parametrize("fault", ANYWHERE, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("signature", KINDS, ids=str)
def test_a_fault_in_any_layer(
    monkeypatch: pytest.MonkeyPatch, signature: Signature, fault: Callable[[Backward], Backward]
) -> None:
    planted = fault(signature.make.backward)  # type: ignore[attr-defined]
    monkeypatch.setattr(signature.make, "backward", lambda layer, dout=1: planted(layer, dout))
    message = found(signature)
    here = f"{signature.name} on {backend.name}:{backend.device}, float"
    # What is declared is tried out on NumPy.
    elsewhere = rf"{signature.name} on numpy:cpu, float\d\d: it says traceable = True"
    assert message.startswith(here) or re.match(elsewhere, message), message
    assert "the smallest case found:\n  " in message
    assert "\n  x = " in message


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_of_the_catalogue(fault: Fault) -> None:
    if reason := cannot_be(fault):
        pytest.skip(reason)
    assert find(fault.wrong, backend)


@once
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.right], ids=str)
def test_without_the_fault_there_is_none(fault: Fault) -> None:
    assert fault.right
    assert not find(fault.right, backend, max_examples=5)


def test_the_message_shows_both_gradients_and_where_they_part() -> None:
    class Product(MulLayer):
        def backward(self, dout: Array) -> Any:
            return dout * self.x, dout * self.y

    both = {"x": ("N", "D"), "y": ("N", "D")}
    with pytest.raises(AssertionError) as failure:
        assert_gradients(Product, inputs=both, backend=backend)
    message = str(failure.value)
    assert "backward is wrong: " in message
    assert "that of output[0, 0] with respect to x[0, 0]:\n  backward says" in message
    assert "central differences say" in message
    assert "  backward = [[" in message
    assert "  differences = [[" in message
    assert "  dout = [[" in message


def test_a_wrong_derivative_by_a_single_number_is_reported() -> None:
    class Shift(Layer):
        param_names = ("by",)

        def __init__(self, by: Array) -> None:
            self.by = by

        def forward(self, x: Array) -> Array:
            namespace_of(x, self.by, where=self.name)
            return x + self.by

        def backward(self, dout: Array) -> Array:
            self.dby = -namespace_of(dout).sum(dout)
            return dout

    says = r"(?s)backward is wrong.* with respect to by:.*backward says -1"
    with pytest.raises(AssertionError, match=says):
        assert_gradients(Shift, params={"by": ()}, backend=backend, max_examples=5)
