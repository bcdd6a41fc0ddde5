"""CuPy without a GPU: each call that the suite makes exists in CuPy, with its arguments and dtypes.

``pytest --record-calls FOLDER`` notes the calls on NumPy, ``pytest tests/test_cupy.py --calls
FOLDER`` holds them against CuPy's signatures. Nothing is computed.
"""

import inspect
import json
from typing import Any

import numpy as np
import pytest
from recording import Call

import xbp

xp = pytest.importorskip("array_api_compat.cupy")
cupy = pytest.importorskip("cupy")


@pytest.fixture(scope="module")
def calls(request: pytest.FixtureRequest) -> list[Call]:
    folder = request.config.getoption("--calls")
    if folder is None:
        pytest.skip("no calls: pytest --record-calls FOLDER, then --calls FOLDER")
    return [tuple(call) for path in folder.glob("*.json") for call in json.loads(path.read_text())]


def test_the_calls_were_noted(calls: list[Call]) -> None:
    names = {name for name, *_ in calls}
    assert {"matmul", "exp", "sum", "where", "take", "astype", "asarray", "argmax"} <= names


def test_cupy_has_each_function_with_its_arguments(calls: list[Call]) -> None:
    for name, count, keywords, *_ in calls:
        function = getattr(xp, name)
        if isinstance(function, cupy.ufunc):
            # It has no signature, and xbp names none of its arguments.
            assert count == function.nin, name
            assert not keywords, name
        else:
            arguments: list[Any] = [None] * count
            inspect.signature(function).bind(*arguments, **dict.fromkeys(keywords))


def test_cupys_ufuncs_take_the_dtypes_and_give_the_same(calls: list[Call]) -> None:
    checked = 0
    for name, _, _, kinds, result in calls:
        function = getattr(xp, name)
        arrays = [kind for kind in kinds if kind not in ("int", "float", "bool_")]
        if isinstance(function, cupy.ufunc) and arrays:
            # A Python number takes part in the dtype of the arrays it meets.
            taken = [kind if kind in arrays else arrays[0] for kind in kinds]
            assert _result(function, taken) == result, f"{name}({', '.join(kinds)})"
            checked += 1
    assert checked > 10


def _result(function: Any, dtypes: list[str]) -> str | None:
    """Return the dtype of the first of a ufunc's loops that takes the dtypes, as CuPy chooses."""
    for loop in function.types:
        inputs, _, output = loop.partition("->")
        pairs = list(zip(dtypes, inputs, strict=True))
        # NumPy has no complex numbers of half precision, CuPy's loop "E".
        if "E" not in loop and all(
            np.can_cast(np.dtype(given), np.dtype(taken)) for given, taken in pairs
        ):
            return str(np.dtype(output[0]))
    return None


def test_cupy_writes_into_memory_that_is_there() -> None:
    from xbp_backends.cupy import CupyBackend  # noqa: PLC0415

    assert {"add", "exp", "matmul", "maximum", "sum", "max", "take"} <= CupyBackend.writers.keys()
    for name in CupyBackend.writers.keys() - {"astype"}:
        function = getattr(cupy, name)
        if not isinstance(function, cupy.ufunc):
            inspect.signature(function).bind_partial(out=None)
    inspect.signature(cupy.copyto).bind(None, None, "unsafe")


def test_cupy_has_what_a_graph_is_captured_with() -> None:
    for method in ("begin_capture", "end_capture"):
        assert callable(getattr(cupy.cuda.Stream, method))
    assert callable(cupy.cuda.graph.Graph.launch)
    assert callable(cupy.cuda.MemoryPool.malloc)
    inspect.signature(cupy.cuda.using_allocator).bind(None)


def test_the_backend_is_found_and_says_what_it_lacks_or_works() -> None:
    record = xbp.available_backends()["cupy"]
    assert record.version
    assert record.usable or "CuPy sees no GPU: check the driver" in record.reason
