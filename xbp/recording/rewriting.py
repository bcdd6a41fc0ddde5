"""A traced function made faster before it is replayed: fewer calls and less memory, same result.

Notes say which memory each call reads and writes. So it is known which results no call reads, and
which only the next call reads.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, TypeAlias

from xbp.recording.tracing import Note, Traced

# Results that are not read ------------------------------------------------------------------------


def without_the_unread(notes: Sequence[Note], results: Set[Traced]) -> list[Note]:
    """Return the notes without those that change nothing in place and lead to no result."""
    live = set(results)
    backwards = []
    for note in reversed(notes):
        if note.in_place or note.output in live:
            backwards.append(note)
            live.update(note.inputs, *(x.owners for x in note.inputs))
    return backwards[::-1]


# Repeated computations ---------------------------------------------------------------------------


def without_repeats(notes: Sequence[Note], live: Set[Traced]) -> list[Note]:
    """Return the notes with each number computed only once."""
    calls: list[Note] = []
    numbers: dict[tuple[Any, ...], Traced] = {}
    originals: dict[Traced, Traced] = {}
    for note in notes:
        for repeat in originals.keys() & set(note.inputs):
            note = _with(originals[repeat], repeat, note)  # noqa: PLW2901
        is_number = isinstance(note.output.value, int | float) and not note.kwargs
        key = (note.function, *map(_identity, note.args))
        if is_number and note.output not in live and key in numbers:
            originals[note.output] = numbers[key]
            continue
        if is_number:
            numbers[key] = note.output
        calls.append(note)
    return calls


def _identity(argument: Any) -> Any:
    is_plain = isinstance(argument, int | float)
    return (type(argument), argument) if is_plain else id(argument)


# Results in the memory of arguments --------------------------------------------------------------


def in_memory_of(
    notes: Sequence[Note],
    places: Mapping[Traced, Traced],
    overwriting: Set[str],
    live: Set[Traced],
) -> list[Note]:
    """Return notes that compute results in the memory of arguments that are not read later.

    Parameters
    ----------
    notes
        In the order of the calls.
    places
        For a result, an argument of the same shape and dtype.
    overwriting
        The functions whose output may be one of their inputs.
    live
        Those whose memory is read after the last call.
    """
    calls = _Calls(notes)
    for result, place in places.items():
        index = next(i for i in calls.of(result) if calls[i].output is result)
        is_read_later = any(place in calls[i].touched for i in calls.of(place, index + 1))
        # A view would still show the old memory, which is no longer written to.
        has_views = any(
            result in x.owners and x is not result
            for i in calls.of(result, index + 1)
            for x in _all(calls[i])
        )
        if is_read_later or has_views or not _can_write(calls[index], place, overwriting):
            calls.append(Note("", _fill, (place, result), {}, place, in_place=True))
            continue
        others, queue = live - {result}, [index]
        while queue:
            index = queue.pop()
            note = calls[index]
            calls[index] = replace(note, output=place, in_place=True)
            for i in calls.of(note.output, index + 1):
                calls[i] = _with(place, note.output, calls[i])
            # An operand that no other call reads may be computed there as well.
            if place not in set(note.inputs):
                queue = _operands(calls, index, place, overwriting, others)[:1]
    return calls.notes


class _Calls:
    """Notes that know by which others an array is mentioned: read, written, or shown in part."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self.notes: list[Note] = []
        self._numbers: defaultdict[Traced, set[int]] = defaultdict(set)
        for note in notes:
            self.append(note)

    def __getitem__(self, number: int) -> Note:
        return self.notes[number]

    def __setitem__(self, number: int, note: Note) -> None:
        for traced in _mentioned(self.notes[number]):
            self._numbers[traced].discard(number)
        self.notes[number] = note
        for traced in _mentioned(note):
            self._numbers[traced].add(number)

    def append(self, note: Note) -> None:
        for traced in _mentioned(note):
            self._numbers[traced].add(len(self.notes))
        self.notes.append(note)

    def of(self, traced: Traced, first: int = 0) -> list[int]:
        """Return the numbers of the notes that mention an array, in order, from a first on."""
        return sorted(number for number in self._numbers[traced] if number >= first)


def _mentioned(note: Note) -> Set[Traced]:
    return note.touched | {*note.inputs, note.output}


def _operands(
    calls: _Calls, reader: int, place: Traced, overwriting: Set[str], live: Set[Traced]
) -> list[int]:
    """Return the numbers of the notes that only one note reads, and that could write to a place."""
    numbers = []
    for x in set(calls[reader].inputs) - live:
        for i in calls.of(x):
            if (
                i < reader
                and calls[i].output is x
                and _can_write(calls[i], place, overwriting)
                and not any(x in calls[j].touched for j in calls.of(x) if j not in (i, reader))
                and not any(place in calls[j].touched for j in calls.of(place, i + 1) if j < reader)
            ):
                numbers.append(i)
    # First those that read the place: they become calls in place. Of others, the last.
    return sorted(numbers, key=lambda i: (place not in set(calls[i].inputs), -i))


def _can_write(note: Note, place: Traced, overwriting: Set[str]) -> bool:
    """Tell whether a note may write to a place: it may read the place itself, but no view of it."""
    return (
        note.name in overwriting
        and not note.in_place
        and note.output.owners == {note.output}
        and note.output.shape == place.shape
        and note.output.dtype == place.dtype
        and all(x is place for x in note.inputs if place in x.owners)
    )


def _all(note: Note) -> list[Traced]:
    return [*note.inputs, note.output]


def _fill(place: Any, result: Any) -> None:
    place[...] = result


def _with(other: Traced, traced: Traced, note: Note) -> Note:
    """Return a note with one traced array replaced by another."""
    return replaced(note, {traced: other}) if traced in {*_all(note)} else note


def replaced(note: Note, others: Mapping[Traced, Traced]) -> Note:
    """Return a note with others in the place of its traced arrays."""
    return replace(
        note,
        args=substituted(note.args, others),
        kwargs=substituted(note.kwargs, others),
        output=others.get(note.output, note.output),
    )


def substituted(arguments: Any, others: Mapping[Traced, Traced]) -> Any:
    """Return nested arguments with others in the place of traced ones."""
    if isinstance(arguments, Traced):
        return others.get(arguments, arguments)
    if type(arguments) in (list, tuple):
        return type(arguments)(substituted(part, others) for part in arguments)
    if isinstance(arguments, dict):
        return {key: substituted(part, others) for key, part in arguments.items()}
    return arguments


# Two calls in one --------------------------------------------------------------------------------

# From two notes, the second of which reads what the first computes, to one that does both; or None.
Fuse: TypeAlias = Callable[[Note, Note], Note | None]


def fused(notes: Sequence[Note], fuse: Fuse, live: Set[Traced]) -> list[Note]:
    """Return the notes with one for two wherever the library can do both in one call.

    Parameters
    ----------
    notes
        In the order of the calls.
    fuse
        Returns one note for two, where the library can.
    live
        Those whose memory is read after the last call.
    """
    # How often each memory is still to be read or changed.
    uses = Counter(live)
    for note in notes:
        uses.update(note.touched)
    calls: list[Note] = []
    for note in notes:
        uses.subtract(note.touched)
        last = note
        while pair := _pair(calls, last, fuse, uses):
            first, last = pair
            calls.remove(first)
        calls.append(last)
    return calls


def _pair(
    calls: Sequence[Note], second: Note, fuse: Fuse, uses: Mapping[Traced, int]
) -> tuple[Note, Note] | None:
    """Return a note that can be fused with the second, and the fused note."""
    for between in second.inputs:
        if uses[between] and second.output is not between:
            continue
        # A view touches the memory that it shows, and not itself.
        first = next((note for note in reversed(calls) if between in note.touched), None)
        if not first or first.output is not between:
            continue
        later = calls[calls.index(first) + 1 :]
        targets = set().union(*(note.output.owners for note in later if note.in_place))
        if targets.isdisjoint(first.touched) and (both := fuse(first, second)):
            # What the first note creates, the fused one does not change in place.
            in_place = both.in_place and (both.output is not between or first.in_place)
            return first, replace(both, in_place=in_place)
    return None


# Elementwise functions of elementwise functions --------------------------------------------------

FUSED = "fused"

# From a note to an elementwise function and its arguments, arrays and numbers; or None.
Elementwise: TypeAlias = Callable[[Note], tuple[Callable[..., Any], tuple[Any, ...]] | None]


def fuse_elementwise(first: Note, second: Note, elementwise: Elementwise) -> Note | None:
    """Return a note named `FUSED`, or None; its arguments are a function and what it takes.

    Parameters
    ----------
    first, second
        Notes, the second of which reads what the first computes.
    elementwise
        Tells what a note computes that is not fused: see `Elementwise`.
    """
    between = first.output
    inner, outer = (
        (note.args[0], note.args[1:]) if note.name == FUSED else elementwise(note)
        for note in (first, second)
    )
    # If the first result is broadcast, each of its elements would be computed many times.
    if not inner or not outer or between.shape != second.output.shape:
        return None
    compute_between, between_args = inner
    compute, args = outer
    is_between = [arg is between for arg in args]

    def both(*values: Any) -> Any:
        inner_value = compute_between(*values[: len(between_args)])
        others = iter(values[len(between_args) :])
        return compute(*(inner_value if here else next(others) for here in is_between))

    others = tuple(arg for arg in args if arg is not between)
    fused_args = (both, *between_args, *others)
    return replace(second, name=FUSED, function=both, args=fused_args, kwargs={})
