"""The base of all layers, and the tree that a layer forms with its children."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from inspect import isdatadescriptor
from itertools import count
from types import CellType, FunctionType, MethodType
from typing import Any, ClassVar, Self

from xbp.calls import called
from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.layers.checks import Call, Checked
from xbp.layers.parameters import Parameters, State
from xbp.layers.tree import Structure, numbered, structure_of
from xbp.namespace import Array, is_array, namespace_of


class Layer(Checked):
    """A node of the computational graph: ``forward`` computes, ``backward`` sends derivatives back.

    A subclass writes both, keeps in ``forward`` what ``backward`` needs, and names its trainable
    arrays in `param_names`: for ``param_names = ("W",)`` the array is ``self.W``, and ``backward``
    stores its gradient in ``self.dW``. In each call of either, the library, device, dtype and shape
    of inputs and outputs are checked.

    Layers among its attributes, also in lists, tuples and dictionaries, are its children: trained,
    saved and shown with it.

    Attributes
    ----------
    name : str
        The layer's name in messages; a network calls its layers ``Affine1``, ``Relu1`` ...
    symbol : str
        Stands for the layer in a computational graph; if empty, its name does.
    output_shape : tuple of int
        The shape of what ``forward`` last returned.
    param_names : tuple of str
        The attributes that hold trainable arrays.
    state_names : tuple of str
        The attributes that hold arrays which ``forward`` reads and changes from step to step, such
        as a running mean: they are carried through a training, and saved. Each has one shape and
        one dtype. A number, or a tuple of numbers, becomes an array beside the first input:
        integers of int32, floats of the dtype of the input. Not inherited.
    traceable : bool
        Whether a training may trace the layer once and compile the trace: forward and backward do
        the same for all arrays of a shape, with functions of their namespace, and nothing random.
        Not inherited.
    samplewise : bool
        Whether the layer treats each sample of a batch by itself, so that a gradient check may put
        many batches into one. Not inherited.
    takes_integers : bool
        Whether as the first layer it takes integers without a conversion. Not inherited.
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
        if keys := [name for name, value in vars(cls).items() if isinstance(value, Layer)]:
            raise SettingError(
                f"{cls.__name__}: the class holds a layer, {keys[0]}, which all layers of it would "
                f"share: make one in __init__, self.{keys[0]} = ..."
            )
        # What holds for a base class need not hold for this class.
        if "forward" in cls.__dict__ and "infer" not in cls.__dict__:
            cls.infer = Checked.infer  # type: ignore[method-assign]
        cls.state_names = cls.__dict__.get("state_names", ())
        cls.traceable = cls.__dict__.get("traceable", False)
        cls.samplewise = cls.__dict__.get("samplewise", False)
        if "forward" in cls.__dict__ or not isinstance(cls.takes_integers, property):
            cls.takes_integers = cls.__dict__.get("takes_integers", False)
        for flag in ("traceable", "samplewise", "takes_integers", "takes_numbers"):
            if not isinstance(value := getattr(cls, flag), bool | property):
                raise SettingError(f"{cls.__name__}: {flag} is True or False, not {value!r}")
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
        """Compute the gradients of the parameters alone, which is enough for the first layer."""
        self.backward(dout)

    # The tree of layers --------------------------------------------------------------------------

    def _children(self) -> "dict[str, Layer]":
        """Return the layers among its attributes, also in lists, tuples and dictionaries, by name.

        The name is that of the attribute, or the key in the dictionary; in a list, kind and count.
        """
        items: list[tuple[Any, Layer]] = []
        for name, value in vars(self).items():
            role = _role_of[type(value)]
            if role == "layer":
                items.append((name, value))
            elif role == "container":
                items += _layers_within(value, set())
        if not items:
            return {}
        names = _names([key for key, _ in items], [layer for _, layer in items])
        return dict(zip(names, (layer for _, layer in items), strict=True))

    @property
    def params(self) -> Parameters:
        """The trainable arrays by key; assigning to an item changes the layer.

        The keys are those of `param_names`; if the layer holds others, they are numbered over all
        of them: ``W1``, ``b1``, ``W2``.
        """
        return structure_of_layer(self).params

    @property
    def state(self) -> State:
        """The arrays that `state_names` names, by key, as in `params`."""
        return structure_of_layer(self).state

    @state.setter
    def state(self, value: Any) -> None:
        raise SettingError(
            f"{self.name}: self.state is all that state_names names: call this attribute otherwise"
        )

    @property
    def grads(self) -> Mapping[str, Array]:
        """The gradients of the trainable arrays, as the last ``backward`` stored them."""
        return stored_gradients(self.params)

    def bound_to(
        self, params: Mapping[str, Array], state: Mapping[str, Array] | None = None
    ) -> Self:
        """Return a copy of the layer, and of those within it, that computes with other arrays.

        Parameters
        ----------
        params
            By the keys of `params`; the others stay.
        state
            By the keys of `state`, copied; None takes that of this layer.
        """
        copy = self.copied({})
        copy.params.replace(params)
        if state is not None:
            copy.state.replace(state)
        return copy

    def for_inference(self) -> Self:
        """Return a copy for inference, whose calls change nothing in this layer."""
        copies: dict[int, Any] = {}
        copy = self.copied(copies)
        let_infer(copies.values())
        return copy

    def copied(self, known: dict[int, Any]) -> Self:
        """Return a copy of the layer, of the containers among its attributes, and of its state.

        ``known`` holds copies, by the identity of the original.
        """
        copy = known[id(self)] = object.__new__(type(self))
        own = copy.__dict__
        own.update(self.__dict__)
        for name, value in self.__dict__.items():
            if _role_of[type(value)]:
                own[name] = _copied(value, known)
        for name in self.state_names:
            value = getattr(self, name, None)
            if is_array(value):
                setattr(copy, name, namespace_of(value).asarray(value, copy=True))
        return copy


_FUNCTIONS = (MethodType, FunctionType, partial)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


class _Roles(dict[type, str]):
    """The role that values of a type have in a layer, cached since it is read often."""

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


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """Return a copy of a layer, a function or a container; anything else as it is.

    ``copies`` holds those made so far, by the identity of the original.
    """
    if id(value) in copies:
        return copies[id(value)]
    role = _role_of[type(value)]
    if role == "layer":
        return value.copied(copies)
    if role == "function":
        return _copied_function(value, copies)
    if role != "container":
        return value
    if isinstance(value, tuple):
        parts = [_copied(part, copies) for part in value]
        twin = copies[id(value)] = getattr(type(value), "_make", type(value))(parts)
        return twin
    twin = copies[id(value)] = copy(value)
    if isinstance(value, dict):
        for key, part in value.items():
            twin[key] = _copied(part, copies)
    elif isinstance(value, list | deque):
        for number, part in enumerate(value):
            twin[number] = _copied(part, copies)
    return twin


def _copied_function(function: Any, copies: dict[int, Any]) -> Any:
    """Return a function that refers to the copies of the layers that the original refers to."""
    if isinstance(function, MethodType):
        return MethodType(function.__func__, copies.get(id(function.__self__), function.__self__))
    if isinstance(function, partial):
        args, kwargs = _copied(function.args, copies), _copied(function.keywords, copies)
        return partial(_copied(function.func, copies), *args, **kwargs)
    cells = function.__closure__ or ()
    with suppress(ValueError):  # an empty cell
        if any(id(cell.cell_contents) in copies for cell in cells):
            closure = [CellType(copies.get(id(c.cell_contents), c.cell_contents)) for c in cells]
            twin = FunctionType(
                function.__code__,
                function.__globals__,
                function.__name__,
                function.__defaults__,
                tuple(closure),
            )
            twin.__kwdefaults__ = function.__kwdefaults__
            twin.__dict__.update(vars(function))
            return twin
    return function


def _layers_within(container: Any, visited: set[int]) -> Iterator[tuple[Any, Layer]]:
    """Yield the layers in nested containers that are not visited yet, each with its key or number.

    ``visited`` holds the identities of containers.
    """
    visited.add(id(container))
    for key, value in container.items() if isinstance(container, dict) else enumerate(container):
        role = _role_of[type(value)]
        if role == "layer":
            yield key, value
        elif role == "container" and id(value) not in visited:
            yield from _layers_within(value, visited)


def _names(keys: Sequence[Any], layers: Sequence[Layer]) -> list[str]:
    """Return each layer's name: its key, if that is text without a dot, or its kind and count."""
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
    """Let a layer store the gradients of its parameters, with no more work than it needs."""
    for kind in type(layer).__mro__:
        if "backward_params" in vars(kind):
            layer.require_derivative()
            layer.check_dout(dout)
            called(type(layer).backward_params, layer, "backward", (dout,), {})
            return
        if "backward" in vars(kind):  # a base's backward_params may not match it
            break
    layer.backward(dout)


def let_infer(parts: Iterable[Any]) -> None:
    """Let the layers among some copies infer; they forget the calls that the originals had."""
    for part in parts:
        if isinstance(part, Layer):
            part.infers, part._call = True, None
            for name in part.param_names:
                part.__dict__.pop(f"d{name}", None)


def forget_gradients(params: Parameters) -> None:
    """Delete the gradients that a ``backward`` has stored."""
    for layer, attribute in params.places.values():
        layer.__dict__.pop(f"d{attribute}", None)


def stored_gradients(params: Parameters) -> dict[str, Array]:
    """Return the gradients that a ``backward`` has stored in the layers that own the parameters.

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
    """Return the error for a missing gradient, or one that does not fit."""
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
