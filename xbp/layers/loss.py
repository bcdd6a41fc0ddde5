"""Losses, each with the output function that makes its gradient simple."""

from typing import Any, ClassVar

from xbp.errors import DataError, SettingError, ShapeError
from xbp.functions import (
    as_one_hot,
    as_targets,
    batch_size_of,
    exponentials,
    log_softmax,
    sum_squared_error,
)
from xbp.layers.layer import Layer
from xbp.namespace import (
    Array,
    cast_like,
    is_floating,
    is_number,
    namespace_of,
    python_number,
)


class LossLayer(Layer):
    """The last layer of a network: from outputs and targets to the loss.

    A subclass writes, for a batch, `losses`, the loss of each sample, and `slope`, its derivative
    with respect to the outputs. It says whether it `classifies`.

    Softmax goes with cross entropy, and identity with half the sum of squares, because both pairs
    have the same gradient: output minus target.

    Attributes
    ----------
    y : Array
        The outputs, ``(C,)`` for one sample or ``(N, C)`` for a batch.
    t : Array
        The targets, of that shape.
    loss : Array
        The mean over the batch, 0-d: nothing waits for the device until its value is asked for.
    classifies : bool
        Whether targets are classes, so that there is an accuracy.
    """

    classifies: ClassVar[bool]

    y: Array = None
    t: Array = None
    loss: Array = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # This class's forward need not be the mean of a base class's losses.
        cls.samplewise = cls.samplewise and "losses" in cls.__dict__

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean of the losses of the samples, 0-d.

        Parameters
        ----------
        x
            Outputs, ``(C,)`` for one sample or ``(N, C)`` for a batch.
        t
            Targets: of the shape of x, or, if the layer classifies, labels ``()`` or ``(N,)``.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If t does not fit x, or `losses` are not one for each sample.
        """
        losses = self.losses_of_samples(*_as_batch(x, self._targets(t, x)))
        self.loss = namespace_of(losses).mean(losses)
        return self.loss

    def losses_of_samples(self, x: Array, t: Array) -> Array:
        """Return `losses` of a batch, one for each sample; `slope` then refers to this batch.

        Targets may be labels.
        """
        if type(self).forward is LossLayer.forward:
            self.y, self.t = x, self._targets(t, x)
            t = self.t
        losses = self.losses(x, t)
        if getattr(losses, "shape", None) != x.shape[:1]:
            raise ShapeError(
                f"{self.name}.losses: a loss for each of {x.shape[0]} samples is needed, "
                f"({x.shape[0]},), got {_shape_or_value(losses)}"
            )
        return losses

    def _targets(self, t: Array, x: Array) -> Array:
        as_outputs = as_one_hot if self.classifies else as_targets
        return as_outputs(t, x, where=self.name)

    def backward(self, dout: Array | float = 1) -> Array:
        """Return `slope` divided by the batch size, times dout, a number or a 0-d array."""
        slope = self.slope()
        if getattr(slope, "shape", None) != self.y.shape:
            raise ShapeError(
                f"{self.name}.slope: the outputs have shape {tuple(self.y.shape)}, it has "
                f"{_shape_or_value(slope)}"
            )
        scale: Array = python_number(dout) if is_number(dout) else cast_like(dout, like=slope)
        dx = slope * (scale / batch_size_of(self.y))
        shape = self.input_shape
        return dx if shape == dx.shape else namespace_of(dx).reshape(dx, shape)

    def check_inputs(self, x: Any, *others: Any) -> None:
        """Raise an error unless these are outputs and targets; that of one sample may be a number.

        Raises
        ------
        DTypeError, MixedBackendError
        """
        super().check_inputs(x, *(t for t in others if not is_number(t)))

    def check_output(self, output: Any) -> None:
        """Raise `ShapeError` unless ``forward`` has returned one number, as an array."""
        if output is None:
            raise self._nothing_returned("forward")
        if getattr(output, "shape", None) != ():
            is_array = hasattr(output, "shape")
            what = f"shape {tuple(output.shape)}" if is_array else type(output).__name__
            raise ShapeError(
                f"{self.name}.forward returned {what}: a loss is an array without dimensions, the "
                "mean over the batch"
            )

    def check_dout(self, dout: Any = 1, *others: Any) -> None:
        """Raise an error unless this is a number or a 0-d array.

        Raises
        ------
        CallOrderError, ShapeError, DTypeError, MixedBackendError
        """
        shape = self.last_call().output_shape
        if is_number(dout):
            return
        if getattr(dout, "shape", shape) != shape:
            raise ShapeError(
                f"{self.name}.backward: the loss is one number, and so is dout, but it has shape "
                f"{tuple(dout.shape)}"
            )
        super().check_dout(dout)

    def slope(self) -> Array:
        """Return the derivative of each sample's loss with respect to its outputs, ``(N, C)``.

        It refers to the outputs `y` and targets `t` of the last `losses`.
        """
        raise SettingError(
            f"{self.name} has no slope: write slope(self), which returns the derivative of each "
            "sample's loss with respect to its outputs, or a backward"
        )

    def losses(self, x: Array, t: Array) -> Array:
        """Return the loss of each sample of a batch, ``(N,)``, of which ``forward`` is the mean.

        A class without `losses` of its own is not `samplewise`, whatever it says.

        Parameters
        ----------
        x
            Outputs of a batch, ``(N, C)``.
        t
            Targets in the shape and dtype of x, one-hot where the loss classifies. A class
            with a ``forward`` of its own gets them unconverted.
        """
        raise NotImplementedError(f"{type(self).__name__} has no losses")

    def predictions(self, y: Array) -> Array:
        """Return the targets that outputs stand for: as they are, unless a class says otherwise."""
        return y

    @staticmethod
    def check_targets(t: Array, output_size: int) -> None:
        """Raise `DataError` if one of a batch of targets cannot be learned from.

        This reads values, so it waits for the device: it is for new data, not for each step.
        """
        xp = namespace_of(t)
        if is_floating(t):
            require_all(t, xp.isfinite(t), "not finite")


class SoftmaxWithLoss(LossLayer):
    """Softmax and the cross entropy error in one: for classification; `y` are probabilities."""

    classifies = True
    traceable = True
    samplewise = True

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean cross entropy error of the softmax of x.

        Parameters
        ----------
        x
            Scores (logits), ``(C,)`` for one sample or ``(N, C)`` for a batch.
            The probability of a class with score -inf is 0.
        t
            Targets: of the shape of x, one-hot or any other weights of the classes, or integer
            labels, ``()`` or ``(N,)``.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If t does not fit x.
        """
        self.t = as_one_hot(t, x, where=self.name)
        xp = namespace_of(x)
        shifted, e, total = exponentials(x, axis=-1, where=self.name)
        self.y = e / total
        log_y = shifted - xp.log(total)
        self.loss = -xp.sum(_products(self.t, log_y)) / batch_size_of(x)
        return self.loss

    def losses(self, x: Array, t: Array) -> Array:
        """Return the cross entropy error of each sample."""
        t = as_one_hot(t, x, where=self.name)
        return -namespace_of(x).sum(_products(t, log_softmax(x)), axis=1)

    def slope(self) -> Array:
        """Return ``y Σt - t``, which is ``y - t`` for targets whose sum is 1."""
        return self.y * namespace_of(self.t).sum(self.t, axis=-1, keepdims=True) - self.t

    @staticmethod
    def check_targets(t: Array, output_size: int) -> None:
        """Raise `DataError` if a label is outside the classes, or a row is not one-hot."""
        xp = namespace_of(t)
        if t.ndim > 1:
            sums = xp.sum(xp.astype(t, xp.float32), axis=1)
            good = xp.all(t >= 0, axis=1) & (xp.abs(sums - 1) < 1e-3)  # noqa: PLR2004
            require_all(t, good, "not one-hot: numbers from 0 to 1 whose sum is 1")
        else:
            # In the library's own integers: the number of classes need not fit in the dtype of t.
            labels = cast_like(t, like=xp.arange(1))
            good = (labels >= 0) & (labels < output_size)
            require_all(t, good, f"no label: the outputs are numbered 0 ... {output_size - 1}")


class IdentityWithLoss(LossLayer):
    """The outputs as they are, and half the sum of squared errors: for regression."""

    classifies = False
    traceable = True
    samplewise = True

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean over the batch of half the sum of squared differences.

        Parameters
        ----------
        x
            Outputs, ``(M,)`` for one sample or ``(N, M)`` for a batch.
        t
            Targets, of the shape of x.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If t does not fit x.
        """
        self.t = as_targets(t, x, where=self.name)
        self.y = x
        self.loss = sum_squared_error(x, self.t)
        return self.loss

    def slope(self) -> Array:
        """Return ``y - t``."""
        return self.y - self.t

    def losses(self, x: Array, t: Array) -> Array:
        """Return half the sum of squared differences of each sample."""
        difference = x - as_targets(t, x, where=self.name)
        return 0.5 * namespace_of(x).sum(difference * difference, axis=1)


def _as_batch(x: Array, t: Array) -> tuple[Array, Array]:
    """Return outputs and targets in rows: one sample is a batch of one."""
    return (x, t) if x.ndim > 1 else (x[None, :], t[None, :])


def _shape_or_value(x: Any) -> Any:
    return tuple(x.shape) if hasattr(x, "shape") else x


def _products(t: Array, log_y: Array) -> Array:
    """Return ``t log(y)``, which is 0 where t is 0, also for a class with score -inf."""
    return namespace_of(log_y).where(t != 0, log_y, 0) * t


def require_all(t: Array, good: Array, complaint: str) -> None:
    """Raise `DataError` for the first target of which not all elements are good."""
    xp = namespace_of(good)
    good = xp.all(good, axis=tuple(range(1, good.ndim)))
    if not bool(xp.all(good)):
        first = int(xp.argmin(xp.astype(good, xp.int8)))
        value = t[first, ...]
        text = (
            [float(value[i]) for i in range(value.shape[0])]
            if value.ndim
            else f"{float(value):g}"
            if is_floating(t)
            else int(value)
        )
        raise DataError(f"t[{first}] is {text}, {complaint}")
