"""Copies of what a step may change, whatever holds it."""

from contextlib import suppress
from copy import deepcopy
from typing import Any

from xbp.layers import Layer
from xbp.namespace import is_array, namespace_of
from xbp.networks import Network
from xbp.optimizers import Optimizer
from xbp.training.contents import contents


def copied(tree: Any, memo: dict[int, Any] | None = None) -> Any:
    """Return a copy of arrays, of what they are nested in, and of what else can be copied.

    What occurs twice in a tree is copied once; memo holds the copies by the id of the original.
    """
    memo = {} if memo is None else memo
    if id(tree) not in memo:
        memo[id(tree)] = _copied(tree, memo)
    return memo[id(tree)]


def _copied(tree: Any, memo: dict[int, Any]) -> Any:
    if type(tree) in (dict, list, tuple):
        return _copied_container(tree, memo)
    if is_array(tree):
        return namespace_of(tree).asarray(tree, copy=True)
    if isinstance(tree, Network):
        return tree  # what it learns is restored separately
    if isinstance(tree, Optimizer):
        return tree.bound_to(copied(vars(tree), memo))
    if isinstance(tree, Layer):
        layer = memo[id(tree)] = tree.bound_to({})
        vars(layer).update(copied(vars(tree), memo))
        return layer
    # Not every library's arrays support deepcopy.
    arrays = {id(part): copied(part, memo) for part in contents(tree).values() if is_array(part)}
    with suppress(Exception):  # an iterator, a lock: it cannot be copied
        tree = deepcopy(tree, {**memo, **arrays})
    return tree


def _copied_container(tree: Any, memo: dict[int, Any]) -> Any:
    """Return a copy of a container, which may hold itself."""
    if type(tree) is tuple:
        return tuple(copied(part, memo) for part in tree)
    copy = memo[id(tree)] = type(tree)()
    if type(tree) is list:
        copy += [copied(part, memo) for part in tree]
    else:
        copy.update({name: copied(part, memo) for name, part in tree.items()})
    return copy
