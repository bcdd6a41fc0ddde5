"""The file and line of a class, for error messages."""

from collections.abc import Iterable
from inspect import getsourcefile, getsourcelines, isfunction, unwrap


def place_of(kind: type) -> str:
    """Return ``file, line number: Class``, the line of its first method, or the name alone."""
    codes = [unwrap(f).__code__ for f in vars(kind).values() if isfunction(f)]
    own = [code for code in codes if code.co_qualname.startswith(f"{kind.__qualname__}.")]
    if own:
        first = min(own, key=lambda code: code.co_firstlineno)
        return f"{first.co_filename}, line {first.co_firstlineno}: {kind.__name__}"
    try:
        file, line = getsourcefile(kind), getsourcelines(kind)[1]
    except Exception:  # it is in no file, or the file has changed
        return kind.__name__
    return f"{file}, line {line}: {kind.__name__}"


def places_of(things: Iterable[object]) -> str:
    """Return the places of the classes of things, without duplicates."""
    return "; ".join(dict.fromkeys(place_of(type(thing)) for thing in things))
