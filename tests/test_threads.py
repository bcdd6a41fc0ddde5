"""Threads, tasks and processes at once: nothing of one is seen in another."""

import asyncio
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import backend

import xbp

SPEC = f"{backend.name}:{backend.device}"
# Eight at once, on several libraries and devices.
SPECS = [
    *(SPEC, "numpy", "array-api-strict:device1", "array-api-strict:CPU_DEVICE"),
    *("numpy", SPEC, "array-api-strict:device2", "numpy"),
]


def learn(spec: str, seed: int, steps: int = 30) -> list[float]:
    """Return the losses of a training on the selected backend, once it was selected."""
    with xbp.use_backend(spec) as selected:
        chance = np.random.default_rng(seed)
        x, t = chance.normal(size=(40, 6)), chance.integers(0, 3, 40)
        network = xbp.Network.fully_connected([6, 8, 3], dtype="float32", seed=seed)
        assert network.backend is selected
        history = xbp.Trainer(network, xbp.Momentum(0.05), batch_size=10, seed=seed).fit(
            x, t, steps=steps
        )
        assert xbp.get_backend() is selected
        return history.loss


def all_at_once(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return what the works return, each in a thread of its own, begun together."""
    together = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        together.wait()
        results[number] = works[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_eight_threads_on_eight_backends_learn_what_they_would_alone() -> None:
    alone = [learn(spec, seed) for seed, spec in enumerate(SPECS)]
    before = xbp.get_backend()
    works = [partial(learn, spec, seed) for seed, spec in enumerate(SPECS)]
    for found, expected in zip(all_at_once(works), alone, strict=True):
        assert found == expected
    assert xbp.get_backend() is before


def test_eight_tasks_do_not_see_each_others_selection() -> None:
    async def select(spec: str) -> None:
        xbp.set_backend(spec)
        selected = xbp.get_backend()
        for _ in range(5):
            await asyncio.sleep(0)
            assert xbp.get_backend() is selected
            assert xbp.TwoLayerNet(2, 2, 2).backend is selected

    async def all_of_them() -> None:
        await asyncio.gather(*(select(spec) for spec in SPECS))

    before = xbp.get_backend()
    asyncio.run(all_of_them())
    assert xbp.get_backend() is before


def test_threads_may_share_a_network_by_its_pure_function() -> None:
    network = xbp.Network.fully_connected([6, 8, 3], backend=backend, dtype="float32", seed=0)
    chance = np.random.default_rng(0)
    batches = [
        (backend.asarray(chance.normal(size=(5, 6)), "float32"), backend.asarray(np.arange(5) % 3))
        for _ in range(8)
    ]

    def loss(number: int) -> float:
        with backend.scope():
            return float(network.loss_and_gradient(network.params, *batches[number])[0])

    alone = [loss(number) for number in range(8)]
    for _ in range(5):
        assert all_at_once([partial(loss, number) for number in range(8)]) == alone


@pytest.mark.skipif(backend.name != "numpy", reason="not every library may be forked")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_learn_what_one_would_alone(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} on this system")
    # In a process without other threads, which a fork would leave in the middle of something.
    code = (
        "import multiprocessing, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_threads import learn\n"
        "if __name__ == '__main__':\n"
        "    alone = [learn('numpy', seed, 10) for seed in range(4)]\n"
        "    with multiprocessing.get_context(sys.argv[1]).Pool(4) as pool:\n"
        "        found = pool.starmap(learn, [('numpy', seed, 10) for seed in range(4)])\n"
        "    print(found == alone)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, method, str(Path(__file__).parent)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == "True\n", found.stderr
