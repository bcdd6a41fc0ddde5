"""Layers that bring numbers to a mean of 0 and a variance of 1, and then to any other."""

from math import prod

from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.layers.layer import Layer
from xbp.namespace import Array, cast_like, dtype_name, namespace_of, require_floating
from xbp.settings import is_finite_number, positive_number


class LayerNormalization(Layer):
    """``y = gamma (x - mean) / sqrt(variance + epsilon) + beta``, over the features of each sample.

    J. L. Ba, J. R. Kiros and G. E. Hinton, Layer normalization, 2016, arXiv:1607.06450.

    Parameters
    ----------
    gamma, beta
        Scale and shift, ``(D,)``, or of the shape of the last axes of x, over which mean and
        variance are taken. They are kept, not copied.
    epsilon
        A positive number, so that equal features are not divided by 0.

    Attributes
    ----------
    dgamma, dbeta : Array
        Gradients, as the last ``backward`` left them.

    Raises
    ------
    ShapeError, DTypeError, MixedBackendError
        If gamma and beta do not fit together, or are empty or 0-d.
    SettingError
        If epsilon is no positive number.
    """

    param_names = ("gamma", "beta")
    traceable = True
    samplewise = True

    dgamma: Array = None
    dbeta: Array = None

    def __init__(self, gamma: Array, beta: Array, *, epsilon: float = 1e-5) -> None:
        _check_scale_and_shift(self.name, gamma, beta)
        self.gamma = gamma
        self.beta = beta
        self.epsilon = positive_number("LayerNormalization: epsilon", epsilon)

    def forward(self, x: Array) -> Array:
        """Return the normalized x, ``(..., D)``, in the dtype of gamma.

        Raises
        ------
        ShapeError
            If the last axes of x are not those of gamma.
        """
        count = self.gamma.ndim
        if x.shape[-count:] != self.gamma.shape or x.ndim < count:
            raise ShapeError(
                f"{self.name}: x must end with the shape {tuple(self.gamma.shape)} of gamma, got "
                f"{tuple(x.shape)}"
            )
        axes = tuple(range(-count, 0))
        self.normal, self.scale = _normalized(cast_like(x, like=self.gamma), axes, self.epsilon)[:2]
        return self.gamma * self.normal + self.beta

    def backward(self, dout: Array) -> Array:
        """Return ``scale (g - mean g - normal mean(g normal))``, where ``g = gamma dout``."""
        xp, dout = namespace_of(dout), cast_like(dout, like=self.gamma)
        axes = tuple(range(-self.gamma.ndim, 0))
        samples = tuple(range(dout.ndim - self.gamma.ndim))
        self.dgamma = xp.sum(dout * self.normal, axis=samples)
        self.dbeta = xp.sum(dout, axis=samples)
        g = self.gamma * dout
        mean = xp.mean(g, axis=axes, keepdims=True)
        along = xp.mean(g * self.normal, axis=axes, keepdims=True)
        return self.scale * (g - mean - self.normal * along)


class BatchNormalization(Layer):
    """``y = gamma (x - mean) / sqrt(variance + epsilon) + beta``, over the samples of a batch.

    S. Ioffe and C. Szegedy, Batch normalization, 2015, arXiv:1502.03167; chapter 6 of the book. Of
    images mean and variance are taken over samples and pixels, for each channel. To infer, they are
    running means over the batches that were learned from.

    Parameters
    ----------
    gamma, beta
        Scale and shift, ``(D,)``, for each feature or channel. They are kept, not copied.
    momentum
        The share of the running means that a batch leaves as it is, 0 to 1. Some libraries call the
        rest so.
    epsilon
        A positive number, so that equal numbers are not divided by 0.

    Attributes
    ----------
    running_mean, running_variance : Array
        Part of the state, ``(D,)``; at first 0 and 1. The variance is that of the batch itself, its
        sum of squares divided by the count.
    dgamma, dbeta : Array
        Gradients, as the last ``backward`` left them.

    Raises
    ------
    ShapeError, DTypeError, MixedBackendError
        If gamma and beta do not fit together, or are not ``(D,)``.
    SettingError
        If momentum or epsilon is no such number.
    """

    param_names = ("gamma", "beta")
    state_names = ("running_mean", "running_variance")
    traceable = True

    dgamma: Array = None
    dbeta: Array = None

    def __init__(
        self, gamma: Array, beta: Array, *, momentum: float = 0.9, epsilon: float = 1e-5
    ) -> None:
        _check_scale_and_shift(self.name, gamma, beta)
        if gamma.ndim != 1:
            raise ShapeError(
                f"{self.name}: gamma is (D,), a number for each feature or channel, got "
                f"{tuple(gamma.shape)}"
            )
        if not (is_finite_number(momentum) and 0 <= momentum <= 1):
            raise SettingError(
                f"BatchNormalization: momentum is a number from 0 to 1, not {momentum!r}"
            )
        xp = namespace_of(gamma)
        self.gamma = gamma
        self.beta = beta
        self.momentum = float(momentum)
        self.epsilon = positive_number("BatchNormalization: epsilon", epsilon)
        self.running_mean = xp.zeros_like(gamma)
        self.running_variance = xp.ones_like(gamma)

    def __repr__(self) -> str:
        return f"<{self.name}: gamma {tuple(self.gamma.shape)}, momentum {self.momentum:g}>"

    def forward(self, x: Array) -> Array:
        """Return the normalized x, of features ``(N, D)`` or images ``(N, D, H, W)``.

        It changes the running means.

        Raises
        ------
        ShapeError
            If x has no axis of D, or less than two numbers for each feature.
        """
        x = cast_like(self._checked(x), like=self.gamma)
        axes = _all_but_channels(x)
        if prod(x.shape[axis] for axis in axes) < 2:  # noqa: PLR2004
            raise ShapeError(
                f"{self.name}: a mean over a batch needs two samples at least, got shape "
                f"{tuple(x.shape)}: choose a batch size that leaves no single sample over; to "
                "infer, take predict or for_inference()"
            )
        self.normal, self.scale, mean, variance = _normalized(x, axes, self.epsilon)
        self.running_mean = self._running(self.running_mean, mean)
        self.running_variance = self._running(self.running_variance, variance)
        return self._per_channel(self.gamma, x) * self.normal + self._per_channel(self.beta, x)

    def infer(self, x: Array) -> Array:
        """Return x normalized by the running means; x may be one sample, ``(D,)``."""
        x = cast_like(self._checked(x), like=self.gamma)
        scale = self.gamma / namespace_of(x).sqrt(self.running_variance + self.epsilon)
        # The mean first: two large numbers that are scaled cancel to few digits.
        centred = x - self._per_channel(self.running_mean, x)
        return self._per_channel(scale, x) * centred + self._per_channel(self.beta, x)

    def backward(self, dout: Array) -> Array:
        """Return ``gamma scale (dout - mean dout - normal mean(dout normal))``."""
        xp, dout = namespace_of(dout), cast_like(dout, like=self.gamma)
        axes = _all_but_channels(dout)
        count = prod(dout.shape[axis] for axis in axes)
        self.dgamma = xp.sum(dout * self.normal, axis=axes)
        self.dbeta = xp.sum(dout, axis=axes)
        mean = self._per_channel(self.dbeta / count, dout)
        along = self._per_channel(self.dgamma / count, dout)
        scale = self._per_channel(self.gamma, dout) * self.scale
        return scale * (dout - mean - self.normal * along)

    def _checked(self, x: Array) -> Array:
        channels = x.shape[0 if x.ndim == 1 else 1] if x.ndim else None
        if channels != self.gamma.shape[0]:
            raise ShapeError(
                f"{self.name}: features (N, D) or images (N, D, H, W) are needed, with D of "
                f"{self.gamma.shape[0]}, got shape {tuple(x.shape)}"
            )
        return x

    def _running(self, running: Array, of_batch: Array) -> Array:
        of_batch = namespace_of(running).reshape(of_batch, running.shape)
        return self.momentum * running + (1 - self.momentum) * of_batch

    def _per_channel(self, values: Array, x: Array) -> Array:
        """Return a number for each channel in a shape that broadcasts with x."""
        shape = (-1, *(1,) * (x.ndim - 2))
        return namespace_of(x).reshape(values, shape) if x.ndim > 2 else values  # noqa: PLR2004


def _check_scale_and_shift(name: str, gamma: Array, beta: Array) -> None:
    namespace_of(gamma, beta, where=name)
    if gamma.shape != beta.shape or gamma.ndim == 0 or 0 in gamma.shape:
        raise ShapeError(
            f"{name}: gamma and beta have one shape, with an element for each feature; got "
            f"{tuple(gamma.shape)} and {tuple(beta.shape)}"
        )
    require_floating(gamma, name)
    if gamma.dtype != beta.dtype:
        raise DTypeError(
            f"{name}: gamma and beta need one dtype, got {dtype_name(gamma.dtype)} and "
            f"{dtype_name(beta.dtype)}"
        )


def _all_but_channels(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim)) if x.ndim > 1 else ()


def _normalized(
    x: Array, axes: tuple[int, ...], epsilon: float
) -> tuple[Array, Array, Array, Array]:
    """Return x with mean 0 and variance 1 over some axes, its scale, and the mean and variance."""
    xp = namespace_of(x)
    mean = xp.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    variance = xp.mean(centred * centred, axis=axes, keepdims=True)
    scale = 1 / xp.sqrt(variance + epsilon)
    return centred * scale, scale, mean, variance
