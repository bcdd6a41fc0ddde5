"""CuPy without a GPU: each call that the suite makes exists in CuPy, with its arguments and dtypes.

``pytest --record-calls FOLDER`` notes the calls on NumPy, ``pytest tests/test_cupy.py --calls
FOLDER`` holds them against CuPy's signatures. Nothing is computed.
"""

import inspect
import json
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import pytest
from recording import Call

import xbp
from xbp.recording import FUSED, Fuse, Writer
from xbp.training.learner import Learner

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
            # It has no signature. What a test says in vain to a trace, out, it does take.
            assert count == function.nin, name
            assert set(keywords) <= {"out"}, name
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


def test_elementwise_calls_of_a_training_step_become_kernels() -> None:
    from xbp_backends.cupy import fuse, kernel  # noqa: PLC0415  imports CuPy

    plain, fused = _calls_of_a_step(None), _calls_of_a_step(fuse)
    assert len(fused) <= len(plain) - 15
    kernels = [call for name, call in fused if name == FUSED]
    assert len(kernels) >= 8
    for function, *args, out in kernels:
        made = _kernel_of(kernel(function).func, [out, *args])
        assert isinstance(made, cupy.ElementwiseKernel)
        assert [given.is_const for given in made.in_params] == [False] + [True] * len(args)


def _calls_of_a_step(fuse: Fuse | None) -> list[tuple[str, list[Any]]]:
    """Return the calls that a training step is recorded as: their names and their arguments."""
    calls: list[tuple[str, list[Any]]] = []

    def noting(name: str) -> Writer:
        def note(*args: Any, out: Any, **kwargs: Any) -> Callable[[], None]:
            calls.append((name, [*args, out]))
            return lambda: None

        return note

    library: Any = copy(xbp.get_backend("numpy"))
    library.fuse = fuse
    library.writers = {name: noting(name) for name in [*library.writers, FUSED]}
    network = xbp.Network.fully_connected([6, 5, 4, 3], dtype="float32", backend="numpy", divisor=2)
    learner = Learner(network, xbp.Momentum(0.1))
    learner.optimizer.prepare(network.params)

    def step(state: Any, x: Any, t: Any) -> Any:
        bound = learner.bound_to(state)
        loss = bound.learn(x, t)
        return bound.state, loss

    library.compile(step)(learner.state, np.ones((4, 6), np.uint8), np.eye(4, 3, dtype=np.float32))
    return calls


def _kernel_of(function: Callable[..., Any], args: list[Any]) -> Any:
    """Return the kernel that CuPy writes for a function, of arrays that have no memory anywhere."""
    nowhere = cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(1, 1, None, device_id=0), 0)
    arrays = [cupy.ndarray(x.shape, x.dtype, nowhere) if hasattr(x, "shape") else x for x in args]
    fusion = cupy._core.fusion
    fusion._thread_local.history = history = fusion._FusionHistory()
    fusion._thread_local.is_old_fusing = True
    try:
        made, _ = history.get_fusion(function, arrays, "kernel")
    finally:
        fusion._thread_local.history = None
        fusion._thread_local.is_old_fusing = False
    return made


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
    for name in CupyBackend.writers.keys() - {"astype", "where", FUSED}:
        function = getattr(cupy, name)
        if not isinstance(function, cupy.ufunc):
            inspect.signature(function).bind_partial(out=None)
    inspect.signature(cupy.copyto).bind(None, None, "unsafe")
    inspect.signature(cupy.copyto).bind(None, None, where=None)


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
