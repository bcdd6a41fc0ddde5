"""Damaged and forged files: a clean error or a right result, in little memory and time."""

import gzip
import io
import json
import os
import random
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from support import backend

import xbp
from xbp.datasets import load_npz, read_idx
from xbp.errors import XbpError
from xbp.saving import load_parameters, save_parameters
from xbp.training.checkpoint import Checkpoint, unpack

# XBP_FUZZ says how many files of each kind; `nox -s fuzz` reads 100,000 in all.
FILES = int(os.environ.get("XBP_FUZZ", "200"))
SECONDS, BYTES = 5.0, 50e6

pytestmark = pytest.mark.skipif(backend.name != "numpy", reason="files are read on the host")


def network(seed: int = 0) -> xbp.Network:
    return xbp.Network.fully_connected([5, 4, 3], backend="numpy", dtype="float32", seed=seed)


def idx() -> bytes:
    return b"\0\0\x08\x03" + b"\0\0\0\x04\0\0\0\x05\0\0\0\x05" + bytes(range(100))


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x_train=np.ones((4, 3)), t_train=np.arange(4))
    return file.getvalue()


def compressed_npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x_train=np.ones((400, 30)), t_train=np.arange(400))
    return file.getvalue()


def model() -> bytes:
    arrays = {key: np.asarray(value) for key, value in network().params.items()}
    return safetensors.numpy.save(arrays)


def checkpoint() -> bytes:
    arrays = {f"params.{key}": np.asarray(value) for key, value in network().params.items()}
    arrays["loss"] = np.arange(3.0)
    state = {
        "step": 3, "random": {}, "optimizer": "SGD", "samples": 10, "batch_size": 5,
        "numbers": {"optimizer.lr": 0.1}, "history": {"evaluated": []},
    }  # fmt: skip
    return Checkpoint(state, arrays).to_bytes()


def read_model(path: Path) -> None:
    load_parameters(network(1), path)


def read_checkpoint(path: Path) -> None:
    here = {"samples": 10, "batch_size": 5}
    unpack(Checkpoint.from_bytes(path.read_bytes()), network(1), xbp.SGD(0.1), here)


KINDS: dict[str, tuple[Callable[[], bytes], str, Callable[[Path], Any]]] = {
    "IDX": (idx, "file.idx", read_idx),
    "IDX, packed": (lambda: gzip.compress(idx(), mtime=0), "file.idx.gz", read_idx),
    "npz": (npz, "file.npz", load_npz),
    "npz, compressed": (compressed_npz, "file.npz", load_npz),
    "model": (model, "file.safetensors", read_model),
    "checkpoint": (checkpoint, "file.safetensors", read_checkpoint),
}

# What is in headers, and what breaks those who trust them.
_TOKENS = [
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\x00\x10\x00\x00",
    b"9" * 30, b"-1", b"1e999", b"NaN", b"[" * 2000, b"{}", b'"', b"(1152921504606846976,)",
    b"'shape': (1152921504606846976, 3)", b"'descr': '|O'", b"float64", b"F64", b"BF16",
]  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return a file with a few changes."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 if changed:
                changed[place % len(changed)] ^= 1 << chance.randrange(8)
            case 1:
                del changed[place:]
            case 2:
                token = chance.choice(_TOKENS)
                changed[place : place + len(token)] = token
            case 3:
                changed[place:place] = chance.choice(_TOKENS)
            case 4:
                del changed[place : place + chance.randrange(1, 9)]
            case _:
                other = chance.randrange(len(changed) + 1)
                changed[place:place] = changed[other : other + chance.randrange(1, 40)]
    return bytes(changed)


def read(path: Path, reader: Callable[[Path], Any]) -> str:
    """Return how reading a file ended, once it was quick and took little memory."""
    tracemalloc.start()
    began = time.thread_time()  # whatever else the machine does
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(path)
        return "read"
    except XbpError:
        return "refused"
    finally:
        seconds = time.thread_time() - began
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seconds < SECONDS
        assert peak < BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    make, name, reader = KINDS[kind]
    content, path = make(), tmp_path / name
    path.write_bytes(content)
    assert read(path, reader) == "read"
    chance = random.Random(kind)
    ends = {"read": 0, "refused": 0}
    for number in range(FILES):
        damaged = mutated(content, chance)
        path.write_bytes(damaged)
        try:
            ends[read(path, reader)] += 1
        except BaseException as error:
            kept = kept_for(kind)
            kept.write_bytes(damaged)
            raise AssertionError(f"file {number}, kept as {kept}: {error!r}") from error
    print(f"{kind}: {ends}")
    assert ends["refused"] > FILES / 5


def kept_for(kind: str) -> Path:
    """Return where a file that broke the reader stays, to be looked at."""
    return Path(tempfile.gettempdir()) / f"xbp-fuzz-{kind.replace(', ', '-')}"


def test_a_header_that_promises_the_moon(tmp_path: Path) -> None:
    path = tmp_path / "moon.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,), }"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", member)
        archive.writestr("t_train.npy", member)
    assert read(path, load_npz) == "refused"
    text = json.dumps({"W1": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}})
    forged = tmp_path / "moon.safetensors"
    forged.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    assert read(forged, read_model) == "refused"
    packed = tmp_path / "moon.idx.gz"
    packed.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x05" + bytes(200_000_000)))
    assert read(packed, read_idx) == "refused"


def test_nothing_of_a_damaged_model_is_taken(tmp_path: Path) -> None:
    chance, path = random.Random(0), tmp_path / "model.safetensors"
    ours, theirs = network(1), network(2)
    save_parameters(theirs, path)
    content = path.read_bytes()
    before = {key: np.array(value) for key, value in ours.params.items()}
    for _ in range(FILES):
        path.write_bytes(mutated(content, chance))
        try:
            load_parameters(ours, path)
        except XbpError:
            for key, value in ours.params.items():
                np.testing.assert_array_equal(value, before[key])
        else:
            before = {key: np.array(value) for key, value in ours.params.items()}
