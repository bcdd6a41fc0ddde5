"""Convolution, pooling and Flatten: known values, a library's own functions, and wrong settings."""

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from support import HostArray, arr, backend, both_floats, host, once, widest

import xbp
from xbp import convolution as operations
from xbp import windows
from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.layers import (
    Affine,
    AveragePooling,
    Convolution,
    Flatten,
    MaxPooling,
    Relu,
    SoftmaxWithLoss,
)
from xbp.testing.conformance import BackendConformance

RANDOM = np.random.default_rng(0)

# Shapes of images and filters, stride and pad.
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], Any, Any]] = [
    ((2, 3, 5, 6), (4, 3, 3, 2), 1, 0),
    ((3, 2, 4, 4), (1, 2, 3, 3), 1, 1),
    ((2, 1, 5, 5), (5, 1, 5, 5), 1, 0),
    ((2, 1, 3, 4), (2, 1, 2, 2), 1, 2),
    ((2, 2, 7, 6), (2, 2, 3, 3), 2, 1),
    ((1, 2, 6, 7), (3, 2, 2, 3), (2, 1), (0, 1)),
    ((2, 1, 6, 6), (2, 1, 2, 2), 3, 2),
    ((2, 3, 4, 4), (2, 3, 1, 1), 2, 0),
]

# The size of the window, stride and pad.
POOLS: list[tuple[Any, Any, Any]] = [
    (2, None, 0),
    (3, 2, 1),
    ((2, 3), 1, (1, 0)),
    (2, 3, 0),
    ((1, 4), (2, 1), (0, 3)),
]


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def windows_of(
    x: HostArray, size: Any, stride: Any, pad: Any
) -> Iterator[tuple[int, int, HostArray, tuple[Any, ...]]]:
    """Yield row, column, and what each window shows of x, with where that is; NaN at the edge."""
    (height, width), (down, right), (above, left) = map(pair, (size, stride, pad))
    edge = [(0, 0), (0, 0), (above, above), (left, left)]
    padded = np.pad(x, edge, constant_values=np.nan)
    rows = range(0, padded.shape[2] - height + 1, down)
    columns = range(0, padded.shape[3] - width + 1, right)
    for (row, top), (column, start) in product(enumerate(rows), enumerate(columns)):
        place = np.s_[:, :, top : top + height, start : start + width]
        yield row, column, padded[place], place


def without_edge(padded: HostArray, pad: Any) -> HostArray:
    (above, left), (height, width) = pair(pad), padded.shape[2:]
    return padded[:, :, above : height - above, left : width - left]


def convolved(x: HostArray, W: HostArray, b: HostArray, *settings: Any) -> HostArray:
    """Return the convolution, window by window."""
    ys = {}
    for row, column, shown, _ in windows_of(x, W.shape[2:], *settings):
        ys[row, column] = np.einsum("nchw,fchw->nf", np.nan_to_num(shown), W) + b
    return grid_of(ys)


def grid_of(results: dict[tuple[int, int], HostArray]) -> HostArray:
    """Return results ``(N, C)`` by row and column as ``(N, C, rows, columns)``."""
    rows, columns = (1 + max(key[axis] for key in results) for axis in (0, 1))
    grid = [[results[row, column] for column in range(columns)] for row in range(rows)]
    return np.moveaxis(np.asarray(grid), (0, 1), (2, 3))


def gradients(dout: HostArray, x: HostArray, W: HostArray, stride: Any, pad: Any) -> Any:
    """Return dx and dW, window by window."""
    (above, left), dW = pair(pad), np.zeros_like(W)
    dx = np.zeros((*x.shape[:2], x.shape[2] + 2 * above, x.shape[3] + 2 * left))
    for row, column, shown, place in windows_of(x, W.shape[2:], stride, pad):
        d = dout[:, :, row, column]
        dW += np.einsum("nf,nchw->fchw", d, np.nan_to_num(shown))
        dx[place] += np.einsum("nf,fchw->nchw", d, W)
    return without_edge(dx, pad), dW


def random(*shape: int) -> HostArray:
    return np.asarray(RANDOM.normal(size=shape).astype("float32"), dtype="float64")


def given(shape: tuple[int, ...], filters: tuple[int, ...]) -> tuple[HostArray, ...]:
    return random(*shape), random(*filters), random(filters[0])


def require_close(found: Any, expected: HostArray, dtype: str) -> None:
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(host(found), expected, rtol=tolerance, atol=tolerance * 10)


@both_floats
@pytest.mark.parametrize(("shape", "filters", "stride", "pad"), CONVOLUTIONS)
def test_convolution(
    shape: tuple[int, ...], filters: tuple[int, ...], stride: Any, pad: Any, dtype: str
) -> None:
    x, W, b = given(shape, filters)
    layer = Convolution(arr(W, dtype), arr(b, dtype), stride=stride, pad=pad)
    expected = convolved(x, W, b, stride, pad)
    require_close(layer.forward(arr(x, dtype)), expected, dtype)
    dout = random(*expected.shape)
    dx, dW = gradients(dout, x, W, stride, pad)
    require_close(layer.backward(arr(dout, dtype)), dx, dtype)
    require_close(layer.dW, dW, dtype)
    require_close(layer.db, dout.sum(axis=(0, 2, 3)), dtype)
    layer.dW = layer.db = None
    layer.backward_params(arr(dout, dtype))
    require_close(layer.dW, dW, dtype)
    require_close(layer.db, dout.sum(axis=(0, 2, 3)), dtype)


@pytest.mark.parametrize("standard", [True, False])
def test_a_batch_in_blocks(monkeypatch: pytest.MonkeyPatch, standard: bool) -> None:
    x, W, b = (arr(values, widest) for values in given((5, 2, 4, 4), (3, 2, 3, 3)))
    window = windows.window("here", 3, 1, 1)

    def everything() -> list[HostArray]:
        functions: list[Any] = [operations.convolution, operations.convolution_gradients]
        if standard:
            functions = [
                lambda *given, of=function: of.__wrapped__(*given) for function in functions
            ]
        y = functions[0](x, W, b, window)
        return [host(y), *map(host, functions[1](y, x, W, window))]

    whole = everything()
    elements = 2 * 9 * 16
    for samples in (1, 2, 4):  # 5 samples in blocks of so many
        monkeypatch.setattr("xbp.blocks._MOST_ELEMENTS", samples * elements + 1)
        if backend.name == "numpy":
            own = "xbp_backends.numpy_convolution._MOST_ELEMENTS"
            monkeypatch.setattr(own, samples * elements * 3 // 2)
        for found, expected in zip(everything(), whole, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@once
def test_memory_does_not_grow_with_the_filters() -> None:
    x = np.ones((64, 8, 32, 32), dtype="float32")
    W, b = np.ones((8, 8, 5, 5), dtype="float32"), np.ones(8, dtype="float32")
    for layer in (Convolution(W, b, pad=2), Convolution(W, b, stride=2, pad=2)):
        tracemalloc.start()
        dout = layer.forward(x)
        layer.backward(dout)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * x.nbytes  # 25 copies of x would be the columns of the whole batch


@both_floats
@pytest.mark.parametrize(("size", "stride", "pad"), POOLS)
def test_pooling(size: Any, stride: Any, pad: Any, dtype: str) -> None:
    x = np.round(random(2, 3, 5, 6) * 2)  # with equal numbers
    stride_or_size = size if stride is None else stride
    most, mean = {}, {}
    for row, column, shown, _ in windows_of(x, size, stride_or_size, pad):
        most[row, column], mean[row, column] = (
            np.nanmax(shown, axis=(2, 3)),
            np.nanmean(shown, axis=(2, 3)),
        )
    dout = random(*grid_of(most).shape)
    for kind, results in ((MaxPooling, most), (AveragePooling, mean)):
        layer = kind(size, stride=stride, pad=pad)
        require_close(layer.forward(arr(x, dtype)), grid_of(results), dtype)
        dx = np.pad(np.zeros_like(x), [(0, 0), (0, 0), *((n, n) for n in pair(pad))])
        for row, column, shown, place in windows_of(x, size, stride_or_size, pad):
            d = dout[:, :, row, column, None, None]
            if kind is MaxPooling:
                flat = np.where(np.isnan(shown), -np.inf, shown).reshape(2, 3, -1)
                first = np.eye(flat.shape[-1])[flat.argmax(axis=-1)].reshape(shown.shape)
                dx[place] += d * first
            else:
                inside = ~np.isnan(shown)
                dx[place] += d * inside / inside.sum(axis=(2, 3), keepdims=True)
        require_close(layer.backward(arr(dout, dtype)), without_edge(dx, pad), dtype)


def test_the_first_of_equal_numbers_is_the_maximum() -> None:
    layer = MaxPooling(2)
    layer.forward(arr(np.zeros((1, 1, 2, 4))))
    dx = host(layer.backward(arr(np.ones((1, 1, 1, 2)))))
    assert dx.tolist() == [[[[1, 0, 1, 0], [0, 0, 0, 0]]]]


def test_not_a_number_is_not_hidden() -> None:
    x = arr([[[[1.0, np.nan], [0.0, 2.0]]]])
    assert np.isnan(host(MaxPooling(2).forward(x))).all()
    assert np.isnan(host(AveragePooling(2).forward(x))).all()
    assert host(MaxPooling(2).forward(arr(np.full((1, 1, 2, 2), -np.inf)))) == -np.inf


def test_flatten() -> None:
    layer = Flatten()
    x = arr(np.arange(24.0).reshape(2, 3, 4))
    y = layer.forward(x)
    assert host(y).tolist() == np.arange(24.0).reshape(2, 12).tolist()
    assert host(layer.backward(y)).tolist() == host(x).tolist()
    assert layer.forward(arr(np.zeros(3))).shape == (3, 1)
    with pytest.raises(ShapeError, match=r"Flatten: a batch \(N, ...\) is needed, got a number"):
        layer.forward(arr(np.asarray(1.0)))


@both_floats
@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's modules")
@pytest.mark.parametrize(("shape", "filters", "stride", "pad"), CONVOLUTIONS)
def test_it_agrees_with_pytorchs_modules(
    shape: tuple[int, ...], filters: tuple[int, ...], stride: Any, pad: Any, dtype: str
) -> None:
    import torch  # noqa: PLC0415  only here

    x, W, b = (arr(values, dtype) for values in given(shape, filters))
    module = torch.nn.Conv2d(filters[1], filters[0], filters[2:], stride=stride, padding=pad)
    module = module.to(x.dtype)
    module.load_state_dict({"weight": W, "bias": b})
    require_close(
        Convolution(W, b, stride=stride, pad=pad).forward(x), host(module(x).detach()), dtype
    )
    size, edge = (2, 3), (1, 1)
    pools: list[tuple[Any, Any]] = [
        (MaxPooling(size, stride=stride, pad=edge), torch.nn.MaxPool2d(size, stride, edge)),
        (
            AveragePooling(size, stride=stride, pad=edge),
            torch.nn.AvgPool2d(size, stride, edge, count_include_pad=False),
        ),
    ]
    for layer, pool in pools:
        require_close(layer.forward(x), host(pool(x)), dtype)


def network_on(on: xbp.Backend) -> xbp.Network:
    random = np.random.default_rng(1)

    def values(*shape: int) -> Any:
        return on.asarray(random.normal(size=shape) / 2, "float32")

    layers = [
        Convolution(values(3, 1, 3, 3), values(3), pad=1),
        Relu(),
        MaxPooling(2),
        Convolution(values(2, 3, 2, 2), values(2), stride=2),
        Relu(),
        AveragePooling(2, stride=1),
        Flatten(),
        Affine(values(2, 2), values(2)),
    ]
    return xbp.Network(layers, SoftmaxWithLoss())


def test_a_network_of_them_learns_the_same_on_every_library() -> None:
    x, t = random(10, 1, 8, 8), np.arange(10) % 2
    trained = []
    for on in (backend, xbp.get_backend("numpy")):
        network = network_on(on)
        trainer = xbp.Trainer(network, xbp.Momentum(0.1), batch_size=4, seed=0)
        trainer.fit(x, t, steps=7)  # also batches of 2
        trained.append({key: on.to_numpy(value) for key, value in network.params.items()})
    for key, value in trained[0].items():
        np.testing.assert_allclose(value, trained[1][key], rtol=1e-4, atol=1e-5, err_msg=key)
    before = {key: host(value) for key, value in network_on(backend).params.items()}
    assert all(abs(trained[0][key] - before[key]).max() > 1e-4 for key in before)


ONES: Any = np.ones((2, 3, 3, 3))


def filters_of(W: Any = ONES, b: Any = ONES[:, 0, 0, 0], **settings: Any) -> Convolution:
    return Convolution(backend.asarray(W), backend.asarray(b), **settings)


@pytest.mark.parametrize(
    ("make", "error", "complaint"),
    [
        (lambda: filters_of(np.ones((2, 3))), ShapeError, r"W is \(F, C, KH, KW\) .* got \(2, 3\)"),
        (lambda: filters_of(b=np.ones(3)), ShapeError, r"b is \(F,\), .* and \(3,\)"),
        (lambda: filters_of(np.ones((2, 0, 3, 3))), ShapeError, "with no empty axis"),
        (lambda: filters_of(np.ones((2, 3, 3, 3), dtype="int32")), DTypeError, "Convolution"),
        (
            lambda: filters_of(np.ones((2, 3, 3, 3), "float32"), np.ones(2, "float16")),
            DTypeError,
            "W and b need one dtype, got float32 and float16",
        ),
        (
            lambda: filters_of(stride=0),
            SettingError,
            "Convolution: stride is an integer ≥ 1, or two, for height and width, not 0",
        ),
        (lambda: filters_of(stride=(1, 2, 3)), SettingError, r"not \(1, 2, 3\)"),
        (lambda: filters_of(stride=1.5), SettingError, "not 1.5"),
        (lambda: filters_of(stride=True), SettingError, "not True"),
        (lambda: filters_of(pad=-1), SettingError, "pad is an integer ≥ 0, .* not -1"),
        (lambda: MaxPooling(0), SettingError, "MaxPooling: size is an integer ≥ 1"),
        (lambda: MaxPooling(2, stride=(0, 1)), SettingError, r"stride .* not \(0, 1\)"),
        (lambda: AveragePooling("2"), SettingError, "AveragePooling: size .* not '2'"),
        (
            lambda: MaxPooling(2, pad=2),
            SettingError,
            "pad is smaller than size, or a window would show no image, got a pad of 2 with a size "
            "of 2",
        ),
        (lambda: AveragePooling((3, 1), pad=1), SettingError, "pad is smaller than size"),
    ],
)
def test_mistakes_in_settings(make: Callable[[], Any], error: Any, complaint: str) -> None:
    if backend.name in ("array-api-strict", "jax", "dpnp") and "float16" in complaint:
        pytest.skip("has no float16, or takes none from NumPy")
    with pytest.raises(error, match=complaint):
        make()


@pytest.mark.parametrize(
    ("make", "shape", "complaint"),
    [
        (filters_of, (3, 5, 5), r"images \(N, C, H, W\) are needed, .* x\[None, \.\.\.\]"),
        (filters_of, (2, 75), r"images \(N, C, H, W\) are needed, got shape \(2, 75\)$"),
        (filters_of, (), r"images .* got shape \(\)$"),
        (filters_of, (2, 1, 5, 5), r"images of 3 channels are needed, .* got shape \(2, 1, 5, 5\)"),
        (
            filters_of,
            (2, 3, 2, 5),
            r"a window of \(3, 3\) is larger than an image of \(2, 5\):",
        ),
        (
            lambda: filters_of(np.ones((2, 3, 7, 7)), pad=(1, 2)),
            (2, 3, 4, 5),
            r"a window of \(7, 7\) is larger than an image of \(4, 5\), \(6, 9\) with its edge of",
        ),
        (lambda: MaxPooling(3), (1, 1, 2, 2), r"a window of \(3, 3\) is larger than an image"),
        (lambda: AveragePooling(2), (4, 4), r"images \(N, C, H, W\) are needed"),
    ],
)
def test_images_that_do_not_fit(
    make: Callable[[], Any], shape: tuple[int, ...], complaint: str
) -> None:
    layer = make()
    with pytest.raises(ShapeError, match=f"^{type(layer).__name__}: {complaint}"):
        layer.forward(arr(np.ones(shape)))


def test_numbers_that_are_no_floats() -> None:
    with pytest.raises(DTypeError, match="MaxPooling"):
        MaxPooling(2).forward(backend.asarray(np.ones((1, 1, 2, 2), dtype="int32")))


@once
@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("convolution", lambda y: -y, r"convolution of float32 is .* from what xbp computes"),
        ("convolution_dW", lambda y: y[0], r"returns float32 \(3, 3, 2\), not float32 \(4, 3, 3,"),
        (
            "image",
            lambda y: y.astype("float64"),
            r"image of float32 returns float64 .* not float32",
        ),
        ("image", lambda y: y.tolist(), "image of float32 returns list, no array of the backend"),
        ("pooling", lambda y: y, "operations names 'pooling', which is none of convolution, "),
    ],
)
def test_an_operation_that_is_wrong_is_found(
    name: str, change: Callable[[Any], Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(BackendConformance):
        spec = "numpy"

    Suite().test_its_own_operations()
    own: Any = backend.operations.get(name, backend.operations["image"])
    operations = {**backend.operations, name: lambda *given: change(own(*given))}
    monkeypatch.setattr(type(backend), "operations", operations)
    with pytest.raises(AssertionError, match=complaint):
        Suite().test_its_own_operations()
