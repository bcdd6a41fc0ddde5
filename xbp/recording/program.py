"""A program: a traced function, made faster before it runs; it holds no memory."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from xbp.calls import noted_calls
from xbp.errors import TracingError, XbpError
from xbp.namespace import Array, Namespace, is_array
from xbp.recording.nested import Rebuild, flatten
from xbp.recording.rewriting import (
    Fuse,
    fused,
    in_memory_of,
    replaced,
    substituted,
    without_repeats,
    without_the_unread,
)
from xbp.recording.tracing import (
    Note,
    Trace,
    Traced,
    traced_among,
    untraceable,
)

Result = TypeVar("Result")

# From a function's arguments and ``out`` to a call that writes the result into out.
Writer: TypeAlias = Callable[..., Callable[[], object]]

# From many calls to one that does the same.
Capture: TypeAlias = Callable[[Sequence[Callable[[], object]]], Callable[[], object]]


class Library(Protocol):
    """What a recording needs of an array library: see `xbp.Backend`."""

    @property
    def xp(self) -> Namespace: ...  # noqa: D102
    @property
    def writers(self) -> Mapping[str, Writer]: ...  # noqa: D102
    @property
    def overwriting(self) -> Set[str]: ...  # noqa: D102
    @property
    def fuse(self) -> Fuse | None: ...  # noqa: D102
    @property
    def capture(self) -> Capture | None: ...  # noqa: D102


@dataclass(frozen=True)
class Layout:
    """What a program knows of an array: all but its memory."""

    type: type[Any]
    shape: tuple[int, ...]
    dtype: Any
    device: Any
    # Some functions write only into row-major arrays, and sum in the order of the memory.
    strides: tuple[int, ...] | None


def layout_of(x: Array) -> Layout:
    """Return an array's layout."""
    return Layout(type(x), x.shape, x.dtype, x.device, getattr(x, "strides", None))


class Program(Generic[Result]):
    """What one function does with arguments of given layouts.

    Parameters
    ----------
    library
        The library of the arrays.
    function
        It is run once, on the arguments, to note its calls.
    leaves
        The leaves of the arguments: arrays, numbers, and whatever else.
    structure
        How they are nested, with the names in dictionaries.
    rebuild
        Builds the arguments of other leaves.
    varying
        The numbers of the leaves that differ from call to call.
    donated
        The numbers of the leaves whose memory may be reused.

    Attributes
    ----------
    notes : list of Note
        The calls, in their order.
    inputs, outputs : list
        The leaves of the arguments and of the result: traced, or constants.
    """

    def __init__(
        self,
        library: Library,
        function: Callable[..., Result],
        leaves: Sequence[Any],
        structure: Hashable,
        rebuild: Rebuild,
        varying: Set[int],
        donated: Set[int],
    ) -> None:
        self.library = library
        self.structure = structure
        self.varying = varying
        self.donated = donated
        self._sources = _sources_of(leaves)
        trace = Trace(library.xp, frozenset(library.writers))
        places = [self._copy(x) if i in varying else x for i, x in enumerate(leaves)]
        self.inputs = [
            trace.traced(place) if is_array(place) or i in varying else place
            for i, place in enumerate(places)
        ]
        before = {i: self._copy(places[i]) for i in donated if is_array(places[i])}
        with noted_calls():
            try:
                result = function(*rebuild(self.inputs))
                trace.is_running = False
                _require_apart(trace.notes, self.inputs, leaves)
            except Exception as error:
                _restore(places, before)
                if isinstance(error, XbpError):
                    raise
                # If the function fails untraced as well, this call raises the real error.
                function(*rebuild([self._copy(place) for place in places]))
                raise untraceable(error) from error
        _restore(places, before)
        self.outputs, self.rebuild_result = flatten(result)
        self.notes, self.outputs = self._rewritten(trace.notes, self.outputs)
        self._traced = _all_traced(self.inputs, self.notes, self.outputs)
        for traced in self._traced:
            if is_array(traced.value):
                traced.value = layout_of(traced.value)

    def _copy(self, x: Any) -> Any:
        return self.library.xp.asarray(x, copy=True) if is_array(x) else x

    def _rewritten(self, notes: Sequence[Note], outputs: list[Any]) -> tuple[list[Note], list[Any]]:
        """Return notes that compute the same with less work, and the outputs they compute."""
        results = list(traced_among(outputs))
        live = frozenset(results).union(*(x.owners for x in results))
        notes = without_repeats(without_the_unread(notes, live), live)
        places = self._places(notes)
        notes = in_memory_of(notes, places, self.library.overwriting, live)
        outputs = [places.get(x, x) if isinstance(x, Traced) else x for x in outputs]
        if self.library.fuse:
            arguments = {x for x in traced_among(self.inputs) if is_array(x.value)}
            owners = frozenset().union(*(x.owners for x in traced_among(outputs)))
            notes = fused(notes, self.library.fuse, arguments | owners)
        return notes, outputs

    def _places(self, notes: Sequence[Note]) -> dict[Traced, Traced]:
        """Return, for each result that replaces a donated argument, that argument."""
        new_arrays = {note.output for note in notes if not (note.in_place or note.is_view)}
        results = list(traced_among(self.outputs))
        counts = Counter(owner for x in results for owner in x.owners)
        places = {}
        for number in sorted(self.donated):
            argument = self.inputs[number]
            result = self.outputs[number] if number < len(self.outputs) else None
            if (
                self._sources.count(self._sources[number]) == 1  # no other is the same array
                and isinstance(argument, Traced)
                and isinstance(result, Traced)
                and result in new_arrays
                and result.owners == {result}
                and counts[result] == 1
                and not counts[argument]
                and is_array(argument.value)
                and is_array(result.value)
                and layout_of(argument.value) == layout_of(result.value)
            ):
                places[result] = argument
        return places

    def fits(self, leaves: Sequence[Any], structure: Hashable, varying: Set[int]) -> bool:
        """Tell whether the function would do the same with such arguments."""
        return (
            (structure, varying, _sources_of(leaves))
            == (self.structure, self.varying, self._sources)
            and all(map(self._fits, leaves, range(len(leaves))))
        )  # fmt: skip

    def _fits(self, leaf: Any, number: int) -> bool:
        argument = self.inputs[number]
        if is_array(leaf):
            return isinstance(argument, Traced) and argument.value == layout_of(leaf)
        if isinstance(argument, Traced):
            return type(leaf) is type(argument.value)
        return type(leaf) is type(argument) and bool(leaf == argument)

    def copy(self) -> tuple[list[Any], list[Note], list[Any]]:
        """Return inputs, notes and outputs whose traced arrays are given memory by the caller."""
        copies = {x: type(x)(x.trace, x.value) for x in self._traced}
        for x, own in copies.items():
            own.owners = frozenset(copies[owner] for owner in x.owners)
        notes = [replaced(note, copies) for note in self.notes]
        return substituted(self.inputs, copies), notes, substituted(self.outputs, copies)


def _sources_of(leaves: Sequence[Any]) -> list[int]:
    """Return, for each leaf, the number of the first that is the same array."""
    first: dict[int, int] = {}
    return [first.setdefault(id(x), i) if is_array(x) else i for i, x in enumerate(leaves)]


def _all_traced(inputs: list[Any], notes: list[Note], outputs: list[Any]) -> set[Traced]:
    traced = {*traced_among((inputs, outputs))}
    for note in notes:
        traced |= {*note.inputs, note.output}
    return traced.union(*(x.owners for x in traced))


def _require_apart(notes: Sequence[Note], inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
    """Raise `TracingError` if an array is changed in place that is two of the arguments."""
    targets = {owner for note in notes if note.in_place for owner in note.output.owners}
    counts = Counter(id(leaf) for leaf in leaves if is_array(leaf))
    for argument, leaf in zip(inputs, leaves, strict=True):
        if isinstance(argument, Traced) and argument in targets and counts[id(leaf)] > 1:
            raise TracingError(
                "two of what a step is given are one array, and it changes one of them in place: "
                "begin with a copy, xp.asarray(x, copy=True)"
            )


def _restore(places: Sequence[Any], before: Mapping[int, Array]) -> None:
    for i, values_before in before.items():
        places[i][...] = values_before
