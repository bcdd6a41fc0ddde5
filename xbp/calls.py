"""The calls of layers, noted while they are made: for a trace, a picture, a search."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(eq=False, repr=False)
class LayerCall:
    """One call of a layer's method.

    Attributes
    ----------
    layer
        Whose method it is; None for the root, which holds all other calls.
    method : str
        ``"forward"`` or ``"backward"``.
    inputs : tuple
        The arguments.
    output
        What was returned, or what the `Observer` makes of it; None before that.
    parts : list of LayerCall
        The calls of other layers that it made and that returned, in order.
    """

    layer: Any = None
    method: str = ""
    inputs: tuple[Any, ...] = ()
    output: Any = None
    parts: list["LayerCall"] = field(default_factory=list)
    observe: "Observer | None" = None

    def __repr__(self) -> str:
        return f"<call of {self}>"

    def __str__(self) -> str:
        return f"{self.layer.name}.{self.method}" if self.method else ""

    def inner_first(self) -> Iterator["LayerCall"]:
        """Yield the calls within it, in the order in which they returned."""
        for part in self.parts:
            yield from part.inner_first()
            yield part


# Is given a call and its output, may set `LayerCall.output`, and returns what the caller is given.
Observer: TypeAlias = Callable[[LayerCall, Any], Any]

# The call at work; None where nobody notes calls. Threads that copy a context share the root alone.
_innermost: ContextVar[LayerCall | None] = ContextVar("innermost", default=None)


@contextmanager
def noted_calls(observe: Observer | None = None) -> Iterator[LayerCall]:
    """Note the calls of layers in the ``with`` block as the parts of the root that is returned."""
    root = LayerCall(observe=observe)
    token = _innermost.set(root)
    try:
        yield root
    finally:
        _innermost.reset(token)


def called(
    function: Callable[..., Any],
    layer: Any,
    method: str,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call a function that is a layer's method, and note it if somebody notes calls."""
    parent = _innermost.get()
    if parent is None:
        return function(layer, *inputs, **kwargs)
    call = LayerCall(layer, method, inputs, observe=parent.observe)
    token = _innermost.set(call)
    try:
        output = call.output = function(layer, *inputs, **kwargs)
    finally:
        _innermost.reset(token)
    parent.parts.append(call)  # not if it ended in an error, which somebody may catch
    return output if call.observe is None else call.observe(call, output)


def innermost_call() -> str:
    """Return the layer's method at work, ``"Affine1.forward"``; empty outside of layers."""
    return str(_innermost.get() or "")
