"""CuPy without a GPU: every call that xbp makes exists in CuPy, with the arguments xbp gives."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xbp

array_api_compat_cupy = pytest.importorskip("array_api_compat.cupy")


def calls() -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield each call of a namespace in the framework: name, number of arguments, keywords."""
    for path in sorted(Path(xbp.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=value, attr=name)):
                    is_namespace = isinstance(value, ast.Name) and value.id == "xp"
                    is_backends = isinstance(value, ast.Attribute) and value.attr == "xp"
                    is_direct = isinstance(value, ast.Call) and (
                        getattr(value.func, "id", "") == "namespace_of"
                    )
                    if is_namespace or is_backends or is_direct:
                        keywords = tuple(keyword.arg or "" for keyword in node.keywords)
                        yield name, len(node.args), keywords


CALLS = sorted(set(calls()))


def test_the_calls_were_found() -> None:
    names = {name for name, _, _ in CALLS}
    assert {"matmul", "exp", "sum", "where", "take", "astype", "asarray", "argmax"} <= names


@pytest.mark.parametrize(("name", "count", "keywords"), CALLS)
def test_cupy_takes_the_call(name: str, count: int, keywords: tuple[str, ...]) -> None:
    function = getattr(array_api_compat_cupy, name)
    try:
        signature = inspect.signature(function)
    except ValueError:  # a ufunc has none: its arguments are counted, and xbp names none of them
        assert count <= function.nin
        assert not keywords
    else:
        arguments: list[Any] = [None] * count
        signature.bind(*arguments, **dict.fromkeys(keywords))


def test_the_backend_is_found_and_says_what_it_lacks_or_works() -> None:
    record = xbp.available_backends()["cupy"]
    assert record.version
    assert record.usable or "CuPy sees no GPU: check the driver" in record.reason
