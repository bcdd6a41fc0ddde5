"""What people give: NumPy's numbers, generators, text, labels of graphs, layers that forgot."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from support import arr, backend, except_slow, host, widest

import xbp
from xbp.errors import (
    BackendUnavailableError,
    CheckpointError,
    DataError,
    DTypeError,
    SettingError,
    ShapeError,
)
from xbp.functions import softmax
from xbp.graphs import Graph, Operation, Variable
from xbp.initialization import random_generator, random_state, restore_random_state
from xbp.layers import Affine, IdentityWithLoss, Layer, Relu, SoftmaxWithLoss
from xbp.namespace import Array
from xbp.testing.signatures import Signature
from xbp.training import Checkpoints

once = pytest.mark.skipif(backend.name != "numpy", reason="says nothing about a library")

X = np.arange(20.0).reshape(10, 2) / 20
T = np.arange(10) % 2


# Seeds and numbers -------------------------------------------------------------------------------

GENERATORS = ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"]


def learned(seed: Any, folder: Path | None = None, steps: int = 7, size: Any = 3) -> list[float]:
    network = xbp.TwoLayerNet(2, 3, 2, dtype=widest, backend=backend, seed=0)
    trainer = xbp.Trainer(network, xbp.SGD(0.5), batch_size=size, seed=seed)
    checkpoints = Checkpoints(folder, every_steps=2, resume=True) if folder else None
    return trainer.fit(X, T, steps=steps, checkpoints=checkpoints).loss


@except_slow
@pytest.mark.parametrize("name", GENERATORS)
def test_any_generator_is_a_seed_and_is_resumed(name: str, tmp_path: Path) -> None:
    def generator() -> np.random.Generator:
        return np.random.Generator(getattr(np.random, name)(3))

    whole = learned(generator())
    learned(generator(), tmp_path, steps=3)
    assert learned(generator(), tmp_path) == whole
    before = generator()
    state = before.bit_generator.state
    other = next(kind for kind in GENERATORS if kind != name)
    with pytest.raises(CheckpointError, match=f"drew by {name}, this one draws by {other}: give"):
        learned(np.random.Generator(getattr(np.random, other)(3)), tmp_path, steps=9)
    for damaged in ({}, None, {**random_state(before), "state": 3}, {"bit_generator": name}):
        with pytest.raises(CheckpointError):
            restore_random_state(before, damaged)
    assert repr(before.bit_generator.state) == repr(state)


@except_slow
def test_seeds_of_every_kind() -> None:
    five = learned(5)
    for seed in (np.int64(5), np.uint8(5), np.random.SeedSequence(5), np.random.default_rng(5)):
        assert learned(seed) == five
    assert learned([5, 6]) != five
    assert learned(5, size=np.int32(3)) == five
    with pytest.raises(SettingError, match="seed is an integer"):
        random_generator("five")  # type: ignore[arg-type]


@except_slow
def test_numpys_integers_are_integers() -> None:
    one: Any = np.int64(1)
    two: Any = np.int8(2)
    network = xbp.TwoLayerNet(two, 3, two, dtype=widest, seed=one)
    t, x = arr([0]), arr([[1.0, 2.0]], widest)
    for directions in (None, two):
        checks = [
            xbp.gradient_check(network, x, t, directions=directions, seed=seed) for seed in (1, one)
        ]
        assert str(checks[0]) == str(checks[1])
    assert xbp.gradient_check(network, x, t, elements=one, seed=one).passed
    np.testing.assert_array_equal(host(softmax(x, axis=-one)), host(softmax(x)))
    layer = SoftmaxWithLoss()
    losses = [float(layer.forward(x[0, :], label)) for label in (1, np.int64(1), np.uint8(1))]
    assert len(set(losses)) == 1
    gradients = [host(layer.backward(dout)) for dout in (2, np.int64(2), np.float32(2))]
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, gradients[0])
    assert Signature(Relu, {"x": (two,)}).size_names() == []


# Text and objects --------------------------------------------------------------------------------


class Nullable:
    """What pandas' nullable columns are to NumPy."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([1, None], dtype=object)

    def to_numpy(self, dtype: str) -> Any:
        return np.array([1, 0], dtype)


TEXTS = [
    ["cat", "dog"],
    np.array(["cat", "dog"]),
    np.array(["cat", "dog"], dtype=object),
    np.array([b"cat", b"dog"]),
    np.array(["cat", "dog"], dtype=np.dtypes.StringDType()),
]


@pytest.mark.parametrize("texts", TEXTS, ids=["list", "array", "objects", "bytes", "StringDType"])
def test_text_gets_advice_that_works(texts: Any) -> None:
    advice = r"real numbers are needed, got .*: number the classes, names, t = np\.unique\(t, retur"
    network = xbp.TwoLayerNet(2, 3, 2, dtype=widest, seed=0)
    with pytest.raises(DTypeError, match=advice):
        backend.asarray(texts)
    with pytest.raises(DTypeError, match=advice):
        xbp.Trainer(network, xbp.SGD(0.1)).fit(X[:2], texts, steps=1)
    names, t = np.unique(texts, return_inverse=True)
    assert len(xbp.Trainer(network, xbp.SGD(0.1)).fit(X[:2], t, steps=1).loss) == 1
    assert len(names) == 2


def test_objects_get_advice_that_works() -> None:
    with pytest.raises(DTypeError, match=r"x\.to_numpy\(dtype='float64'\) .* dtype='int64' labels"):
        backend.asarray(Nullable())
    assert host(backend.asarray(Nullable().to_numpy("int64"))).tolist() == [1, 0]
    with pytest.raises(DTypeError, match=r"got list of object: np\.asarray\(x, dtype='float64'\)"):
        backend.asarray([1, None])
    assert np.isnan(host(backend.asarray(np.asarray([1, None], dtype="float64"), widest))[1])


@pytest.mark.skipif(backend.name != "torch", reason="only PyTorch has sparse arrays of its own")
def test_a_sparse_tensor_is_refused() -> None:
    sparse = backend.library.eye(2, dtype=backend.library.float64).to_sparse()
    assert not backend.owns(sparse)
    with pytest.raises(DTypeError, match="cannot make an array of Tensor: Can't export tensors wi"):
        xbp.Trainer(xbp.TwoLayerNet(2, 3, 2), xbp.SGD(0.1)).fit(sparse, [0, 1], steps=1)


@pytest.mark.skipif(backend.name != "torch", reason="only PyTorch negates by a mark")
def test_a_tensor_that_is_negated_by_a_mark_keeps_its_sign() -> None:
    torch = backend.library
    x = torch.imag(torch.conj(torch.complex(torch.ones(2), torch.ones(2))))
    assert x.is_neg()
    for there in (backend, xbp.get_backend("numpy"), xbp.get_backend("array-api-strict")):
        np.testing.assert_array_equal(there.to_numpy(there.asarray(x)), [-1, -1])


def test_integers_stay_the_numbers_that_they_are() -> None:
    for value, dtype in ((2**40 + 3, "int32"), (-1, "uint8"), (300, "int8")):
        with pytest.raises(DTypeError, match=rf"asarray: {value} is no number of {dtype}"):
            backend.asarray(np.array([0, value]), dtype)
    largest = int(np.iinfo(backend.default_integer).max)
    t = np.full(10, largest + 1, "uint64")
    if "uint64" in backend.dtypes:
        network = xbp.Network.fully_connected([2, 1], loss=IdentityWithLoss, backend=backend)
        with pytest.raises(
            DataError, match=rf"t holds {largest + 1}, which int\d+ does not: scale"
        ):
            xbp.Trainer(network, xbp.SGD(1e-12)).fit(X, t, steps=1)


# What was forgotten ------------------------------------------------------------------------------


class Forward(Layer):
    """A layer that returns nothing."""

    def forward(self, x: Array) -> Any:
        pass

    def backward(self, dout: Array) -> Any:
        return dout


class Backward(Forward):
    def forward(self, x: Array) -> Any:
        return x


class BackwardNone(Backward):
    def backward(self, dout: Array) -> Any:
        self.dout = dout


@pytest.mark.parametrize(("kind", "method"), [(Forward, "forward"), (BackwardNone, "backward")])
def test_a_layer_that_returned_nothing_is_named(kind: type[Layer], method: str) -> None:
    W, b = arr(np.ones((2, 2)), widest), arr([0.0, 0.0], widest)
    network = xbp.Network([Affine(W, b), kind()], SoftmaxWithLoss())
    x, t = arr([[1.0, 2.0]], widest), arr([0])
    expected = rf"{kind.__name__}1\.{method} returned None: it ends with return"
    calls: list[Callable[[], Any]] = [
        lambda: network.gradient(x, t),
        lambda: network.loss_and_gradient(network.params, x, t),
        lambda: xbp.Trainer(network, xbp.SGD(0.1)).fit(X, T, steps=1),
        lambda: xbp.gradient_check(network, x, t),
        lambda: Graph.of_network(network, x, t),
    ]
    for call in calls:
        with pytest.raises(DTypeError, match=expected):
            call()
    with pytest.raises(DTypeError, match=f"{kind.__name__}.{method} returned None"):
        Graph(Operation(kind(), Variable("x", x))).steps()


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_a_loss_that_returned_nothing_is_named(method: str) -> None:
    kind = type("Own", (SoftmaxWithLoss,), {method: lambda *_: None})
    network = xbp.Network([Affine(arr(np.ones((2, 2)), widest), arr([0.0, 0.0], widest))], kind())
    with pytest.raises(DTypeError, match=rf"Own\.{method} returned None: it ends with return"):
        network.gradient(arr([[1.0, 2.0]], widest), arr([0]))


def test_a_loss_of_each_sample_is_no_loss() -> None:
    class Each(SoftmaxWithLoss):
        def forward(self, x: Array, t: Array) -> Any:
            super().forward(x, t)
            return self.losses(x, t)

    network = xbp.Network([Affine(arr(np.ones((2, 2)), widest), arr([0.0, 0.0], widest))], Each())
    x, t = arr([[1.0, 2.0]] * 3, widest), arr([0, 1, 1])
    calls: list[Callable[[], Any]] = [
        lambda: network.loss(x, t),
        lambda: network.loss_and_gradient(network.params, x, t),
        lambda: xbp.Trainer(network, xbp.SGD(0.1)).fit(x, t, steps=1),
        lambda: xbp.gradient_check(network, x, t),
    ]
    for call in calls:
        with pytest.raises(
            ShapeError, match=r"Each.forward returned shape \(\d,\): a loss is an array without"
        ):
            call()


@pytest.mark.parametrize(("loss", "name"), [(2.5, "float"), ("2.5", "str"), ((2.5,), "tuple")])
def test_a_loss_is_an_array(loss: Any, name: str) -> None:
    kind = type("Own", (SoftmaxWithLoss,), {"forward": lambda *_: loss})
    network = xbp.Network([], kind(), backend=backend)
    with pytest.raises(
        ShapeError,
        match=f"Own.forward returned {name}: a loss is an array without "
        "dimensions, the mean over the batch$",
    ):
        network.loss(arr([[1.0, 2.0]]), arr([0]))


def test_a_layer_sends_back_one_derivative_for_each_input() -> None:
    class Twice(Backward):
        def backward(self, dout: Array) -> Any:
            return dout, dout

    graph = Graph(Operation(Twice(), Variable("x", arr([1.0]))))
    with pytest.raises(
        SettingError, match=r"Twice.backward returned 2 .* as inputs, 1, are needed"
    ):
        graph.steps()


@once
def test_a_class_without_its_base_is_named() -> None:
    class Own:
        pass

    own, loss = Own(), SoftmaxWithLoss()
    makers: list[tuple[Any, str, Any]] = [
        (lambda thing: xbp.Network([thing], loss), "Layer", Relu),
        (lambda thing: xbp.Network([Relu()], thing), "LossLayer", SoftmaxWithLoss),
        (lambda thing: Operation(thing, Variable("x", 1)), "Layer", Relu),
        (lambda thing: xbp.Trainer(xbp.TwoLayerNet(2, 2, 2), thing), "Optimizer", xbp.SGD),
    ]
    for make, base, kind in makers:
        with pytest.raises(
            SettingError, match=f"Own object at .*: derive its class Own from {base}"
        ):
            make(own)
        with pytest.raises(SettingError, match=f"not the class Own: derive it from {base}, and ma"):
            make(Own)
        name = kind.__name__
        with pytest.raises(SettingError, match=rf"class {name}: make one of it, {name}\(\.\.\.\)"):
            make(kind)


@once
def test_a_backend_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xbp.registry, "_process_factories", {})
    strict = xbp.get_backend("array-api-strict")

    def without(**attributes: Any) -> xbp.Backend:
        kind = type("Own", (xbp.Backend,), attributes)
        xbp.register_backend("own", kind)
        return xbp.get_backend("own")

    xp, library = strict.xp, strict.library
    with pytest.raises(BackendUnavailableError, match=r"'own' .*has no attribute 'xp'"):
        without(library=library)
    with pytest.raises(BackendUnavailableError, match="'own' has no library: its author sets it"):
        without(xp=xp)

    def refusing(self: Any, x: Any) -> Any:
        raise TypeError("no such call")

    own = without(xp=xp, library=library, from_numpy=refusing)
    assert own.name == "own"
    with pytest.raises(DTypeError, match=r"makes no array .*no such call.*overrides from_numpy"):
        own.asarray([1.0])
    own = without(xp=xp, library=library)
    monkeypatch.setattr(np, "from_dlpack", lambda *_, **__: refusing(None, None))
    with pytest.raises(DTypeError, match=r"own:.* brings no array to the host .*overrides to_nump"):
        own.to_numpy(own.asarray([1.0]))


SAID: dict[str, Any] = {
    "default_device": classmethod(lambda cls: "cpu"),
    "devices": classmethod(lambda cls: ["cpu"]),
    "find_device": classmethod(lambda cls, name: ["cpu"][["cpu"].index(name)]),
    "dtypes": {"float32": np.float32, "int64": np.int64},
    "default_float": "float32",
    "default_integer": "int64",
}
# What each backend does that lacks one of them.
SAYS = {
    "default_device": "backend own does not say its default_device",
    "devices": "backend own:gpu does not say its devices",
    "find_device": "backend 'own' does not find its device 'cpu'",
    "dtypes": "backend own:cpu does not say its dtypes",
    "default_float": "backend own:cpu does not say its default_float",
    "default_integer": "backend own:cpu does not say its default_integer",
}


@once
@pytest.mark.parametrize("lacking", SAID)
def test_a_library_that_says_nothing_of_itself_is_spoken_for(lacking: str) -> None:
    said = {name: value for name, value in SAID.items() if name != lacking}
    if lacking == "default_device":  # which is the first of the devices
        del said["devices"]
    silent = SimpleNamespace(__name__="silent")
    kind = type("Own", (xbp.Backend,), {"name": "own", "library": silent, "xp": silent, **said})

    def use() -> None:
        own = kind("gpu" if lacking == "devices" else None)
        assert own.dtypes
        assert own.default_float == "float32"
        assert own.default_integer == "int64"

    with pytest.raises(BackendUnavailableError) as caught:
        use()
    message = str(caught.value)
    assert message.startswith(f"{SAYS[lacking]} (AttributeError: ")
    assert re.search(r"__array_namespace_info__.* \(.*backend\.py, line \d+\)", message)
    assert message.endswith(f": its author overrides {lacking}")
    assert isinstance(caught.value.__cause__, AttributeError)


# Labels of graphs --------------------------------------------------------------------------------

LABELS = {
    "\\Gamma \\N \\G \\L \\n \\l \\E \\T \\H": None,
    "C:\\New": None,
    "\\": None,
    "\\\\": None,
    "a\x00b\x1b[31m\x08": "a\\x00b\\x1b[31m\\x08",
    "\ud800\ufffe\u202e": "\\ud800\\ufffe\\u202e",
    "<b>&\"'</b> ]]> &lt; &#92; #1; `x`": None,
    "😀 👩\u200d💻 é 量": None,
    "a\tb\u3000c": "a b c",
    "x" * 300: None,
}


@once
@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_what_was_written(label: str) -> None:
    shown = LABELS[label] or label
    graph = Graph(Variable(label, 2.0) * 3, name=label)
    graph.steps()
    picture = graph.picture()
    svg = ElementTree.fromstring(picture.svg())
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count(shown) == 2, texts
    assert picture.png().startswith(b"\x89PNG")
    mermaid = picture.mermaid()
    assert "\x00" not in mermaid
    assert len(mermaid.splitlines()) == len(
        Graph(Variable("x", 2.0) * 3).picture().mermaid().splitlines()
    )
    mermaid.encode()
    assert mermaid.count("\\") == 0


@once
def test_lines_of_a_label_are_lines() -> None:
    picture = Graph(Variable("one\ntwo", 2.0) * 3, name="\n").picture()
    svg = ElementTree.fromstring(picture.svg())
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"one", "two"} <= set(texts)
    assert '["one<br/>two"]' in picture.mermaid()


# Where there is nothing --------------------------------------------------------------------------

COMMANDS = [
    *(["train", "--steps=2"], ["gradcheck", "--elements=2"], ["graph", "apple"], ["backends"]),
    *(["check", "numpy", "--examples=1"], ["completion", "bash"], ["--version"], ["--help"]),
]


NOBODY = """
import os, pwd, sys
os.environ.pop("HOME", None)
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
from xbp.cli import main
main(sys.argv[1:])
"""


@once
@pytest.mark.parametrize("command", [["train", "--steps=2", "--out=out"], ["train", "mnist"]])
def test_a_user_that_the_system_does_not_know(command: list[str], tmp_path: Path) -> None:
    pytest.importorskip("pwd", reason="a system without it has other users")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HOME", "XDG_CACHE_HOME", "XBP_DATA_DIR")
    }
    found = subprocess.run(
        [sys.executable, "-c", NOBODY, *command], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "mnist" in command:
        assert found.returncode == 1
        assert found.stderr.startswith("Error: there is no home directory, and so no cache")
        assert len(found.stderr.splitlines()) == 1
    else:
        assert found.returncode == 0, found.stderr
        assert (tmp_path / "out" / "report.html").exists()


@once
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_home_and_without_streams(command: list[str], tmp_path: Path) -> None:
    words = " ".join(command)
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    call = f"{sys.executable} -m xbp {words}"

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    full = shell(f"{call} >/dev/full")
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1] == "Error: the output: No space left on device"
    assert "Traceback" not in full.stderr
    assert shell(f"{call} >&- 2>/dev/full <&-").returncode == 0
    if command[-1] in ("apple", "--version"):
        assert shell(f"{call} 2>&-").returncode == 0
        wrong = f"{sys.executable} -m xbp graph --no-such-option"
        assert shell(f"{wrong} 2>/dev/full").returncode == 2
    assert not list(tmp_path.iterdir())
