"""What is saved is what was there: every layout in memory, every dtype, bit by bit.

XBP_LAYOUTS says how many layouts; `nox -s layouts` saves and loads 1,000 on each backend, with the
oldest and the newest safetensors.
"""

import json
import os
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from support import HostArray, arr, backend, dtype_of, host

import xbp
from xbp import Network, Trainer
from xbp.errors import CheckpointError, DTypeError
from xbp.layers import Affine, Layer, SoftmaxWithLoss
from xbp.namespace import Array
from xbp.saving import load_parameters, save_parameters, to_safetensors
from xbp.tensors import TensorFile, to_bytes
from xbp.training import Checkpoint, Checkpoints

LAYOUTS = int(os.environ.get("XBP_LAYOUTS", "0")) or settings.default.max_examples  # type: ignore[union-attr]
DTYPES = [
    name
    for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
                 "float16", "float32", "float64")
    if name in backend.dtypes and (name != "float64" or backend.has_float64)
]  # fmt: skip


class Keeper(Layer):
    """Has a parameter and does nothing with it."""

    param_names = ("p",)

    def __init__(self, p: Array) -> None:
        self.p = p


def _turned(x: Any, xp: Any) -> Any:
    if backend.name == "torch" and xp is not np:
        return xp.flip(x, axis=0)  # it has no negative steps
    return x[::-1, ...]


def _unaligned(x: HostArray, xp: Any) -> HostArray:
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    memory[...] = x
    return memory


def _read_only(x: HostArray, xp: Any) -> HostArray:
    x = x.view()
    x.flags.writeable = False
    return x


# What each makes of an array is mostly a view of the same memory.
LAYS: dict[str, Any] = {
    "transposed": lambda x, xp: x.T if x.ndim == 2 else x,
    "permuted": lambda x, xp: xp.permute_dims(x, tuple(range(x.ndim))[::-1]),
    "stepped": lambda x, xp: x[::2, ...] if x.ndim else x,
    "reversed": lambda x, xp: _turned(x, xp) if x.ndim else x,
    "offset": lambda x, xp: x[..., 1:] if x.ndim and x.shape[-1] else x,
    "one": lambda x, xp: x[:1, ...] if x.ndim and x.shape[0] else x,
    "broadcast": lambda x, xp: xp.broadcast_to(x, (3, *x.shape)),
}
# What NumPy alone can do to an array without a change of its values.
HOST_ONLY: dict[str, Any] = {
    "fortran": lambda x, xp: np.asarray(x, order="F"),
    "swapped": lambda x, xp: x.astype(x.dtype.newbyteorder()),
    "unaligned": _unaligned,
    "read-only": _read_only,
}


@st.composite
def layouts(draw: st.DrawFn) -> tuple[HostArray, Array, list[str]]:
    """Draw an array on the host, the same one on the backend, and how it lies there."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    bits = draw(st.binary(min_size=8, max_size=8))
    dtype = draw(st.sampled_from(DTYPES))
    values = np.random.default_rng(list(bits)).integers(-100, 100, shape).astype(dtype)
    lays = draw(st.lists(st.sampled_from(sorted(LAYS)), max_size=4))
    here, there = np.array(values), backend.asarray(values)
    for lay in lays:
        here, there = LAYS[lay](here, np), LAYS[lay](there, backend.xp)
    if backend.name == "numpy":
        lays += (last := draw(st.lists(st.sampled_from(sorted(HOST_ONLY)), max_size=2)))
        for lay in last:
            there = HOST_ONLY[lay](there, np)
    return np.array(here), there, lays


def bits_of(array: HostArray) -> tuple[Any, ...]:
    plain = array.astype(array.dtype.newbyteorder("="))
    return plain.dtype, plain.shape, plain.tobytes()


@settings(max_examples=LAYOUTS)
@given(st.lists(layouts(), min_size=1, max_size=3))
def test_a_model_comes_back_whatever_its_layout(drawn: list[Any]) -> None:
    network = Network([Keeper(there) for _, there, _ in drawn], SoftmaxWithLoss(), backend=backend)
    content = to_safetensors(network)
    read = TensorFile(BytesIO(content)).read()
    by_the_library = safetensors.numpy.load(content)
    for number, (here, _, _) in enumerate(drawn, start=1):
        assert bits_of(read[f"p{number}"]) == bits_of(here)
        assert bits_of(by_the_library[f"p{number}"]) == bits_of(here)
        assert read[f"p{number}"].flags.writeable


@settings(max_examples=LAYOUTS)
@given(st.lists(layouts(), min_size=1, max_size=3))
def test_a_checkpoint_comes_back_whatever_its_layout(drawn: list[Any]) -> None:
    arrays = {str(number): backend.to_numpy(there) for number, (_, there, _) in enumerate(drawn)}
    read = Checkpoint.from_bytes(Checkpoint({"step": 3}, arrays).to_bytes())
    for number, (here, _, _) in enumerate(drawn):
        assert bits_of(read.arrays[str(number)]) == bits_of(here)


def weights(lay: str) -> tuple[HostArray, Array]:
    """Return weights (5, 3), and the same ones on the backend in that layout."""
    W = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    match lay:
        case "transposed":
            there = arr(np.ascontiguousarray(W.T)).T
        case "stepped":
            there = arr(np.repeat(W, 2, axis=0))[::2, :]
        case "reversed":
            there = _turned(arr(np.ascontiguousarray(W[::-1])), backend.xp)
        case "broadcast":
            W[:] = 0.5
            there = backend.xp.broadcast_to(arr(np.float32(0.5)), W.shape)
        case "offset":
            there = arr(np.concatenate([W, W]))[5:, :]
    return W, there


LAYS_OF_WEIGHTS = ["transposed", "stepped", "reversed", "broadcast", "offset"]


@pytest.mark.parametrize("lay", LAYS_OF_WEIGHTS)
def test_a_model_of_such_weights_predicts_as_before(lay: str, tmp_path: Path) -> None:
    W, there = weights(lay)
    network = Network([Affine(there, arr(np.zeros(3, np.float32)))], SoftmaxWithLoss())
    again = Network.fully_connected([5, 3], backend=backend, dtype="float32", seed=1)
    save_parameters(network, tmp_path / "model")
    load_parameters(again, tmp_path / "model")
    np.testing.assert_array_equal(host(again.params["W1"]), W)
    # And it is learned from by hand, as the chapter does.
    again.params["W1"] -= 0.5 * again.params["W1"]
    np.testing.assert_array_equal(host(again.params["W1"]), W / 2)


@pytest.mark.parametrize("lay", LAYS_OF_WEIGHTS)
def test_a_training_of_such_weights_goes_on(lay: str, tmp_path: Path) -> None:
    if backend.name == "dpnp" and lay == "broadcast":
        pytest.skip("dpnp 0.20 multiplies no matrix of one number")
    x, t = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32), np.arange(20) % 3
    ends = []
    for folder, lengths in ((tmp_path / "whole", [8]), (tmp_path / "stopped", [4, 8])):
        for steps in lengths:
            network = Network(
                [Affine(weights(lay)[1], arr(np.zeros(3, np.float32)))], SoftmaxWithLoss()
            )
            trainer = Trainer(network, xbp.Momentum(0.1), batch_size=10, seed=0)
            trainer.fit(x, t, steps=steps, checkpoints=Checkpoints(folder, resume=True))
        ends.append(host(network.params["W1"]))
    # A library may sum in another order where memory lies otherwise.
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5)


@pytest.mark.skipif(backend.name not in ("torch", "jax"), reason="the others have no bfloat16")
def test_a_dtype_that_no_file_holds_is_named_before_anything_is_written(tmp_path: Path) -> None:
    narrow = backend.xp.bfloat16 if backend.name == "torch" else "bfloat16"
    W, b = (backend.xp.ones(shape, dtype=narrow) for shape in ((5, 3), (3,)))
    network = Network([Affine(W, b)], SoftmaxWithLoss())
    for call in (
        lambda: save_parameters(network, tmp_path / "model"),
        lambda: load_parameters(network, tmp_path / "model"),
        lambda: Checkpoint({"step": 1}, {"W": backend.to_numpy(W)}).to_bytes(),
    ):
        with pytest.raises(DTypeError, match=r"bfloat16"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_dtype_of_the_host_that_no_file_holds() -> None:
    for strange in (np.ones(2, complex), np.array(["a"]), np.array([{}]), np.zeros(2, "M8[s]")):
        with pytest.raises(DTypeError, match=r"W is of dtype .*, which is not saved: saved are"):
            to_bytes({"W": strange})


@pytest.mark.skipif(backend.name != "numpy", reason="files are read on the host")
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            {"W": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
            "(an array has other sizes than its place)",
        ),
        (
            {"W": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
            "its header announces arrays that overlap or leave gaps",
        ),
        (
            {"W": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}},
            "has 94 bytes, but its header announces 90",
        ),
        (
            {"W": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}},
            "(no arrays of dtype BF16 are read here)",
        ),
        (
            {"W": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
            "(a size is no integer from 0)",
        ),
        (
            {"W": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}},
            "(a size is no integer from 0)",
        ),
        (
            {"W": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}},
            "(an array has 65 dimensions)",
        ),
        ({"W": {"dtype": "F32", "shape": [1]}}, "(an array lacks dtype, shape or offsets)"),
        ({"W": 3}, "('int' object has no attribute 'keys')"),
        ([], "(pop expected at most 1 argument, got 2)"),
        ({"__metadata__": {"a": 1}}, "(its metadata are no text)"),
        ({"__metadata__": 3}, "(its metadata are no text)"),
    ],
    ids=str,
)
def test_a_header_that_is_not_consistent(header: Any, message: str) -> None:
    text = json.dumps(header).encode()
    if message.startswith("("):
        message = f"its header is none of the safetensors format {message}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        TensorFile(BytesIO(len(text).to_bytes(8, "little") + text + bytes(4)))
    twice = b'{"W":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"W":3}'
    with pytest.raises(CheckpointError, match=r"format \(a name is there twice\)$"):
        TensorFile(BytesIO(len(twice).to_bytes(8, "little") + twice + bytes(4)))


def test_the_helpers_make_what_they_say() -> None:
    """A property of layouts is worth nothing where nothing lies otherwise."""
    for lay in LAYS_OF_WEIGHTS:
        W, there = weights(lay)
        assert dtype_of(there) == "float32"
        np.testing.assert_array_equal(host(there), W)
    if backend.name in ("numpy", "torch"):
        lying = [
            backend.to_numpy(weights(lay)[1]) for lay in ("transposed", "stepped", "broadcast")
        ]
        assert not any(array.flags.c_contiguous for array in lying)
