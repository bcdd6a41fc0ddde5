"""Results of a command as JSON."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from xbp.files import write_file


def to_json(result: Mapping[str, Any], indent: int | None = None) -> str:
    """Return results as JSON; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_finite(result), indent=indent, allow_nan=False)


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write results to a file, completely or not at all.

    Raises
    ------
    DataError
        If the file cannot be written; an existing file is then unchanged.
    """
    write_file(path, to_json(result, indent=2).encode())


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
