"""Copies of what a step may change, whatever holds it."""

from contextlib import suppress
from copy import deepcopy
from typing import Any

from xbp.layers import Layer
from xbp.namespace import is_array, namespace_of
from xbp.networks import Network
from xbp.optimizers import Optimizer
from xbp.training.contents import contents


def copied(tree: Any, known: dict[int, Any] | None = None) -> Any:
    """Return a copy of arrays, of what they are nested in, and of what else can be copied.

    What stands in a tree twice does so in the copy; known are the copies by the identity of each.
    """
    known = {} if known is None else known
    if id(tree) not in known:
        known[id(tree)] = _copied(tree, known)
    return known[id(tree)]


def _copied(tree: Any, known: dict[int, Any]) -> Any:
    if type(tree) in (dict, list, tuple):
        return _copied_container(tree, known)
    if is_array(tree):
        return namespace_of(tree).asarray(tree, copy=True)
    if isinstance(tree, Network):
        return tree  # what is learned of it goes back by itself
    if isinstance(tree, Optimizer):
        return tree.bound_to(copied(vars(tree), known))
    if isinstance(tree, Layer):
        layer = known[id(tree)] = tree.bound_to({})
        vars(layer).update(copied(vars(tree), known))
        return layer
    # Not every library's arrays know how they are copied.
    arrays = {id(part): copied(part, known) for part in contents(tree).values() if is_array(part)}
    with suppress(Exception):  # an iterator, a lock: nobody can tell how it was
        tree = deepcopy(tree, {**known, **arrays})
    return tree


def _copied_container(tree: Any, known: dict[int, Any]) -> Any:
    """Return a copy of a container, which may hold itself."""
    if type(tree) is tuple:
        return tuple(copied(part, known) for part in tree)
    copy = known[id(tree)] = type(tree)()
    if type(tree) is list:
        copy += [copied(part, known) for part in tree]
    else:
        copy.update({name: copied(part, known) for name, part in tree.items()})
    return copy
