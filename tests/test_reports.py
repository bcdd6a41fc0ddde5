"""Reports of a training: what a classifier mistakes, curves, the page."""

import csv
import re
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support import arr, backend, except_slow, precise, widest

import xbp
from xbp.cli import main
from xbp.cli.curve import loss_in_terminal
from xbp.errors import DataError, SettingError
from xbp.gradient_report import ParameterCheck
from xbp.graphs import graphviz
from xbp.layers import Affine, IdentityWithLoss, LossLayer, SoftmaxWithLoss
from xbp.reports import Report, evaluate, evaluate_regression
from xbp.reports.curves import curves_of, draw_curves, metrics_csv
from xbp.training import History
from xbp.training.history import thinned

SPEC = f"{backend.name}:{backend.device}"
HISTORY = History(
    loss=[2.0, 1.0, 0.5],
    evaluated=[2, 3],
    train_accuracy=[0.25, 0.75],
    test_accuracy=[0.2, 0.6],
    test_loss=[1.5, 0.75],
)
REGRESSION = History(
    loss=[2.0, 1.0, 0.5],
    evaluated=[2, 3],
    test_loss=[1.5, 0.75],
    train_r2=[-float("inf"), 0.75],
    test_r2=[float("nan"), 0.5],
)


def unchanged(width: int, loss: type[LossLayer] = SoftmaxWithLoss) -> xbp.Network:
    """Return a network whose outputs are its input."""
    layer = Affine(arr(np.eye(width), widest), arr(np.zeros(width), widest))
    return xbp.Network([layer], loss())


class Page(HTMLParser):
    """What of a page is read: its tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += " ".join(data.split()) + " "

    def images(self, start: str) -> list[str]:
        """Return the texts that stand for images, where they begin so."""
        found = (attrs["alt"] or "" for tag, attrs in self.tags if tag == "img")
        return [text for text in found if text.startswith(start)]


def page_of(network: xbp.Network, x: Any, t: Any, history: History = HISTORY, **more: Any) -> Page:
    return Page(Report(network, history, x, t, {"data": "<some>"}, **more).html())


# What it takes for what --------------------------------------------------------------------------


@given(st.integers(2, 5), st.integers(1, 50), st.integers(0, 1000))
def test_an_evaluation_counts_what_numpy_counts(classes: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, labels = random.normal(size=(count, classes)), random.integers(0, classes, count)
    found = evaluate(unchanged(classes), scores, labels)
    predicted = scores.argmax(axis=1)
    np.testing.assert_array_equal(found.predicted, predicted)
    expected = np.zeros((classes, classes), int)
    np.add.at(expected, (labels, predicted), 1)
    np.testing.assert_array_equal(found.confusion(), expected)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, probabilities[range(count), labels], rtol=1e-4)
    np.testing.assert_allclose(found.certainties, probabilities.max(axis=1), rtol=1e-4)
    worst = found.worst(3)
    wrong = [number for number in range(count) if labels[number] != predicted[number]]
    assert worst == sorted(wrong, key=lambda number: found.probabilities[number])[:3]


def test_one_hot_rows_and_more_samples_than_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xbp.training.measurement._BATCH", 2)
    found = evaluate(unchanged(2), [[1, 0], [0, 1], [3, 2]], [[1, 0], [1, 0], [0, 1]])
    assert found.labels.tolist() == [0, 0, 1]
    assert found.predicted.tolist() == [0, 1, 0]


@given(st.integers(1, 3), st.integers(2, 20), st.integers(0, 1000))
def test_a_regression_is_measured_as_numpy_does(outputs: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, t = random.normal(size=(2, count, outputs))
    found = evaluate_regression(unchanged(outputs, IdentityWithLoss), x, t)
    errors = np.square(x - t)
    expected = 1 - errors.sum(axis=0) / np.square(t - t.mean(axis=0)).sum(axis=0)
    np.testing.assert_allclose(found.r2(), expected, rtol=precise(1e-9, 1e-3))
    np.testing.assert_allclose(found.mean_squared_error(), errors.mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(found.mean_absolute_error(), abs(x - t).mean(axis=0), rtol=1e-3)
    sizes = [
        abs(found.outputs - found.targets)[place] / t.std(axis=0)[place[1]]
        for place in found.worst(count * outputs)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(found.worst(count * outputs))) == count * outputs


def test_an_evaluation_is_of_its_own_kind_of_network() -> None:
    with pytest.raises(SettingError, match="knows no classes: take evaluate_regression"):
        evaluate(unchanged(2, IdentityWithLoss), [[1.0, 2.0]], [[0.0, 1.0]])
    with pytest.raises(SettingError, match="is for classes: take evaluate"):
        evaluate_regression(unchanged(2), [[1.0, 2.0]], [[0.0, 1.0]])


def test_scores_that_are_nan_are_of_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xbp.training.measurement._BATCH", 2)
    x = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [float("nan"), 0.0]]
    with pytest.raises(DataError, match=r"output for x\[3\] is NaN"):
        evaluate(unchanged(2), x, [0, 1, 0, 0])
    with pytest.raises(DataError, match=r"output for x\[3\] is NaN"):
        evaluate_regression(unchanged(2, IdentityWithLoss), x, x[::-1][1:] + x[:1])


# Curves ------------------------------------------------------------------------------------------


def test_metrics_have_a_row_for_each_step() -> None:
    rows = list(csv.DictReader(metrics_csv(HISTORY).splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == HISTORY.loss
    assert [row["train_accuracy"] for row in rows] == ["", "0.25", "0.75"]
    assert [row["test_accuracy"] for row in rows] == ["", "0.2", "0.6"]
    assert [row["test_loss"] for row in rows] == ["", "1.5", "0.75"]
    assert {row["train_r2"] + row["test_r2"] for row in rows} == {""}
    without_test = replace(HISTORY, test_accuracy=[], test_loss=[])
    assert metrics_csv(without_test).splitlines()[3] == "3,0.5,0.75,,,,"
    lines = metrics_csv(REGRESSION).splitlines()
    assert lines[0] == "step,loss,train_accuracy,test_accuracy,test_loss,train_r2,test_r2"
    assert lines[2:] == ["2,1.0,,,1.5,-inf,", "3,0.5,,,0.75,0.75,0.5"]


def test_a_long_curve_is_thinned_to_means() -> None:
    steps, means, block = thinned([1.0, 3.0, 5.0, 7.0, 10.0], 3)
    assert (steps, means, block) == ([2, 4, 5], [2, 6, 10], 2)
    steps, means, block = thinned([1.0, float("nan")], 500)
    assert (steps, block) == ([1, 2], 1)


def test_curves_are_drawn_in_both_formats_and_twice_the_same() -> None:
    svg = draw_curves(HISTORY, "svg").decode()
    assert all(text in svg for text in ("loss", "accuracy", "training", "test", "step"))
    assert draw_curves(HISTORY, "svg").decode() == svg
    assert draw_curves(HISTORY, "png").startswith(b"\x89PNG")
    alone = draw_curves(HISTORY, "svg", curves=["loss"]).decode()
    assert "accuracy" not in alone
    assert "test" in alone
    without_test = draw_curves(replace(HISTORY, test_loss=[]), "svg", curves=["loss"]).decode()
    assert ">test<" not in without_test


def test_curves_of_a_regression() -> None:
    assert curves_of(REGRESSION) == ["loss", "r²"]
    svg = draw_curves(REGRESSION, "svg").decode()
    assert all(text in svg for text in ("loss", "r²", "training", "test"))
    assert "accuracy" not in svg
    # What makes no sense from beginning to end has no curve.
    assert curves_of(replace(REGRESSION, train_r2=[float("nan")] * 2)) == ["loss"]


def test_the_loss_in_a_terminal() -> None:
    shown = loss_in_terminal(HISTORY, 60)
    assert max(map(len, shown.splitlines())) <= 60
    assert "(loss)" in shown
    assert "(step)" in shown
    assert re.search("[\u2801-\u28ff]", shown)
    assert "\x1b" not in shown


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_left_out(loss: float) -> None:
    diverged = History(loss=[1.0, loss, loss])
    assert "(loss)" in loss_in_terminal(diverged, 60)
    assert "(loss)" in loss_in_terminal(History(loss=[loss]), 60)
    assert draw_curves(diverged, "svg", curves=["loss"])


# The page ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that a training left."""
    folder = tmp_path_factory.mktemp("out")
    result = CliRunner().invoke(
        main, ["train", "--steps", "30", "--backend", SPEC, "--out", str(folder), "--hidden", "7"]
    )
    assert result.exit_code == 0, result.stderr
    assert f"the model, metrics, curves and report.html are in {folder}" in result.stdout
    assert re.search("[\u2801-\u28ff]", result.stdout)
    return folder


@except_slow
@except_slow
def test_train_leaves_all_its_files(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoints", "curves.png", "curves.svg", "metrics.csv", "model.safetensors",
        "report.html", "result.json",
    ]  # fmt: skip


@except_slow
def test_the_page_needs_nothing_beside_it(trained: Path) -> None:
    page = Page((trained / "report.html").read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        for name in ("src", "href"):
            assert (attrs.get(name) or "data:").startswith("data:")
    kinds = {str(attrs["src"]).partition(";")[0] for tag, attrs in page.tags if tag == "img"}
    assert kinds <= {"data:image/png", "data:image/svg+xml"}
    assert "data:image/png" in kinds
    assert "@import" not in page.text
    assert "url(" not in page.text


@except_slow
def test_the_page_shows_what_was_learned(trained: Path) -> None:
    page = Page((trained / "report.html").read_text())
    assert page.images("The loss")
    assert page.images("The accuracy")
    assert len(page.images("Sample")) == 24
    assert len(page.images("Weights of feature")) == 7
    assert page.images("Computational graph")
    for key in ("W1", "b1", "W2", "b2"):
        assert re.search(rf"{key} ok \S+ \S+ [\d,]+ of [\d,]+", page.text)
    assert f"backend {backend.name} " in page.text
    assert "layers 64-7-10 " in page.text
    cells = re.search(r"class (?:\d )+(.*)Worst mistakes", page.text)
    assert cells
    assert "355 samples" in page.text


@except_slow
def test_a_parameter_that_cannot_be_compared_is_not_called_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nan = float("nan")
    check = ParameterCheck(4, 4, 0, nan, nan, None, None, None, wrong=0, set_aside=4)
    report = xbp.GradientReport({"W1": check}, "float32", 1e-4)
    monkeypatch.setattr("xbp.reports.page.gradient_check", lambda *_, **__: report)
    page = page_of(unchanged(2), [[1.0, 0.0], [0.0, 1.0]], [0, 1])
    assert "W1 inconclusive nan nan 0 of 4" in page.text


@except_slow
def test_samples_that_are_no_images_are_listed() -> None:
    page = page_of(unchanged(2), [[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]], [0, 1, 1])
    assert "1 1 0.047 0 0.95" in page.text
    shares = [attrs["style"] for tag, attrs in page.tags if tag == "td" and "style" in attrs]
    opacities = [re.findall(r"/ (.*)\)", style or "")[0] for style in shares]
    assert opacities == ["0.600", "0.000", "0.300", "0.300"]
    assert not page.images("Sample")
    assert not page.images("Weights")
    assert "<some>" in page.text


@except_slow
def test_images_are_told_by_their_shape(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for shape, images in (((40, 5, 4), 4), ((40, 1, 5, 4), 4), ((40, 20), 0), ((40, 3, 5, 4), 0)):
        path = tmp_path / "own.npz"
        np.savez(path, x_train=random.random(shape), t_train=random.integers(0, 3, 40))
        arguments = ["train", str(path), "--steps=1", "--hidden=4", f"--out={tmp_path}"]
        result = CliRunner().invoke(main, [*arguments, f"--backend={SPEC}"])
        assert result.exit_code == 0, result.stderr
        page = Page((tmp_path / "report.html").read_text())
        assert len(page.images("Weights of feature")) == images
        assert bool(page.images("Sample")) == bool(images)


@except_slow
def test_without_mistakes_and_with_many_classes() -> None:
    page = page_of(unchanged(31), np.eye(31), np.arange(31))
    assert "None: each sample was taken for what it is." in page.text
    assert "There are 31 classes: too many to show." in page.text


@except_slow
def test_a_network_that_diverged_has_a_page_too() -> None:
    network = unchanged(2)
    network.params["b1"] = network.params["b1"] + float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        page = page_of(network, [[1.0, 0.0]], [0], History(loss=[float("nan")], evaluated=[1]))
    assert "gradient_check: the loss is nan" in page.text
    assert "norm nan" not in page.text  # it is in the picture
    assert "None can be shown: the network's output for x[0] is NaN" in page.text
    assert "Confusion" not in page.text


@except_slow
def test_the_page_of_a_regression() -> None:
    x = [[1.0, 5.0, 2.0], [2.0, 5.0, 0.0], [4.0, 5.0, -2.0]]
    t = [[1.0, 5.0, 20.0], [3.0, 5.0, 0.0], [2.0, 5.0, -20.0]]
    page = page_of(unchanged(3, IdentityWithLoss), x, t, REGRESSION)
    text = " ".join(page.text.split())
    assert "0.7500 test loss 0.7500 training r² 0.5000 test r²" in text
    assert page.images("The ") == ["The loss over the steps", "The r² over the steps"]
    assert page.images("Outputs") == [f"Outputs {i} over their targets" for i in range(3)]
    # Output 0 misses by 0, 1 and 2, where the targets vary by 2; those of output 1 are all equal.
    assert "0 -1.5000 1.667 1 1 - 0 0 2 0.1900 216 12 " in text
    # Each error counts by the spread of its targets.
    assert "value error 2 0 2 4 2 1 0 3 2 -1 0 2 20 2 -18 2 2 -20 -2 18 " in text
    for word in ("Confusion", "accuracy", "probability", "class", "mistakes"):
        assert word not in text


@except_slow
def test_the_page_of_a_regression_of_one_row_of_targets() -> None:
    x = [[1.0], [2.0], [4.0]]
    page = page_of(unchanged(1, IdentityWithLoss), x, [1.0, 2.0, 3.0], REGRESSION)
    assert "W1 ok" in page.text
    assert page.images("Computational graph")
    images = page_of(
        unchanged(4, IdentityWithLoss), np.eye(4), np.eye(4), REGRESSION, image_shape=(2, 2)
    )
    assert len(images.images("Sample")) == 16
    assert "1 instead of 1 , output 0" in images.text


def test_the_page_says_what_the_graph_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    graphviz._graphviz.cache_clear()
    page = page_of(unchanged(2), [[1.0, 0.0]], [0])
    assert "pip install pygraphviz" in page.text
    graphviz._graphviz.cache_clear()
