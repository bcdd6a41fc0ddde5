"""Nested dictionaries, lists and tuples, and the leaves in them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any


def flatten(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Return what is in nested dictionaries, lists and tuples, and what makes them of others."""
    leaves: list[Any] = []
    shape = _shape_of(tree, leaves)
    return leaves, lambda others: _rebuilt(shape, iter(others))


def _shape_of(tree: Any, leaves: list[Any]) -> Any:
    if isinstance(tree, dict):
        return {key: _shape_of(part, leaves) for key, part in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)([_shape_of(part, leaves) for part in tree])
    leaves.append(tree)
    return None


def _rebuilt(shape: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(shape, dict):
        return {key: _rebuilt(part, leaves) for key, part in shape.items()}
    if shape is not None:
        return type(shape)([_rebuilt(part, leaves) for part in shape])
    return next(leaves)
