"""Data: the embedded digits, MNIST from a folder and from a mirror, IDX files, users' own files."""

import gzip
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import arr, backend, dtype_of, host, once, widest

from xbp.datasets import load_digits, load_mnist, load_npz, mnist, read_idx
from xbp.datasets.idx import read_open
from xbp.errors import DataError, DTypeError

IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def idx(code: int, shape: tuple[int, ...], data: bytes) -> bytes:
    return bytes([0, 0, code, len(shape)]) + np.array(shape, ">u4").tobytes() + data


# IDX ---------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(IDX_DTYPES)),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_idx_of_every_type_and_shape(code: int, shape: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(IDX_DTYPES[code])
    found = read_open(BytesIO(idx(code, tuple(shape), values.tobytes())), "here")
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype.newbyteorder("=")


def test_idx_files_are_read_compressed_or_not(tmp_path: Path) -> None:
    content = idx(8, (2, 2), bytes([1, 2, 3, 4]))
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content, mtime=0))
    for name in ("plain", "packed"):
        np.testing.assert_array_equal(read_idx(tmp_path / name), [[1, 2], [3, 4]])


GOOD = idx(8, (2, 2), bytes([1, 2, 3, 4]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file: it begins with nothing"),
        (b"\x89PNG\r\n\x1a\n", "no IDX file: it begins with 89 50 4e 47"),
        (b"\0\0\x07\x01", "no IDX file"),
        (b"\0\x01\x08\x01" + GOOD[4:], "no IDX file"),
        (GOOD[:3], "no IDX file"),
        (GOOD[:9], "ends within its header"),
        (GOOD[:-1], r"has 15 bytes, but its header announces 16 \(shape \(2, 2\)\)"),
        (GOOD + b"\0", "has 17 bytes or more, but its header announces 16"),
        (idx(8, (2**32 - 1,) * 4, b""), "has 20 bytes, but its header announces"),
        (gzip.compress(GOOD, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"garbage", "cannot be read"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path}: {message}"):
        read_idx(path)


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: cannot be read .*check the path"):
        read_idx(tmp_path / "nowhere")


# Digits ------------------------------------------------------------------------------------------


def test_digits() -> None:
    (x_train, t_train), (x_test, t_test) = load_digits()
    assert (x_train.shape, x_test.shape) == ((1442, 64), (355, 64))
    assert (t_train.shape, t_test.shape) == ((1442,), (355,))
    pixels = np.concatenate([host(x_train), host(x_test)])
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (0, 1)
    counts = [np.bincount(host(t), minlength=10) for t in (t_train, t_test)]
    # The counts that the data's description publishes.
    np.testing.assert_array_equal(
        counts[0] + counts[1], [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    )
    np.testing.assert_array_equal(counts[1], (counts[0] + counts[1]) // 5)


def test_digits_take_the_shapes_that_are_asked_for() -> None:
    (x, t), _ = load_digits(normalize=False, flatten=False, one_hot_label=True, dtype=widest)
    assert x.shape == (1442, 1, 8, 8)
    assert dtype_of(x) == "uint8"
    assert host(x).max() == 16
    assert (t.shape, dtype_of(t)) == ((1442, 10), widest)
    (x, labels), _ = load_digits(dtype=widest)
    assert dtype_of(x) == widest
    np.testing.assert_array_equal(host(t).argmax(axis=1), host(labels))
    with pytest.raises(DTypeError, match="float32 or float64, not 'int8'"):
        load_digits(dtype="int8")


def test_digits_go_where_they_are_asked_to() -> None:
    (x, _), _ = load_digits(backend="numpy")
    assert isinstance(x, np.ndarray)
    x[:] = 0
    (again, _), _ = load_digits(backend="numpy")
    assert again.max() == 1


# MNIST -------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make four small files that stand for MNIST's, and have the loader expect them."""
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (12, 28, 28)).astype(np.uint8),
        "t_train": np.arange(12, dtype=np.uint8) % 10,
        "x_test": random.integers(0, 256, (5, 28, 28)).astype(np.uint8),
        "t_test": np.arange(5, dtype=np.uint8),
    }
    folder = tmp_path / "files"
    folder.mkdir()
    expected = {}
    for part, file in mnist.FILES.items():
        content = idx(8, arrays[part].shape, arrays[part].tobytes())
        packed = gzip.compress(content, mtime=0)
        (folder / f"{file.name}.gz").write_bytes(packed)
        expected[part] = type(file)(
            file.name,
            hashlib.md5(packed).hexdigest(),
            hashlib.sha256(content).hexdigest(),
            len(packed),
            len(content),
        )
    monkeypatch.setattr(mnist, "FILES", expected)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XBP_DATA_DIR", raising=False)
    return folder


def test_mnist_from_a_folder(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (x, t), (x_test, t_test) = load_mnist(data_dir=files)
    assert (x.shape, x_test.shape) == ((12, 784), (5, 784))
    assert dtype_of(x) == "float32"
    assert 0.99 < host(x).max() <= 1
    np.testing.assert_array_equal(host(t_test), np.arange(5))
    monkeypatch.setenv("XBP_DATA_DIR", str(files))
    (x, t), _ = load_mnist(normalize=False, flatten=False, one_hot_label=True)
    assert (x.shape, dtype_of(x)) == ((12, 1, 28, 28), "uint8")
    np.testing.assert_array_equal(host(t), np.eye(10)[np.arange(12) % 10])


def test_mnist_in_a_folder_mnist_and_uncompressed(files: Path, tmp_path: Path) -> None:
    below = tmp_path / "data" / "mnist"
    below.mkdir(parents=True)
    for path in files.iterdir():
        (below / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    (x, _), _ = load_mnist(data_dir=tmp_path / "data")
    assert x.shape == (12, 784)


def test_a_missing_mnist_file_is_named(files: Path) -> None:
    (files / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"holds neither t10k-labels-idx1-ubyte nor .*XBP_DATA_DIR"):
        load_mnist(data_dir=files)
    with pytest.raises(DataError, match=r"nowhere: holds neither train-images"):
        load_mnist(data_dir=files / "nowhere")


def test_a_foreign_mnist_file_is_refused(files: Path) -> None:
    content = idx(8, (12, 28, 28), bytes(12 * 784))
    (files / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content, mtime=0))
    with pytest.raises(DataError, match=r"not that of MNIST's train-images.*SHA-256"):
        load_mnist(data_dir=files)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def mirror(files: Path) -> Iterator[str]:
    """Serve the small files on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(files)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_mnist_is_downloaded_once_from_the_first_mirror_that_has_it(
    files: Path, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror}gone/", mirror))
    (x, _), _ = load_mnist()
    assert x.shape == (12, 784)
    cached = sorted(path.name for path in (tmp_path / "cache" / "xbp" / "mnist").iterdir())
    assert cached == sorted(path.name for path in files.iterdir())
    monkeypatch.setattr(mnist, "MIRRORS", (f"{mirror}gone/",))
    (again, _), _ = load_mnist()
    np.testing.assert_array_equal(host(again), host(x))


def test_a_download_that_differs_is_not_kept(
    files: Path, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files / "train-images-idx3-ubyte.gz"
    path.write_bytes(bytes(path.stat().st_size))
    monkeypatch.setattr(mnist, "MIRRORS", (mirror, f"{mirror}gone/"))
    with pytest.raises(DataError, match=r"no mirror gave the file: .*--data-dir.*hash.*; .*404"):
        load_mnist()
    assert list((tmp_path / "cache" / "xbp" / "mnist").iterdir()) == []


def test_a_mirror_that_does_not_answer(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens there
        port = taken.getsockname()[1]
        monkeypatch.setattr(mnist, "MIRRORS", (f"http://127.0.0.1:{port}/",))
        with pytest.raises(DataError, match=r"no mirror gave the file: try again.*127\.0\.0\.1"):
            load_mnist()


def test_a_cache_that_cannot_be_written(
    files: Path, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "MIRRORS", (mirror,))
    (tmp_path / "cache").write_text("a file where the folder would be")
    with pytest.raises(DataError, match=r"the cache cannot be written .*XDG_CACHE_HOME"):
        load_mnist()


@once
def test_four_processes_may_download_at_once(files: Path, mirror: str, tmp_path: Path) -> None:
    """Each sees files that are whole: a file has its own name only once it was verified."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from xbp.datasets import mnist\n"
        "mnist.MIRRORS = (sys.argv[1],)\n"
        "mnist.FILES = eval(sys.argv[2], vars(mnist))\n"
        "(x, _), (y, _) = mnist.load_mnist(backend='numpy')\n"
        "print(x.shape, float(x.sum()), y.shape)\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "other")}
    arguments = [sys.executable, "-c", code, mirror, repr(mnist.FILES)]
    processes = [
        subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(4)
    ]
    ends = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, ends
    assert len({printed for printed, _ in ends}) == 1
    cached = sorted(path.name for path in (tmp_path / "other" / "xbp" / "mnist").iterdir())
    assert cached == sorted(path.name for path in files.iterdir())


@pytest.mark.skipif(not os.environ.get("XBP_DATA_DIR"), reason="XBP_DATA_DIR names no MNIST")
def test_real_mnist() -> None:
    (x, t), (x_test, t_test) = load_mnist()
    assert (x.shape, x_test.shape) == ((60000, 784), (10000, 784))
    assert host(t[:5]).tolist() == [5, 0, 4, 1, 9]
    assert host(t_test[:5]).tolist() == [7, 2, 1, 0, 4]


# A user's own file -------------------------------------------------------------------------------


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x_train=np.ones((4, 2)), t_train=np.array([0, 1, 0, 1]))
    (x, t), (x_test, t_test) = load_npz(path)
    assert (x.shape, t.shape) == ((4, 2), (4,))
    assert x_test is None
    assert t_test is None
    np.savez(path, x_train=x, t_train=t, x_test=x[:1], t_test=t[:1])
    _, (x_test, t_test) = load_npz(path)
    assert (x_test.shape, t_test.shape) == ((1, 2), (1,))


def test_npz_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with pytest.raises(DataError, match=r"data.npz: cannot be read"):
        load_npz(path)
    for content in (b"", b"PK\x03\x04 torn", b"not an archive"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data.npz: cannot be read .*numpy\.savez"):
            load_npz(path)
    np.savez(path, x=np.ones(3))
    with pytest.raises(DataError, match="lacks t_train and x_train, holds x"):
        load_npz(path)
    np.savez(path, x_train=np.ones(3), t_train=np.ones(3), x_test=np.ones(3))
    with pytest.raises(DataError, match="lacks t_test"):
        load_npz(path)
    np.savez(path, x_train=np.array([object()]), t_train=np.ones(1))
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match="single array"):
        load_npz(path)


def test_npz_runs_no_code_of_a_stranger(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "data.npz"
    np.savez(path, x_train=np.array([Trap()], dtype=object), t_train=np.ones(1))
    with pytest.raises(DataError):
        load_npz(path)
    assert not (tmp_path / "sprung").exists()


def test_data_on_the_backend() -> None:
    (x, t), _ = load_digits()
    assert backend.owns(x)
    assert backend.owns(t)
    assert dtype_of(arr(t)) == "int64"
