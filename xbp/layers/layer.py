"""The base of all layers: what is checked of them, and the tree that they are."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import isdatadescriptor, isfunction
from typing import Any, ClassVar, Self

from xbp.errors import CallOrderError, DTypeError, SettingError, ShapeError
from xbp.layers.parameters import Parameters, State
from xbp.layers.tree import Structure, numbered, structure_of, walk
from xbp.namespace import (
    Array,
    Place,
    dtype_name,
    is_number,
    namespace_of,
    place_of,
    require_floating,
    require_place,
    require_real,
)


class Layer:
    """A node of the computational graph: ``forward`` computes, ``backward`` sends derivatives back.

    A subclass writes both, keeps in ``forward`` what ``backward`` needs, and names its trainable
    arrays in `param_names`: for ``param_names = ("W",)`` the array is ``self.W``, and ``backward``
    leaves its gradient in ``self.dW``. Whoever calls them, what goes in and what comes out is
    checked: its library and device, its dtype and its shape.

    Layers among its attributes, also in lists, tuples and dictionaries, are its children: trained,
    saved and shown with it.

    Attributes
    ----------
    name : str
        The layer's name in messages; a network calls its layers ``Affine1``, ``Relu1`` ...
    symbol : str
        What stands for the layer in a computational graph; empty: its name.
    output_shape : tuple of int or None
        The shape of what ``forward`` last returned.
    param_names : tuple of str
        The attributes that hold trainable arrays.
    state_names : tuple of str
        The attributes that hold arrays which ``forward`` reads and changes from step to step, such
        as a running mean: they are carried through a training, and saved. Each has one shape and
        one dtype. What is given as a number, or as a tuple of numbers, becomes an array beside the
        first input: of int32, or of its dtype. Each class says so for itself.
    traceable : bool
        Whether a training may trace the layer once and compile what it did: that is where forward
        and backward do the same for all arrays of a shape, with functions of their namespace, and
        with nothing random. Each class says so for itself.
    samplewise : bool
        Whether the layer treats each sample of a batch by itself, so that a gradient check may put
        many batches into one. Each class says so for itself.
    takes_integers : bool
        Whether as a first layer it takes data of integers as they are.
    takes_numbers : bool
        Whether it takes Python numbers and arrays of integers, as the nodes of graphs do.
    """

    param_names: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ()
    traceable: ClassVar[bool] = False
    samplewise: ClassVar[bool] = False
    takes_integers: ClassVar[bool] = False
    takes_numbers: ClassVar[bool] = False
    name: str = "Layer"
    symbol: ClassVar[str] = ""
    output_shape: tuple[int, ...] | None = None

    # Of the last forward.
    _input_shapes: tuple[tuple[int, ...], ...] = ()
    _output_place: Place | None = None
    infers: bool = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__name__
        # What a base class does is not all that this class does.
        cls.state_names = cls.__dict__.get("state_names", ())
        cls.traceable = cls.__dict__.get("traceable", False)
        cls.samplewise = cls.__dict__.get("samplewise", False)
        cls.takes_integers = cls.__dict__.get("takes_integers", False)
        for kind in ("param_names", "state_names"):
            if isinstance(names := getattr(cls, kind), str):
                raise SettingError(f"{cls.__name__}: {kind} is a tuple, ({names!r},) with a comma")
            for name in names:
                if isdatadescriptor(getattr(cls, name, None)):
                    raise SettingError(
                        f"{cls.__name__}: {kind} names {name!r}, a property: it names attributes, "
                        "each of which holds an array"
                    )
        for name, checked in _CHECKED.items():
            if isfunction(method := cls.__dict__.get(name)):
                setattr(cls, name, checked(method))

    def __getstate__(self) -> dict[str, Any]:
        # No library's namespace can be copied or pickled.
        return {name: value for name, value in vars(self).items() if name != "_output_place"}

    def __repr__(self) -> str:
        shapes = [
            f"{name} {tuple(getattr(self, name).shape)}"
            for name in self.param_names
            if hasattr(self, name)
        ]
        return f"<{self.name}: {', '.join(shapes)}>" if shapes else f"<{self.name}>"

    # What a subclass writes ----------------------------------------------------------------------

    def forward(self, *inputs: Any) -> Any:
        """Return the output, and keep what ``backward`` needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dout: Any) -> Any:
        """Return the derivative with respect to each input; dout is that of the output."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def backward_params(self, dout: Array) -> None:
        """Compute the gradients of the parameters alone: all that a first layer is asked for."""
        self.backward(dout)

    def infer(self, *inputs: Any) -> Any:
        """Return the output where nothing is learned from it: by default that of ``forward``."""
        return self.forward(*inputs)

    # What is checked of it -----------------------------------------------------------------------

    def _check_inputs(self, *inputs: Any) -> None:
        """Raise an error unless ``forward`` can take these.

        Raises
        ------
        DTypeError, MixedBackendError
        """
        operands = [x for x in inputs if not (self.takes_numbers and is_number(x))]
        if operands:
            params = (getattr(self, name) for name in self.param_names)
            namespace_of(*operands, *params, where=self.name)
            if self.takes_integers:
                require_real(operands[0], self.name)
            elif not self.takes_numbers:
                require_floating(operands[0], self.name)

    def _check_output(self, output: Any) -> None:
        """Raise `DTypeError` unless ``forward`` has returned something."""
        _require_value(output, self, "forward")

    def _check_dout(self, dout: Any) -> None:
        """Raise an error unless ``backward`` can take this.

        Raises
        ------
        CallOrderError
            Before ``forward``.
        ShapeError, DTypeError, MixedBackendError
            If it does not fit the output.
        """
        self._require_forward()
        if self.takes_numbers and is_number(dout):
            return
        if self._output_place:  # None: that of numbers
            require_place(dout, self._output_place, f"{self.name}.backward")
        if dout.shape != self.output_shape:
            raise ShapeError(
                f"{self.name}.backward: the output had shape {tuple(self.output_shape or ())}, "
                f"dout has {tuple(dout.shape)}"
            )
        require_real(dout, f"{self.name}.backward")

    def _require_forward(self) -> None:
        if self.output_shape is None:
            raise CallOrderError(
                f"{self.name}: backward was called before forward: call forward first, it keeps "
                "what backward needs"
            )

    def _check_gradients(self, gradients: Any) -> None:
        """Raise an error unless ``backward`` has returned derivatives that fit the inputs.

        Raises
        ------
        ShapeError, DTypeError
        """
        if not self.takes_integers:
            _require_value(gradients, self, "backward")
        several = gradients if isinstance(gradients, tuple) else (gradients,)
        for gradient, shape in zip(several, self._input_shapes, strict=False):
            found = getattr(gradient, "shape", shape)
            if found != shape:
                raise ShapeError(
                    f"{self.name}.backward: the input had shape {tuple(shape)}, the derivative "
                    f"with respect to it has {tuple(found)}"
                )

    def _run_forward(self, forward: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        self._check_inputs(*inputs)
        before = self._state_beside(inputs) if self.state_names else {}
        if self.infers and type(self).infer is not Layer.infer:
            self.infers = False  # so that it may call forward
            output = self.infer(*inputs)
            self.infers = True
        else:
            output = forward(self, *inputs)
        self._check_output(output)
        for name, (shape, dtype) in before.items():
            self._check_state(name, shape, dtype)
        self._input_shapes = tuple(getattr(x, "shape", ()) for x in inputs)
        self.output_shape = getattr(output, "shape", ())
        self._output_place = place_of(output) if hasattr(output, "shape") else None
        return output

    def _state_beside(self, inputs: tuple[Any, ...]) -> dict[str, tuple[Any, Any]]:
        """Let the state be arrays, and return their shapes and dtypes."""
        array = next((x for x in inputs if hasattr(x, "dtype")), None)
        if array is not None:
            place = place_of(array)
            self.place_state(place.namespace, place.device, array.dtype)
        state = {name: getattr(self, name) for name in self.state_names}
        return {name: (value.shape, value.dtype) for name, value in state.items()}

    def place_state(self, xp: Any, device: Any, dtype: Any) -> None:
        """Make arrays of what the state was given as: numbers, or tuples of numbers."""
        for name in self.state_names:
            value = getattr(self, name)
            if not hasattr(value, "shape"):
                array = xp.asarray(value, device=device)
                kind = dtype if xp.isdtype(array.dtype, "real floating") else xp.int32
                setattr(self, name, xp.astype(array, kind))

    def _check_state(self, name: str, shape: Any, dtype: Any) -> None:
        value = getattr(self, name)
        if getattr(value, "shape", None) != shape:
            found = tuple(value.shape) if hasattr(value, "shape") else repr(value)
            raise ShapeError(
                f"{self.name}: forward changed self.{name} from an array of shape {tuple(shape)} "
                f"to {found}: what state_names names keeps its shape"
            )
        if value.dtype != dtype:
            raise DTypeError(
                f"{self.name}: forward changed self.{name} from {dtype_name(dtype)} to "
                f"{dtype_name(value.dtype)}: what state_names names keeps its dtype"
            )

    # The tree that it is -------------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of what ``forward`` was last given first."""
        return self._input_shapes[0]

    @property
    def children(self) -> "dict[str, Layer]":
        """The layers among its attributes, also in lists, tuples and dictionaries, by name.

        One that is an attribute, or stands in a dictionary, is called as it is there; one in a list
        by kind and count.
        """
        named: dict[str, Layer] = {}
        others: list[Layer] = []
        for name, value in vars(self).items():
            if isinstance(value, Layer):
                named[name] = value
            elif type(value) in _CONTAINERS:
                for key, layer in _layers_within(value, set()):
                    if isinstance(key, str) and key not in named:
                        named[key] = layer
                    else:
                        others.append(layer)
        if others:
            names = numbered(type(layer).__name__ for layer in others)
            named |= {next(name for name in names if name not in named): x for x in others}
        return named

    @property
    def params(self) -> Parameters:
        """The trainable arrays by key; assigning to an item changes the layer.

        The keys are those of `param_names`; of a layer that holds others they are numbered over all
        of these: ``W1``, ``b1``, ``W2``.
        """
        return structure_of_layer(self).params

    @property
    def state(self) -> State:
        """What `state_names` names, likewise."""
        return structure_of_layer(self).state

    @state.setter
    def state(self, value: Any) -> None:
        raise SettingError(
            f"{self.name}: self.state is all that state_names names: call this attribute otherwise"
        )

    @property
    def grads(self) -> Mapping[str, Array]:
        """The gradients of the trainable arrays, as the last ``backward`` left them."""
        return gradients_left(self.params)

    def bound_to(
        self, params: Mapping[str, Array], state: Mapping[str, Array] | None = None
    ) -> Self:
        """Return a copy of the layer, and of those within it, that computes with other arrays.

        Parameters
        ----------
        params
            By the keys of `params`; those that are not given stay.
        state
            By the keys of `state`, to be copied; None takes that of this layer.
        """
        copy = self.copied({})
        copy.params.replace(params)
        if state is not None:
            copy.state.replace(state)
        return copy

    def for_inference(self) -> Self:
        """Return a copy that infers: what it does leaves nothing in this layer."""
        copy = self.copied({})
        for layer in walk({"": copy}).values():
            layer.infers = True
        return copy

    def copied(self, known: dict[int, Any]) -> Self:
        """Return a copy of the layer, of the containers among its attributes, and of its state."""
        copy = known[id(self)] = object.__new__(type(self))
        for name, value in vars(self).items():
            copy.__dict__[name] = _copied(value, known)
        for name in self.state_names:
            value = getattr(self, name)
            if hasattr(value, "__dlpack__"):
                setattr(copy, name, namespace_of(value).asarray(value, copy=True))
        return copy


_CONTAINERS = (dict, list, tuple)


def _copied(value: Any, known: dict[int, Any]) -> Any:
    """Return a copy of a layer, or of a container; anything else as it is."""
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, Layer):
        return value.copied(known)
    if type(value) is tuple:
        copy = known[id(value)] = tuple(_copied(part, known) for part in value)
        return copy
    if type(value) not in (dict, list, set):
        return value
    copy = known[id(value)] = type(value)()
    if type(value) is dict:
        copy.update({key: _copied(part, known) for key, part in value.items()})
    elif type(value) is list:
        copy += [_copied(part, known) for part in value]
    else:
        copy |= value
    return copy


def _layers_within(container: Any, known: set[int]) -> Iterator[tuple[Any, Layer]]:
    """Yield the layers in nested containers, each with its key or number; known were looked at."""
    known.add(id(container))
    for key, value in container.items() if type(container) is dict else enumerate(container):
        if isinstance(value, Layer):
            yield key, value
        elif type(value) in _CONTAINERS and id(value) not in known:
            yield from _layers_within(value, known)


def structure_of_layer(layer: Layer) -> Structure:
    """Return the structure of one layer, whose keys are numbered if it holds others."""
    return structure_of({"": layer}, is_numbered=bool(layer.children))


def run_backward_params(layer: Layer, dout: Array) -> None:
    """Let a layer leave the gradients of its parameters, of which no more is asked."""
    for kind in type(layer).__mro__:
        if "backward_params" in vars(kind):
            return layer.backward_params(dout)
        if "backward" in vars(kind):  # what it leaves is known to this class alone
            break
    layer.backward(dout)
    return None


def gradients_left(params: Parameters) -> dict[str, Array]:
    """Return the gradients that a ``backward`` has left in the layers that own the parameters.

    Raises
    ------
    SettingError, ShapeError, DTypeError
        If there is none, or it does not fit.
    """
    return {key: _gradient_left(*place) for key, place in params.places.items()}


def _gradient_left(layer: Layer, attribute: str) -> Array:
    gradient = getattr(layer, f"d{attribute}", None)
    if gradient is None:
        raise SettingError(f"{layer.name}: backward left no gradient in self.d{attribute}")
    if not hasattr(gradient, "shape"):
        raise DTypeError(
            f"{layer.name}: backward left no array in self.d{attribute}, but "
            f"{type(gradient).__name__}"
        )
    shape = getattr(layer, attribute).shape
    if gradient.shape != shape:
        raise ShapeError(
            f"{layer.name}: {attribute} has shape {tuple(shape)}, but backward left a "
            f"d{attribute} of shape {tuple(gradient.shape)}: sum it over the batch"
        )
    return gradient


def _require_value(value: Any, layer: Layer, method: str) -> None:
    if value is None:
        raise DTypeError(
            f"{layer.name}.{method} returned None: it ends with return, and what it has computed"
        )


# Around a method: the checks, once, by that which is called from outside and not by super().


def _around_forward(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def forward(self: Layer, *inputs: Any) -> Any:
        if type(self).forward is not forward:
            return method(self, *inputs)
        return self._run_forward(method, inputs)

    return forward


def _around_backward(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def backward(self: Layer, *douts: Any) -> Any:
        if type(self).backward is not backward:
            return method(self, *douts)
        self._check_dout(*douts)
        gradients = method(self, *douts)
        self._check_gradients(gradients)
        return gradients

    return backward


def _around_backward_params(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def backward_params(self: Layer, dout: Any) -> None:
        if type(self).backward_params is backward_params:
            self._check_dout(dout)
        method(self, dout)

    return backward_params


_CHECKED = {
    "forward": _around_forward,
    "backward": _around_backward,
    "backward_params": _around_backward_params,
}
