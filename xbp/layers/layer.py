"""The base of all layers: what is checked of them, and the tree that they are."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from inspect import isdatadescriptor
from itertools import count
from types import CellType, FunctionType, MethodType
from typing import Any, ClassVar, Self

from xbp.calls import begin_call, end_call
from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.layers.checks import Call, Checked
from xbp.layers.parameters import Parameters, State
from xbp.layers.tree import Structure, numbered, structure_of
from xbp.namespace import Array, is_array, namespace_of


class Layer(Checked):
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
    output_shape : tuple of int
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

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__name__
        if held := [name for name, value in vars(cls).items() if isinstance(value, Layer)]:
            raise SettingError(
                f"{cls.__name__}: the class holds a layer, {held[0]}, which all layers of it would "
                f"share: make one in __init__, self.{held[0]} = ..."
            )
        # What a base class does is not all that this class does.
        if "forward" in cls.__dict__ and "infer" not in cls.__dict__:
            cls.infer = Checked.infer  # type: ignore[method-assign]
        cls.state_names = cls.__dict__.get("state_names", ())
        cls.traceable = cls.__dict__.get("traceable", False)
        cls.samplewise = cls.__dict__.get("samplewise", False)
        cls.takes_integers = cls.__dict__.get("takes_integers", False)
        if both := {*cls.param_names} & {*cls.state_names}:
            raise SettingError(
                f"{cls.__name__}: {both.pop()!r} is named in param_names and in state_names: it is "
                "either trained or carried"
            )
        for kind in ("param_names", "state_names"):
            if isinstance(names := getattr(cls, kind), str):
                raise SettingError(f"{cls.__name__}: {kind} is a tuple, ({names!r},) with a comma")
            for name in names:
                if isdatadescriptor(getattr(cls, name, None)):
                    raise SettingError(
                        f"{cls.__name__}: {kind} names {name!r}, a property: it names attributes, "
                        "each of which holds an array"
                    )

    def __repr__(self) -> str:
        shapes = [
            f"{name} {tuple(getattr(self, name).shape)}"
            for name in self.param_names
            if hasattr(self, name)
        ]
        return f"<{self.name}: {', '.join(shapes)}>" if shapes else f"<{self.name}>"

    def backward_params(self, dout: Array) -> None:
        """Compute the gradients of the parameters alone: all that a first layer is asked for."""
        self.backward(dout)

    # The tree that it is -------------------------------------------------------------------------

    def _children(self) -> "dict[str, Layer]":
        """Return the layers among its attributes, also in lists, tuples and dictionaries, by name.

        One that is an attribute, or stands in a dictionary, is called as it is there; one in a list
        by kind and count.
        """
        found: list[tuple[Any, Layer]] = []
        for name, value in vars(self).items():
            role = _role_of[type(value)]
            if role == "layer":
                found.append((name, value))
            elif role == "container":
                found += _layers_within(value, set())
        if not found:
            return {}
        names = _names([key for key, _ in found], [layer for _, layer in found])
        return dict(zip(names, (layer for _, layer in found), strict=True))

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
        copies: dict[int, Any] = {}
        copy = self.copied(copies)
        for part in copies.values():
            if isinstance(part, Layer):
                part.infers = True
        return copy

    def copied(self, known: dict[int, Any]) -> Self:
        """Return a copy of the layer, of the containers among its attributes, and of its state."""
        made = known[id(self)] = object.__new__(type(self))
        own = made.__dict__
        own.update(self.__dict__)
        for name, value in self.__dict__.items():
            if _role_of[type(value)]:
                own[name] = _copied(value, known)
        for name in self.state_names:
            value = getattr(self, name)
            if is_array(value):
                setattr(made, name, namespace_of(value).asarray(value, copy=True))
        return made


_FUNCTIONS = (MethodType, FunctionType, partial)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


class _Roles(dict[type, str]):
    """What a value of a type is to a layer that holds it: an answer is kept, it is asked often."""

    def __missing__(self, kind: type) -> str:
        role = ""
        if issubclass(kind, Layer):
            role = "layer"
        elif issubclass(kind, _FUNCTIONS):
            role = "function"
        elif issubclass(kind, _CONTAINERS) and kind is not Call:
            role = "container"
        self[kind] = role
        return role


_role_of = _Roles()


def _copied(value: Any, known: dict[int, Any]) -> Any:
    """Return a copy of a layer, or of a container; anything else as it is.

    Known are the copies by the identity of each.
    """
    if id(value) in known:
        return known[id(value)]
    role = _role_of[type(value)]
    if role == "layer":
        return value.copied(known)
    if role == "function":
        return _copied_function(value, known)
    if role != "container":
        return value
    if isinstance(value, tuple):
        parts = [_copied(part, known) for part in value]
        made = known[id(value)] = getattr(type(value), "_make", type(value))(parts)
        return made
    made = known[id(value)] = copy(value)
    if isinstance(value, dict):
        for key, part in value.items():
            made[key] = _copied(part, known)
    elif isinstance(value, list | deque):
        for number, part in enumerate(value):
            made[number] = _copied(part, known)
    return made


def _copied_function(function: Any, known: dict[int, Any]) -> Any:
    """Return a function that knows the copies of the layers that it knows."""
    if isinstance(function, MethodType):
        return MethodType(function.__func__, known.get(id(function.__self__), function.__self__))
    if isinstance(function, partial):
        args, named = _copied(function.args, known), _copied(function.keywords, known)
        return partial(_copied(function.func, known), *args, **named)
    cells = function.__closure__ or ()
    with suppress(ValueError):  # a cell that is empty
        if any(id(cell.cell_contents) in known for cell in cells):
            closure = [CellType(known.get(id(c.cell_contents), c.cell_contents)) for c in cells]
            made = FunctionType(
                function.__code__,
                function.__globals__,
                function.__name__,
                function.__defaults__,
                tuple(closure),
            )
            made.__kwdefaults__ = function.__kwdefaults__
            made.__dict__.update(vars(function))
            return made
    return function


def _layers_within(container: Any, known: set[int]) -> Iterator[tuple[Any, Layer]]:
    """Yield the layers in nested containers, each with its key or number; known were looked at."""
    known.add(id(container))
    for key, value in container.items() if isinstance(container, dict) else enumerate(container):
        role = _role_of[type(value)]
        if role == "layer":
            yield key, value
        elif role == "container" and id(value) not in known:
            yield from _layers_within(value, known)


def _names(keys: Sequence[Any], layers: Sequence[Layer]) -> list[str]:
    """Return a name for each: its key, if that is text without a dot, or its kind and count."""
    own: dict[str, int] = {}
    for number, key in enumerate(keys):
        if isinstance(key, str) and "." not in key:
            own.setdefault(key, number)
    names, taken = {number: key for key, number in own.items()}, {*own}
    for number, layer in enumerate(layers):
        if number not in names:
            kind = type(layer).__name__
            candidates = numbered(kind for _ in count())
            names[number] = next(name for name in candidates if name not in taken)
            taken.add(names[number])
    return [names[number] for number in range(len(layers))]


def structure_of_layer(layer: Layer) -> Structure:
    """Return the structure of one layer, whose keys are numbered if it holds others."""
    return structure_of({"": layer}, is_numbered=bool(layer._children()))


def run_backward_params(layer: Layer, dout: Array) -> None:
    """Let a layer leave the gradients of its parameters, of which no more is asked."""
    for kind in type(layer).__mro__:
        if "backward_params" in vars(kind):
            layer.check_dout(dout)
            call = begin_call(layer, "backward", (dout,))
            layer.backward_params(dout)
            end_call(call, None)
            return
        if "backward" in vars(kind):  # what it leaves is known to this class alone
            break
    layer.backward(dout)


def forget_gradients(params: Parameters) -> None:
    """Take away the gradients that a ``backward`` has left."""
    for layer, attribute in params.places.values():
        layer.__dict__.pop(f"d{attribute}", None)


def gradients_left(params: Parameters) -> dict[str, Array]:
    """Return the gradients that a ``backward`` has left in the layers that own the parameters.

    Raises
    ------
    SettingError, ShapeError, DTypeError
        If there is none, or it does not fit.
    """
    gradients = {}
    for key, (layer, attribute) in params.places.items():
        gradient = getattr(layer, f"d{attribute}", None)
        if getattr(gradient, "shape", None) != getattr(layer, attribute).shape:
            raise _no_gradient(layer, attribute, gradient)
        gradients[key] = gradient
    return gradients


def _no_gradient(layer: Layer, attribute: str, gradient: Any) -> Exception:
    """Return the error that says why what was left is no gradient."""
    if gradient is None:
        return SettingError(
            f"{layer.name}: backward left no gradient in self.d{attribute}: leave it there, zeros "
            "if the layer was not run"
        )
    if not hasattr(gradient, "shape"):
        return DTypeError(
            f"{layer.name}: backward left no array in self.d{attribute}, but "
            f"{type(gradient).__name__}"
        )
    return ShapeError(
        f"{layer.name}: {attribute} has shape {tuple(getattr(layer, attribute).shape)}, but "
        f"backward left a d{attribute} of shape {tuple(gradient.shape)}: sum it over the batch"
    )
