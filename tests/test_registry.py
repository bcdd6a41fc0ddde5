"""Finding, selecting and describing backends; plugins, also broken ones."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextvars import copy_context
from functools import partial
from pathlib import Path
from types import coroutine
from typing import Any

import numpy as np
import pytest
from support import arr, backend, once, other

import xbp
from xbp import (
    Backend,
    available_backends,
    get_backend,
    register_backend,
    registry,
    set_backend,
    use_backend,
)
from xbp.errors import (
    BackendNotFoundError,
    BackendUnavailableError,
    MixedBackendError,
    SettingError,
)
from xbp.registry import backend_of

SELECTED = f"{backend.name}:{backend.device}"


@pytest.fixture(autouse=True)
def _clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XBP_BACKEND", raising=False)
    monkeypatch.setattr(registry, "_process_factories", {})
    monkeypatch.setattr(registry, "_instances", dict(registry._instances))


# Selection ---------------------------------------------------------------------------------------


def test_numpy_is_the_default() -> None:
    assert get_backend().name == "numpy"


def test_the_environment_is_read_when_a_backend_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XBP_BACKEND", SELECTED)
    assert get_backend() is get_backend(SELECTED)
    monkeypatch.setenv("XBP_BACKEND", "array-api-strict:device1")
    assert get_backend().device == "device1"
    monkeypatch.setenv("XBP_BACKEND", "")
    assert get_backend().name == "numpy"


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XBP_BACKEND", "array-api-strict:CPU_DEVICE")
    assert get_backend().device == "CPU_DEVICE"
    set_backend("array-api-strict:device1")
    assert get_backend().device == "device1"
    with use_backend("array-api-strict:device2") as used:
        assert get_backend() is used
        assert used.device == "device2"
        set_backend("numpy")
        assert get_backend().device == "device2"
        assert get_backend(SELECTED).name == backend.name
        assert xbp.TwoLayerNet(1, 1, 1, backend=backend).backend is backend
        with use_backend("numpy"):
            assert get_backend().name == "numpy"
        assert get_backend() is used
    assert get_backend().name == "numpy"
    set_backend(None)
    assert get_backend().device == "CPU_DEVICE"


def test_use_backend_ends_with_an_error_too() -> None:
    with pytest.raises(RuntimeError), use_backend("array-api-strict"):
        raise RuntimeError
    assert get_backend().name == "numpy"


def test_a_backend_that_cannot_be_had_changes_no_selection() -> None:
    set_backend("array-api-strict")
    with pytest.raises(BackendNotFoundError):
        set_backend("nonsense")
    with pytest.raises(BackendNotFoundError), use_backend("nonsense"):
        pass
    assert get_backend().name == "array-api-strict"


def test_a_backend_object_is_its_own_spec() -> None:
    assert get_backend(backend) is backend
    with use_backend(backend):
        assert get_backend() is backend


def test_the_same_spec_gives_the_same_object() -> None:
    assert get_backend(backend.name) is get_backend(backend.name)
    assert get_backend(SELECTED).device == backend.device


def test_threads_do_not_see_each_others_selection() -> None:
    seen = {}
    both_set = threading.Barrier(2)

    def work(spec: str) -> None:
        set_backend(spec)
        both_set.wait()
        seen[spec] = get_backend().device

    specs = ["array-api-strict:device1", "array-api-strict:device2"]
    threads = [threading.Thread(target=work, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {spec: spec.partition(":")[2] for spec in specs}
    assert get_backend().name == "numpy"


def test_tasks_do_not_see_each_others_selection() -> None:
    async def work(device: str) -> str:
        with use_backend(f"array-api-strict:{device}"):
            await asyncio.sleep(0)
            set_backend("numpy")
            await asyncio.sleep(0)
            return get_backend().device

    async def both() -> list[str]:
        return list(await asyncio.gather(work("device1"), work("device2")))

    assert asyncio.run(both()) == ["device1", "device2"]
    assert get_backend().name == "numpy"


def in_thread(*works: Callable[[], Any]) -> Any:
    """Return what the last of the works returns, in a thread of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(work() for work in works))
    thread.start()
    thread.join()
    return found[-1]


def device() -> str:
    return get_backend().device


def test_threads_and_tasks_that_select_nothing_take_what_the_program_selects() -> None:
    go_on, seen = threading.Event(), []

    def wait_and_look() -> None:
        go_on.wait()
        seen.append(device())

    early = threading.Thread(target=wait_and_look, daemon=True)
    early.start()
    set_backend("array-api-strict:device1")

    async def work() -> list[str]:
        return [device(), await asyncio.to_thread(device)]

    assert asyncio.run(work()) == ["device1"] * 2
    assert in_thread(device) == "device1"
    assert in_thread(partial(set_backend, "array-api-strict:device2"), device) == "device2"
    assert in_thread(partial(set_backend, "numpy"), partial(set_backend, None), device) == "device1"
    # What a thread executes as code is no top level, either.
    in_thread(partial(exec, "import xbp; xbp.set_backend('array-api-strict:device2')"))
    with use_backend("array-api-strict:device2"):
        assert in_thread(device) == "device1"
    go_on.set()
    early.join()
    assert seen == [device()] == ["device1"]
    set_backend(None)
    assert in_thread(device) == "cpu"


def test_a_function_that_a_loop_calls_selects_for_itself() -> None:
    def select_and_look() -> str:
        set_backend("array-api-strict:device2")
        return device()

    async def generated() -> AsyncIterator[str]:
        yield select_and_look()

    async def works() -> list[str]:
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        loop.call_soon(lambda: called.set_result(select_and_look()))
        seen = [await called, device(), in_thread(device)]
        seen += [found async for found in generated()]
        return [*seen, device(), in_thread(device), await asyncio.create_task(later())]

    async def later() -> str:
        return device()

    ours, theirs = "device1", "device2"
    # Nor does a context of one's own keep it.
    set_backend("numpy")
    copy_context().run(set_backend, "array-api-strict:device1")
    assert device() == ours
    assert asyncio.run(works()) == [theirs, ours, ours, theirs, theirs, ours, theirs]
    assert device() == ours


def test_tasks_of_another_kind_of_loop_do_not_see_each_others_selection() -> None:
    @coroutine
    def pause() -> Generator[None, None, None]:
        yield

    async def work(spec: str) -> tuple[str, str]:
        set_backend(spec)
        await pause()
        return spec, f"{get_backend().name}:{get_backend().device}"

    specs = ["array-api-strict:device1", "array-api-strict:device2", "numpy:cpu"]
    tasks = [(copy_context(), work(spec)) for spec in specs]
    for context, task in tasks:
        context.run(task.send, None)
    for context, task in tasks:
        with pytest.raises(StopIteration) as ended:
            context.run(task.send, None)
        assert len(set(ended.value.value)) == 1
    assert get_backend().name == "numpy"


def test_a_script_its_modules_and_its_functions_are_the_top_level(tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text("import xbp\nxbp.set_backend('array-api-strict:device1')")
    code = (
        "import sys, threading, xbp\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "def look():\n"
        "    thread = threading.Thread(target=lambda: print(xbp.get_backend().device, end=' '))\n"
        "    thread.start(); thread.join()\n"
        "import settings; look()\n"
        "def select(): xbp.set_backend('array-api-strict:device2')\n"
        "select(); look()\n"
        "exec('xbp.set_backend(None)'); look()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert found.stdout == "device1 device2 cpu "


@once
def test_a_selection_needs_no_caller_of_python() -> None:
    code = (
        "import atexit, xbp; atexit.register(lambda: print(xbp.get_backend())); "
        "xbp.set_backend('numpy'); atexit.register(xbp.set_backend, 'numpy')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout
    assert done.stderr == ""


def test_what_is_registered_while_another_is_made_counts() -> None:
    turn, done = threading.Event(), threading.Event()
    numpy: Any = type(get_backend("numpy"))

    class Old(numpy):  # type: ignore[misc]
        def __init__(self, device: str | None = None) -> None:
            super().__init__(device)
            turn.set()
            done.wait(0.3)

    class New(numpy):  # type: ignore[misc]
        pass

    def register() -> None:
        turn.wait(10)
        register_backend("renewed", New)
        done.set()

    register_backend("renewed", Old)
    other = threading.Thread(target=register)
    other.start()
    assert isinstance(get_backend("renewed"), Old)
    other.join()
    assert isinstance(get_backend("renewed"), New)


def test_threads_that_ask_at_once_get_one_object() -> None:
    made = []

    class Slow(type(get_backend("numpy"))):  # type: ignore[misc]
        def __init__(self, device: str | None = None) -> None:
            super().__init__(device)
            made.append(self)

    register_backend("slow", Slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(get_backend("slow"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


# Mistakes ----------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(
        BackendNotFoundError, match=r"'nunpy': did you mean 'numpy' or .*known are "
    ):
        get_backend("nunpy")
    with pytest.raises(
        LookupError, match=r"known are array-api-strict, cupy, .*dpnp, jax, .*, torch"
    ):
        get_backend("zzz")


def test_the_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XBP_BACKEND", "touch")
    with pytest.raises(BackendNotFoundError, match=r"XBP_BACKEND=touch: .*did you mean 'torch'"):
        get_backend()


@pytest.mark.parametrize("spec", ["", ":", ":0", "numpy:"])
def test_a_spec_has_a_name_and_after_a_colon_a_device(spec: str) -> None:
    with pytest.raises(BackendNotFoundError):
        get_backend(spec)


def test_a_spec_is_a_string() -> None:
    with pytest.raises(BackendNotFoundError, match="named by a string"):
        get_backend(3)  # type: ignore[arg-type]
    with pytest.raises(BackendNotFoundError, match="named by a string"):
        get_backend(["numpy"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [backend.name, "numpy", "array-api-strict"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(BackendUnavailableError, match=f"{name!r} has no device 'nowhere' here"):
        get_backend(f"{name}:nowhere")
    with pytest.raises(ImportError, match="choose one of "):
        get_backend(f"{name}:nowhere")


# Registration and plugins ------------------------------------------------------------------------


class Mine(type(get_backend("numpy"))):  # type: ignore[misc]
    name = "goes by the name it is registered under"


def test_a_registered_backend_is_found_and_replaced() -> None:
    register_backend("mine", Mine)
    assert isinstance(get_backend("mine"), Mine)
    assert get_backend("mine").name == "mine"
    assert available_backends()["mine"].usable

    class Newer(Mine):
        pass

    register_backend("mine", Newer)
    assert isinstance(get_backend("mine"), Newer)


@pytest.mark.parametrize("name", ["", "a:b"])
def test_a_name_can_be_part_of_a_spec(name: str) -> None:
    with pytest.raises(BackendNotFoundError, match="cannot be a backend's name"):
        register_backend(name, Mine)


def test_a_backend_under_two_names_keeps_both() -> None:
    register_backend("alias", lambda device: get_backend("numpy"))
    assert get_backend("alias").name == "alias"
    assert get_backend("numpy").name == "numpy"


def test_a_factory_can_be_called() -> None:
    with pytest.raises(SettingError, match="factory is called with a device"):
        register_backend("mine", None)  # type: ignore[arg-type]


def test_a_factory_returns_a_backend() -> None:
    register_backend("odd", lambda device: "something")  # type: ignore[arg-type, return-value]
    with pytest.raises(BackendUnavailableError, match="'odd' returned 'something'"):
        get_backend("odd")

    def failing(device: str | None) -> Backend:
        raise RuntimeError("the cable is out")

    register_backend("failing", failing)
    with pytest.raises(BackendUnavailableError, match="RuntimeError: the cable is out"):
        get_backend("failing")


def install(folder: Path, name: str, code: str, extras: tuple[str, ...] = ()) -> None:
    """Put a plugin into a folder, as pip would."""
    module = f"plugin_{name}"
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    provided = "".join(
        f"Provides-Extra: {extra}\nRequires-Dist: {name}-library>=9; extra == '{extra}'\n"
        for extra, name in ((extra, extra.rstrip("0123456789")) for extra in extras)
    )
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n{provided}"
    )
    entry_points = f"[xbp.backends]\n{name} = {module}:Plugin\n"
    (metadata / "entry_points.txt").write_text(entry_points)


def test_no_plugin_takes_the_name_of_one_of_xbps_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "numpy", "raise RuntimeError('a stranger')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(xbp.registry, "_instances", {})
    assert xbp.get_backend("numpy").name == "numpy"


def test_plugins_are_found_and_broken_ones_harm_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "good", "from xbp_backends.numpy import NumpyBackend as Plugin")
    install(tmp_path, "raising", "raise RuntimeError('it broke')")
    install(tmp_path, "lacking", "import no_such_library", ("lacking9", "docs"))
    install(tmp_path, "bare", "import no_such_library")
    install(tmp_path, "empty", "")
    install(tmp_path, "leaving", "raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    records = available_backends()
    assert {"good", "raising", "lacking", "bare", "empty", "leaving", "numpy"} <= records.keys()
    assert not any(name.startswith("plugin_") for name in sys.modules)
    assert records["good"].usable
    assert records["good"].version == np.__version__
    assert records["numpy"].usable
    assert not records["raising"].usable
    assert "failed to import with RuntimeError: it broke" in records["raising"].reason
    assert records["raising"].version is None
    assert records["raising"].devices == []
    assert "No module named 'no_such_library'" in records["lacking"].reason
    assert "pip install 'lacking-library>=9'" in records["lacking"].reason
    assert "docs-library" not in records["lacking"].reason
    assert "install the library that plugin 'plugin_bare:Plugin' needs" in records["bare"].reason
    assert "failed to import with SystemExit" in records["leaving"].reason
    assert "failed to import with AttributeError" in records["empty"].reason
    assert get_backend("good").xp is get_backend("numpy").xp


def test_records_of_what_is_here() -> None:
    records = available_backends()
    assert {"numpy", "cupy", "torch", "jax", "dpnp", "array-api-strict"} <= records.keys()
    record = records[backend.name]
    assert record.usable
    assert record.reason == ""
    assert record.version
    assert record.devices
    assert record.has_float64 == get_backend(backend.name).has_float64


@once
def test_what_a_plugin_does_not_say_of_float64_is_unknown() -> None:
    class Silent(type(get_backend("numpy"))):  # type: ignore[misc]
        @property
        def dtypes(self) -> Any:
            raise TypeError("kind is missing")

    register_backend("silent", Silent)
    record = available_backends()["silent"]
    assert record.usable
    assert record.has_float64 is None


# From an array to its backend --------------------------------------------------------------------


def test_an_array_finds_its_backend() -> None:
    assert backend_of(arr([1.0])).owns(arr([1.0]))
    assert backend_of(other.asarray([1.0])).name == other.name
    with use_backend(backend):
        assert backend_of(arr([1.0])) is backend


def test_an_array_of_nobody_finds_none() -> None:
    class Foreign:
        def __array_namespace__(self, api_version: str | None = None) -> Any:
            return sys

    with pytest.raises(MixedBackendError, match=r"no backend owns arrays of .*Foreign"):
        backend_of(Foreign())
