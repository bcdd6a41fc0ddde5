"""A fault planted in any backward is found, and the message names the layer and shows the case."""

from collections.abc import Callable
from typing import Any

import pytest
from support import backend, except_slow

from xbp.functions import batch_size_of
from xbp.layers import Affine, Layer, MulLayer, SoftmaxWithLoss
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


def without_mean(layer: Any, dout: Any) -> Array:
    return (layer.y - layer.t) * dout


def with_the_mean_twice(layer: Any, dout: Any) -> Array:
    return (layer.y - layer.t) * dout / batch_size_of(layer.y) ** 2


def targets_minus_outputs(layer: Any, dout: Any) -> Array:
    return (layer.t - layer.y) * (dout / batch_size_of(layer.y))


def operands_not_swapped(layer: Any, dout: Any) -> Any:
    return dout * layer.x, dout * layer.y


def affine(
    dx: Callable[..., Array] = lambda xp, layer, dout: xp.matmul(dout, layer.W.T),
    dW: Callable[..., Array] = lambda xp, layer, dout: xp.matmul(layer.x.T, dout),
    db: Callable[..., Array] = lambda xp, layer, dout: xp.sum(dout, axis=0),
) -> Backward:
    def backward(layer: Any, dout: Array) -> Array:
        xp = namespace_of(dout)
        layer.dW, layer.db = dW(xp, layer, dout), db(xp, layer, dout)
        return dx(xp, layer, dout)

    return backward


def changing_x(xp: Any, layer: Any, dout: Array) -> Array:
    layer.x[...] = 0.0
    return xp.matmul(dout, layer.W.T)


AFFINE = next(s for s in LAYERS if s.make is Affine)
MUL = next(s for s in LAYERS if s.make is MulLayer)
LABELS, ONE_HOT = [s for s in LAYERS if s.make is SoftmaxWithLoss and s.takes_the_mean]
SOMEWHERE: list[tuple[str, Signature, Backward]] = [
    ("missing 1/N", LABELS, without_mean),
    ("missing 1/N", ONE_HOT, without_mean),
    ("1/N twice", LABELS, with_the_mean_twice),
    ("t - y", LABELS, targets_minus_outputs),
    ("swapped operand", MUL, operands_not_swapped),
    ("W not transposed", AFFINE, affine(dx=lambda xp, a, dout: xp.matmul(dout, a.W))),
    ("x not transposed", AFFINE, affine(dW=lambda xp, a, dout: xp.matmul(a.x, dout))),
    ("dW transposed", AFFINE, affine(dW=lambda xp, a, dout: xp.matmul(a.x.T, dout).T)),
    ("db along the wrong axis", AFFINE, affine(db=lambda xp, a, dout: xp.sum(dout, axis=1))),
    ("db of the first sample", AFFINE, affine(db=lambda xp, a, dout: dout[0, :])),
    ("db of W", AFFINE, affine(db=lambda xp, a, dout: xp.sum(a.W, axis=0))),
    ("x changed in place", AFFINE, affine(dx=changing_x)),
]


# One of each layer.
KINDS = list({signature.name: signature for signature in reversed(LAYERS)}.values())


def found(signature: Signature) -> str:
    """Return what the proof says of a layer with a fault."""
    with pytest.raises(AssertionError) as failure:
        assert_gradients(signature, backend=backend)
    return str(failure.value)


@pytest.mark.parametrize("fault", ANYWHERE, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("signature", KINDS, ids=str)
def test_a_fault_in_any_layer(
    monkeypatch: pytest.MonkeyPatch, signature: Signature, fault: Callable[[Backward], Backward]
) -> None:
    planted = fault(signature.make.backward)  # type: ignore[attr-defined]
    monkeypatch.setattr(signature.make, "backward", lambda layer, dout=1: planted(layer, dout))
    message = found(signature)
    assert message.startswith(f"{signature.name} on {backend.name}:{backend.device}, float")
    assert "the smallest case found:\n  x = [" in message


@pytest.mark.parametrize(
    ("signature", "planted"), [fault[1:] for fault in SOMEWHERE], ids=[f[0] for f in SOMEWHERE]
)
def test_a_fault_in_one_layer(
    monkeypatch: pytest.MonkeyPatch, signature: Signature, planted: Backward
) -> None:
    monkeypatch.setattr(signature.make, "backward", planted)
    monkeypatch.setattr(Affine, "backward_params", planted)
    assert found(signature).startswith(f"{signature.name} on {backend.name}:{backend.device}")


def test_the_message_shows_both_gradients_and_where_they_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MulLayer, "backward", operands_not_swapped)
    message = found(MUL)
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
