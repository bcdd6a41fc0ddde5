"""One recording: a function's calls on arguments of given shapes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from functools import partial
from math import inf
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from xbp.calls import innermost_call, noted_calls
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

# From a function's arguments, and ``out``, to a call that leaves its result in out.
Writer: TypeAlias = Callable[..., Callable[[], object]]

# From many calls to one that does the same.
Capture: TypeAlias = Callable[[Sequence[Callable[[], object]]], Callable[[], object]]


class Library(Protocol):
    """What is asked of an array library: see `xbp.Backend`."""

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
        Whose arrays they are.
    function
        The function. It is run once, on the arguments, to note its calls.
    leaves
        The arrays, and whatever else, that the arguments hold.
    structure
        What these are nested in, and their names.
    rebuild
        Makes the arguments again, of other leaves.
    varying
        Which of these differ from call to call: arrays are copied to a place of their own then,
        and numbers are looked up.
    donated
        Which are the function's to keep.
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
                layer = innermost_call()
                _restore(places, before)
                if isinstance(error, XbpError):
                    raise
                # What fails untraced, too, has another reason: that error is raised here.
                function(*rebuild([self._copy(place) for place in places]))
                raise untraceable(error, layer) from error
        self.outputs, self._rebuild_result = flatten(result)
        # What is found at the same place by every replay.
        given = {x for x in self.inputs if isinstance(x, Traced) and is_array(x.value)}
        self._lasting = set(given)
        often = Counter(map(id, leaves))
        self._is_apart = [often[id(leaf)] == 1 for leaf in leaves]
        self._donated = donated
        # What may be given back as it is.
        self._returnable = {
            id(place) for i, place in enumerate(places) if i in donated or i not in varying
        }
        notes, self.outputs = self._rewritten(trace.notes, self.outputs, given)
        calls = list(self._calls(notes, given))
        # The first result, too, comes of the calls: two that are made one round otherwise, and no
        # result should depend on whether it was the first.
        _restore(places, before)
        self.calls = [_tried(note, call) for note, call in calls]
        if library.capture and all(isinstance(call, partial) for call in self.calls):
            # Each of them stays as it is from replay to replay.
            self.calls = [library.capture(self.calls)]

    # From the notes to calls ---------------------------------------------------------------------

    def _rewritten(
        self, notes: Sequence[Note], outputs: list[Any], given: Set[Traced]
    ) -> tuple[list[Note], list[Any]]:
        """Return notes that compute the same with less work, and what they leave it in."""
        results = list(traced_among(outputs))
        lasting = frozenset(results).union(*(x.owners for x in results))
        notes = without_repeats(without_the_unread(notes, lasting), lasting)
        places = self._places(notes)
        notes = in_memory_of(notes, places, self.library.overwriting, lasting)
        outputs = [places.get(x, x) if isinstance(x, Traced) else x for x in outputs]
        if self.library.fuse:
            owners = frozenset().union(*(x.owners for x in traced_among(outputs)))
            notes = fused(notes, self.library.fuse, given | owners)
        return notes, outputs

    def _places(self, notes: Sequence[Note]) -> dict[Traced, Traced]:
        """Return for results the arguments, the function's to keep, in whose place they stand."""
        made = {note.output for note in notes if not (note.in_place or note.is_view)}
        results = list(traced_among(self.outputs))
        often = Counter(owner for x in results for owner in x.owners)
        places = {}
        for number in sorted(self._donated):
            given = self.inputs[number]
            result = self.outputs[number] if number < len(self.outputs) else None
            if (
                self._is_apart[number]  # no other argument is read there
                and isinstance(given, Traced)
                and isinstance(result, Traced)
                and result in made
                and result.owners == {result}
                and often[result] == 1
                and not often[given]
                and is_array(given.value)
                and is_array(result.value)
                and _kind(given.value) == _kind(result.value)
            ):
                places[result] = given
        return places

    def _calls(
        self, notes: Sequence[Note], given: set[Traced]
    ) -> Iterator[tuple[Note, Callable[[], object]]]:
        """Yield the calls of a replay, each on the memory that it reads and writes."""
        last_use = self._last_uses(notes)
        free: dict[tuple[Any, ...], list[Array]] = defaultdict(list)
        for i, note in enumerate(notes):
            dying = {
                owner
                for x in note.inputs
                for owner in x.owners
                if last_use[owner] == i and owner in self._lasting - given
            }
            if note.is_view and note.inputs[0] in self._lasting:
                note.output.value = note.function(note.inputs[0].value)
                self._lasting.add(note.output)
            elif note.name not in self.library.writers:
                yield note, _plain(note, self._bound(note.function, note))
            else:
                if not note.in_place:
                    self._lasting.add(note.output)
                    if last_use[note.output] < inf:
                        self._give_memory(note, dying, free)
                write = partial(_writing, self.library.writers[note.name], note)
                if self._lasting.issuperset([*note.inputs, note.output]):
                    yield note, write()
                else:
                    yield note, _later(write)
            for owner in dying:
                free[_kind(owner.value)].append(owner.value)

    def _last_uses(self, notes: Sequence[Note]) -> dict[Traced, float]:
        """Return for each that owns memory the last note that may read it."""
        last_use: dict[Traced, float] = {}
        for i, note in enumerate(notes):
            for x in (*note.inputs, note.output):
                last_use.update(dict.fromkeys(x.owners, i))
        for output in traced_among(self.outputs):
            last_use.update(dict.fromkeys(output.owners, inf))
        return last_use

    def _give_memory(
        self, note: Note, dying: set[Traced], free: dict[tuple[Any, ...], list[Array]]
    ) -> None:
        """Let a result use memory that nobody reads any more, if there is some; it is warm."""
        kind = _kind(note.output.value)
        if note.name in self.library.overwriting:
            for owner in dying:
                # Not where a view reads it in another order.
                if _kind(owner.value) == kind and all(
                    x is owner for x in note.inputs if owner in x.owners
                ):
                    note.output.value = owner.value
                    dying.remove(owner)
                    return
        if free[kind]:
            note.output.value = free[kind].pop()

    def _bound(self, function: Callable[..., Any], note: Note) -> Callable[[], Any]:
        """Return a function's call on arguments of which some may be others in each replay."""
        if self._lasting.issuperset(note.inputs):
            return partial(function, *values(note.args), **values(note.kwargs))
        return lambda: function(*values(note.args), **values(note.kwargs))

    def _copy(self, x: Any) -> Any:
        return self.library.xp.asarray(x, copy=True) if is_array(x) else x

    # When it is replayed -------------------------------------------------------------------------

    def takes(self, leaves: Sequence[Any], structure: Hashable) -> bool:
        """Tell whether it was recorded for such arguments."""
        return structure == self.structure and all(map(self._fits, leaves, range(len(leaves))))

    def _fits(self, leaf: Any, number: int) -> bool:
        given = self.inputs[number]
        place = given.value if isinstance(given, Traced) else given
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
        """Make the calls again, on other arguments where they vary."""
        others = {
            # What the function may keep can be another's place, or a view of one: as where two
            # arrays have changed places. It is read before any of them is written to.
            number: self._copy(leaf) if number in self._donated else leaf
            for number, leaf in arguments.items()
            if leaf is not self.inputs[number].value
        }
        for number, leaf in others.items():
            given = self.inputs[number]
            if given in self._lasting:
                given.value[...] = leaf
            else:
                given.value = leaf
        for call in self.calls:
            call()

    def result(self) -> Result:
        """Return the function's result, that no later replay overwrites.

        What was an argument, and was changed in place, is given back as it is.
        """
        result: Result = self._rebuild_result([self._kept(output) for output in self.outputs])
        return result

    def last_result(self) -> Any:
        """Return the last part of the result alone."""
        return self._kept(self.outputs[-1])

    def _kept(self, output: Any) -> Any:
        if not isinstance(output, Traced):
            return output
        return output.value if id(output.value) in self._returnable else self._copy(output.value)

    def needs_only(self, numbers: range) -> bool:
        """Tell whether these arguments alone differ from a replay to the next.

        That is where those before them are changed in place and returned, and those behind stay.
        """
        first = numbers.start
        return (
            self.varying <= set(numbers)
            and len(self.outputs) == first + 1
            and all(map(_is_same, self.inputs[:first], self.outputs[:first]))
        )

    def has(self, arguments: Mapping[int, Any]) -> bool:
        """Tell whether these are what was recorded, but for what varies."""
        return all(
            number in self.varying or (not is_array(leaf) and leaf == self.inputs[number])
            for number, leaf in arguments.items()
        )


def _require_apart(notes: Sequence[Note], inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
    """Raise `TracingError` if an argument is changed in place that is another argument, too."""
    changed = {owner for note in notes if note.in_place for owner in note.output.owners}
    often = Counter(id(leaf) for leaf in leaves if is_array(leaf))
    for given, leaf in zip(inputs, leaves, strict=True):
        if isinstance(given, Traced) and given in changed and often[id(leaf)] > 1:
            raise TracingError(
                "two of what a step is given are one array, and it changes one of them in place: "
                "begin with a copy, xp.asarray(x, copy=True)"
            )


def _restore(places: Sequence[Any], before: Mapping[int, Array]) -> None:
    for i, values_before in before.items():
        places[i][...] = values_before


def _is_same(given: Any, output: Any) -> bool:
    return output is given


def _kind(x: Array) -> tuple[Any, ...]:
    # Some functions write only into rows that lie one behind the other.
    return (x.shape, x.dtype, x.device, getattr(x, "strides", None))


def _plain(note: Note, call: Callable[[], Any]) -> Callable[[], object]:
    """Return a call whose result is another object in each replay."""
    if note.in_place:
        return call

    def call_and_keep() -> None:
        note.output.value = call()

    return call_and_keep


def _writing(writer: Writer, note: Note) -> Callable[[], object]:
    """Return a call that leaves its result in the memory of a note's output."""
    try:
        return writer(*values(note.args), **values(note.kwargs), out=note.output.value)
    except TypeError:  # it does not know all options of the standard
        return _copying(note)


def _later(write: Callable[[], Callable[[], object]]) -> Callable[[], object]:
    """Return a call on arrays of which some are others in each replay."""

    def call() -> object:
        return write()()

    return call


def _copying(note: Note) -> Callable[[], object]:
    """Return a call of the function itself, whose result is copied."""

    def call() -> None:
        note.output.value[...] = note.function(*values(note.args), **values(note.kwargs))

    return call


def _tried(note: Note, call: Callable[[], object]) -> Callable[[], object]:
    """Make a call, and return it; or another that does the same, where the library refuses it."""
    try:
        call()
    except Exception:  # with an error of its own in each library
        call = _copying(note)
        call()
    return call
