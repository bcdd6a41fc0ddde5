"""Nested dictionaries, lists and tuples, and the leaves in them."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias

Rebuild: TypeAlias = Callable[[Sequence[Any]], Any]


def flatten(tree: Any) -> tuple[list[Any], Rebuild]:
    """Return the leaves of a tree, and a function that builds the same tree of other leaves."""
    leaves, _, rebuild = flattened(tree)
    return leaves, rebuild


def flattened(tree: Any) -> tuple[list[Any], Hashable, Rebuild]:
    """Return as `flatten`, with the structure in between: equal only for trees nested alike."""
    leaves: list[Any] = []
    structure = _structure_of(tree, leaves)
    return leaves, structure, lambda others: _rebuilt(structure, iter(others))


def _structure_of(tree: Any, leaves: list[Any]) -> Any:
    """Append the leaves to a list; return the structure: ``(dict, ("W1", None), ("b1", None))``."""
    if isinstance(tree, dict):
        return (dict, *((key, _structure_of(part, leaves)) for key, part in tree.items()))
    if type(tree) in (list, tuple):
        return (type(tree), *(_structure_of(part, leaves) for part in tree))
    leaves.append(tree)
    return None


def _rebuilt(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure is None:
        return next(leaves)
    kind, *parts = structure
    if kind is dict:
        return {key: _rebuilt(part, leaves) for key, part in parts}
    return kind([_rebuilt(part, leaves) for part in parts])
