"""What every loss is: a mean over the batch, and its slope, with an output function of its own."""

from typing import Any, ClassVar

from xbp.errors import DataError, SettingError, ShapeError
from xbp.functions import as_one_hot, as_targets, batch_size_of, softmax
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
    with respect to the outputs. It says whether it `classifies`, and if it does, whether it
    `takes_labels`.

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
        Whether outputs are right or wrong, so that there is an accuracy.
    takes_labels : bool
        Whether one of several classes is right, so that targets may be labels, the numbers of
        classes. A loss that classifies does, unless it says otherwise.
    """

    classifies: ClassVar[bool]
    takes_labels: ClassVar[bool]

    y: Array = None
    t: Array = None
    loss: Array = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "classifies" in cls.__dict__ and "takes_labels" not in cls.__dict__:
            cls.takes_labels = cls.classifies
        # This class's forward need not be the mean of a base class's losses.
        cls.samplewise = cls.samplewise and "losses" in cls.__dict__

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean of the losses of the samples, 0-d.

        Parameters
        ----------
        x
            Outputs, ``(C,)`` for one sample or ``(N, C)`` for a batch.
        t
            Targets: of the shape of x, or, if the layer takes labels, these, ``()`` or ``(N,)``.

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
        as_outputs = as_one_hot if self.takes_labels else as_targets
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
            Targets in the shape and dtype of x, one-hot where the loss takes labels. A class
            with a ``forward`` of its own gets them unconverted.
        """
        raise NotImplementedError(f"{type(self).__name__} has no losses")

    def predictions(self, y: Array) -> Array:
        """Return the targets that outputs stand for: as they are, unless a class says otherwise."""
        return y

    def probabilities(self, y: Array) -> Array:
        """Return what outputs say of the probabilities of classes, if the loss classifies."""
        return softmax(y)

    def are_right(self, y: Array, t: Array) -> Array:
        """Tell of each sample whether its outputs say what its targets do, if the loss classifies.

        That is, whether the highest score is at the target's class.

        Parameters
        ----------
        y
            Outputs of a batch, ``(N, C)``.
        t
            Targets, ``(N, C)``, or labels, ``(N,)``, of any integer dtype.

        Returns
        -------
        Array
            Booleans, ``(N,)``.
        """
        xp = namespace_of(y)
        classes = xp.argmax(y, axis=1)
        labels = xp.argmax(t, axis=1) if t.ndim > 1 else cast_like(t, like=classes)
        return classes == labels

    @staticmethod
    def check_targets(t: Array, output_size: int) -> None:
        """Raise `DataError` if one of a batch of targets cannot be learned from.

        This reads values, so it waits for the device: it is for new data, not for each step.
        """
        xp = namespace_of(t)
        if is_floating(t):
            require_all(t, xp.isfinite(t), "not finite")


def _as_batch(x: Array, t: Array) -> tuple[Array, Array]:
    """Return outputs and targets in rows: one sample is a batch of one."""
    return (x, t) if x.ndim > 1 else (x[None, :], t[None, :])


def _shape_or_value(x: Any) -> Any:
    return tuple(x.shape) if hasattr(x, "shape") else x


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
