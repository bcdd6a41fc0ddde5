"""A file takes no more memory than it consistently announces, and nothing but files is read."""

import gzip
import hashlib
import json
import os
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import backend

import xbp
from xbp.datasets import load_mnist, load_npz, mnist, read_idx
from xbp.datasets.download import download
from xbp.errors import DataError, XbpError
from xbp.saving import load_parameters
from xbp.training import Checkpoints

pytestmark = pytest.mark.skipif(backend.name != "numpy", reason="files are read on the host")

FEW = 5e6


@contextmanager
def most(limit: float) -> Iterator[None]:
    """See that no more bytes than these are in use at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def idx_header(count: int) -> bytes:
    return b"\0\0\x08\x01" + count.to_bytes(4, "big")


def sparse(path: Path, start: bytes, length: int) -> Path:
    """Make a file that begins so and is a hole from there on."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(length)
    return path


def tensors(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def refused(read: Callable[[Path], Any], path: Path, message: str) -> None:
    with most(FEW), pytest.raises(XbpError, match=message):
        read(path)


def model(path: Path) -> None:
    load_parameters(xbp.TwoLayerNet(2, 3, 2, dtype="float32", seed=0), path)


def checkpoint(path: Path) -> Any:
    return Checkpoints(path.parent, resume=True).latest()


# IDX ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [8, 13], ids=["bytes", "of foreign byte order"])
def test_an_array_is_in_memory_once(code: int, tmp_path: Path) -> None:
    size = 40_000_000
    count = size if code == 8 else size // 4
    content = bytes([0, 0, code, 1]) + count.to_bytes(4, "big") + bytes(size)
    for name, stored in (("plain", content), ("packed", gzip.compress(content, 1))):
        path = tmp_path / name
        path.write_bytes(stored)
        with most(size + FEW):
            assert read_idx(path).shape == (count,)


def test_what_an_idx_header_may_promise(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    bomb = gzip.compress(idx_header(5) + bytes(100_000_000), 1)
    packed.write_bytes(bomb)
    refused(read_idx, packed, "or more, but its header announces 13")
    # The size at its end is a lie, too.
    packed.write_bytes(bomb[:-4] + (13).to_bytes(4, "little"))
    refused(read_idx, packed, "more bytes than its header announces|cannot be read")
    promise = gzip.compress(idx_header(2**31) + bytes(100_000))
    packed.write_bytes(promise[:-4] + (2**31 + 8).to_bytes(4, "little"))
    refused(read_idx, packed, "cannot be read")
    refused(read_idx, sparse(tmp_path / "sparse", idx_header(2**32 - 1), 2**31), "announces")
    refused(read_idx, sparse(tmp_path / "hole", b"", 2**40), "announces|no IDX file")


def test_a_file_of_several_packed_parts(tmp_path: Path) -> None:
    parts = (idx_header(6) + b"abc", b"def")
    (tmp_path / "packed").write_bytes(b"".join(map(gzip.compress, parts)))
    assert read_idx(tmp_path / "packed").tobytes() == b"abcdef"


# npz ---------------------------------------------------------------------------------------------


def test_arrays_of_an_archive_are_in_memory_once(tmp_path: Path) -> None:
    arrays = {"x_train": np.zeros((2_000_000, 2)), "t_train": np.zeros(2_000_000, np.int64)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "data.npz", more=np.zeros(10_000_000), **arrays)  # type: ignore[arg-type]
        with most(48e6 + FEW):
            load_npz(tmp_path / "data.npz")


def test_what_an_archive_may_promise(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (12500000,), }"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    for how in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", how) as archive:
            for name in ("x_train", "t_train"):
                archive.writestr(f"{name}.npy", start + bytes(20_000_000))
        refused(load_npz, path, "larger than it can be")
    # Sizes that are forged: of what is stored as it is, and of what there is in all.
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "t_train"):
            archive.writestr(f"{name}.npy", start + bytes(1000))
    content = path.read_bytes()
    real, forged = ((len(start) + n).to_bytes(4, "little") for n in (1000, 100_000_000))
    more = (500_000).to_bytes(4, "little")
    for sizes, message in (
        (real + forged, "larger than it can be"),
        (real + more, "larger than it can be"),
        (forged * 2, "more than it"),
    ):
        path.write_bytes(content.replace(real * 2, sizes))
        refused(load_npz, path, message)
    # The header is what is large.
    long = b"\x93NUMPY\x02\x00" + (50_000_000).to_bytes(4, "little") + bytes(50_000_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x_train.npy", long)
        archive.writestr("t_train.npy", long)
    refused(load_npz, path, "cannot be read")
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    refused(load_npz, sparse(path, npy, len(npy) + 100_000_000), "single array")
    refused(load_npz, sparse(path, b"", 2**33), "no archive of numbers")


# Models and checkpoints --------------------------------------------------------------------------


def test_what_a_model_may_promise(tmp_path: Path) -> None:
    path = tmp_path / "model"
    huge = tensors({"W1": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}})
    refused(model, sparse(path, huge, len(huge) + 2**40), "but the network has")
    refused(model, sparse(path, huge, len(huge) + 2**39), "header announces")
    refused(model, sparse(path, (90_000_000).to_bytes(8, "little") + b"{", 2**30), "cannot be read")
    many = tensors({f"W{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                    for n in range(50_000)})  # fmt: skip
    path.write_bytes(many)
    refused(model, path, "cannot be read")


def test_what_a_checkpoint_may_promise(tmp_path: Path) -> None:
    metadata = {"state": json.dumps({"format": 1, "step": 1}), "sha256": "0" * 64}
    large = {"dtype": "F32", "shape": [25 * 10**6], "data_offsets": [0, 10**8]}
    huge = tensors({"__metadata__": metadata, "W1": large})
    path = tmp_path / "checkpoint-000000000001.safetensors"
    for start, length in (
        (huge, len(huge) + 10**8),
        ((90_000_000).to_bytes(8, "little") + b"{", 2**30),
    ):
        sparse(path, start, length)
        with pytest.warns(RuntimeWarning, match="is damaged"):
            refused(checkpoint, path, "all checkpoints are damaged")


# What is no file ---------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
@pytest.mark.parametrize("place", ["fifo", "/dev/zero", "/dev/null", "folder", "link"])
def test_only_files_are_read(place: str, tmp_path: Path) -> None:
    """None of these is waited for."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    for read in (read_idx, lambda path: read_idx(path, memory_map=True), load_npz, model):
        refused(read, tmp_path / place, r"cannot be read \(")
    (tmp_path / "checkpoint-000000000001.safetensors").symlink_to(tmp_path / place)
    assert checkpoint(tmp_path / "any") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_device_is_not_opened_and_a_fifo_that_comes_late_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, opened = os.open, []

    def note(path: Any, flags: int, *more: Any) -> int:
        opened.append(str(path))
        return ordinary(path, flags, *more)

    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr("os.open", note)
    refused(read_idx, Path("/dev/zero"), "no regular file")
    assert not opened
    file = Path(__file__).stat()
    monkeypatch.setattr(Path, "stat", lambda path: file)
    refused(read_idx, tmp_path / "fifo", "no regular file")
    assert opened == [str(tmp_path / "fifo")]


# MNIST -------------------------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """Return small files that stand for MNIST's, unpacked, and have the loader expect them."""
    found, expected = {}, {}
    for part, file in mnist.FILES.items():
        shape = (4, 28, 28) if part[0] == "x" else (4,)
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        content = header + bytes(range(4)) * (np.prod(shape) // 4)
        found[file.name] = content
        packed = gzip.compress(content, mtime=0)
        expected[part] = type(file)(
            file.name, hashlib.md5(packed).hexdigest(), hashlib.sha256(content).hexdigest(),
            len(packed), len(content),
        )  # fmt: skip
    monkeypatch.setattr(mnist, "FILES", expected)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XBP_DATA_DIR", raising=False)
    return found


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw", "raw"])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_files_as_other_libraries_leave_them(
    below: str, dotted: bool, packed: bool, published: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "data" / below
    folder.mkdir(parents=True)
    for published_name, content in published.items():
        name = published_name.replace("-idx", ".idx") if dotted else published_name
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(
            gzip.compress(content) if packed else content
        )
    (x, t), _ = load_mnist(data_dir=tmp_path / "data")
    assert x.shape == (4, 784)
    assert t.tolist() == [0, 1, 2, 3]


def test_another_size_than_the_published_one_is_not_unpacked(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbp.datasets.idx._unpacked_length", None)  # would unpack it, to count
    bomb = b"\0\0\x08\x03" + np.array([10**5, 28, 28], ">u4").tobytes() + bytes(784 * 10**5)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bomb, 1))
    refused(lambda path: load_mnist(data_dir=path), tmp_path, "3,152 are expected")


def test_a_folder_of_data_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(File name too long\): point --data-dir"):
        load_mnist(data_dir="x" * 5000)
    with pytest.raises(DataError, match="is no file's or folder's name"):
        load_mnist(data_dir="a\0b")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"cannot be read \(Too many levels"):
        load_mnist(data_dir=tmp_path / "loop")
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match=r"cannot be read \(.*no regular file"):
        load_mnist(data_dir=tmp_path)


# Downloads ---------------------------------------------------------------------------------------

FILE = bytes(range(256)) * 400
PACKED = gzip.compress(bytes(50_000_000), 1)


class Strange(BaseHTTPRequestHandler):
    """A server that does not do what it should, as the path says."""

    sent = 0

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        with suppress(OSError):
            getattr(self, self.path.split("/")[1])()

    def _begin(self, length: int | None = None, **headers: str) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def good(self) -> None:
        self._begin(len(FILE))
        self.wfile.write(FILE)

    def endless(self) -> None:
        self._begin()
        while True:
            self.wfile.write(bytes(2**16))
            Strange.sent += 2**16

    def short(self) -> None:
        self._begin()
        self.wfile.write(FILE[:-1])

    def cut(self) -> None:
        self._begin(len(FILE))
        self.wfile.write(FILE[:1000])

    def other(self) -> None:
        self._begin(len(FILE))
        self.wfile.write(FILE[::-1])

    def stalls(self) -> None:
        self._begin(len(FILE))
        self.wfile.write(FILE[:1000])
        self.wfile.flush()
        time.sleep(2)

    def drips(self) -> None:
        self._begin(len(FILE))
        for byte in FILE[:40]:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    def drips_headers(self) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 40:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    def packed(self) -> None:
        self._begin(Content_Encoding="gzip")
        self.wfile.write(PACKED)

    def turns(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()

    def missing(self) -> None:
        self.send_error(404)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("xbp.datasets.download._IN_ALL", 1.0)
    monkeypatch.setattr("xbp.datasets.download._READING", 0.5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ("endless", "sends more than"), ("short", "sends 102,399 bytes"), ("cut", ""),
        ("other", "hash"), ("stalls", ""), ("drips", "longer than"), ("drips_headers", "longer"),
        ("packed", "bytes"), ("turns", "redirects"), ("missing", "404"),
    ],
)  # fmt: skip
def test_the_next_mirror_is_asked(first: str, why: str, server: str, tmp_path: Path) -> None:
    Strange.sent = 0
    known = f"md5:{hashlib.md5(FILE).hexdigest()}"
    bad, good = f"{server}/{first}/file", f"{server}/good/file"
    with most(FEW):
        assert download([bad, good], known, len(FILE), "test").read_bytes() == FILE
    assert [path.name for path in (tmp_path / "xbp" / "test").iterdir()] == ["file"]
    (tmp_path / "xbp" / "test" / "file").unlink()
    with pytest.raises(DataError, match=f"no mirror gave the file: .*{why}"):
        download([bad], known, len(FILE), "test")
    assert not list((tmp_path / "xbp" / "test").iterdir())
    # What the system keeps on the way, and no more.
    assert Strange.sent < 50e6
