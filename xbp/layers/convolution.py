"""The convolution layer: filters that slide over images."""

from typing import Any

from xbp.convolution import convolution, convolution_dW, convolution_gradients
from xbp.errors import ShapeError
from xbp.layers.affine import require_weight_and_bias
from xbp.layers.layer import Layer
from xbp.namespace import Array, cast_like, namespace_of
from xbp.windows import window


class Convolution(Layer):
    """The product of each filter with each window of an image, and a bias.

    Chapter 7 of the book. As in all of deep learning the filters are not turned around: strictly,
    it is a cross-correlation.

    Parameters
    ----------
    W
        Filters, a floating-point array of shape ``(F, C, KH, KW)``. It is kept, not copied.
    b
        Biases, of shape ``(F,)`` and of the dtype of W. It is kept, not copied.
    stride
        How far a window is from the next: an integer, or two, for height and width.
    pad
        How many zeros there are on each side of an image: an integer, or two.

    Attributes
    ----------
    dW, db : Array
        Gradients with respect to W and b, as the last ``backward`` left them.

    Raises
    ------
    ShapeError, DTypeError, MixedBackendError
        If W and b do not fit together, or an axis is empty.
    SettingError
        If stride or pad is no such number.
    """

    param_names = ("W", "b")
    traceable = True
    samplewise = True

    dW: Array = None
    db: Array = None

    def __init__(self, W: Array, b: Array, *, stride: Any = 1, pad: Any = 0) -> None:
        require_weight_and_bias(self.name, W, b, form="(F, C, KH, KW)", outputs=0)
        self.W = W
        self.b = b
        self.window = window(type(self).__name__, W.shape[2:], stride, pad)

    def forward(self, x: Array) -> Array:
        """Return what the filters find, ``(N, F, OH, OW)``.

        The height OH is ``(H + 2 pad - KH) // stride + 1``, and so the width.

        Parameters
        ----------
        x
            Images, ``(N, C, H, W)``. They are cast to the dtype of W; if they have that, they are
            kept, not copied.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x does not fit W.
        """
        self.window.require_fit(x, self.name)
        if x.shape[1] != self.W.shape[1]:
            raise ShapeError(
                f"{self.name}: images of {self.W.shape[1]} channels are needed, (N, C, H, W), got "
                f"shape {tuple(x.shape)}"
            )
        self.x = cast_like(x, like=self.W)
        return convolution(self.x, self.W, self.b, self.window)

    def backward(self, dout: Array) -> Array:
        """Return dx, of the shape of x, and store the gradients in dW and db."""
        dout = cast_like(dout, like=self.W)
        dx, self.dW, self.db = convolution_gradients(dout, self.x, self.W, self.window)
        return dx

    def backward_params(self, dout: Array) -> None:
        """Store dW, and ``db = Σ dout``, summed over the batch and the windows."""
        dout = cast_like(dout, like=self.W)
        self.dW = convolution_dW(dout, self.x, self.window)
        self.db = namespace_of(dout).sum(dout, axis=(0, 2, 3))
