"""Layers that hold layers: a sequence, and a residual connection."""

from collections.abc import Iterable
from typing import Any

from xbp.errors import SettingError, ShapeError
from xbp.layers.layer import Layer
from xbp.layers.loss import LossLayer
from xbp.layers.tree import numbered, walk
from xbp.namespace import Array
from xbp.settings import without_base


class Sequential(Layer):
    """Layers, run forward one after the other and backward in the reverse order.

    Parameters
    ----------
    *layers
        From the input to the output; they may hold layers too.

    Attributes
    ----------
    layers : dict of str to Layer
        In order, named by kind and count: ``Affine1``, ``Relu1``, ``Affine2``.

    Raises
    ------
    SettingError
        If one is not a layer.
    """

    traceable = True
    samplewise = True

    def __init__(self, *layers: Layer) -> None:
        self.layers = named_layers(layers)

    @property
    def takes_integers(self) -> bool:  # type: ignore[override]
        """Whether the first layer does."""
        return any(layer.takes_integers for layer in [*self.layers.values()][:1])

    def forward(self, x: Array) -> Array:
        """Return the output of the last layer."""
        if not all(isinstance(layer, Layer) for layer in self.layers.values()):
            named_layers(self.layers.values())  # raises the error that names it
        return run_forward(self.layers.values(), x)

    def backward(self, dout: Array) -> Array:
        """Return the derivative with respect to x; each layer stores those of its parameters."""
        return run_backward(self.layers.values(), dout)


class Residual(Sequential):
    """``y = x + f(x)``, where f is a sequence of layers.

    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016.
    Parameters and attributes are those of `Sequential`.
    """

    traceable = True
    samplewise = True

    def forward(self, x: Array) -> Array:
        """Return ``x + f(x)``.

        Raises
        ------
        ShapeError
            If f(x) has another shape than x.
        """
        branch = super().forward(x)
        if branch.shape != x.shape:
            raise ShapeError(
                f"{self.name}: x has shape {tuple(x.shape)}, and what is to be added to it "
                f"{tuple(branch.shape)}: the last layer has as many outputs as the first has inputs"
            )
        return x + branch

    def backward(self, dout: Array) -> Array:
        """Return dout plus the derivative from the branch."""
        return dout + super().backward(dout)


def run_forward(layers: Iterable[Layer], x: Array) -> Array:
    """Return the output of layers, run one after the other."""
    for layer in layers:
        x = layer.forward(x)
    return x


def run_backward(layers: Iterable[Layer], dout: Array) -> Array:
    """Return the derivative with respect to the input of layers, run in the reverse order."""
    for layer in reversed(list(layers)):
        dout = layer.backward(dout)
    return dout


def named_layers(layers: Iterable[Any]) -> dict[str, Layer]:
    """Return layers by name, or raise `SettingError` if they cannot form a sequence."""
    layers = list(layers)
    for number, layer in enumerate(layers, start=1):
        if isinstance(layer, LossLayer):
            raise SettingError(
                f"layer {number} is {layer!r}, a loss: give it as the second argument of Network"
            )
        if not isinstance(layer, Layer):
            raise SettingError(
                f"layer {number} is one of xbp.layers, or of your own, not "
                f"{without_base(layer, Layer)}"
            )
    names = numbered(type(layer).__name__ for layer in layers)
    parts = dict(zip(names, layers, strict=False))
    walk(parts)
    return parts
