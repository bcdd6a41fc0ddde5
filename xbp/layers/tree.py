"""A layer is a tree: it may hold other layers, whose arrays are named and numbered all over it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from typing import Any, NamedTuple, Protocol

from xbp.errors import SettingError
from xbp.layers.parameters import Parameters, State


class Node(Protocol):
    """What is asked of a layer to be part of a tree."""

    param_names: Any
    state_names: Any

    def _children(self) -> Mapping[str, Any]: ...


class Structure(NamedTuple):
    """The layers of a tree by the way to each, ``Residual1.Affine2``, and the keys of arrays.

    Keys are numbered over the tree, in order: ``W1``, ``b1``, ``W2``.
    """

    layers: dict[str, Any]
    param_keys: dict[str, dict[str, str]]
    params: Parameters
    state_keys: dict[str, dict[str, str]]
    state: State
    # Each layer with its children.
    families: list[tuple[Any, Mapping[str, Any]]]
    roots: dict[str, Any]
    # The roots that hold a parameter, or whose children do.
    trained: frozenset[str]

    def is_of(self, roots: Mapping[str, Any]) -> bool:
        """Tell whether the trees of these layers are still what they were."""
        if not _are_same(roots, self.roots):
            return False
        for layer, children in self.families:
            now = layer._children()
            if (now or children) and not _are_same(now, children):
                return False
        return True


def structure_of(layers: Mapping[str, Any], *, is_numbered: bool = True) -> Structure:
    """Return the structure of the trees of layers that have these names."""
    found = walk(layers)
    param_keys = {path: {name: name for name in layer.param_names} for path, layer in found.items()}
    state_keys = {path: {name: name for name in layer.state_names} for path, layer in found.items()}
    if is_numbered:
        param_keys, state_keys = _numbered(param_keys), _numbered(state_keys)
    return Structure(
        found,
        param_keys,
        Parameters(_places(found, param_keys)),
        state_keys,
        State(_places(found, state_keys)),
        [(layer, layer._children()) for layer in found.values()],
        dict(layers),
        frozenset(name for name in layers if any(_keys_within(name, param_keys))),
    )


def _are_same(layers: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    # By identity: a class may compare its layers by value.
    return list(layers) == list(others) and all(map(is_, layers.values(), others.values()))


def walk(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return layers and all that are within them by the way to each; a layer before its parts.

    Raises
    ------
    SettingError
        If a layer stands at two places.
    """
    found: dict[str, Any] = {}
    known: set[int] = set()
    for name, layer in layers.items():
        _visit(name, layer, found, known)
    return found


def _visit(path: str, layer: Any, found: dict[str, Any], known: set[int]) -> None:
    if id(layer) in known:
        raise SettingError(
            "a layer stands twice in the network: make one for each place, and let none hold the "
            "layer that it is part of"
        )
    if path in found:
        raise SettingError(f"two layers are called {path}: name them without dots")
    known.add(id(layer))
    found[path] = layer
    if children := layer._children():
        for name, child in children.items():
            _visit(f"{path}.{name}" if path else name, child, found, known)


def _keys_within(name: str, keys: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for path, owned in keys.items():
        if path == name or path.startswith(f"{name}."):
            yield from owned.values()


def _numbered(names: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    keys = numbered(attribute for attributes in names.values() for attribute in attributes)
    return {path: {name: next(keys) for name in attributes} for path, attributes in names.items()}


def _places(
    layers: Mapping[str, Any], keys: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[Any, str]]:
    return {
        key: (layers[path], attribute)
        for path, owned in keys.items()
        for attribute, key in owned.items()
    }


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
