"""Where somebody's classes are written: an error names the file and the line."""

from collections.abc import Iterable
from inspect import getsourcefile, getsourcelines


def place_of(kind: type) -> str:
    """Return ``file, line number: Class``; the name of the class alone, if it is in no file."""
    try:
        file, line = getsourcefile(kind), getsourcelines(kind)[1]
    except (OSError, TypeError):
        return kind.__name__
    return f"{file}, line {line}: {kind.__name__}"


def places_of(things: Iterable[object]) -> str:
    """Return the places of the classes of some things, each once."""
    return "; ".join(dict.fromkeys(place_of(type(thing)) for thing in things))
