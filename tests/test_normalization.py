"""Normalization and dropout: known values, what they do to infer, and wrong settings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import arr, backend, both_floats, host, once

import xbp
from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.layers import (
    Affine,
    BatchNormalization,
    Dropout,
    LayerNormalization,
    Relu,
    Residual,
    Sigmoid,
    SoftmaxWithLoss,
)

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(2, 3, size=(6, 3)).astype("float32")
DOUT = RANDOM.normal(size=(6, 3)).astype("float32")
GAMMA, BETA = [0.5, 1.0, 2.0], [1.0, 0.0, -1.0]


def layer_of(kind: Any, dtype: str | None = None, **settings: Any) -> Any:
    return kind(arr(GAMMA, dtype), arr(BETA, dtype), **settings)


@both_floats
@pytest.mark.parametrize(("kind", "axis"), [(BatchNormalization, 0), (LayerNormalization, 1)])
def test_values(kind: Any, axis: int, dtype: str) -> None:
    y = host(layer_of(kind, dtype).forward(arr(X, dtype)))
    mean, variance = X.mean(axis=axis, keepdims=True), X.var(axis=axis, keepdims=True)
    expected = GAMMA * (X - mean) / np.sqrt(variance + 1e-5) + BETA
    np.testing.assert_allclose(y, expected, atol=1e-5)


@both_floats
def test_a_batch_of_images_is_normalized_for_each_channel(dtype: str) -> None:
    # As rows of channels, the pixels are samples.
    images = np.arange(48, dtype="float64").reshape(2, 3, 2, 4) ** 1.5 / 50
    rows, dout = np.moveaxis(images, 1, -1).reshape(-1, 3), np.cos(images)
    flat_dout = np.moveaxis(dout, 1, -1).reshape(-1, 3)
    one, other = layer_of(BatchNormalization, dtype), layer_of(BatchNormalization, dtype)
    for found, expected in (
        (one.forward(arr(images, dtype)), other.forward(arr(rows, dtype))),
        (one.backward(arr(dout, dtype)), other.backward(arr(flat_dout, dtype))),
        (one.for_inference().forward(arr(images, dtype)), other.infer(arr(rows, dtype))),
    ):
        flat = np.moveaxis(host(found), 1, -1).reshape(-1, 3)
        np.testing.assert_allclose(flat, host(expected), atol=2e-5)
    for name in ("dgamma", "dbeta", "running_mean", "running_variance"):
        np.testing.assert_allclose(
            host(getattr(one, name)), host(getattr(other, name)), rtol=1e-4, atol=1e-5
        )


@both_floats
def test_running_means_are_of_the_batches_that_were_learned_from(dtype: str) -> None:
    layer = layer_of(BatchNormalization, dtype, momentum=0.75)
    mean, variance = np.zeros(3), np.ones(3)
    for batch in (X[:4], X[2:]):
        layer.forward(arr(batch, dtype))
        mean = 0.75 * mean + 0.25 * batch.mean(axis=0)
        variance = 0.75 * variance + 0.25 * batch.var(axis=0)
    copy = layer.for_inference()
    y = host(copy.forward(arr(X[0], dtype)))  # one sample
    np.testing.assert_allclose(
        y, GAMMA * (X[0] - mean) / np.sqrt(variance + 1e-5) + BETA, rtol=1e-4
    )
    copy.forward(arr(X[:1], dtype))  # one in a batch
    np.testing.assert_allclose(host(copy.running_mean), mean, rtol=1e-5)
    np.testing.assert_allclose(host(layer.running_variance), variance, rtol=1e-5)


def test_a_large_mean_costs_no_digits_to_infer() -> None:
    layer = BatchNormalization(arr([0.3], "float32"), arr([0.0], "float32"), momentum=0.0)
    x = np.asarray([[99999.0], [100001.0]])  # mean 100000, variance 1
    layer.forward(arr(x, "float32"))
    y = host(layer.for_inference().forward(arr(x, "float32")))
    np.testing.assert_allclose(y, [[-0.3], [0.3]], rtol=1e-4)


def test_features_of_several_axes() -> None:
    x, scale = arr(X.reshape(2, 3, 3)), arr(np.ones((3, 3)).tolist())
    layer = LayerNormalization(scale, 0 * scale, epsilon=1e-3)
    y = host(layer.forward(x)).reshape(2, 9)
    rows = X.reshape(2, 9)
    expected = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's functions")
@both_floats
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4, 5)])
def test_they_agree_with_pytorchs_functions(shape: tuple[int, ...], dtype: str) -> None:
    import torch  # noqa: PLC0415  only here

    x, dout = (arr(RANDOM.normal(1, 2, size=shape), dtype) for _ in range(2))
    width = shape[-1]
    tolerance: Any = {"atol": 1e-4} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
    pairs: list[tuple[Any, Any]] = [
        (
            layer_of(BatchNormalization, dtype),
            lambda x, g, b: torch.nn.functional.batch_norm(x, None, None, g, b, training=True),
        ),
        (
            LayerNormalization(arr(np.arange(1.0, width + 1), dtype), arr([0.5] * width, dtype)),
            lambda x, g, b: torch.nn.functional.layer_norm(x, (width,), g, b),
        ),
    ]
    for layer, function in pairs:
        given = [array.clone().requires_grad_() for array in (x, layer.gamma, layer.beta)]
        with torch.enable_grad():
            y = function(*given)
            gradients: Any = torch.autograd.grad(y, given, dout)
        np.testing.assert_allclose(host(layer.forward(x)), host(y.detach()), **tolerance)
        for found, expected in zip(
            (layer.backward(dout), layer.dgamma, layer.dbeta), gradients, strict=True
        ):
            np.testing.assert_allclose(host(found), host(expected), **tolerance)


# What seed 7 leaves out of 3 samples of 8, also in another library.
KEPT = ["11110111", "11001101", "00011010"]


@both_floats
def test_dropout_leaves_out_the_same_everywhere(dtype: str) -> None:
    network = xbp.Network([Dropout(0.25, seed=7)], SoftmaxWithLoss(), backend=backend)
    layer = network.layers["Dropout1"]
    x = arr(np.full((3, 8), 3.0), dtype)
    y = host(layer.forward(x))
    assert ["".join(str(int(it > 0)) for it in row) for row in y] == KEPT
    np.testing.assert_allclose(y, np.where(y > 0, 4.0, 0.0), rtol=1e-6)
    np.testing.assert_allclose(host(layer.backward(x)), y)
    assert (host(layer.forward(x)) != y).any()  # the next mask is another
    assert network.predict(x) is x


def test_the_mean_stays() -> None:
    network = xbp.Network([Dropout(0.7, seed=1)], SoftmaxWithLoss(), backend=backend)
    y = host(network.layers["Dropout1"].forward(arr(np.ones((100, 100)).tolist())))
    assert y.mean() == pytest.approx(1, abs=0.05)
    assert (y == 0).mean() == pytest.approx(0.7, abs=0.02)


def test_a_network_of_them_learns_and_infers() -> None:
    x = RANDOM.normal(size=(120, 4)) * 10 + 50
    t = (x[:, 0] > x[:, 1]).astype(int)
    predictions = []
    for _ in range(2):
        bricks = xbp.Network.fully_connected([4, 16, 2], seed=0, dtype="float32").layers
        scale = arr(np.ones(4).tolist(), "float32")
        layers = [
            BatchNormalization(scale, 0 * scale),
            bricks["Affine1"],
            Relu(),
            LayerNormalization(arr([1.0] * 16, "float32"), arr([0.0] * 16, "float32")),
            Dropout(0.2, seed=3),
            bricks["Affine2"],
        ]
        network = xbp.Network(layers, SoftmaxWithLoss())
        trainer = xbp.Trainer(network, xbp.Adam(0.02), batch_size=40, seed=0)
        history = trainer.fit(x, t, epochs=30)
        assert history.train_accuracy[-1] > 0.9
        predictions.append(host(network.predict(arr(x, "float32"))))
        assert {*network.state} == {"running_mean1", "running_variance1", "key1"}
    np.testing.assert_array_equal(predictions[0], predictions[1])


@pytest.mark.parametrize(
    ("make", "error", "complaint"),
    [
        (lambda: Dropout(1), SettingError, "^Dropout: ratio is a probability, .*, not 1$"),
        (lambda: Dropout(-0.1), SettingError, "not -0.1"),
        (lambda: Dropout(0.5, seed=-1), SettingError, "seed"),
        (
            lambda: layer_of(BatchNormalization, momentum=1.5),
            SettingError,
            "BatchNormalization: momentum is a number from 0 to 1, not 1.5",
        ),
        (lambda: layer_of(BatchNormalization, momentum=np.nan), SettingError, "not nan"),
        (
            lambda: layer_of(BatchNormalization, epsilon=0),
            SettingError,
            "BatchNormalization: epsilon is a positive number, not 0",
        ),
        (
            lambda: layer_of(LayerNormalization, epsilon=-1),
            SettingError,
            "LayerNormalization: epsilon is a positive number, not -1",
        ),
        (
            lambda: LayerNormalization(arr([1.0, 2.0]), arr([1.0])),
            ShapeError,
            r"LayerNormalization: gamma and beta have one shape, .* \(2,\) and \(1,\)",
        ),
        (
            lambda: BatchNormalization(arr([[1.0]]), arr([[1.0]])),
            ShapeError,
            r"BatchNormalization: gamma is \(D,\), .* got \(1, 1\)",
        ),
        (
            lambda: BatchNormalization(backend.asarray([1]), backend.asarray([1])),
            DTypeError,
            "BatchNormalization",
        ),
    ],
)
def test_mistakes_in_settings(make: Callable[[], Any], error: Any, complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        make()


@pytest.mark.parametrize(
    ("kind", "shape", "complaint"),
    [
        (BatchNormalization, (1, 3), "a mean over a batch needs two samples at least, got shape"),
        (BatchNormalization, (3,), "a mean over a batch needs two samples at least"),
        (BatchNormalization, (2, 4), r"features \(N, D\) or images .* D of 3, got shape \(2, 4\)"),
        (BatchNormalization, (), r".* got shape \(\)$"),
        (LayerNormalization, (2, 4), r"x must end with the shape \(3,\) of gamma, got \(2, 4\)"),
        (LayerNormalization, (), r".* got \(\)$"),
    ],
)
def test_shapes_that_do_not_fit(kind: Any, shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(ShapeError, match=f"^{kind.__name__}: {complaint}"):
        layer_of(kind).forward(arr(np.ones(shape)))


def test_a_batch_of_one_is_seen_before_the_first_step() -> None:
    scale = arr([1.0] * 4)
    affine = Affine(arr(np.ones((4, 2)).tolist()), arr([0.0, 0.0]))
    network = xbp.Network([BatchNormalization(scale, 0 * scale), affine], SoftmaxWithLoss())
    x, t = np.zeros((41, 4)), np.arange(41) % 2
    steps: list[int] = []

    class Progress:
        def step(self, number: int, *more: Any) -> None:
            steps.append(number)

        evaluated = step

    trainer = xbp.Trainer(network, xbp.SGD(0.1), batch_size=20, seed=0)
    with pytest.raises(ShapeError, match="choose a batch size that leaves no single sample over"):
        trainer.fit(x, t, epochs=1, progress=Progress())
    assert not steps
    trainer.fit(x, t, steps=2, progress=Progress())  # not so far


@once
def test_thirty_layers_learn_as_normalized_residual_blocks() -> None:
    (x, t), (x_test, t_test) = xbp.datasets.load_digits(dtype="float32")
    random = np.random.default_rng(0)

    def affine(n_in: int, n_out: int, deviation: float) -> Affine:
        W = random.normal(scale=deviation, size=(n_in, n_out)).astype("float32")
        return Affine(W, np.zeros(n_out, "float32"))

    def normalization() -> LayerNormalization:
        return LayerNormalization(np.ones(16, "float32"), np.zeros(16, "float32"))

    blocks = [Residual(normalization(), Relu(), affine(16, 16, 0.05)) for _ in range(28)]
    deep = [affine(64, 16, 0.2), *blocks, normalization(), affine(16, 10, 0.2)]
    plain = xbp.Network.fully_connected(
        [64, *[16] * 29, 10], activation=Sigmoid, weight_init_std="xavier", dtype="float32", seed=0
    )
    found = []
    for network in (xbp.Network(deep, SoftmaxWithLoss()), plain):
        trainer = xbp.Trainer(network, xbp.Adam(0.005), batch_size=50, seed=0)
        trainer.fit(x, t, steps=150)
        found.append(network.accuracy(x_test, t_test))
    assert found[0] > 0.9
    assert found[1] < 0.2


@once
def test_a_dtype_without_random_numbers() -> None:
    network = xbp.Network([Dropout(0.5, seed=0)], SoftmaxWithLoss(), backend=backend)
    with pytest.raises(DTypeError, match="Dropout1: x is float32 or float64, not float16"):
        network.layers["Dropout1"].forward(np.ones((1, 2), "float16"))


def test_settings_are_shown() -> None:
    assert repr(Dropout(0.25)) == "<Dropout: ratio 0.25>"
    layer = layer_of(BatchNormalization, momentum=0.5)
    assert repr(layer) == "<BatchNormalization: gamma (3,), momentum 0.5>"


def test_dtypes_that_do_not_fit() -> None:
    wide = "float64" if backend.has_float64 else None
    if wide is None:
        pytest.skip("the device has no float64")
    with pytest.raises(DTypeError, match="gamma and beta need one dtype, got float64 and float32"):
        BatchNormalization(arr(GAMMA, "float64"), arr(BETA, "float32"))


def test_a_trained_affine_layer_may_follow() -> None:
    # The gradient of the whole, in small.
    scale = arr(GAMMA)
    network = xbp.Network(
        [BatchNormalization(scale, 0 * scale), Affine(arr([[1.0], [2.0], [3.0]]), arr([0.0]))],
        xbp.layers.IdentityWithLoss(),
    )
    report = xbp.gradient_check(network, arr(X[:, :3].tolist()), arr(DOUT[:, :1].tolist()))
    assert report.passed, report
