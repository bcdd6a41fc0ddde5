"""A traced function made faster before it is replayed: fewer calls and less memory, same result.

Notes say which memory a call reads and which it writes. So it can be told what nobody reads, and
what nobody reads but the next call.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, TypeAlias

from xbp.recording.tracing import Note, Traced

# What nobody reads --------------------------------------------------------------------------------


def without_the_unread(notes: Sequence[Note], results: Set[Traced]) -> list[Note]:
    """Return the notes without those whose outputs lead to no result, and change nothing."""
    read = set(results)
    kept = []
    for note in reversed(notes):
        if note.in_place or note.output in read:
            kept.append(note)
            read.update(note.inputs, *(x.owners for x in note.inputs))
    return kept[::-1]


# What is computed twice --------------------------------------------------------------------------


def without_repeats(notes: Sequence[Note], lasting: Set[Traced]) -> list[Note]:
    """Return the notes with each number computed once, and read wherever it is needed."""
    done: list[Note] = []
    numbers: dict[tuple[Any, ...], Traced] = {}
    first: dict[Traced, Traced] = {}
    for note in notes:
        for again in first.keys() & set(note.inputs):
            note = _with(first[again], again, note)  # noqa: PLW2901
        is_number = isinstance(note.output.value, int | float) and not note.kwargs
        key = (note.function, *map(_identity, note.args))
        if is_number and note.output not in lasting and key in numbers:
            first[note.output] = numbers[key]
            continue
        if is_number:
            numbers[key] = note.output
        done.append(note)
    return done


def _identity(argument: Any) -> Any:
    is_plain = isinstance(argument, int | float)
    return (type(argument), argument) if is_plain else id(argument)


# Results in the memory of arguments --------------------------------------------------------------


def in_memory_of(
    notes: Sequence[Note],
    places: Mapping[Traced, Traced],
    overwriting: Set[str],
    lasting: Set[Traced],
) -> list[Note]:
    """Return notes that leave results in the memory of arguments, which are read no more then.

    Parameters
    ----------
    notes
        In the order of the function.
    places
        An argument of the same shape and dtype for each result.
    overwriting
        The functions whose output may be one of their inputs.
    lasting
        Whose memory is read when all is done.
    """
    done = list(notes)
    for result, place in places.items():
        made = next(i for i, note in enumerate(done) if note.output is result)
        later = done[made + 1 :]
        is_read_later = any(place in note.touched for note in later)
        # A view would go on to be one of memory that nothing is written to.
        has_views = any(
            result in x.owners and x is not result for note in later for x in _all(note)
        )
        if is_read_later or has_views or not _can_write(done[made], place, overwriting):
            done.append(Note("", _fill, (place, result), {}, place, in_place=True))
            continue
        others, wanted = lasting - {result}, [made]
        while wanted:
            made = wanted.pop()
            note = done[made]
            done[made] = replace(note, output=place, in_place=True)
            done[made + 1 :] = [_with(place, note.output, later) for later in done[made + 1 :]]
            # What it reads, and nobody else, may be computed there, too.
            if place not in set(note.inputs):
                wanted = _operands(done, made, place, overwriting, others)[:1]
    return done


def _operands(
    notes: Sequence[Note], reader: int, place: Traced, overwriting: Set[str], lasting: Set[Traced]
) -> list[int]:
    """Return which notes leave what one note alone reads, and could leave it in a place."""
    found = []
    inputs = set(notes[reader].inputs)
    for i in reversed(range(reader)):
        x = notes[i].output
        if (
            x in inputs
            and x not in lasting
            and _can_write(notes[i], place, overwriting)
            and not any(x in n.touched for j, n in enumerate(notes) if j not in (i, reader))
            and not any(place in n.touched for n in notes[i + 1 : reader])
        ):
            found.append(i)
    # One that reads what is there is as good as in place.
    return sorted(found, key=lambda i: place not in set(notes[i].inputs))


def _can_write(note: Note, place: Traced, overwriting: Set[str]) -> bool:
    """Tell whether the output may be in a place: not where a view reads that in another order."""
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
    """Return a note that reads, or changes, another array in the place of one."""
    if traced not in {note.output, *note.inputs}:
        return note
    return replace(
        note,
        args=_exchanged(note.args, traced, other),
        kwargs=_exchanged(note.kwargs, traced, other),
        output=other if note.output is traced else note.output,
    )


def _exchanged(arguments: Any, traced: Traced, other: Traced) -> Any:
    if arguments is traced:
        return other
    if type(arguments) in (list, tuple):
        return type(arguments)(_exchanged(part, traced, other) for part in arguments)
    if isinstance(arguments, dict):
        return {key: _exchanged(part, traced, other) for key, part in arguments.items()}
    return arguments


# Two calls in one --------------------------------------------------------------------------------

# From two notes, the second of which reads what the first computes, to one that does both; or None.
Fuse: TypeAlias = Callable[[Note, Note], Note | None]


def fused(notes: Sequence[Note], fuse: Fuse, lasting: Set[Traced]) -> list[Note]:
    """Return the notes with one in place of two where a library can do both in one call.

    Parameters
    ----------
    notes
        In the order of the calls.
    fuse
        What the library can.
    lasting
        Whose memory is read when all is done.
    """
    # How often each memory is still to be read or changed.
    uses = Counter(lasting)
    for note in notes:
        uses.update(note.touched)
    done: list[Note] = []
    for note in notes:
        uses.subtract(note.touched)
        last = note
        while pair := _pair(done, last, fuse, uses):
            first, last = pair
            done.remove(first)
        done.append(last)
    return done


def _pair(
    done: Sequence[Note], second: Note, fuse: Fuse, uses: Mapping[Traced, int]
) -> tuple[Note, Note] | None:
    """Return a note that can be fused with the second, and both in one."""
    for between in second.inputs:
        if uses[between] and second.output is not between:
            continue
        # A view of somebody else's memory touches that, and not itself.
        first = next((note for note in reversed(done) if between in note.touched), None)
        if not first or first.output is not between:
            continue
        later = done[done.index(first) + 1 :]
        changed = set().union(*(note.output.owners for note in later if note.in_place))
        if changed.isdisjoint(first.touched) and (both := fuse(first, second)):
            # It changes what was there before, unless the first has made it.
            in_place = both.in_place and (both.output is not between or first.in_place)
            return first, replace(both, in_place=in_place)
    return None


# Elementwise functions of elementwise functions --------------------------------------------------

FUSED = "fused"

# From a note to an elementwise function and its arguments, arrays and numbers; or None.
Elementwise: TypeAlias = Callable[[Note], tuple[Callable[..., Any], tuple[Any, ...]] | None]


def fuse_elementwise(first: Note, second: Note, elementwise: Elementwise) -> Note | None:
    """Return a note named `FUSED`: its arguments are a function, and what that is called with.

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
    # Of another shape it would be computed many times over.
    if not inner or not outer or between.shape != second.output.shape:
        return None
    compute_between, between_args = inner
    compute, args = outer
    places = [arg is between for arg in args]

    def both(*values: Any) -> Any:
        found = compute_between(*values[: len(between_args)])
        others = iter(values[len(between_args) :])
        return compute(*(found if here else next(others) for here in places))

    others = tuple(arg for arg in args if arg is not between)
    fused_args = (both, *between_args, *others)
    return replace(second, name=FUSED, function=both, args=fused_args, kwargs={})
