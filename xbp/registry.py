"""Find, select and describe backends.

A backend is known by an entry point of the group ``xbp.backends``, or by `register_backend`: each
gives a factory, usually a subclass of `Backend`. There is no list of names here.

A thread or an asyncio task selects a backend in a context variable, for itself alone. A selection
at the top level of a program, that is in a script, at a prompt or in a notebook's cell, is for
the whole process: for each thread and task that selects nothing itself. So a cell's selection holds
in the next cell, although a kernel may run each cell in a task of its own.
"""

import copy
import difflib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from xbp.backend import Backend
from xbp.errors import (
    BackendNotFoundError,
    BackendUnavailableError,
    MixedBackendError,
    SettingError,
    XbpError,
)
from xbp.namespace import Array

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint
    from types import FrameType

GROUP = "xbp.backends"
ENVIRONMENT_VARIABLE = "XBP_BACKEND"
DEFAULT = "numpy"

BackendFactory = Callable[[str | None], Backend]

_used: ContextVar[Backend | None] = ContextVar("xbp_use_backend", default=None)
_set: ContextVar[Backend | None] = ContextVar("xbp_set_backend", default=None)

# The backend selected at the top level of the program.
_of_process: Backend | None = None

_OF_COROUTINES = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR

_lock = threading.RLock()
_process_factories: dict[str, BackendFactory] = {}
_instances: dict[str, Backend] = {}


def get_backend(spec: str | Backend | None = None) -> Backend:
    """Return the backend a spec names, or the selected one.

    Parameters
    ----------
    spec
        ``"name"`` or ``"name:device"``, such as ``"numpy"`` or ``"torch:cuda:0"``. None returns
        the selected backend. In order of precedence, that is the one of `use_backend`, of
        `set_backend` in this thread or task, of `set_backend` at the program's top level, of the
        environment variable ``XBP_BACKEND``, or NumPy. A `Backend` is returned as it is.

    Raises
    ------
    BackendNotFoundError
        If no backend has that name.
    BackendUnavailableError
        If the backend cannot be used here.
    """
    if isinstance(spec, Backend):
        return spec
    if spec is not None:
        return _find(spec)
    selected = _used.get() or _set.get() or _of_process
    if selected is not None:
        return selected
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if not from_environment:
        return _find(DEFAULT)
    return _find(from_environment, f"{ENVIRONMENT_VARIABLE}={from_environment}: ")


def set_backend(spec: str | Backend | None) -> None:
    """Select a backend from here on; None withdraws the selection.

    A call from the top level of a program, that is from a script, a prompt or a notebook's cell, or
    from what these call or await, selects it for the process: for each thread and asyncio task that
    selects nothing itself. A call in a thread or a task selects it for that alone, and for the
    tasks that it starts.

    Raises
    ------
    BackendNotFoundError, BackendUnavailableError
        As in `get_backend`; the selection is then unchanged.
    """
    global _of_process
    backend = None if spec is None else get_backend(spec)
    if _at_top_level():
        _of_process, backend = backend, None
    _set.set(backend)


def _at_top_level() -> bool:
    """Tell whether the caller is the code of a module, a prompt or a cell, not an event loop."""
    if threading.current_thread() is not threading.main_thread():
        return False
    # Start at set_backend's own frame, since its caller need not be Python code.
    frame: FrameType | None = sys._getframe(1)
    in_coroutine = False
    while frame is not None:
        flags, name = frame.f_code.co_flags, frame.f_code.co_name
        if not flags & inspect.CO_NEWLOCALS and name.startswith("<"):
            return True  # "<module>", or IPython's name of a cell
        # A function that calls a coroutine drives it: it is the event loop of some library.
        was_in_coroutine, in_coroutine = in_coroutine, bool(flags & _OF_COROUTINES)
        if was_in_coroutine and not in_coroutine:
            return False
        if frame.f_globals.get("__name__") == "asyncio.events":
            return False  # a callback
        frame = frame.f_back
    return False


def use_backend(spec: str | Backend) -> AbstractContextManager[Backend]:
    """Select a backend for the ``with`` block; it takes precedence over `set_backend`.

    Raises
    ------
    BackendNotFoundError, BackendUnavailableError
        As in `get_backend`, when called, before the block is entered.
    """
    return _selected(get_backend(spec))


@contextmanager
def _selected(backend: Backend) -> Iterator[Backend]:
    token = _used.set(backend)
    try:
        yield backend
    finally:
        _used.reset(token)


def register_backend(name: str, factory: BackendFactory) -> None:
    """Add a backend for the running process, or replace the one of that name.

    Parameters
    ----------
    name
        The name, without a colon.
    factory
        A function of the device's name, or None for the default device, that returns a `Backend`.
        A subclass of `Backend` is such a factory.

    Raises
    ------
    BackendNotFoundError
        If the name is empty or contains a colon, so that no spec could name it.
    SettingError
        If the factory cannot be called.
    """
    if not isinstance(name, str) or not name or ":" in name:
        raise BackendNotFoundError(f"{name!r} cannot be a backend's name: use a word without ':'")
    if not callable(factory):
        raise SettingError(f"a backend's factory is called with a device, {factory!r} cannot be")
    with _lock:
        _process_factories[name] = factory
        for spec in [spec for spec in _instances if spec.partition(":")[0] == name]:
            del _instances[spec]


def backend_of(x: Array) -> Backend:
    """Return the backend that owns an array; the selected one is asked first.

    Raises
    ------
    MixedBackendError
        If no usable backend owns arrays of this type.
    """
    selected = get_backend()
    if selected.owns(x):
        return selected
    library = type(x).__module__.partition(".")[0]
    # Backends named like the array's library come first, so that no other library is imported.
    names = sorted(_factories(), key=lambda name: not library.startswith(name.replace("-", "_")))
    for record in map(BackendRecord, names):
        if record.usable and _answer(partial(record.backend.is_native, x), of=bool, other=False):
            return get_backend(f"{record.name}:{record.backend.device_name(x)}")
    raise MixedBackendError(
        f"no backend owns arrays of {type(x).__module__}.{type(x).__name__}: add one with "
        "register_backend, or convert with get_backend(...).asarray(x)"
    )


def owner_of(x: Array) -> Backend | None:
    """Return the backend that owns an array among those in use: the selected one is asked first."""
    selected: Backend | None = _answer(get_backend, of=Backend, other=None)
    for backend in (selected, *tuple(_instances.values())):
        if backend and _answer(partial(backend.owns, x), of=bool, other=False):
            return backend
    return None


def available_backends() -> Mapping[str, "BackendRecord"]:
    """Return a record of every backend by name, whether it is usable or not.

    A library is imported when an attribute of its record is first read. An exception of a plugin,
    ``SystemExit`` included, then makes it unusable, or leaves the attribute unknown.
    """
    return {name: BackendRecord(name) for name in sorted(_factories())}


class BackendRecord:
    """The description of one backend; each attribute is computed when it is first read.

    Attributes
    ----------
    name : str
    usable : bool
    reason : str
        Why it is not usable, and what to do; empty if it is usable.
    version : str or None
        The version of the library; None if it cannot be imported or has no ``__version__``.
    devices : list of str
        The devices that a spec may name; the default one alone if the plugin lists none.
    has_float64 : bool or None
        Whether the default device computes in float64; None if the plugin does not say.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<xbp backend record {self.name}>"

    @cached_property
    def _outcome(self) -> Backend | XbpError:
        try:
            return get_backend(self.name)
        except XbpError as error:
            return error

    @property
    def backend(self) -> Backend:
        """The backend on its default device; raises the `XbpError` if it is not usable."""
        if isinstance(self._outcome, XbpError):
            raise self._outcome
        return self._outcome

    @property
    def usable(self) -> bool:
        """Whether arrays can be made on it here."""
        return isinstance(self._outcome, Backend)

    @property
    def reason(self) -> str:
        """Why it is not usable, and what to do; empty if it is usable."""
        return "" if isinstance(self._outcome, Backend) else str(self._outcome)

    @cached_property
    def version(self) -> str | None:
        """The version of its library, if that can be imported."""
        version = _answer(
            lambda: getattr(_load(self.name), "library").__version__,  # noqa: B009  any factory
            of=str,
            other=None,
        )
        return None if version is None else str(version)

    @cached_property
    def devices(self) -> list[str]:
        """The devices that a spec may name here."""
        if not self.usable:
            return []
        names = _answer(lambda: list(self.backend.devices()), of=list, other=[])
        if not all(isinstance(name, str) for name in names):
            names = []
        return [str(name) for name in names or [self.backend.device]]

    @property
    def has_float64(self) -> bool | None:
        """Whether its default device computes in float64; None if the plugin does not say."""
        answer: bool | None = _answer(lambda: self.backend.has_float64, of=bool, other=None)
        return answer


def _find(spec: str, origin: str = "") -> Backend:
    try:
        return _instances[spec]
    except (KeyError, TypeError):
        pass
    if not isinstance(spec, str):
        raise BackendNotFoundError(
            f"a backend is named by a string such as 'numpy' or 'torch:cuda:0', not by {spec!r}"
        )
    name, colon, device = spec.partition(":")
    if colon and not device:
        raise BackendNotFoundError(f"{origin}no device after the colon in {spec!r}: say {name!r}")
    with _lock:
        backend = _make(_load(name, origin), name, device or None, origin)
        return _instances.setdefault(spec, backend)


def _answer(ask: Callable[[], Any], *, of: type, other: Any) -> Any:
    """Return what a plugin's code returns; ``other`` if it raises or returns another type."""
    try:
        answer = ask()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return other
    return answer if isinstance(answer, of) else other


def _factories() -> dict[str, Any]:
    """Return by name the registered factories, and the entry points, which are not loaded yet."""
    # xbp's own come last: no plugin can take the name of one of them.
    installed = {point.name: point for point in sorted(_entry_points(), key=_is_own)}
    return {**installed, **_process_factories}


def _entry_points() -> "list[EntryPoint]":
    """Return the entry points of the group, skipping distributions that cannot be read."""
    # Imported here, since it takes a third of the time of importing NumPy.
    from importlib.metadata import distributions, entry_points  # noqa: PLC0415

    try:
        return list(entry_points(group=GROUP))
    except Exception:  # the metadata of some distribution are broken, in whatever way
        group = []
        for distribution in distributions():
            points = _answer(partial(_points_of, distribution), of=list, other=[])
            group += [point for point in points if point.group == GROUP]
        return group[::-1]  # of equal names the last counts: the first on the path


def _points_of(distribution: "Distribution") -> "list[EntryPoint]":
    return list(distribution.entry_points)


def _is_own(point: "EntryPoint") -> bool:
    return point.value.startswith("xbp_backends.")


def _load(name: str, origin: str = "") -> BackendFactory:
    backends = _factories()
    if name not in backends:
        nearest = difflib.get_close_matches(name, backends)
        hint = f"did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
        raise BackendNotFoundError(
            f"{origin}no backend is named {name!r}: {hint}known are "
            f"{', '.join(sorted(backends)) or 'none, so xbp itself is not installed'}; a plugin is "
            f"known by its entry point in the group {GROUP!r}"
        )
    if name in _process_factories:
        return _process_factories[name]
    point: EntryPoint = backends[name]
    try:
        factory: BackendFactory = point.load()
    except KeyboardInterrupt:
        raise
    except ImportError as error:
        raise BackendUnavailableError(
            f"{origin}backend {name!r} cannot be imported ({_message_of(error)}): "
            f"{_how_to_install(point)}"
        ) from error
    except BaseException as error:
        raise _broken(name, "import", error, origin) from error
    return factory


def _make(factory: BackendFactory, name: str, device: str | None, origin: str) -> Backend:
    try:
        backend = factory(device)
        if isinstance(backend, Backend) and getattr(backend, "name", None) != name:
            # A backend has the name that a spec finds it by. The name is set in a copy, since the
            # factory may have returned a backend that is in use under another name.
            backend = copy.copy(backend)
            backend.name = name
        missing = isinstance(backend, Backend) and [
            attribute for attribute in ("library", "xp") if not hasattr(backend, attribute)
        ]
    except KeyboardInterrupt:
        raise
    except BackendUnavailableError as error:
        raise BackendUnavailableError(f"{origin}{_message_of(error)}") from error
    except BaseException as error:
        raise _broken(name, "start", error, origin) from error
    if not isinstance(backend, Backend):
        text = _answer(lambda: repr(backend), of=str, other=f"a {type(backend).__name__}")
        raise BackendUnavailableError(
            f"{origin}the factory of backend {name!r} returned {text}, not an xbp.Backend"
        )
    if missing:
        raise BackendUnavailableError(
            f"{origin}backend {name!r} has no {' and no '.join(missing)}: its author sets it in "
            "the class"
        )
    return backend


def _broken(name: str, action: str, error: BaseException, origin: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"{origin}backend {name!r} failed to {action} with {type(error).__name__}: "
        f"{_message_of(error)}: tell its author, or uninstall the plugin"
    )


def _message_of(error: BaseException) -> str:
    """Return an error's message, or an empty text if its ``__str__`` fails."""
    message: str = _answer(lambda: str(error), of=str, other="")
    return message


def _how_to_install(point: "EntryPoint") -> str:
    """Return the command that installs the backend's extra, from the distribution's metadata."""
    requirements = _answer(lambda: point.dist and point.dist.requires, of=list, other=[])
    commands = [
        f"pip install '{requirement.strip()}'"
        for requirement, _, marker in (line.partition(";") for line in requirements)
        if marker.partition("extra ==")[2].strip(" '\"").startswith(point.name)
    ]
    return " or ".join(commands) or f"install the library that plugin {point.value!r} needs"


def describe(record: BackendRecord) -> dict[str, Any]:
    """Return a record as a dictionary of plain values, for a table or JSON."""
    return {
        "name": record.name,
        "version": record.version,
        "devices": record.devices,
        "float64": record.has_float64,
        "usable": record.usable,
        "reason": record.reason,
    }
