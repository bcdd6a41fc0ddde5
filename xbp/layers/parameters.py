"""The mapping through which the parameters and the state of layers are read and written."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from xbp.errors import DTypeError, ParameterNotFoundError, SettingError, ShapeError
from xbp.namespace import Array, dtype_name, namespace_of


class Parameters(MutableMapping[str, Array]):
    """Arrays by key, written through to the layers that own them.

    So ``params[key] -= learning_rate * grads[key]`` trains on every library, also where arrays
    cannot be changed in place.
    """

    _attribute, _noun, _nouns = "params", "parameter", "parameters"
    _names = "param_names"

    def __init__(self, places: Mapping[str, tuple[Any, str]]) -> None:
        self.places = dict(places)

    def __getitem__(self, key: str) -> Array:
        value = self.held(key)
        layer, attribute = self.places[key]
        if not hasattr(value, "shape") and self._names == "state_names":
            raise SettingError(
                f"{layer.name}: self.{attribute} is {value!r}, and no array: assign one to "
                f"network.state[{key!r}]"
            )
        return value

    def held(self, key: str) -> Any:
        """Return what a layer holds at a key, which may be numbers that become an array later."""
        try:
            layer, attribute = self.places[key]
        except KeyError:
            raise ParameterNotFoundError(
                f"there is no {self._noun} {key!r}: choose one of {', '.join(self) or 'none'}"
            ) from None
        try:
            return getattr(layer, attribute)
        except AttributeError:
            raise SettingError(
                f"{layer.name}: there is no attribute {attribute!r}, which {self._names} names: "
                "set it in __init__"
            ) from None

    def __setitem__(self, key: str, value: Array) -> None:
        self._check(key, value)
        layer, attribute = self.places[key]
        setattr(layer, attribute, value)

    def update(self, *others: Any, **more: Array) -> None:
        """Assign several arrays, or none of them if one does not fit."""
        values: dict[str, Array] = dict(*others, **more)
        for key, value in values.items():
            self._check(key, value)
        self.replace(values)

    def replace(self, values: Mapping[str, Array]) -> None:
        """Assign several arrays, whatever their dtypes and libraries."""
        for key, value in values.items():
            layer, attribute = self.places[key]
            setattr(layer, attribute, value)

    def _check(self, key: str, value: Array) -> None:
        current = self[key]
        if value is current:
            return
        where = f"{self._attribute}[{key!r}]"
        namespace_of(current, value, where=where)
        if value.shape != current.shape:
            raise ShapeError(f"{where} has shape {tuple(current.shape)}, not {tuple(value.shape)}")
        if value.dtype != current.dtype:
            raise DTypeError(
                f"{where} has dtype {dtype_name(current.dtype)}, not {dtype_name(value.dtype)}"
            )

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"{self._attribute}[{key!r}] belongs to a layer and cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{key}: {tuple(self[key].shape)}" for key in self)
        return f"<{self._nouns} {shapes}>"


class State(Parameters):
    """Arrays by key that layers carry from step to step, and that are not trained."""

    _attribute, _noun, _nouns = "state", "array of the state", "state"
    _names = "state_names"

    # Arrays are copied, since a layer may change its state in place.

    def __setitem__(self, key: str, value: Array) -> None:
        self._check(key, value)
        self.replace({key: value})

    def replace(self, values: Mapping[str, Array]) -> None:
        """Assign copies of several arrays, whatever their dtypes and libraries."""
        copies = {key: namespace_of(x).asarray(x, copy=True) for key, x in values.items()}
        super().replace(copies)
