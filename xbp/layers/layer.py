"""The base of all layers, and the mapping through which their parameters are read and written."""

from collections.abc import Iterator, Mapping, MutableMapping
from inspect import isdatadescriptor
from typing import Any, ClassVar, Self

from xbp.errors import CallOrderError, DTypeError, ParameterNotFoundError, SettingError, ShapeError
from xbp.namespace import Array, Namespace, dtype_name, namespace_of, require_real


class Layer:
    """A node of the computational graph: ``forward`` computes, ``backward`` sends derivatives back.

    A subclass writes both, keeps in ``forward`` what ``backward`` needs, and names its trainable
    arrays in `param_names`: for ``param_names = ("W",)`` the array is ``self.W``, and ``backward``
    leaves its gradient in ``self.dW``.

    Attributes
    ----------
    name : str
        The layer's name in messages; a network calls its layers ``Affine1``, ``Relu1`` ...
    symbol : str
        What stands for the layer in a computational graph; empty: its name.
    output_shape : tuple of int or None
        The shape of what ``forward`` last returned.
    traceable : bool
        Whether a training may trace the layer once and compile what it did: that is where forward
        and backward do the same for all arrays of a shape, with functions of their namespace, and
        with nothing random. Each class says so for itself.
    samplewise : bool
        Whether the layer treats each sample of a batch by itself, so that a gradient check may put
        many batches into one. Each class says so for itself.
    takes_integers : bool
        Whether as a first layer it takes data of integers as they are.
    """

    param_names: ClassVar[tuple[str, ...]] = ()
    traceable: ClassVar[bool] = False
    samplewise: ClassVar[bool] = False
    takes_integers: ClassVar[bool] = False
    name: str = "Layer"
    symbol: ClassVar[str] = ""
    output_shape: tuple[int, ...] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__name__
        # What a base class does is not all that this class does.
        cls.traceable = cls.__dict__.get("traceable", False)
        cls.samplewise = cls.__dict__.get("samplewise", False)
        cls.takes_integers = cls.__dict__.get("takes_integers", False)
        if isinstance(cls.param_names, str):
            raise SettingError(
                f"{cls.__name__}: param_names is a tuple, ({cls.param_names!r},) with a comma"
            )
        for name in cls.param_names:
            if isdatadescriptor(getattr(cls, name, None)):
                raise SettingError(
                    f"{cls.__name__}: param_names names {name!r}, a property: it names attributes, "
                    "each of which holds an array"
                )

    def __repr__(self) -> str:
        shapes = [
            f"{name} {tuple(getattr(self, name).shape)}"
            for name in self.param_names
            if hasattr(self, name)
        ]
        return f"<{self.name}: {', '.join(shapes)}>" if shapes else f"<{self.name}>"

    @property
    def params(self) -> "Parameters":
        """The trainable arrays by name; assigning to an item changes the layer."""
        return Parameters({name: (self, name) for name in self.param_names})

    @property
    def grads(self) -> Mapping[str, Array]:
        """The gradients of the trainable arrays, as the last ``backward`` left them."""
        return {name: getattr(self, f"d{name}") for name in self.param_names}

    def backward_params(self, dout: Array) -> None:
        """Compute the gradients of the parameters alone: all that a first layer is asked for."""
        self.backward(dout)

    def forward(self, *inputs: Any) -> Any:
        """Return the output, and keep what ``backward`` needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dout: Any) -> Any:
        """Return the derivative with respect to each input; dout is that of the output."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def bound_to(self, params: Mapping[str, Array]) -> Self:
        """Return a copy of the layer that computes with other parameters."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **params)
        return copy

    def _check_dout(self, dout: Array, *kept: Array) -> Namespace:
        """Return the namespace, once dout is seen to fit the output and what ``forward`` kept."""
        if self.output_shape is None:
            raise self._call_order_error()
        xp = namespace_of(dout, *kept, where=self.name)
        if dout.shape != self.output_shape:
            raise ShapeError(
                f"{self.name}.backward: the output had shape {tuple(self.output_shape)}, "
                f"dout has {tuple(dout.shape)}"
            )
        require_real(dout, f"{self.name}.backward")
        return xp

    def _call_order_error(self) -> CallOrderError:
        return CallOrderError(
            f"{self.name}: backward was called before forward: call forward first, it keeps what "
            "backward needs"
        )


def returned(value: Any, layer: Layer, method: str) -> Any:
    """Return what a method of a layer returned, or raise `DTypeError` if that is nothing."""
    if value is None:
        raise DTypeError(
            f"{layer.name}.{method} returned None: it ends with return, and what it has computed"
        )
    return value


class Parameters(MutableMapping[str, Array]):
    """Trainable arrays by key, written through to the layers that own them.

    ``params[key] -= learning_rate * grads[key]`` so trains on every library, on those whose arrays
    cannot be changed too.
    """

    def __init__(self, places: Mapping[str, tuple[Layer, str]]) -> None:
        self._places = dict(places)

    def __getitem__(self, key: str) -> Array:
        try:
            layer, attribute = self._places[key]
        except KeyError:
            raise ParameterNotFoundError(
                f"there is no parameter {key!r}: choose one of {', '.join(self) or 'none'}"
            ) from None
        return getattr(layer, attribute)

    def __setitem__(self, key: str, value: Array) -> None:
        self._check(key, value)
        layer, attribute = self._places[key]
        setattr(layer, attribute, value)

    def update(self, *others: Any, **more: Array) -> None:
        """Assign to several, to all of them or, if one does not fit, to none."""
        values: dict[str, Array] = dict(*others, **more)
        for key, value in values.items():
            self._check(key, value)
        for key, value in values.items():
            layer, attribute = self._places[key]
            setattr(layer, attribute, value)

    def _check(self, key: str, value: Array) -> None:
        current = self[key]
        if value is current:
            return
        where = f"params[{key!r}]"
        namespace_of(current, value, where=where)
        if value.shape != current.shape:
            raise ShapeError(f"{where} has shape {tuple(current.shape)}, not {tuple(value.shape)}")
        if value.dtype != current.dtype:
            raise DTypeError(
                f"{where} has dtype {dtype_name(current.dtype)}, not {dtype_name(value.dtype)}"
            )

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"params[{key!r}] belongs to a layer and cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{key}: {tuple(self[key].shape)}" for key in self)
        return f"<parameters {shapes}>"
