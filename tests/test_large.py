"""Files larger than the memory, and long trainings: what is in memory stays as it is."""

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import backend

import xbp
from xbp.datasets import read_idx
from xbp.errors import DataError

pytestmark = pytest.mark.skipif(backend.name != "numpy", reason="is about NumPy's maps of files")

# Prints how much memory of its own a process had at most, in MB, while it trained from a file.
PROGRAM = """
import sys, threading, time
import numpy as np
import xbp
from xbp.datasets import read_idx

def own():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1000 for line in status if line.startswith("RssAnon"))

path = sys.argv[1]
x = read_idx(path, memory_map=True) if path.endswith("idx") else np.load(path, mmap_mode="r")
x = x.reshape(len(x), -1)
divisor = 255 if x.dtype == np.uint8 else None
network = xbp.Network.fully_connected([x.shape[1], 8, 2], divisor=divisor, dtype="float32", seed=0)
peak, done = own(), False
def watch():
    global peak
    while not done:
        peak = max(peak, own())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
xbp.Trainer(network, xbp.SGD(0.01), seed=0).fit(x, np.arange(len(x)) % 2, steps=200)
done = True
watcher.join()
print(peak)
"""


def peak(path: Path) -> float:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return float(found.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="is asked of Linux")
@pytest.mark.parametrize("kind", ["npy", "idx"])
def test_training_from_a_file_takes_memory_of_a_mini_batch(kind: str, tmp_path: Path) -> None:
    peaks = []
    for samples in (500, 50_000):
        path = tmp_path / f"{samples}.{kind}"
        if kind == "npy":
            np.save(path, np.zeros((samples, 1000), np.float32))
        else:
            header = b"\0\0\x08\x02" + samples.to_bytes(4, "big") + (4000).to_bytes(4, "big")
            path.write_bytes(header + bytes(samples * 4000))
        peaks.append(peak(path))
        path.unlink()
    # The larger file has 200 MB.
    assert peaks[1] - peaks[0] < 40


def test_a_mapped_idx_file_is_that_which_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\0\0\x0b\x02\0\0\0\x02\0\0\0\x03" + bytes(range(12)))
    np.testing.assert_array_equal(read_idx(path, memory_map=True), read_idx(path))
    assert isinstance(read_idx(path, memory_map=True), np.memmap)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08", "is compressed, so it cannot be mapped"),
        (b"", "no IDX file"),
        (b"\0\0\x08", "no IDX file"),
        (b"\0\0\x08\x01\0\0", "ends within its header"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "has 11 bytes, but its header announces 13"),
        (b"\0\0\x08\x01\0\0\0\x02abc", "has 11 bytes or more, but its header announces 10"),
    ],
)
def test_a_file_that_cannot_be_mapped(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path, memory_map=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "none", memory_map=True)


def test_data_in_a_file_that_cannot_be_written_to_are_learned_from(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    x, t = chance.normal(size=(70, 5)).astype(np.float32), chance.integers(0, 3, 70)
    np.save(tmp_path / "x.npy", x)
    losses: list[Any] = []
    for data in (x, np.load(tmp_path / "x.npy", mmap_mode="r")):
        network = xbp.Network.fully_connected([5, 4, 3], dtype="float32", seed=0)
        trainer = xbp.Trainer(network, xbp.SGD(0.1), batch_size=20, seed=0)
        losses.append(trainer.fit(data, t, steps=12).loss)
    assert losses[0] == losses[1]


def test_nan_is_found_in_each_part_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xbp.training.data._CHECKED_AT_ONCE", 10)
    network = xbp.Network.fully_connected([4, 2], seed=0)
    for row in range(7):
        x = np.ones((7, 4))
        x[row, 3] = np.nan
        with pytest.raises(DataError, match="x holds NaN"):
            xbp.Trainer(network, xbp.SGD(0.1)).fit(x, np.arange(7) % 2, steps=1)


def views(kind: str, path: Path) -> Any:
    """Return the same numbers, mapped from a file, in another order of memory."""
    x = np.random.default_rng(0).random((4_000, 250), dtype=np.float32)
    stored = {
        "rows": x,
        "columns": np.asfortranarray(x),
        "every other row": np.repeat(x, 2, axis=0),
        "backwards": x[::-1, ::-1],
        "columns of a part": np.asfortranarray(np.hstack([x, x])),
    }[kind]
    np.save(path, stored)
    mapped = np.load(path, mmap_mode="r")
    return {
        "every other row": lambda: mapped[::2],
        "backwards": lambda: mapped[::-1, ::-1],
        "columns of a part": lambda: mapped[:, :250],
    }.get(kind, lambda: mapped)()


@pytest.mark.parametrize(
    "kind", ["rows", "columns", "every other row", "backwards", "columns of a part"]
)
@pytest.mark.parametrize("traceable", [True, False])
def test_no_order_of_memory_makes_a_file_come_in_as_a_whole(
    kind: str, traceable: bool, tmp_path: Path
) -> None:
    x, t = views(kind, tmp_path / "x.npy"), np.arange(4_000) % 2
    losses, peaks = [], []
    for data in (np.ascontiguousarray(x), x):
        network = xbp.Network.fully_connected([250, 4, 2], dtype="float32", seed=0)
        optimizer = xbp.SGD(0.01) if traceable else type("Own", (xbp.SGD,), {})(0.01)
        tracemalloc.start()
        try:
            history = xbp.Trainer(network, optimizer, seed=0).fit(data, t, steps=20)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        losses.append(history.loss)
    np.testing.assert_array_equal(losses[0], losses[1])
    # Batches, and blocks of samples to measure the accuracy on.
    assert peaks[1] < x.nbytes / 2
