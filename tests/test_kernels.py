"""What is selected in a notebook, in a real kernel: `nox -s kernels` takes ipykernel 6 and 7."""

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
from support import backend

pytest.importorskip("ipykernel", reason="pip install ipykernel")
manager = pytest.importorskip("jupyter_client.manager", reason="pip install ipykernel")

pytestmark = pytest.mark.skipif(backend.name != "numpy", reason="one library is enough")

BEGIN = """
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor
import xbp

def seen():
    return xbp.get_backend().device

def in_thread(*calls):
    found = []
    thread = threading.Thread(target=lambda: found.extend(call() for call in calls))
    thread.start()
    thread.join()
    return found[-1]
"""


class Kernel:
    """A kernel that runs cells."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def run(self, cell: str) -> list[str]:
        """Return what a cell prints, by words; it ends without an error."""
        printed: list[str] = []

        def note(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed.append(content["text"])

        reply = self.client.execute_interactive(cell, output_hook=note, timeout=120)
        assert reply["content"]["status"] == "ok", reply["content"]["traceback"]
        return "".join(printed).split()


@pytest.fixture(scope="module")
def running() -> Iterator[Kernel]:
    at_work, client = manager.start_new_kernel(kernel_name="python3")
    kernel = Kernel(client)
    kernel.run(BEGIN)
    version = kernel.run("import ipykernel; print(ipykernel.__version__)")
    assert version == [metadata.version("ipykernel")]
    yield kernel
    client.stop_channels()
    at_work.shutdown_kernel(now=True)


@pytest.fixture
def kernel(running: Kernel) -> Kernel:
    """A kernel in which nothing is selected."""
    assert running.run("xbp.set_backend(None); print(seen())") == ["cpu"]
    return running


def test_a_selection_holds_in_the_next_cell(kernel: Kernel) -> None:
    kernel.run("xbp.set_backend('array-api-strict:device1')")
    assert kernel.run("print(seen())") == ["device1"]
    kernel.run("def select(spec):\n    xbp.set_backend(spec)\nselect('array-api-strict:device2')")
    assert kernel.run("print(seen())") == ["device2"]
    kernel.run("xbp.set_backend(None)")
    assert kernel.run("print(seen())") == ["cpu"]


def test_a_selection_holds_after_an_await(kernel: Kernel) -> None:
    cell = "xbp.set_backend('array-api-strict:device1'); await asyncio.sleep(0); print(seen())"
    assert kernel.run(cell) == ["device1"]
    assert kernel.run("await asyncio.sleep(0); print(seen())") == ["device1"]
    cell = "await asyncio.sleep(0); xbp.set_backend('array-api-strict:device2'); print(seen())"
    assert kernel.run(cell) == ["device2"]
    assert kernel.run("print(seen())") == ["device2"]
    kernel.run(
        "async def select():\n"
        "    await asyncio.sleep(0)\n"
        "    xbp.set_backend('array-api-strict:device1')\n"
        "await select()"
    )
    assert kernel.run("print(seen())") == ["device1"]
    kernel.run(
        "async def each():\n"
        "    await select()\n"
        "    yield\n"
        "xbp.set_backend('numpy')\n"
        "async for _ in each(): pass"
    )
    assert kernel.run("print(seen())") == ["device1"]
    kernel.run("xbp.set_backend('array-api-strict:device2')")
    assert kernel.run("print(seen()); await asyncio.sleep(0); print(seen())") == ["device2"] * 2


def test_threads_take_it_that_select_nothing_themselves(kernel: Kernel) -> None:
    kernel.run("pool = ThreadPoolExecutor(1); pool.submit(seen).result()")
    kernel.run("xbp.set_backend('array-api-strict:device1')")
    assert kernel.run("print(in_thread(seen), pool.submit(seen).result())") == ["device1"] * 2
    assert kernel.run("print(await asyncio.to_thread(seen))") == ["device1"]
    cell = "print(in_thread(lambda: xbp.set_backend('array-api-strict:device2'), seen), seen())"
    assert kernel.run(cell) == ["device2", "device1"]
    assert kernel.run("print(in_thread(seen), seen()); pool.shutdown()") == ["device1"] * 2


def test_a_task_selects_for_itself(kernel: Kernel) -> None:
    kernel.run(
        "xbp.set_backend('array-api-strict:device1')\n"
        "go_on = asyncio.Event()\n"
        "async def work():\n"
        "    before = seen()\n"
        "    xbp.set_backend('array-api-strict:device2')\n"
        "    await go_on.wait()\n"
        "    return before, seen()\n"
        "task = asyncio.create_task(work()); await asyncio.sleep(0)"
    )
    assert kernel.run("print(seen())") == ["device1"]
    kernel.run("xbp.set_backend('numpy')")
    assert kernel.run("go_on.set(); print(*await task, seen())") == ["device1", "device2", "cpu"]
    cell = "print(*await asyncio.gather(work(), work()), seen())"
    assert "".join(kernel.run(cell)) == "('cpu','device2')('cpu','device2')cpu"


def test_a_block_is_for_the_block(kernel: Kernel) -> None:
    kernel.run("xbp.set_backend('array-api-strict:device1')")
    cell = (
        "with xbp.use_backend('array-api-strict:device2'):\n"
        "    print(seen())\n"
        "    await asyncio.sleep(0)\n"
        "    print(seen(), in_thread(seen))\n"
        "print(seen())"
    )
    assert kernel.run(cell) == ["device2", "device2", "device1", "device1"]
    assert kernel.run("print(seen())") == ["device1"]
