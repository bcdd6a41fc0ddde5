"""Computational graphs: their values and derivatives, their pictures, the command."""

import json
import math
import operator
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from support import arr, arrays, backend, except_slow, host, numbers, precise, widest

import xbp
from xbp.cli import main
from xbp.errors import (
    BackendUnavailableError,
    CallOrderError,
    DataError,
    DTypeError,
    SettingError,
    ShapeError,
)
from xbp.graphs import Graph, Operation, Variable, graphviz
from xbp.graphs.chapter import apple, fruit, neuron
from xbp.graphs.picture import Arrow, Film, Picture, Spot
from xbp.layers import (
    AddLayer,
    Affine,
    IdentityWithLoss,
    Layer,
    MulLayer,
    Relu,
    Residual,
    Sigmoid,
    SoftmaxWithLoss,
)

SPEC = f"{backend.name}:{backend.device}"
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str | None) -> list[str]:
    """Return what can be read in a picture."""
    return [text.text or "" for text in ElementTree.fromstring(svg or "").iter(f"{SVG}text")]


def arrows(graph: Graph) -> dict[tuple[str, str], tuple[str, str]]:
    """Return value and derivative of each arrow of a picture, by the labels of its ends."""
    picture = graph.picture()
    labels = {spot.key: spot.label for spot in picture.spots}
    return {
        (labels[arrow.tail], labels[arrow.head]): (arrow.value, arrow.derivative)
        for arrow in picture.arrows
    }


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["graph", *arguments])


# Values and derivatives --------------------------------------------------------------------------


def test_the_apples_of_the_chapter() -> None:
    graph = apple()
    steps = graph.steps()
    assert [str(step) for step in steps] == [
        "forward   ×  takes apple 100, number of apples 2; gives 200",
        "forward   ×  takes 200, tax 1.1; gives 220",
        "backward  ×  takes 1; gives 1.1, tax 200",
        "backward  ×  takes 1.1; gives apple 2.2, number of apples 110",
    ]
    assert arrows(graph) == {
        ("apple", "×"): ("100", "2.2"),
        ("number of apples", "×"): ("2", "110"),
        ("×", "×"): ("200", "1.1"),
        ("tax", "×"): ("1.1", "200"),
        ("×", "price"): ("220", "1"),
    }


def test_the_apples_and_oranges_of_the_chapter() -> None:
    graph = fruit()
    assert graph.forward() == 715.0000000000001
    graph.backward()
    found = {node.label: node.gradient for node in graph.variables}
    assert found == {
        "apple": 2.2, "number of apples": 110.00000000000001,
        "orange": 3.3000000000000003, "number of oranges": 165.0, "tax": 650,
    }  # fmt: skip


@given(*[numbers(0.5, 3)] * 4)
def test_an_expression_and_its_derivatives(a: float, b: float, c: float, d: float) -> None:
    def f(a: Any, b: Any, c: Any, d: Any) -> Any:
        return (2 * a - b / c) * (1 - d) + 3 / (b + 1) - (-a * d) / 4

    variables = [Variable(*pair) for pair in zip("abcd", (a, b, c, d), strict=True)]
    graph = Graph(f(*variables))
    assert graph.forward() == pytest.approx(f(a, b, c, d))
    graph.backward()
    for i, variable in enumerate(variables):
        forth, back = ([a, b, c, d] for _ in range(2))
        forth[i] += 1e-6
        back[i] -= 1e-6
        assert variable.gradient == pytest.approx((f(*forth) - f(*back)) / 2e-6, abs=1e-6)


def test_differences_and_quotients_are_nodes() -> None:
    x, y = Variable("x", 3), Variable("y", 4)
    labels = {repr(node) for node in (x - y, x / y, 5 - x, 5 / x, x - 2, x / 2)}
    assert labels == {
        *("<operation − on x, y>", "<operation ÷ on x, y>", "<operation − on 5, x>"),
        *("<operation ÷ on 5, x>", "<operation − on x, 2>", "<operation ÷ on x, 2>"),
    }
    assert repr(1 / x) == repr(np.float64(1) / x) == "<operation / on x>"
    assert repr(-x) == "<operation × on x, -1>"


def test_differences_and_quotients_of_bytes_and_tiny_numbers() -> None:
    def value(node: Operation) -> Any:
        graph = Graph(node)
        graph.steps()
        return host(graph.output.value).tolist()

    small = arr(np.array([3], dtype=np.uint8))
    x = Variable("x", small)
    assert value(x - 5) == value(x - arr(np.array([5], dtype=np.uint8))) == [-2]
    assert value(0 - x) == value(-x) == [-3]
    assert value(x * 200) == [600]
    assert x.gradient is not None
    assert host(x.gradient).tolist() == [200]
    tiny = arr([2.0**-120], "float32")
    assert value(Variable("a", tiny) / tiny) == [1]


# On these, what stands on the left refuses whatever it does not know before we are asked.
deaf = backend.name in ("dpnp", "array-api-strict")


@pytest.mark.parametrize("other", ["array", "NumPy integer", "NumPy number"])
def test_what_stands_on_the_left(other: str) -> None:
    left = {
        "array": arr([6.0, 8.0], widest),
        "NumPy integer": np.int8(6),
        "NumPy number": np.float32(6),
    }[other]
    six = np.array([6.0, 8.0]) if other == "array" else 6
    for f in (operator.truediv, operator.sub, operator.mul, operator.add):
        x = Variable("x", arr([2.0, 4.0], widest))
        if deaf and other == "array":
            with pytest.raises(TypeError, match="Variable"):
                f(left, x)
            graph = Graph(f(Variable("six", left), x))
        else:
            graph = Graph(f(left, x))
        np.testing.assert_array_equal(host(graph.forward()), f(six, np.array([2.0, 4.0])))
        graph.backward()
        slope = (f(six, np.array([2.0, 4.0]) + 1e-6) - f(six, np.array([2.0, 4.0]) - 1e-6)) / 2e-6
        np.testing.assert_allclose(host(x.gradient), slope, rtol=1e-6)


def test_a_neuron() -> None:
    graph = neuron()
    y = graph.forward()
    assert y == pytest.approx(1 / (1 + np.exp(1)))
    graph.backward()
    slopes = {node.label: node.gradient for node in graph.variables}
    slope = y * (1 - y)
    assert slopes == pytest.approx({"x": 2 * slope, "w": slope, "b": slope})


def test_a_value_used_twice_gets_both_derivatives() -> None:
    x = Variable("x", 3)
    graph = Graph(x * x + x)
    assert graph.forward() == 12
    graph.backward()
    assert x.gradient == 7
    graph.backward()
    assert x.gradient == 7


def test_a_variable_may_be_given_another_value() -> None:
    x = Variable("x", 3)
    graph = Graph(2 * x)
    graph.forward()
    graph.backward()
    x.value = 5
    assert graph.forward() == 10
    assert x.gradient is None


@given(st.data())
def test_an_expression_of_arrays(data: st.DataObject) -> None:
    x, y, dout = (data.draw(arrays((2, 3))).astype(widest) for _ in range(3))
    a, b = Variable("a", arr(x)), Variable("b", arr(y))
    graph = Graph(Operation(Sigmoid(), a * b) + 1)
    rtol, atol = precise(1e-13, 1e-5), precise(1e-15, 1e-6)
    sigmoid = 1 / (1 + np.exp(-x * y))
    np.testing.assert_allclose(host(graph.forward()), sigmoid + 1, rtol=rtol)
    graph.backward(arr(dout))
    slope = dout * sigmoid * (1 - sigmoid)
    np.testing.assert_allclose(host(a.gradient), slope * y, rtol=rtol, atol=atol)
    np.testing.assert_allclose(host(b.gradient), slope * x, rtol=rtol, atol=atol)


def test_an_array_as_a_constant_and_a_number_sent_back_to_an_array() -> None:
    x = Variable("x", arr([1.0, 2.0], widest))
    graph = Graph(x * arr([3.0, 4.0], widest))
    np.testing.assert_array_equal(host(graph.forward()), [3, 8])
    graph.backward()
    np.testing.assert_array_equal(host(x.gradient), [3, 4])
    assert arrows(graph)["2, norm 5", "×"] == ("", "")


def test_a_number_goes_back_to_each_element() -> None:
    x = Variable("x", arr([0.0, 0.0], widest))
    graph = Graph(Operation(Sigmoid(), x))
    graph.forward()
    graph.backward(2)
    np.testing.assert_array_equal(host(x.gradient), [0.5, 0.5])


def test_targets_get_no_derivative() -> None:
    x, t = (Variable(label, arr([[1.0, 2.0]], widest)) for label in "xt")
    graph = Graph(Operation(IdentityWithLoss(), x, t * 2))
    graph.forward()
    graph.backward()
    np.testing.assert_array_equal(host(x.gradient), [[-1, -2]])
    assert t.gradient is None
    assert arrows(graph)["t", "×"] == ("1×2, norm 2.24", "")
    assert len(graph.steps()) == 3


def test_arrays_of_no_element_and_numbers_that_are_too_large() -> None:
    empty = Variable("a", arr(np.zeros(0), widest))
    assert str(Graph(empty * 2).steps()[0]) == (
        "forward   ×  takes a 0, norm 0, 2; gives 0, norm 0"
    )
    assert str(Graph(Variable("a", -3 * 10**5000) * 2).steps()[0]) == (
        "forward   ×  takes a -3e+5000, 2; gives -6e+5000"
    )
    with pytest.raises(DTypeError, match="MulLayer: an integer is too large"):
        Graph(Variable("a", 10**400) * 1.5).steps()
    for value, text in ((math.nan, "nan"), (-math.inf, "-inf"), (arr([1], "int64"), "1")):
        assert Graph(Variable("a", value) * 1).steps()[0].takes == (f"a {text}", "1")


def test_what_is_sent_back_fits_the_output() -> None:
    graph = Graph(Variable("x", arr([1, 2])) * 3)
    graph.forward()
    graph.backward(np.int64(2))
    assert host(graph.variables[0].gradient).tolist() == [6, 6]
    with pytest.raises(DTypeError, match=r"Graph\.backward, to which 2\.5 was given: real fl"):
        graph.backward(2.5)
    with pytest.raises(DTypeError, match=r"Graph\.backward: an integer of 64 bits does not fit"):
        graph.backward(2**63)


# Networks ----------------------------------------------------------------------------------------


def network_of(*sizes: int, **settings: Any) -> tuple[xbp.Network, Any, Any]:
    """Return a network and a batch."""
    settings |= {"backend": backend, "dtype": "float32", "seed": 0}
    network = xbp.Network.fully_connected(sizes, **settings)
    random = np.random.default_rng(0)
    return (
        network,
        backend.asarray(random.normal(size=(20, sizes[0])), "float32"),
        backend.asarray(random.integers(0, sizes[-1], 20)),
    )


def test_a_network_and_its_batch() -> None:
    network, x, t = network_of(4, 5, 3)
    graph = Graph.of_network(network, x, t)
    gradient = {key: host(value) for key, value in network.gradient(x, t).items()}
    found = arrows(graph)
    assert list(found) == [
        ("x", "Affine1"), ("W1", "Affine1"), ("b1", "Affine1"), ("Affine1", "Relu1"),
        ("Relu1", "Affine2"), ("W2", "Affine2"), ("b2", "Affine2"), ("Affine2", "SoftmaxWithLoss"),
        ("t", "SoftmaxWithLoss"), ("SoftmaxWithLoss", "loss"),
    ]  # fmt: skip
    for variable in graph.variables:
        if variable.label in gradient:
            np.testing.assert_allclose(host(variable.gradient), gradient[variable.label], rtol=1e-5)
    norm = float(np.sqrt((host(network.params["W1"]) ** 2).sum()))
    slope = float(np.sqrt((gradient["W1"] ** 2).sum()))
    assert found["W1", "Affine1"] == (f"4×5, norm {norm:.3g}", f"norm {slope:.3g}")
    assert found["b2", "Affine2"][0] == "3, norm 0"
    assert found["t", "SoftmaxWithLoss"] == ("20 integers", "")
    assert found["SoftmaxWithLoss", "loss"] == (f"{float(network.loss(x, t)):.5g}", "1")


class Returning(Layer):
    """Returns its very input."""

    def forward(self, x: Any) -> Any:
        return x

    def backward(self, dout: Any) -> Any:
        return dout


def test_a_network_is_drawn_as_it_computes() -> None:
    class Backwards(xbp.Network):
        """Runs its layers in the other order."""

        def loss(self, x: Any, t: Any) -> Any:
            for layer in reversed(self.layers.values()):
                x = layer.forward(x)
            return self.last_layer.forward(x, t)

    _, x, t = network_of(3, 3)
    network = Backwards([Residual(Returning(), Relu()), Sigmoid()], SoftmaxWithLoss())
    assert list(arrows(Graph.of_network(network, x, t))) == [
        ("x", "Sigmoid1"), ("Sigmoid1", "Residual1.Returning1"),
        ("Residual1.Returning1", "Residual1.Relu1"), ("Sigmoid1", "Residual1 +"),
        ("Residual1.Relu1", "Residual1 +"), ("Residual1 +", "SoftmaxWithLoss"),
        ("t", "SoftmaxWithLoss"), ("SoftmaxWithLoss", "loss"),
    ]  # fmt: skip


class Counted(Layer):
    """Multiplies by how often it was called."""

    state_names = ("calls",)

    def __init__(self) -> None:
        self.calls: Any = 0.0

    def forward(self, x: Any) -> Any:
        self.calls = self.calls + 1
        self.factor = self.calls
        return x * self.factor

    def backward(self, dout: Any) -> Any:
        return dout * self.factor


def test_a_picture_has_the_state_of_the_network() -> None:
    network, x, t = network_of(4, 3)
    network = xbp.Network([*network.layers.values(), Counted()], SoftmaxWithLoss())
    graph = Graph.of_network(network, x, t)
    gradient = {
        key: host(value)
        for key, value in network.loss_and_gradient(network.params, x, t)[1].items()
    }
    for variable in graph.variables:
        if variable.label in gradient:
            np.testing.assert_allclose(host(variable.gradient), gradient[variable.label], rtol=1e-5)


def test_equal_values_are_not_taken_for_each_other() -> None:
    class Shifted(Layer):
        def forward(self, x: Any, by: Any) -> Any:
            return x + by

        def backward(self, dout: Any) -> Any:
            return dout

    class Own(xbp.Network):
        def loss(self, x: Any, t: Any) -> Any:
            hidden = self.layers["Returning1"].forward(x)
            hidden = self.layers["Residual1"].forward(hidden)
            return self.last_layer.forward(self.layers["Shifted1"].forward(hidden, 1), t)

    _, x, _ = network_of(3, 3)
    layers = [Returning(), Residual(Returning()), Shifted()]
    graph = Graph.of_network(Own(layers, SoftmaxWithLoss(), backend=backend), x[0, ...], 1)
    assert list(arrows(graph)) == [
        ("x", "Returning1"), ("Returning1", "Residual1.Returning1"),
        ("Returning1", "Residual1 +"), ("Residual1.Returning1", "Residual1 +"),
        ("Residual1 +", "Shifted1"), ("1", "Shifted1"), ("Shifted1", "SoftmaxWithLoss"),
        ("t", "SoftmaxWithLoss"), ("SoftmaxWithLoss", "loss"),
    ]  # fmt: skip

    class Beside(xbp.Network):
        """Adds a hidden value and what a layer returns that returns it as it is."""

        def loss(self, x: Any, t: Any) -> Any:
            hidden = self.layers["Relu1"].forward(x)
            same = self.layers["Returning1"].forward(hidden)
            return self.last_layer.forward(self.layers["AddLayer1"].forward(hidden, same), t)

    layers = [Relu(), Returning(), AddLayer()]
    graph = Graph.of_network(Beside(layers, SoftmaxWithLoss(), backend=backend), x[0, ...], 1)
    assert ("Relu1", "AddLayer1") in arrows(graph)
    assert ("Returning1", "AddLayer1") in arrows(graph)
    graph = Graph.of_network(xbp.Network([Returning()], IdentityWithLoss(), backend=backend), x, x)
    assert list(arrows(graph)) == [
        ("x", "Returning1"), ("Returning1", "IdentityWithLoss"), ("t", "IdentityWithLoss"),
        ("IdentityWithLoss", "loss"),
    ]  # fmt: skip


def test_what_no_layer_computes_is_not_drawn() -> None:
    class Doubled(xbp.Network):
        def loss(self, x: Any, t: Any) -> Any:
            return super().loss(x, t) * 2

    class Shifted(xbp.Network):
        def loss(self, x: Any, t: Any) -> Any:
            return super().loss(x + 1, t)

    _, x, t = network_of(3, 3)
    with pytest.raises(SettingError, match=r"Doubled\.loss returns what no layer has returned"):
        Graph.of_network(Doubled([Relu()], SoftmaxWithLoss()), x, t)
    with pytest.raises(SettingError, match=r"Relu1\.forward was given what no layer has returned"):
        Graph.of_network(Shifted([Relu()], SoftmaxWithLoss()), x, t)


def test_a_graph_leaves_the_network_as_it_is() -> None:
    network, x, t = network_of(4, 5, 3)
    network.gradient(x[:3, :], t[:3])
    kept = network.layers["Affine1"].grads["W"]
    Graph.of_network(network, x, t)
    assert network.layers["Affine1"].grads["W"] is kept
    assert network.last_layer.y.shape == (3, 3)


def test_a_graph_of_a_network_follows_its_training() -> None:
    network, x, t = network_of(4, 3)
    graph = Graph.of_network(network.bound_to(network.params), x, t)
    before = float(graph.forward())
    affine = graph.operations[0].layer
    affine.params["W"] = affine.params["W"] * 0
    assert float(graph.forward()) != before
    assert arrows(graph)["W1", "Affine1"] == ("4×3, norm 0", "")


@except_slow
def test_a_vanishing_gradient_is_seen() -> None:
    network, x, t = network_of(4, *[10] * 19, 3, activation=Sigmoid)
    picture = Graph.of_network(network, x, t).picture()
    sizes = [arrow.size for arrow in picture.arrows if arrow.along and arrow.size]
    assert sizes[0] < 1e-5 * sizes[-1]
    opacities = [int(c, 16) for c in re.findall(r'COLOR="#c62828(..)"', picture.dot())]
    assert opacities[0] < 100
    assert opacities[-1] > 250


def test_a_derivative_fades_with_each_power_of_ten() -> None:
    sizes = [1e3, 1.0, 1e-2, 1e-3, 1e-9, 0.0, None, math.nan, math.inf]
    picture = Picture(
        (Spot("a", "a"), Spot("b", "b")),
        tuple(Arrow("a", "b", "x", "dx", size) for size in sizes),
    )
    found = [int(code, 16) for code in re.findall(r'COLOR="#c62828(..)"', picture.dot())]
    faintest = round(255 * 0.2)
    assert found == [255, 128, 51, faintest, faintest, faintest, 255, 255, 255]
    # The largest that is finite is drawn in full, whatever its size.
    alone = Picture(picture.spots, (Arrow("a", "b", "x", "dx", 1e-30),))
    assert 'COLOR="#c62828ff"' in alone.dot()


def test_the_norm_of_large_numbers_is_finite() -> None:
    x = Variable("x", arr([3e30, 4e30], "float32"))
    assert arrows(Graph(x * 1))["x", "×"][0] == "2, norm 5e+30"


# Pictures ----------------------------------------------------------------------------------------


def test_a_graph_shows_itself() -> None:
    graph = fruit()
    built = texts(graph._repr_svg_())
    assert {"apple", "number of oranges", "×", "+", "price", "150"} <= set(built)
    assert "715" not in built
    graph.forward()
    assert {"200", "450", "650", "715"} <= set(texts(graph._repr_svg_()))
    assert "2.2" not in texts(graph._repr_svg_())
    graph.backward()
    assert {"2.2", "110", "3.3", "165"} <= set(texts(graph._repr_svg_()))


def test_each_step_is_a_picture_of_its_moment() -> None:
    steps = fruit().steps()
    assert len(steps) == 8
    seen = [set(texts(step._repr_svg_())) for step in steps]
    assert "200" in seen[0]
    assert "450" not in seen[0]
    assert "1.1" in seen[4]
    assert "165" not in seen[5]
    assert {"110", "165"} <= seen[7]
    for step in steps:
        marked = [spot.label for spot in step.picture.spots if spot.is_active]
        assert marked == [step.label]


def test_a_deep_graph_is_not_drawn_until_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is made a few times, not once for each picture."""
    made = []

    def text_of(*_: Any, **__: Any) -> str:
        made.append("a text")
        return made[-1]

    monkeypatch.setattr("xbp.graphs.graph.text_of", text_of)
    node: Any = Variable("x", 2.0)
    for _ in range(50):
        node = node + 1
    steps = Graph(node).steps()
    assert len(steps) == 100
    assert len(made) < 12 * 50
    assert len([arrow for arrow in steps[20].picture.arrows if arrow.value]) == 22


def test_values_are_over_the_arrows_and_derivatives_under_them() -> None:
    graph = apple()
    graph.forward()
    graph.backward()
    places = {
        text.text: float(text.attrib["y"])
        for text in ElementTree.fromstring(graph.picture().svg()).iter(f"{SVG}text")
    }
    assert places["100"] < places["apple"] < places["2.2"]


def test_a_long_graph_flows_down() -> None:
    x = Variable("x", 1)
    assert not Graph(x + 1).picture().flows_down
    long = x + 1
    for _ in range(8):
        long = long + 1
    assert Graph(long).picture().flows_down


def test_signs_that_mean_something_to_the_formats() -> None:
    x = Variable('<"a" & b>#|', 2)
    graph = Graph(x * 3, name="<y>")
    graph.forward()
    assert {'<"a" & b>#|', "<y>"} <= set(texts(graph._repr_svg_()))
    assert '["#lt;#quot;a#quot; #amp; b#gt;#35;|"]' in graph.picture().mermaid()


def test_mermaid() -> None:
    graph = apple()
    graph.forward()
    graph.backward()
    assert graph.picture().mermaid() == (
        "flowchart LR\n"
        '    n0["apple"]\n'
        '    n1["number of apples"]\n'
        '    n2(("×"))\n'
        '    n3["tax"]\n'
        '    n4(("×"))\n'
        '    output["price"]\n'
        '    n0 -->|"100<br/><b>2.2</b>"| n2\n'
        '    n1 -->|"2<br/><b>110</b>"| n2\n'
        '    n2 -->|"200<br/><b>1.1</b>"| n4\n'
        '    n3 -->|"1.1<br/><b>200</b>"| n4\n'
        '    n4 -->|"220<br/><b>1</b>"| output\n'
    )


def test_a_picture_is_saved_in_the_format_that_its_name_says(tmp_path: Path) -> None:
    picture = apple().picture()
    for name, start in (
        *(("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG")),
        *(("a.dot", b"digraph {"), ("a.mmd", b"flowchart")),
    ):
        picture.save(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(SettingError, match=r"a picture ends in \.svg, \.png, .*not '\.jpg'"):
        picture.save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="cannot be written"):
        picture.save(tmp_path / "nowhere" / "a.svg")


def test_drawing_says_nothing_and_leaves_the_environment() -> None:
    code = (
        "import os; from xbp.graphs.chapter import apple; before = dict(os.environ); "
        "apple().picture().png(); print(dict(os.environ) == before)"
    )
    # In a process of its own: only the first picture could say something.
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("True\n", "")


def test_without_pygraphviz(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    graphviz._graphviz.cache_clear()
    with pytest.raises(BackendUnavailableError, match="pip install pygraphviz"):
        apple().picture().svg()
    assert apple()._repr_svg_() is None
    apple().picture().save(tmp_path / "a.mmd")
    graphviz._graphviz.cache_clear()


# Mistakes ----------------------------------------------------------------------------------------


def test_mistakes() -> None:
    with pytest.raises(CallOrderError, match=r"Graph: .*call forward first"):
        apple().backward()
    with pytest.raises(SettingError, match="the output is an expression of variables, not 3"):
        Graph(3)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="first the name, then the value: got 100 first"):
        Variable(100, "apple")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="first the network, not 'net'"):
        Graph.of_network("net", 1, 2)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="Variable 'x': expected an array, got list"):
        Variable("x", [1, 2])
    with pytest.raises(SettingError, match=r"the layer is one of xbp\.layers, .*not 'sigmoid'"):
        Operation("sigmoid", Variable("x", 1))  # type: ignore[arg-type]
    layer, x = MulLayer(), Variable("x", 1)
    with pytest.raises(SettingError, match="a layer stands twice"):
        Graph(Operation(layer, Operation(layer, x, x), x))
    W, b = arr([[1.0], [2.0]], widest), arr([0.0], widest)
    graph = Graph(Operation(Affine(W, b), Variable("x", arr([[1.0]], widest))))
    with pytest.raises(ShapeError, match="Affine: samples of 2 elements"):
        graph.forward()


def test_what_they_look_like_in_print() -> None:
    x = Variable("x", 2)
    assert repr(x) == "Variable('x', 2)"
    assert repr(x * 3) == "<operation × on x, 3>"
    assert repr(Graph(x * 3 + 1)) == "<graph of ×, +>"
    step = Graph(x * 3).steps()[0]
    assert repr(step) == "<step forward   ×  takes x 2, 3; gives 6>"


# The command -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "price"), [("apple", "220"), ("fruit", "715")])
def test_graph_prints_what_each_node_does(what: str, price: str) -> None:
    result = run(what)
    assert result.exit_code == 0, result.stderr
    assert f"{what}: {price}" in result.stdout
    assert "number of apples 110" in result.stdout


def test_graph_as_json() -> None:
    result = run("apple", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["graph"] == "apple"
    assert found["steps"][-1] == {
        "direction": "backward", "label": "×", "takes": ["1.1"],
        "gives": ["apple 2.2", "number of apples 110"],
    }  # fmt: skip


@except_slow
def test_graph_of_a_net_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "net.svg"
    sizes = ("--depth=3", "--width=7", "--samples=5", "--activation=sigmoid")
    result = run("net", *sizes, f"--out={path}", f"--backend={SPEC}")
    assert result.exit_code == 0, result.stderr
    seen = texts(path.read_text())
    assert {"Affine3", "Sigmoid2", "SoftmaxWithLoss", "loss"} <= set(seen)
    assert any(text.startswith("5×7, norm") for text in seen)


def test_graph_draws_each_step(tmp_path: Path) -> None:
    result = run("fruit", "--steps", f"--out={tmp_path / 'fruit.mmd'}")
    assert result.exit_code == 0, result.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"fruit-{number}.mmd" for number in range(1, 9)]
    assert f"drawn: {tmp_path / 'fruit-8.mmd'}" in result.stdout
    assert "165" not in (tmp_path / "fruit-6.mmd").read_text()
    assert "165" in (tmp_path / "fruit-7.mmd").read_text()


@except_slow
def test_too_many_pictures_are_refused_before_one_is_drawn(tmp_path: Path) -> None:
    arguments = ["net", "--depth=60", "--width=1", "--samples=1", "--steps"]
    result = run(*arguments, f"--out={tmp_path / 'net.mmd'}")
    assert result.exit_code == 2
    assert "--steps: 242 pictures are more than 200" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_either_all_pictures_of_the_steps_are_written_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("fruit", "--steps", f"--out={tmp_path / 'fruit.mmd'}").exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ordinary, calls = Film.after, []

    def after(film: Film, step: int) -> Picture:
        calls.append(step)
        if len(calls) > 3:
            raise MemoryError
        return replace(ordinary(film, step), flows_down=True)

    monkeypatch.setattr(Film, "after", after)
    assert run("fruit", "--steps", f"--out={tmp_path / 'fruit.mmd'}").exit_code != 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pear"], 2, "'pear' is not one of 'apple', 'fruit', 'neuron', 'net'"),
        (["apple", "--steps"], 2, "--steps writes pictures: say where with --out FILE"),
        (["apple", "--out=a.jpg"], 2, "a picture ends in .svg"),
        (["apple", "--out=/dev/null/a.svg"], 1, "cannot be written"),
        (["net", "--depth=1"], 2, "1 is not in the range"),
        (["net", "--samples=5000"], 2, "there are 1,442 digits, not 5,000"),
        (["apple", "--depth=3"], 2, "--depth is for the net: apple is made of Python's numbers"),
    ],
)
def test_a_wrong_command(arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert message in result.stderr
    assert result.stdout == ""
