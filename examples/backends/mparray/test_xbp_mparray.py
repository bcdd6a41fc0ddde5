"""The backend keeps xbp's promises, and its gradients have 50 digits."""

import pytest
from mpmath import mp

import xbp
from xbp.layers import Sigmoid
from xbp.testing import BackendConformance


class TestMparray(BackendConformance):
    """The suite that every backend passes."""

    spec = "mparray"
    max_examples = 5  # fifty digits take their time

    # Images have too many numbers for that.
    test_convolution = None  # type: ignore[assignment]
    test_max_pooling = None  # type: ignore[assignment]
    test_average_pooling = None  # type: ignore[assignment]

    @pytest.mark.xfail(reason="its integers are those of Python, which have no width", strict=True)
    def test_words_of_32_bits_wrap_around(self) -> None:
        """Random numbers are others than on other libraries."""
        super().test_words_of_32_bits_wrap_around()


def test_a_gradient_in_50_digits() -> None:
    """The slope of the sigmoid at 1 is e / (1 + e)²."""
    backend = xbp.get_backend("mparray")
    layer = Sigmoid()
    with backend.scope():
        layer.forward(backend.asarray([1.0], "float64"))
        slope = layer.backward(backend.asarray([1.0], "float64"))
        exact = mp.e / (1 + mp.e) ** 2
        assert abs(slope - exact)[0] < mp.mpf(10) ** -49
