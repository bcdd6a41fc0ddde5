"""What a network is made of: layers that are checked, named, and stacked."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

from xbp.backend import Backend
from xbp.errors import DTypeError, SettingError, XbpError
from xbp.initialization import initial_parameters
from xbp.layers import Affine, Layer, LossLayer, Parameters
from xbp.settings import without_base


def affine_stack(
    sizes: Sequence[int],
    activation: type[Layer],
    weight_init_std: float | str,
    backend: Backend,
    dtype: str | None,
    seed: int | None,
) -> list[Layer]:
    """Return affine layers with an activation between each two: see `Network.fully_connected`."""
    dtype = dtype or backend.default_float
    if dtype not in ("float32", "float64"):
        raise DTypeError(f"a network's dtype is 'float32' or 'float64', not {dtype!r}")
    layers: list[Layer] = []
    try:
        parameters = initial_parameters(sizes, weight_init_std, seed)
    except (MemoryError, ValueError) as error:
        if isinstance(error, XbpError):
            raise
        raise SettingError(
            f"a network of sizes {list(sizes)} is larger than the memory ({error})"
        ) from error
    for W, b in parameters:
        layers += [Affine(backend.asarray(W, dtype), backend.asarray(b, dtype)), activation()]
    return layers[:-1]


def check_kind(role: str, kind: Any, base: type[Layer], example: str) -> None:
    """Raise `SettingError` unless a class of layers is one, and made without arguments."""
    if not (isinstance(kind, type) and issubclass(kind, base)) or kind is base:
        raise SettingError(f"{role} is a class such as {example}, not {kind!r}")
    try:
        signature(kind).bind()
    except TypeError as error:
        raise SettingError(
            f"{role} {kind.__name__} cannot be made without arguments: build the layers, and give "
            "them to Network([...], loss)"
        ) from error


def checked_layers(layers: Any, loss: Any) -> list[Layer]:
    """Return layers as a list, or raise `SettingError` if they and the loss make no network."""
    if isinstance(layers, Mapping):
        raise SettingError(
            "layers are given as a list, Network([...], loss), not as a dictionary: of another "
            "network's take list(network.layers.values())"
        )
    if isinstance(layers, Layer) or not isinstance(layers, Iterable):
        raise SettingError(
            f"layers are given as a list, Network([...], loss), also a single one, not {layers!r}"
        )
    checked = list(layers)
    for number, layer in enumerate(checked, start=1):
        if isinstance(layer, LossLayer):
            raise SettingError(
                f"layer {number} is {layer!r}, a loss: give it as the second argument"
            )
        if not isinstance(layer, Layer):
            raise SettingError(
                f"layer {number} is one of xbp.layers, or of your own, not "
                f"{without_base(layer, Layer)}"
            )
    if len({id(layer) for layer in checked}) < len(checked):
        raise SettingError("a layer stands twice in the network: make one for each place")
    if not isinstance(loss, LossLayer):
        raise SettingError(
            f"the loss is an xbp.layers.LossLayer, not {without_base(loss, LossLayer)}"
        )
    return checked


class Structure(NamedTuple):
    """What the layers of a network are called, and their parameters."""

    layers: list[tuple[str, Layer]]
    param_keys: dict[str, dict[str, str]]
    params: Parameters


def named_structure(layers: Mapping[str, Layer]) -> Structure:
    """Call layers by their names, number their parameters, and return the structure."""
    for name, layer in layers.items():
        layer.name = name
    keys = numbered(attr for layer in layers.values() for attr in layer.param_names)
    param_keys = {
        name: {attr: next(keys) for attr in layer.param_names} for name, layer in layers.items()
    }
    places = {
        key: (layers[name], attr) for name, keys in param_keys.items() for attr, key in keys.items()
    }
    return Structure(list(layers.items()), param_keys, Parameters(places))


def numbered(names: Iterable[str]) -> Iterator[str]:
    """Yield each name with its count, each once: Affine1, Relu1, Affine2."""
    counts: Counter[str] = Counter()
    given: set[str] = set()
    for name in names:
        counts[name] += 1
        # The first W1 is not the eleventh W.
        between = "_" if name[-1:].isdigit() else ""
        while (numbered := f"{name}{between}{counts[name]}") in given:
            between += "_"
        given.add(numbered)
        yield numbered
