"""The backend keeps xbp's promises, and learns what NumPy learns."""

import pytest

import xbp
from xbp.datasets import load_digits
from xbp.testing import BackendConformance


class TestDask(BackendConformance):
    """The suite that every backend passes."""

    spec = "dask"
    max_examples = 2  # each number is a computation of its own

    # Images have too many numbers for that.
    test_convolution = None  # type: ignore[assignment]
    test_max_pooling = None  # type: ignore[assignment]
    test_average_pooling = None  # type: ignore[assignment]


def accuracy(spec: str) -> float:
    """Return the accuracy on the digits for testing, after 60 steps."""
    backend = xbp.get_backend(spec)
    (x, t), (x_test, t_test) = load_digits(backend=backend)
    network = xbp.TwoLayerNet(64, 50, 10, "he", backend=backend, dtype="float32", seed=0)
    xbp.Trainer(network, xbp.SGD(0.1), batch_size=100, seed=0).fit(x, t, steps=60)
    with backend.scope():
        return network.accuracy(x_test, t_test)


def test_it_learns_the_digits_as_numpy_does() -> None:
    """After 60 steps it recognizes as many of them."""
    assert accuracy("dask") == pytest.approx(accuracy("numpy"), abs=0.005)
