"""The calls of layers, noted while they are made: for a trace, a picture, a search."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class LayerCall:
    """One call of a layer's method.

    Attributes
    ----------
    layer
        Whose method it is; of no layer is the call that holds all others.
    method : str
        ``"forward"`` or ``"backward"``.
    inputs : tuple
        The arguments.
    output
        What was returned; None before that.
    parts : list of LayerCall
        The calls of other layers that it made, in order.
    """

    layer: Any = None
    method: str = ""
    inputs: tuple[Any, ...] = ()
    output: Any = None
    parts: list["LayerCall"] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.layer.name}.{self.method}" if self.method else ""

    def inner_first(self) -> Iterator["LayerCall"]:
        """Yield the calls within it, in the order in which they returned."""
        for part in self.parts:
            yield from part.inner_first()
            yield part


# The calls that have not returned, the outermost first; None where nobody notes them.
_open: ContextVar[list[LayerCall] | None] = ContextVar("open", default=None)


@contextmanager
def noted_calls() -> Iterator[LayerCall]:
    """Note the calls of layers: they are the parts of what is returned."""
    everything = LayerCall()
    token = _open.set([everything])
    try:
        yield everything
    finally:
        _open.reset(token)


def begin_call(layer: Any, method: str, inputs: tuple[Any, ...]) -> LayerCall | None:
    """Note that a method is called; return None if nobody notes calls now."""
    if (calls := _open.get()) is None:
        return None
    call = LayerCall(layer, method, inputs)
    calls[-1].parts.append(call)
    calls.append(call)
    return call


def end_call(call: LayerCall | None, output: Any) -> None:
    """Note what a method has returned."""
    if call is not None and (calls := _open.get()) is not None:
        call.output = output
        # Those within it that ended in an error have not returned.
        del calls[calls.index(call) :]


def innermost_call() -> str:
    """Return which method of a layer is at work, ``"Affine1.forward"``; empty if none is."""
    return str(calls[-1]) if (calls := _open.get()) else ""
