"""Trees of layers: a layer may hold others, and their arrays are numbered over the whole tree."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from typing import Any, NamedTuple

from xbp.errors import SettingError
from xbp.layers.parameters import Parameters, State


class Structure(NamedTuple):
    """The layers of trees by path (``Residual1.Affine2``), and the keys of their arrays.

    Keys are numbered over the trees, in order: ``W1``, ``b1``, ``W2``.
    """

    layers: dict[str, Any]
    param_keys: dict[str, dict[str, str]]
    params: Parameters
    state_keys: dict[str, dict[str, str]]
    state: State
    # Each layer with its children.
    families: list[tuple[Any, Mapping[str, Any]]]
    roots: dict[str, Any]
    # The names of the roots with a parameter anywhere in their trees.
    trained: frozenset[str]

    def is_of(self, roots: Mapping[str, Any]) -> bool:
        """Tell whether this is still the structure of the trees of these layers."""
        if not _are_same(roots, self.roots):
            return False
        for layer, children in self.families:
            current = layer._children()
            if (current or children) and not _are_same(current, children):
                return False
        return True


def structure_of(layers: Mapping[str, Any], *, is_numbered: bool = True) -> Structure:
    """Return the structure of the trees of these layers."""
    nodes = walk(layers)
    param_keys = {path: {name: name for name in layer.param_names} for path, layer in nodes.items()}
    state_keys = {path: {name: name for name in layer.state_names} for path, layer in nodes.items()}
    if is_numbered:
        param_keys, state_keys = _numbered(param_keys), _numbered(state_keys)
    return Structure(
        nodes,
        param_keys,
        Parameters(_places(nodes, param_keys)),
        state_keys,
        State(_places(nodes, state_keys)),
        [(layer, layer._children()) for layer in nodes.values()],
        dict(layers),
        frozenset(name for name in layers if any(_keys_within(name, param_keys))),
    )


def _are_same(layers: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    # By identity: a class may compare its layers by value.
    return list(layers) == list(others) and all(map(is_, layers.values(), others.values()))


def walk(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return layers, and the layers within them, by path; a layer precedes its children.

    Raises
    ------
    SettingError
        If a layer stands at two places.
    """
    nodes: dict[str, Any] = {}
    visited: set[int] = set()
    for name, layer in layers.items():
        _visit(name, layer, nodes, visited)
    return nodes


def _visit(path: str, layer: Any, nodes: dict[str, Any], visited: set[int]) -> None:
    if id(layer) in visited:
        raise SettingError(
            "a layer stands twice in the network: make one for each place, and let none hold the "
            "layer that it is part of"
        )
    if path in nodes:
        raise SettingError(f"two layers are called {path}: name them without dots")
    visited.add(id(layer))
    nodes[path] = layer
    if children := layer._children():
        for name, child in children.items():
            _visit(f"{path}.{name}" if path else name, child, nodes, visited)


def _keys_within(name: str, keys: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for path, layer_keys in keys.items():
        if path == name or path.startswith(f"{name}."):
            yield from layer_keys.values()


def _numbered(names: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    keys = numbered(attribute for attributes in names.values() for attribute in attributes)
    return {path: {name: next(keys) for name in attributes} for path, attributes in names.items()}


def _places(
    layers: Mapping[str, Any], keys: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[Any, str]]:
    return {
        key: (layers[path], attribute)
        for path, layer_keys in keys.items()
        for attribute, key in layer_keys.items()
    }


def numbered(names: Iterable[str]) -> Iterator[str]:
    """Yield each name with its count, without duplicates: Affine1, Relu1, Affine2."""
    counts: Counter[str] = Counter()
    keys: set[str] = set()
    for name in names:
        counts[name] += 1
        # Without a separator the first W1 would have the name of the eleventh W.
        separator = "_" if name[-1:].isdigit() else ""
        while (key := f"{name}{separator}{counts[name]}") in keys:
            separator += "_"
        keys.add(key)
        yield key
