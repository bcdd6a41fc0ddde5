"""One recording: a function's calls on arguments of given shapes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from functools import partial
from math import inf
from operator import is_
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from xbp.calls import noted_calls
from xbp.errors import TracingError, XbpError
from xbp.namespace import Array, Namespace, is_array
from xbp.recording.nested import flatten
from xbp.recording.rewriting import (
    Fuse,
    fused,
    in_memory_of,
    without_repeats,
    without_the_unread,
)
from xbp.recording.tracing import (
    Note,
    Trace,
    Traced,
    traced_among,
    untraceable,
    values,
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


class Recording(Generic[Result]):
    """One function's calls on arguments of given shapes.

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
        The numbers of the leaves that differ from call to call: arrays are copied into memory of
        the recording, and numbers are looked up.
    donated
        The numbers of the leaves whose memory may be reused.
    """

    def __init__(
        self,
        library: Library,
        function: Callable[..., Result],
        leaves: Sequence[Any],
        structure: Hashable,
        rebuild: Callable[[Sequence[Any]], tuple[Any, ...]],
        varying: set[int],
        donated: set[int],
    ) -> None:
        self.library = library
        self.structure = structure
        self.varying = varying
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
        self.outputs, self._rebuild_result = flatten(result)
        arguments = {x for x in self.inputs if isinstance(x, Traced) and is_array(x.value)}
        # Those whose memory is the same in every replay.
        self._static = set(arguments)
        counts = Counter(map(id, leaves))
        self._is_apart = [counts[id(leaf)] == 1 for leaf in leaves]
        self._donated = donated
        # The arrays that are returned without a copy, by id.
        self._returnable = {
            id(place) for i, place in enumerate(places) if i in donated or i not in varying
        }
        notes, self.outputs = self._rewritten(trace.notes, self.outputs, arguments)
        calls = list(self._calls(notes, arguments))
        # The first result comes from the calls as well: a fused call rounds differently, and no
        # result may depend on whether it was the first.
        _restore(places, before)
        self.calls = [_first_run(note, call) for note, call in calls]
        if library.capture and all(isinstance(call, partial) for call in self.calls):
            # All arguments are bound: each call is the same in every replay.
            self.calls = [library.capture(self.calls)]

    # From the notes to calls ---------------------------------------------------------------------

    def _rewritten(
        self, notes: Sequence[Note], outputs: list[Any], arguments: Set[Traced]
    ) -> tuple[list[Note], list[Any]]:
        """Return notes that compute the same with less work, and the outputs they compute."""
        results = list(traced_among(outputs))
        live = frozenset(results).union(*(x.owners for x in results))
        notes = without_repeats(without_the_unread(notes, live), live)
        places = self._places(notes)
        notes = in_memory_of(notes, places, self.library.overwriting, live)
        outputs = [places.get(x, x) if isinstance(x, Traced) else x for x in outputs]
        if self.library.fuse:
            owners = frozenset().union(*(x.owners for x in traced_among(outputs)))
            notes = fused(notes, self.library.fuse, arguments | owners)
        return notes, outputs

    def _places(self, notes: Sequence[Note]) -> dict[Traced, Traced]:
        """Return, for each result that replaces a donated argument, that argument."""
        new_arrays = {note.output for note in notes if not (note.in_place or note.is_view)}
        results = list(traced_among(self.outputs))
        counts = Counter(owner for x in results for owner in x.owners)
        places = {}
        for number in sorted(self._donated):
            argument = self.inputs[number]
            result = self.outputs[number] if number < len(self.outputs) else None
            if (
                self._is_apart[number]  # no other argument is the same array
                and isinstance(argument, Traced)
                and isinstance(result, Traced)
                and result in new_arrays
                and result.owners == {result}
                and counts[result] == 1
                and not counts[argument]
                and is_array(argument.value)
                and is_array(result.value)
                and _kind(argument.value) == _kind(result.value)
            ):
                places[result] = argument
        return places

    def _calls(
        self, notes: Sequence[Note], arguments: set[Traced]
    ) -> Iterator[tuple[Note, Callable[[], object]]]:
        """Yield the calls of a replay, each on the memory that it reads and writes."""
        last_use = self._last_uses(notes)
        free: dict[tuple[Any, ...], list[Array]] = defaultdict(list)
        for i, note in enumerate(notes):
            dying = {
                owner
                for x in note.inputs
                for owner in x.owners
                if last_use[owner] == i and owner in self._static - arguments
            }
            if note.is_view and note.inputs[0] in self._static:
                note.output.value = note.function(note.inputs[0].value)
                self._static.add(note.output)
            elif note.name not in self.library.writers:
                yield note, _plain(note, self._bind(note))
            else:
                if not note.in_place:
                    self._static.add(note.output)
                    if last_use[note.output] < inf:
                        self._reuse_memory(note, dying, free)
                write = partial(_writing, self.library.writers[note.name], note)
                if self._static.issuperset([*note.inputs, note.output]):
                    yield note, write()
                else:
                    yield note, _later(write)
            for owner in dying:
                free[_kind(owner.value)].append(owner.value)

    def _last_uses(self, notes: Sequence[Note]) -> dict[Traced, float]:
        """Return, for each owner of memory, the number of the last note that may read it."""
        last_use: dict[Traced, float] = {}
        for i, note in enumerate(notes):
            for x in (*note.inputs, note.output):
                last_use.update(dict.fromkeys(x.owners, i))
        for output in traced_among(self.outputs):
            last_use.update(dict.fromkeys(output.owners, inf))
        return last_use

    def _reuse_memory(
        self, note: Note, dying: set[Traced], free: dict[tuple[Any, ...], list[Array]]
    ) -> None:
        """Let a result reuse memory that no later call reads, if any: it is in the cache."""
        kind = _kind(note.output.value)
        if note.name in self.library.overwriting:
            for owner in dying:
                # Not if a view reads it in another order.
                if _kind(owner.value) == kind and all(
                    x is owner for x in note.inputs if owner in x.owners
                ):
                    note.output.value = owner.value
                    dying.remove(owner)
                    return
        if free[kind]:
            note.output.value = free[kind].pop()

    def _bind(self, note: Note) -> Callable[[], Any]:
        """Return a note's call, which looks its arguments up in each replay if some vary."""
        if self._static.issuperset(note.inputs):
            return partial(note.function, *values(note.args), **values(note.kwargs))
        return lambda: note.function(*values(note.args), **values(note.kwargs))

    def _copy(self, x: Any) -> Any:
        return self.library.xp.asarray(x, copy=True) if is_array(x) else x

    # When it is replayed -------------------------------------------------------------------------

    def takes(self, leaves: Sequence[Any], structure: Hashable) -> bool:
        """Tell whether it was recorded for such arguments."""
        return structure == self.structure and all(map(self._fits, leaves, range(len(leaves))))

    def _fits(self, leaf: Any, number: int) -> bool:
        argument = self.inputs[number]
        place = argument.value if isinstance(argument, Traced) else argument
        if leaf is place:
            return True
        if type(leaf) is not type(place):
            return False
        if not is_array(leaf):
            return number in self.varying or bool(leaf == place)
        return number in self.varying and (leaf.shape, leaf.dtype, leaf.device) == (
            place.shape,
            place.dtype,
            place.device,
        )

    def replay(self, arguments: Mapping[int, Any]) -> None:
        """Run the calls again, on these values of the arguments that vary."""
        changes = {
            # The memory of a donated argument may be that of another, as when two arrays have been
            # swapped. So all are read before any is written to.
            number: self._copy(leaf) if number in self._donated else leaf
            for number, leaf in arguments.items()
            if leaf is not self.inputs[number].value
        }
        for number, leaf in changes.items():
            argument = self.inputs[number]
            if argument in self._static:
                argument.value[...] = leaf
            else:
                argument.value = leaf
        for call in self.calls:
            call()

    def result(self) -> Result:
        """Return the function's result, which no later replay overwrites.

        An argument that was changed in place is itself returned, without a copy.
        """
        result: Result = self._rebuild_result([self._value_of(output) for output in self.outputs])
        return result

    def last_result(self) -> Any:
        """Return only the last part of the result."""
        return self._value_of(self.outputs[-1])

    def _value_of(self, output: Any) -> Any:
        if not isinstance(output, Traced):
            return output
        return output.value if id(output.value) in self._returnable else self._copy(output.value)

    def is_loop_over(self, numbers: range) -> bool:
        """Tell whether these arguments, and no others, differ from a replay to the next.

        So it is if those before them are changed in place and returned, and those behind stay.
        """
        first = numbers.start
        return (
            self.varying == set(numbers)
            and len(self.outputs) == first + 1
            and all(map(is_, self.inputs[:first], self.outputs[:first]))
        )


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


def _kind(x: Array) -> tuple[Any, ...]:
    # Some functions write only into row-major arrays.
    return (x.shape, x.dtype, x.device, getattr(x, "strides", None))


def _plain(note: Note, call: Callable[[], Any]) -> Callable[[], object]:
    """Return a call that stores its result, a new object in each replay."""
    if note.in_place:
        return call

    def call_and_store() -> None:
        note.output.value = call()

    return call_and_store


def _writing(writer: Writer, note: Note) -> Callable[[], object]:
    """Return a call that writes its result into the memory of a note's output."""
    try:
        return writer(*values(note.args), **values(note.kwargs), out=note.output.value)
    except TypeError:  # the writer lacks an option of the standard
        return _copying(note)


def _later(write: Callable[[], Callable[[], object]]) -> Callable[[], object]:
    """Return a call that looks its arrays up in each replay."""

    def call() -> object:
        return write()()

    return call


def _copying(note: Note) -> Callable[[], object]:
    """Return a call of the function itself that copies its result."""

    def call() -> None:
        note.output.value[...] = note.function(*values(note.args), **values(note.kwargs))

    return call


def _first_run(note: Note, call: Callable[[], object]) -> Callable[[], object]:
    """Run a call and return it; if the library refuses it, one that copies its result."""
    try:
        call()
    except Exception:  # with an error of its own in each library
        call = _copying(note)
        call()
    return call
