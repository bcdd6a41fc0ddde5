"""Swish is proven on every backend that ``pytest --xbp-backend`` names, and trains there."""

from swish import Swish

import xbp
from xbp.layers import Affine, SoftmaxWithLoss
from xbp.testing import assert_gradients


def test_its_gradients(xbp_backend: xbp.Backend) -> None:
    """All the properties of a layer hold."""
    assert_gradients(Swish, inputs={"x": ("N", "D")}, params={"slope": ("D",)}, largest=1e3)


def test_it_takes_part_in_a_network(xbp_backend: xbp.Backend) -> None:
    """The gradient of the network agrees with central differences."""
    asarray = xbp_backend.asarray
    layers = [
        Affine(asarray([[1.0, -2.0], [0.5, 1.5]]), asarray([0.1, -0.1])),
        Swish(asarray([1.0, 2.0])),
        Affine(asarray([[1.0, -1.0, 0.5], [0.5, 1.0, -1.0]]), asarray([0.0, 0.0, 0.0])),
    ]
    network = xbp.Network(layers, SoftmaxWithLoss())
    x, t = asarray([[0.3, -0.7], [1.2, 0.4]]), asarray([2, 0])
    report = xbp.gradient_check(network, x, t)
    assert list(report.parameters) == ["W1", "b1", "slope1", "W2", "b2"]
    assert report.passed, str(report)
