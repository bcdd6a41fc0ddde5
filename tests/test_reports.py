"""Reports of a training: what a classifier mistakes, curves, the page."""

import csv
import re
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support import arr, backend, widest

import xbp
from xbp.cli import main
from xbp.graphs import graphviz
from xbp.layers import Affine, SoftmaxWithLoss
from xbp.reports import Report, evaluate, loss_in_terminal
from xbp.reports.curves import draw_curves, metrics_csv, thinned
from xbp.training import History

SPEC = f"{backend.name}:{backend.device}"
about_pages = pytest.mark.skipif(
    backend.name in ("dpnp", "jax"), reason="is about pages: the faster libraries are enough"
)
HISTORY = History(
    loss=[2.0, 1.0, 0.5], evaluated=[2, 3], train_accuracy=[0.25, 0.75], test_accuracy=[0.2, 0.6]
)


def unchanged(classes: int) -> xbp.Network:
    """Return a network whose scores are its input."""
    layer = Affine(arr(np.eye(classes), widest), arr(np.zeros(classes), widest))
    return xbp.Network([layer], SoftmaxWithLoss())


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
    monkeypatch.setattr("xbp.reports.evaluation._BATCH", 2)
    found = evaluate(unchanged(2), [[1, 0], [0, 1], [3, 2]], [[1, 0], [1, 0], [0, 1]])
    assert found.labels.tolist() == [0, 0, 1]
    assert found.predicted.tolist() == [0, 1, 0]


# Curves ------------------------------------------------------------------------------------------


def test_metrics_have_a_row_for_each_step() -> None:
    rows = list(csv.DictReader(metrics_csv(HISTORY).splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == HISTORY.loss
    assert [row["train_accuracy"] for row in rows] == ["", "0.25", "0.75"]
    assert [row["test_accuracy"] for row in rows] == ["", "0.2", "0.6"]
    HISTORY.test_accuracy, kept = [], HISTORY.test_accuracy
    assert metrics_csv(HISTORY).splitlines()[3] == "3,0.5,0.75,"
    HISTORY.test_accuracy = kept


def test_a_long_curve_is_thinned_to_means() -> None:
    steps, means, block = thinned([1.0, 3.0, 5.0, 7.0, 10.0], 3)
    assert (steps.tolist(), means.tolist(), block) == ([2, 4, 5], [2, 6, 10], 2)
    steps, means, block = thinned([1.0, float("nan")], 500)
    assert (steps.tolist(), block) == ([1, 2], 1)


def test_curves_are_drawn_in_both_formats_and_twice_the_same() -> None:
    svg = draw_curves(HISTORY, "svg").decode()
    assert all(text in svg for text in ("loss", "accuracy", "training", "test", "step"))
    assert draw_curves(HISTORY, "svg").decode() == svg
    assert draw_curves(HISTORY, "png").startswith(b"\x89PNG")
    alone = draw_curves(HISTORY, "svg", curves=["loss"]).decode()
    assert "accuracy" not in alone


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


def test_train_leaves_all_its_files(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoints", "curves.png", "curves.svg", "metrics.csv", "model.safetensors",
        "report.html", "result.json",
    ]  # fmt: skip


def test_the_page_needs_nothing_beside_it(trained: Path) -> None:
    page = Page((trained / "report.html").read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        for name in ("src", "href"):
            assert (attrs.get(name) or "data:").startswith("data:")
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_the_page_shows_what_was_learned(trained: Path) -> None:
    page = Page((trained / "report.html").read_text())
    assert page.images("The loss")
    assert page.images("The accuracy")
    assert len(page.images("Sample")) == 24
    assert len(page.images("Weights of feature")) == 7
    assert page.images("Computational graph")
    for key in ("W1", "b1", "W2", "b2"):
        assert re.search(rf"{key} agree \S+ \S+ [\d,]+ of [\d,]+", page.text)
    assert f"backend {backend.name} " in page.text
    assert "layers 64-7-10 " in page.text
    cells = re.search(r"class (?:\d )+(.*)Worst mistakes", page.text)
    assert cells
    assert "355 samples" in page.text


@about_pages
def test_samples_that_are_no_images_are_listed() -> None:
    page = page_of(unchanged(2), [[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]], [0, 1, 1])
    assert "1 1 0.047 0 0.95" in page.text
    shares = [attrs["style"] for tag, attrs in page.tags if tag == "td" and "style" in attrs]
    opacities = [re.findall(r"/ (.*)\)", style or "")[0] for style in shares]
    assert opacities == ["0.600", "0.000", "0.300", "0.300"]
    assert not page.images("Sample")
    assert not page.images("Weights")
    assert "<some>" in page.text


@about_pages
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


@about_pages
def test_without_mistakes_and_with_many_classes() -> None:
    page = page_of(unchanged(31), np.eye(31), np.arange(31))
    assert "None: each sample was taken for what it is." in page.text
    assert "There are 31 classes: too many to show." in page.text


@about_pages
def test_a_network_that_diverged_has_a_page_too() -> None:
    network = unchanged(2)
    network.params["b1"] = network.params["b1"] + float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        page = page_of(network, [[1.0, 0.0]], [0], History(loss=[float("nan")], evaluated=[1]))
    assert "gradient_check: the loss is nan" in page.text
    assert "norm nan" not in page.text  # it is in the picture


def test_the_page_says_what_the_graph_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    graphviz._graphviz.cache_clear()
    page = page_of(unchanged(2), [[1.0, 0.0]], [0])
    assert "pip install pygraphviz" in page.text
    graphviz._graphviz.cache_clear()
