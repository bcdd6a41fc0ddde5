"""Embedding: rows by their numbers, and a network that begins with it."""

import numpy as np
import pytest
from support import arr, backend, both_floats, host, widest

import xbp
from xbp.errors import DTypeError, ShapeError
from xbp.layers import Affine, Embedding, Flatten, SoftmaxWithLoss
from xbp.namespace import Array

W = np.arange(8.0).reshape(4, 2)


@both_floats
def test_rows_and_their_gradient(dtype: str) -> None:
    layer = Embedding(arr(W, dtype))
    x = np.asarray([[3, 0, 3], [1, 3, 0]])
    y = layer.forward(backend.asarray(x))
    assert host(y).tolist() == W[x].tolist()
    dout = np.random.default_rng(0).normal(size=(2, 3, 2))
    layer.backward(arr(dout, dtype))
    dW = np.zeros_like(W)
    np.add.at(dW, x, dout)
    np.testing.assert_allclose(host(layer.dW), dW, atol=1e-6)
    assert host(layer.dW)[2].tolist() == [0, 0]
    assert layer.forward(backend.asarray(np.asarray(2))).shape == (2,)


def test_numbers_that_are_none_of_a_row_are_not_a_number() -> None:
    y = host(Embedding(arr(W)).forward(backend.asarray([0, 4, -1, 3])))
    assert np.isnan(y).tolist() == [[False] * 2, [True] * 2, [True] * 2, [False] * 2]


def test_the_gradient_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = backend.asarray(np.arange(11) % 4)
    dout = arr(np.random.default_rng(0).normal(size=(11, 2)), widest)
    found = []
    for elements in (2**22, 8, 1):  # all, two and one at a time
        monkeypatch.setattr("xbp.blocks._MOST_ELEMENTS", elements)
        layer = Embedding(arr(W, widest))
        layer.forward(x)
        layer.backward(dout)
        found.append(host(layer.dW))
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


def test_a_network_of_words_learns() -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 6, size=(60, 3))
    t = (x.sum(axis=1) > 7).astype("int64")

    def values(*shape: int) -> Array:
        return arr(random.normal(size=shape) / 2, "float32")

    zeros = arr(np.zeros(2), "float32")
    layers = [Embedding(values(6, 4)), Flatten(), Affine(values(12, 2), zeros)]
    network = xbp.Network(layers, SoftmaxWithLoss())
    numbers, labels = map(backend.asarray, (x, t))
    report = xbp.gradient_check(network, numbers[:5, ...], labels[:5])
    assert report.passed, report
    trainer = xbp.Trainer(network, xbp.Momentum(0.3), batch_size=20, seed=0)
    history = trainer.fit(x, t, steps=60)
    assert history.loss[-1] < history.loss[0] / 2
    assert network.accuracy(numbers, labels) > 0.9


def test_mistakes() -> None:
    with pytest.raises(ShapeError, match=r"Embedding: W is \(V, D\), .* got \(8,\)"):
        Embedding(arr(W.reshape(8)))
    with pytest.raises(DTypeError, match="Embedding"):
        Embedding(backend.asarray([[1]]))
    with pytest.raises(DTypeError, match="the numbers of rows are integers, got float32"):
        Embedding(arr(W)).forward(arr([1.0], "float32"))
