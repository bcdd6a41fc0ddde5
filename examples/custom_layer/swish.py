"""Swish with a learned slope, a layer of one's own.

P. Ramachandran, B. Zoph, Q. V. Le, Searching for Activation Functions, 2017, arXiv:1710.05941.
"""

from typing import Any

from xbp.functions import sigmoid
from xbp.layers import Layer
from xbp.namespace import namespace_of


class Swish(Layer):
    """``y = x · sigmoid(slope · x)``, with a slope for each feature, ``(D,)``."""

    param_names = ("slope",)
    traceable = True
    samplewise = True

    def __init__(self, slope: Any) -> None:
        self.slope = slope

    def forward(self, x: Any) -> Any:
        """Return y, of the shape of x, ``(N, D)``."""
        namespace_of(x, self.slope, where=self.name)
        self.x = x
        self.gate = sigmoid(self.slope * x)
        # Not 1 - gate, which has no digits left where the gate is nearly 1.
        self.rest = sigmoid(-self.slope * x)
        return x * self.gate

    def backward(self, dout: Any) -> Any:
        """Return the derivative with respect to x, and leave that by the slope in ``dslope``."""
        xp = namespace_of(dout, self.x, where=self.name)
        dgate = dout * self.x * self.gate * self.rest  # by slope · x
        self.dslope = xp.sum(dgate * self.x, axis=0)
        return dout * self.gate + dgate * self.slope
