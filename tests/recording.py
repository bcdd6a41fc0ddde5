"""A namespace that notes each function xbp calls on NumPy, to be held against another library's.

``pytest --record-calls FOLDER`` runs the suite on it; tests/test_cupy.py reads the notes.
"""

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from xbp import namespace

# Name, number of positional arguments, keywords, dtypes of the arguments, dtype of the result.
Call = tuple[str, int, tuple[str, ...], tuple[str, ...], str]


class RecordingNamespace:
    """Stands for a module of array functions, and notes how each is called."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.calls: set[Call] = set()

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.module, name)
        if isinstance(member, type) or not callable(member) or name.startswith("__"):
            return member
        wrapped = self._noting(name, member)
        setattr(self, name, wrapped)
        return wrapped

    def _noting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def noting(*arguments: Any, **keywords: Any) -> Any:
            result = function(*arguments, **keywords)
            kinds = tuple(_kind(argument) for argument in arguments)
            self.calls.add((name, len(arguments), tuple(sorted(keywords)), kinds, _kind(result)))
            return result

        return noting

    def write(self, folder: Path) -> None:
        """Write the calls as JSON, in a file for each process."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{os.getpid()}.json").write_text(json.dumps(sorted(self.calls), indent=1))

    def install(self, backend: Any) -> None:
        """Become the namespace of every array of a backend's library."""
        original = array_api_compat.array_namespace

        def array_namespace(*arrays: Any) -> Any:
            found = original(*arrays)
            return self if found is self.module else found

        namespace._namespaces.clear()
        namespace.array_api_compat = _Replaced(array_api_compat, array_namespace)  # type: ignore[attr-defined]
        type(backend).xp = self


class _Replaced:
    """array-api-compat with another ``array_namespace``."""

    def __init__(self, module: ModuleType, array_namespace: Callable[..., Any]) -> None:
        self._module = module
        self.array_namespace = array_namespace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _kind(value: Any) -> str:
    """Return the dtype of an array, and the type of anything else."""
    return str(value.dtype) if isinstance(value, np.ndarray | np.generic) else type(value).__name__
