"""The checks of every layer, around its ``forward`` and its ``backward``.

They read libraries, devices, dtypes and shapes, never values: nothing waits for the device.
"""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial, wraps
from inspect import isfunction, signature
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

from xbp.calls import called
from xbp.errors import CallOrderError, DTypeError, SettingError, ShapeError
from xbp.namespace import (
    Namespace,
    dtype_name,
    is_number,
    kind_of,
    namespace_of,
    require_beside,
    require_floating,
    require_real,
)

Shape = tuple[int, ...]


class Call(NamedTuple):
    """A call of ``forward``: its shapes, and the type and device of its output."""

    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    # Of the output; None for a number and for several outputs.
    kind: type | None
    device: Any
    is_single: bool = True


class _OfLastCall:
    """Reads a shape of the last call; an attribute of the layer takes precedence."""

    def __init__(self, get: Callable[[Call], Shape], doc: str) -> None:
        self._get = get
        self.__doc__ = doc

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else self._get(layer.last_call())


class Checked:
    """The base of layers: checks the arguments and the results of a subclass's methods."""

    name: str
    param_names: ClassVar[tuple[str, ...]]
    state_names: ClassVar[tuple[str, ...]]
    takes_integers: ClassVar[bool]
    takes_numbers: ClassVar[bool]

    # Whether this is a copy for inference.
    infers: bool = False
    _call: Call | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, around in (("forward", _around_forward), ("backward", _around_backward)):
            # Of the class itself, or of a base that is no layer.
            method = getattr(cls, name)
            is_exempt = hasattr(method, "is_checked") or method is vars(Checked)[name]
            if isfunction(method) and not is_exempt:
                checked = around(method)
                checked.is_checked = True
                setattr(cls, name, checked)

    def __getstate__(self) -> dict[str, Any]:
        # Not every library's device can be copied or pickled.
        return {name: value for name, value in vars(self).items() if name != "_call"}

    def forward(self, *inputs: Any) -> Any:
        """Return the output, and keep what ``backward`` needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dout: Any) -> Any:
        """Return the derivative with respect to each input; dout is that of the output."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def infer(self, *inputs: Any) -> Any:
        """Return the output for inference: by default that of ``forward``."""
        return self.forward(*inputs)

    input_shape = _OfLastCall(
        lambda call: call.input_shapes[0], "The shape of the first input of the last ``forward``."
    )
    output_shape = _OfLastCall(
        lambda call: call.output_shape, "The shape of the output of the last ``forward``."
    )

    def last_call(self) -> Call:
        """Return the last call of ``forward``.

        Raises
        ------
        CallOrderError
            If there was none.
        """
        if self._call is None:
            if self.infers:
                raise self._no_derivative()
            raise CallOrderError(
                f"{self.name}: backward was called before forward: call forward first, it keeps "
                "what backward needs"
            )
        return self._call

    def require_derivative(self) -> None:
        """Raise `CallOrderError` if ``forward`` did what ``infer`` does, which has no backward."""
        if _infers_otherwise(self):
            raise self._no_derivative()

    def _no_derivative(self) -> CallOrderError:
        return CallOrderError(
            f"{self.name}: a copy for inference keeps nothing for backward: ask the layer or the "
            "network that it is a copy of"
        )

    def check_inputs(self, x: Any, *others: Any) -> None:
        """Raise an error unless ``forward`` can take these.

        Raises
        ------
        DTypeError, MixedBackendError
        """
        arrays = [getattr(self, name) for name in self.param_names] if self.param_names else []
        if others:  # an option has no shape
            arrays += [other for other in others if hasattr(other, "shape")]
        if self.takes_numbers:
            operands = [operand for operand in (x, *arrays) if not is_number(operand)]
            if operands:
                namespace_of(*operands, where=self.name)
            return
        namespace_of(x, *arrays, where=self.name)
        if kind_of(x) != "real floating":
            (require_real if self.takes_integers else require_floating)(x, self.name)

    def check_output(self, output: Any) -> None:
        """Raise `DTypeError` unless ``forward`` has returned an array, a tuple, or a number."""
        if output is None:
            raise self._nothing_returned("forward")
        if not (hasattr(output, "shape") or isinstance(output, tuple) or self.takes_numbers):
            raise DTypeError(
                f"{self.name}.forward returned {output!r:.60}: a layer returns an array"
            )

    def check_dout(self, dout: Any, *others: Any) -> None:
        """Raise an error unless ``backward`` can take this.

        Raises
        ------
        CallOrderError
            Before ``forward``.
        ShapeError, DTypeError, MixedBackendError
            If it does not fit the output.
        """
        _, shape, kind, device, is_single = self.last_call()
        if not is_single or (self.takes_numbers and is_number(dout)):
            return
        where = f"{self.name}.backward"
        if kind is None:
            namespace_of(dout, where=where)
        elif type(dout) is not kind or getattr(dout, "device", None) != device:
            require_beside(dout, kind, device, where)
        if dout.shape != shape:
            raise ShapeError(
                f"{where}: the output had shape {tuple(shape)}, dout has {tuple(dout.shape)}"
            )
        require_real(dout, where)

    def check_gradients(self, gradients: Any) -> None:
        """Raise an error unless ``backward`` has returned derivatives that fit the inputs.

        Raises
        ------
        ShapeError, DTypeError
        """
        if gradients is None and not self.takes_integers:
            raise self._nothing_returned("backward")
        shapes = self.last_call().input_shapes
        if getattr(gradients, "shape", None) == shapes[0]:
            return
        several = gradients if isinstance(gradients, tuple) else (gradients,)
        if len(several) > len(shapes):
            raise SettingError(
                f"{self.name}.backward returned {len(several)} derivatives: as many as inputs, "
                f"{len(shapes)}, are needed"
            )
        for gradient, shape in zip(several, shapes, strict=False):
            if (own_shape := getattr(gradient, "shape", shape)) != shape:
                raise ShapeError(
                    f"{self.name}.backward: the input had shape {tuple(shape)}, the derivative "
                    f"with respect to it has {tuple(own_shape)}"
                )

    def place_state(self, xp: Namespace, device: Any, dtype: Any) -> None:
        """Convert state that is a number, or a tuple of numbers, to an array."""
        for name in self.state_names:
            value = getattr(self, name, None)
            if hasattr(value, "shape"):
                continue
            leaves = list(_leaves(value))
            if not leaves or not all(map(is_number, leaves)):
                raise SettingError(
                    f"{self.name}: state_names names {name!r}, which holds {value!r}: let it be an "
                    "array, a number, or a tuple of numbers"
                )
            if all(isinstance(leaf, Integral) for leaf in leaves):
                if max(map(abs, leaves)) >= _INT32_LIMIT:
                    raise SettingError(
                        f"{self.name}: self.{name} holds {max(leaves, key=abs)}, which an integer "
                        "of 32 bits does not: give an array of another dtype, or floats"
                    )
                kind = xp.int32
            else:
                is_float = dtype is not None and xp.isdtype(dtype, "real floating")
                kind = dtype if is_float else None
            setattr(self, name, xp.asarray(value, dtype=kind, device=device))

    def check_state(self, before: dict[str, tuple[Shape, Any]]) -> None:
        """Raise an error unless the state has kept its shapes and dtypes.

        Raises
        ------
        ShapeError, DTypeError
        """
        for name, (shape, dtype) in before.items():
            value = getattr(self, name)
            if getattr(value, "shape", None) != shape:
                current = tuple(value.shape) if hasattr(value, "shape") else repr(value)
                raise ShapeError(
                    f"{self.name}: forward changed self.{name} from an array of shape "
                    f"{tuple(shape)} to {current}: what state_names names keeps its shape"
                )
            xp = namespace_of(value)
            if value.dtype != dtype and all(
                xp.isdtype(kind, "real floating") for kind in (value.dtype, dtype)
            ):
                # Arithmetic with wider numbers has promoted it.
                setattr(self, name, xp.astype(value, dtype))
            elif value.dtype != dtype:
                raise DTypeError(
                    f"{self.name}: forward changed self.{name} from {dtype_name(dtype)} to "
                    f"{dtype_name(value.dtype)}: what state_names names keeps its dtype; 0.0 makes "
                    "floats of it, 0 integers"
                )

    def part_state_from(self, arrays: tuple[Any, ...]) -> None:
        """Copy each state array that is also one of these arrays, or another state array."""
        others = [*arrays]
        for name in self.state_names:
            value = getattr(self, name)
            if any(value is array for array in others):
                value = namespace_of(value).asarray(value, copy=True)
                setattr(self, name, value)
            others.append(value)

    def _state_beside(self, inputs: tuple[Any, ...]) -> dict[str, tuple[Shape, Any]]:
        """Convert the state to arrays beside the inputs, and return their shapes and dtypes."""
        x = next((x for x in inputs if hasattr(x, "dtype")), None)
        if x is not None:
            self.place_state(namespace_of(x), getattr(x, "device", None), x.dtype)
        state = {name: getattr(self, name) for name in self.state_names}
        # Of numbers alone, a layer that takes them may make other numbers.
        arrays = {name: value for name, value in state.items() if hasattr(value, "dtype")}
        return {name: (value.shape, value.dtype) for name, value in arrays.items()}

    def _nothing_returned(self, method: str) -> DTypeError:
        return DTypeError(
            f"{self.name}.{method} returned None: it ends with return, and what it has computed"
        )


# The first integer that int32 cannot hold.
_INT32_LIMIT = 2**31

# The layers that are inferring now, by identity.
_inferring: ContextVar[frozenset[int]] = ContextVar("inferring", default=frozenset())


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


# Only the method of the object's own class checks, not those that it calls by super().


def _around_forward(method: Callable[..., Any]) -> Any:
    @wraps(method)
    def forward(self: Any, *inputs: Any, **kwargs: Any) -> Any:
        if type(self).forward is not forward:
            return method(self, *inputs, **kwargs)
        if kwargs:
            bound = signature(method).bind(self, *inputs, **kwargs)
            inputs, kwargs = bound.args[1:], bound.kwargs
        self.check_inputs(*inputs)
        before = self._state_beside(inputs) if self.state_names else None
        function = partial(_inference, method) if _infers_otherwise(self) else method
        output = called(function, self, "forward", inputs, kwargs)
        self.check_output(output)
        if before:
            self.check_state(before)
            self.part_state_from((*inputs, *(getattr(self, name) for name in self.param_names)))
        shapes = tuple([getattr(x, "shape", ()) for x in inputs])
        if hasattr(output, "shape"):
            namespace_of(output)
            device = getattr(output, "device", None)
            self._call = Call(shapes, output.shape, type(output), device)
        else:  # a number, or several outputs
            self._call = Call(shapes, (), None, None, not isinstance(output, tuple))
        return output

    return forward


def _infers_otherwise(layer: Any) -> bool:
    return layer.infers and type(layer).infer is not Checked.infer


def _inference(forward: Callable[..., Any], layer: Any, *inputs: Any, **kwargs: Any) -> Any:
    layers = _inferring.get()
    if id(layer) in layers:  # infer has called forward
        return forward(layer, *inputs, **kwargs)
    token = _inferring.set(layers | {id(layer)})
    try:
        return layer.infer(*inputs, **kwargs)
    finally:
        _inferring.reset(token)


def _around_backward(method: Callable[..., Any]) -> Any:
    @wraps(method)
    def backward(self: Any, *douts: Any) -> Any:
        if type(self).backward is not backward:
            return method(self, *douts)
        if "forward" in vars(self) or not hasattr(type(self).forward, "is_checked"):
            return method(self, *douts)  # forward was not checked: no shapes are known
        self.require_derivative()
        self.check_dout(*douts)
        gradients = called(method, self, "backward", douts, {})
        self.check_gradients(gradients)
        return gradients

    return backward
