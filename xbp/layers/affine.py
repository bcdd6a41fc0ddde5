"""The affine layer: a matrix product and a bias."""

from math import prod

from xbp.errors import DTypeError, ShapeError
from xbp.layers.layer import Layer
from xbp.namespace import Array, cast_like, dtype_name, namespace_of, require_floating


class Affine(Layer):
    """``Y = X W + b``, for one sample or a batch.

    Parameters
    ----------
    W
        Weight, a floating-point array of shape ``(D, M)``. It is kept, not copied.
    b
        Bias, of shape ``(M,)`` and of the dtype of W. It is kept, not copied.

    Attributes
    ----------
    dW, db : Array
        Gradients with respect to W and b, as the last ``backward`` left them.

    Raises
    ------
    ShapeError, DTypeError, MixedBackendError
        If W and b do not fit together, or an axis is empty.
    """

    param_names = ("W", "b")
    traceable = True
    samplewise = True

    dW: Array = None
    db: Array = None

    def __init__(self, W: Array, b: Array) -> None:
        require_weight_and_bias(self.name, W, b, form="(D, M)", outputs=1)
        self.W = W
        self.b = b

    def forward(self, x: Array) -> Array:
        """Return ``x W + b``.

        Parameters
        ----------
        x
            One sample ``(D,)``, a batch ``(N, D)``, or a batch ``(N, ...)`` whose samples have D
            elements. It is cast to the dtype of W; if it has that, it is kept, not copied.

        Returns
        -------
        Array
            ``(M,)`` for one sample, ``(N, M)`` for a batch.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x does not fit W.
        """
        self.x = cast_like(self._rows_of(x), like=self.W)
        y = self.x @ self.W
        y += self.b
        return _reshaped(y, self.W.shape[1:] if x.ndim == 1 else y.shape)

    def backward(self, dout: Array) -> Array:
        """Return ``dX = dY Wᵀ``, of the shape of x, and store the gradients in dW and db."""
        self.backward_params(dout)
        dx = _as_rows(cast_like(dout, like=self.W)) @ self.W.T
        return _reshaped(dx, self.input_shape)

    def backward_params(self, dout: Array) -> None:
        """Store ``dW = Xᵀ dY`` and ``db = Σ dY``, summed over the batch."""
        dout = _as_rows(cast_like(dout, like=self.W))
        self.dW = self.x.T @ dout
        self.db = namespace_of(dout).sum(dout, axis=0)

    def _rows_of(self, x: Array) -> Array:
        rows = _as_rows(x)
        if rows.shape[1] != self.W.shape[0] or x.ndim == 0:
            raise ShapeError(
                f"{self.name}: samples of {self.W.shape[0]} elements are needed, (D,) or "
                f"(N, ...), got shape {tuple(x.shape)}"
            )
        return rows


def require_weight_and_bias(name: str, W: Array, b: Array, *, form: str, outputs: int) -> None:
    """Raise an error unless a weight and a bias fit together.

    Parameters
    ----------
    name
        Of the layer.
    W, b
        The weight, and a bias for each of its outputs.
    form
        The axes of the weight, ``"(D, M)"``.
    outputs
        Which of them is that of the outputs.

    Raises
    ------
    ShapeError, DTypeError, MixedBackendError
    """
    namespace_of(W, b, where=name)
    axes = form.strip("()").split(", ")
    if W.ndim != len(axes) or 0 in W.shape or b.shape != W.shape[outputs : outputs + 1]:
        raise ShapeError(
            f"{name}: W is {form} and b is ({axes[outputs]},), with no empty axis; got "
            f"{tuple(W.shape)} and {tuple(b.shape)}"
        )
    require_floating(W, name)
    if W.dtype != b.dtype:
        raise DTypeError(
            f"{name}: W and b need one dtype, got {dtype_name(W.dtype)} and {dtype_name(b.dtype)}"
        )


def _as_rows(x: Array) -> Array:
    """Return one row per sample, ``(N, D)``: one sample, ``(D,)``, is a batch of one."""
    if x.ndim == 2:  # noqa: PLR2004
        return x
    batch_shape, sample_shape = (x.shape[:1], x.shape[1:]) if x.ndim > 1 else ((1,), x.shape)
    return _reshaped(x, (*batch_shape, prod(sample_shape)))


def _reshaped(x: Array, shape: tuple[int, ...]) -> Array:
    # Most arrays have the shape already, and a comparison is faster than a reshape.
    return x if x.shape == shape else namespace_of(x).reshape(x, shape)
