"""What each mistake is answered with, word for word."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import arr, backend, dtype_of, other, widest

from xbp import SGD, Adam, Momentum, Network, TwoLayerNet, gradient_check, numerical_gradient
from xbp.errors import (
    CallOrderError,
    DataError,
    DTypeError,
    MixedBackendError,
    ParameterNotFoundError,
    SettingError,
    ShapeError,
)
from xbp.functions import (
    as_labels,
    cross_entropy_error,
    log_softmax,
    one_hot,
    sigmoid,
    softmax,
    sum_squared_error,
)
from xbp.layers import (
    AddLayer,
    Affine,
    IdentityWithLoss,
    Layer,
    LossLayer,
    MulLayer,
    Relu,
    Rescale,
    Sigmoid,
    SoftmaxWithLoss,
)

# Functions and layers ----------------------------------------------------------------------------


class Half(Layer):
    """A layer with nothing in it."""


class Listing(Layer):
    """A layer that does not return an array."""

    def forward(self, x: Any) -> list[float]:
        return [1.0]


def affine() -> Affine:
    return Affine(ones(3, 2), ones(2))


def ones(*shape: int) -> Any:
    return arr(np.ones(shape))


def after_forward(layer: Layer, *inputs: Any) -> Layer:
    layer.forward(*inputs)
    return layer


def after_loss() -> SoftmaxWithLoss:
    layer = SoftmaxWithLoss()
    layer.forward(ones(2, 3), arr([0, 1]))
    return layer


def integers() -> Any:
    return arr([[1, 0]], "int64")


NO_ARRAY = "expected an array, got list: make it one with xbp.get_backend().asarray(...)"
NO_FLOATS = (
    "real floating-point numbers are needed, got int64: convert with the backend's "
    "asarray(x, dtype='float32')"
)
NO_FORWARD = "backward was called before forward: call forward first, it keeps what backward needs"
NO_SAMPLES = (
    "outputs are (C,) for one sample or (N, C) for a batch, each of at least one element, got shape"
)
NO_INTEGERS = (
    "labels are integers, got float32: convert whole numbers with the backend's "
    "asarray(t, dtype='int64'); truth values are learned with SigmoidWithLoss, others with "
    "IdentityWithLoss"
)

FUNCTIONS_AND_LAYERS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # Functions.
    (lambda: sigmoid([1.0]), DTypeError, f"sigmoid: {NO_ARRAY}"),
    (lambda: sigmoid(integers()), DTypeError, f"sigmoid: {NO_FLOATS}"),
    (lambda: softmax([1.0]), DTypeError, f"softmax: {NO_ARRAY}"),
    (lambda: softmax(integers()), DTypeError, f"softmax: {NO_FLOATS}"),
    (
        lambda: softmax(ones(2, 3), axis=2),
        ShapeError,
        "softmax: shape (2, 3) has no element along axis 2",
    ),
    (lambda: log_softmax([1.0]), DTypeError, f"log_softmax: {NO_ARRAY}"),
    (lambda: log_softmax(integers()), DTypeError, f"log_softmax: {NO_FLOATS}"),
    (
        lambda: log_softmax(ones(3, 0)),
        ShapeError,
        "log_softmax: shape (3, 0) has no element along axis -1",
    ),
    (lambda: one_hot([1], 2, like=ones(1)), DTypeError, f"one_hot: {NO_ARRAY}"),
    (
        lambda: one_hot(arr([1.0], "float32"), 2, like=ones(1)),
        DTypeError,
        "one_hot: labels are integers, got float32: convert whole numbers with the backend's "
        "asarray(labels, dtype='int64')",
    ),
    (
        lambda: one_hot(integers(), 0, like=ones(1)),
        SettingError,
        "one_hot: class_count is a positive integer, not 0",
    ),
    (
        lambda: cross_entropy_error([0.5], arr([0])),
        DTypeError,
        f"cross_entropy_error: {NO_ARRAY}",
    ),
    (
        lambda: cross_entropy_error(ones(2), [0]),
        DTypeError,
        f"cross_entropy_error: {NO_ARRAY}",
    ),
    (
        lambda: cross_entropy_error(integers(), arr([0])),
        DTypeError,
        f"cross_entropy_error: {NO_FLOATS}",
    ),
    (
        lambda: cross_entropy_error(ones(), 0),
        ShapeError,
        f"cross_entropy_error: {NO_SAMPLES} ()",
    ),
    (
        lambda: cross_entropy_error(ones(0, 2), arr([0])),
        ShapeError,
        f"cross_entropy_error: {NO_SAMPLES} (0, 2)",
    ),
    (
        lambda: cross_entropy_error(ones(2, 3), arr([0, 1, 2])),
        ShapeError,
        "cross_entropy_error: outputs of shape (2, 3) need targets of that shape (one-hot) or of "
        "shape (2,) (labels, without an axis of 1), got (3,)",
    ),
    (
        lambda: cross_entropy_error(ones(3), arr([0])),
        ShapeError,
        "cross_entropy_error: outputs of shape (3,) need targets of that shape (one-hot) or of "
        "shape () (labels, without an axis of 1), got (1,)",
    ),
    (
        lambda: cross_entropy_error(ones(2, 3), arr([0.0, 1.0], "float32")),
        DTypeError,
        f"cross_entropy_error: {NO_INTEGERS}",
    ),
    (
        lambda: as_labels(integers(), integers(), "Net.accuracy"),
        DTypeError,
        f"Net.accuracy: {NO_FLOATS}",
    ),
    (
        lambda: as_labels(arr([0.0], "float32"), ones(1, 2), "Net.accuracy"),
        DTypeError,
        f"Net.accuracy: {NO_INTEGERS}",
    ),
    (
        lambda: Network([Listing()], SoftmaxWithLoss()).accuracy(ones(1, 2), arr([0])),
        DTypeError,
        "Listing1.forward returned [1.0]: a layer returns an array",
    ),
    (
        lambda: sum_squared_error([0.5], arr([0.5])),
        DTypeError,
        f"sum_squared_error: {NO_ARRAY}",
    ),
    (
        lambda: sum_squared_error(integers(), integers()),
        DTypeError,
        f"sum_squared_error: {NO_FLOATS}",
    ),
    (
        lambda: sum_squared_error(ones(1, 2, 3), ones(1, 2, 3)),
        ShapeError,
        f"sum_squared_error: {NO_SAMPLES} (1, 2, 3)",
    ),
    (
        lambda: sum_squared_error(ones(1, 2), ones(2)),
        ShapeError,
        "sum_squared_error: outputs of shape (1, 2) need targets of that shape, got (2,)",
    ),
    # Forward.
    (lambda: Relu().forward([1.0]), DTypeError, f"Relu: {NO_ARRAY}"),
    (lambda: Sigmoid().forward([1.0]), DTypeError, f"Sigmoid: {NO_ARRAY}"),
    (lambda: Relu().forward(integers()), DTypeError, f"Relu: {NO_FLOATS}"),
    (lambda: Sigmoid().forward(integers()), DTypeError, f"Sigmoid: {NO_FLOATS}"),
    (lambda: affine().forward([1.0]), DTypeError, f"Affine: {NO_ARRAY}"),
    (lambda: affine().forward(integers()), DTypeError, f"Affine: {NO_FLOATS}"),
    (
        lambda: affine().forward(ones(3, 2)),
        ShapeError,
        "Affine: samples of 3 elements are needed, (D,) or (N, ...), got shape (3, 2)",
    ),
    (
        lambda: Affine(ones(1, 2), ones(2)).forward(ones()),
        ShapeError,
        "Affine: samples of 1 elements are needed, (D,) or (N, ...), got shape ()",
    ),
    (lambda: Affine([[1.0]], [1.0]), DTypeError, f"Affine: {NO_ARRAY}"),
    (
        lambda: Affine(ones(3, 2), ones(3)),
        ShapeError,
        "Affine: W is (D, M) and b is (M,), with no empty axis; got (3, 2) and (3,)",
    ),
    (lambda: Affine(integers(), integers()[0, :]), DTypeError, f"Affine: {NO_FLOATS}"),
    (
        lambda: Affine(arr([[1.0]], "float32"), arr([1], "int64")),
        DTypeError,
        "Affine: W and b need one dtype, got float32 and int64",
    ),
    (lambda: MulLayer().forward([1.0], 2), DTypeError, f"MulLayer: {NO_ARRAY}"),
    (
        lambda: AddLayer().forward(ones(2), ones(1, 2)),
        ShapeError,
        "AddLayer: two arrays of one shape are needed, or numbers, got (2,) and (1, 2)",
    ),
    (
        lambda: SoftmaxWithLoss().forward([1.0], arr([0])),
        DTypeError,
        f"SoftmaxWithLoss: {NO_ARRAY}",
    ),
    (
        lambda: IdentityWithLoss().forward([1.0], ones(1)),
        DTypeError,
        f"IdentityWithLoss: {NO_ARRAY}",
    ),
    (lambda: Half().forward(1), NotImplementedError, "Half has no forward"),
    (
        lambda: Rescale(0),
        SettingError,
        "Rescale: the divisor is a number other than 0, not 0",
    ),
    (
        lambda: Rescale("255"),  # type: ignore[arg-type]
        SettingError,
        "Rescale: the divisor is a number other than 0, not '255'",
    ),
    (
        lambda: Rescale(255, "float16"),
        DTypeError,
        "Rescale: the dtype is 'float32' or 'float64', not 'float16'",
    ),
    (
        lambda: Rescale().forward(arr(np.asarray([True]))),
        DTypeError,
        "Rescale: real numbers are needed, got bool",
    ),
    (lambda: Rescale().forward([1.0]), DTypeError, f"Rescale: {NO_ARRAY}"),
    (lambda: Rescale().backward(ones(2)), CallOrderError, f"Rescale: {NO_FORWARD}"),
    # Backward.
    (lambda: Half().backward(1), NotImplementedError, "Half has no backward"),
    (lambda: LossLayer().losses(1, 1), NotImplementedError, "LossLayer has no losses"),
    (
        lambda: SoftmaxWithLoss().losses(ones(2, 3), [0]),
        DTypeError,
        f"SoftmaxWithLoss: {NO_ARRAY}",
    ),
    (
        lambda: IdentityWithLoss().losses(ones(2, 3), [0]),
        DTypeError,
        f"IdentityWithLoss: {NO_ARRAY}",
    ),
    (lambda: Relu().backward(ones(2)), CallOrderError, f"Relu: {NO_FORWARD}"),
    (lambda: affine().backward(ones(2)), CallOrderError, f"Affine: {NO_FORWARD}"),
    (lambda: MulLayer().backward(1), CallOrderError, f"MulLayer: {NO_FORWARD}"),
    (lambda: SoftmaxWithLoss().backward(), CallOrderError, f"SoftmaxWithLoss: {NO_FORWARD}"),
    (
        lambda: after_forward(Relu(), ones(2)).backward([1.0, 1.0]),
        DTypeError,
        f"Relu.backward: {NO_ARRAY}",
    ),
    (
        lambda: after_forward(Sigmoid(), ones(2)).backward(ones(1, 2)),
        ShapeError,
        "Sigmoid.backward: the output had shape (2,), dout has (1, 2)",
    ),
    (
        lambda: after_forward(affine(), ones(4, 3)).backward(ones(4, 3)),
        ShapeError,
        "Affine.backward: the output had shape (4, 2), dout has (4, 3)",
    ),
    (
        lambda: after_forward(AddLayer(), 2, ones(3)).backward(ones(2)),
        ShapeError,
        "AddLayer.backward: the output had shape (3,), dout has (2,)",
    ),
    (
        lambda: after_forward(Relu(), ones(2)).backward(arr(np.asarray([True, False]))),
        DTypeError,
        "Relu.backward: real numbers are needed, got bool",
    ),
    (
        lambda: after_loss().backward([1.0]),
        DTypeError,
        f"SoftmaxWithLoss.backward: {NO_ARRAY}",
    ),
    (
        lambda: after_loss().backward(arr(np.asarray(True))),
        DTypeError,
        "SoftmaxWithLoss.backward: real numbers are needed, got bool",
    ),
    (
        lambda: after_loss().backward(ones(2)),
        ShapeError,
        "SoftmaxWithLoss.backward: the loss is one number, and so is dout, but it has shape (2,)",
    ),
    # Parameters.
    (
        lambda: affine().params["V"],
        ParameterNotFoundError,
        "there is no parameter 'V': choose one of W, b",
    ),
    (
        lambda: Relu().params["V"],
        ParameterNotFoundError,
        "there is no parameter 'V': choose one of none",
    ),
    (
        lambda: type("Wrong", (Layer,), {"param_names": "W"}),
        SettingError,
        "Wrong: param_names is a tuple, ('W',) with a comma",
    ),
    (lambda: affine().params.update(W=[1.0]), DTypeError, f"params['W']: {NO_ARRAY}"),
    (
        lambda: affine().params.update(W=ones(2, 3)),
        ShapeError,
        "params['W'] has shape (3, 2), not (2, 3)",
    ),
    (
        lambda: Affine(arr([[1.0]], "float32"), arr([1.0], "float32")).params.update(
            b=arr([1], "int64")
        ),
        DTypeError,
        "params['b'] has dtype float32, not int64",
    ),
    (
        lambda: affine().params.pop("W"),
        TypeError,
        "params['W'] belongs to a layer and cannot be deleted",
    ),
]


# Networks, gradients, optimizers -----------------------------------------------------------------


class Shift(Layer):
    """Adds a number of its own to each feature; what it leaves as gradient is given."""

    param_names = ("shift",)

    def __init__(self, left: Any) -> None:
        self.shift, self.left = arr(np.ones(2), widest), left

    def __repr__(self) -> str:
        return "Shift()"

    def forward(self, x: Any) -> Any:
        return x + self.shift

    def backward(self, dout: Any) -> Any:
        self.dshift = self.left
        return dout


def net() -> TwoLayerNet:
    return TwoLayerNet(2, 3, 2, dtype=widest, seed=0)


def shifted(left: Any = None) -> Network:
    return Network([Shift(left)], SoftmaxWithLoss())


def brick(where: Any = backend) -> Affine:
    return Affine(where.asarray([[1.0]]), where.asarray([1.0]))


ONES = f"{type(arr([1.0])).__module__.partition('.')[0]} {dtype_of(arr(np.ones(1)))}"
NO_MEMORY = (
    f"and W is {ONES} (2,): make an optimizer for each network; what it remembers has the "
    "parameter's shape, and float32 at least"
)


def after_another_network(optimizer: Momentum | Adam) -> None:
    for size in (1, 2):
        ones = {"W": arr(np.ones(size))}
        optimizer.update(dict(ones), ones)


def sample() -> Any:
    return arr([[1.0, 2.0]], widest)


NETWORKS_AND_GRADIENTS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: Network(brick(), SoftmaxWithLoss()),  # type: ignore[arg-type]
        SettingError,
        "layers are given as a list, Network([...], loss), also a single one, not "
        "<Affine: W (1, 1), b (1,)>",
    ),
    (
        lambda: Network(3, SoftmaxWithLoss()),  # type: ignore[arg-type]
        SettingError,
        "layers are given as a list, Network([...], loss), also a single one, not 3",
    ),
    (
        lambda: Network([brick(), "relu"], SoftmaxWithLoss()),  # type: ignore[list-item]
        SettingError,
        "layer 2 is one of xbp.layers, or of your own, not 'relu'",
    ),
    (
        lambda: Network([layer := Relu(), layer], SoftmaxWithLoss()),
        SettingError,
        "a layer stands twice in the network: make one for each place, and let none hold "
        "the layer that it is part of",
    ),
    (
        lambda: Network([brick()], Shift(None)),  # type: ignore[arg-type]
        SettingError,
        "the loss is an xbp.layers.LossLayer, not Shift(): derive its class Shift from LossLayer",
    ),
    (
        lambda: Network([brick(), brick(other)], SoftmaxWithLoss()),
        MixedBackendError,
        f"params['W2'] is not on {backend!r}: move it there with backend.asarray(...), or name its "
        "own backend",
    ),
    (
        lambda: Network.fully_connected([1, 1], activation="relu"),  # type: ignore[arg-type]
        SettingError,
        "activation is a class such as xbp.layers.Relu, a layer, or a function that returns one, "
        "not 'relu'",
    ),
    (
        lambda: Network.fully_connected([1, 1], loss=Relu),  # type: ignore[arg-type]
        SettingError,
        "loss is a class such as xbp.layers.SoftmaxWithLoss, a layer, or a function that returns "
        "one, not <class 'xbp.layers.activation.Relu'>",
    ),
    (
        lambda: TwoLayerNet(1, 1, 1, dtype="int64"),
        DTypeError,
        "a network's dtype is 'float32' or 'float64', not 'int64'",
    ),
    (
        lambda: Network([brick()], IdentityWithLoss()).accuracy(sample(), arr([0])),
        SettingError,
        "IdentityWithLoss knows no classes, so there is no accuracy",
    ),
    (
        lambda: net().accuracy(sample(), arr([0, 1])),
        ShapeError,
        "TwoLayerNet.accuracy: outputs of shape (1, 2) need targets of that shape (one-hot) or of "
        "shape (1,) (labels, without an axis of 1), got (2,)",
    ),
    (
        lambda: net().accuracy(sample(), arr([2])),
        DataError,
        "t[0] is 2, no label: the outputs are numbered 0 ... 1",
    ),
    (
        lambda: net().accuracy(sample()[0, :], 7),
        DataError,
        "t[0] is 7, no label: the outputs are numbered 0 ... 1",
    ),
    (
        lambda: net().bound_to({"W1": arr([1.0]), "W3": arr([1.0])}),
        SettingError,
        "parameters W1, b1, W2, b2 are needed, got W1, W3",
    ),
    (
        lambda: shifted(None).gradient(sample(), arr([0])),
        SettingError,
        "Shift1: backward left no gradient in self.dshift: leave it there, zeros if the layer was "
        "not run",
    ),
    (
        lambda: shifted(sample()).gradient(sample(), arr([0])),
        ShapeError,
        "Shift1: shift has shape (2,), but backward left a dshift of shape (1, 2): sum it over the "
        "batch",
    ),
    (
        lambda: numerical_gradient(abs, [1.0]),
        DTypeError,
        "numerical_gradient: expected an array, got list: make it one with "
        "xbp.get_backend().asarray(...)",
    ),
    (
        lambda: numerical_gradient(lambda _: "much", sample()),
        DTypeError,
        "numerical_gradient: the function is to return a number or a 0-d array, not text: 'much'",
    ),
    (
        lambda: numerical_gradient(abs, sample(), h=-1.0),
        SettingError,
        "the step h is a positive number, not -1.0",
    ),
    (
        lambda: numerical_gradient(
            abs, backend.xp.asarray([1j], device=backend.native_device), h=1.0
        ),
        DTypeError,
        "numerical_gradient: x is complex: give its real and imaginary parts",
    ),
    (
        lambda: gradient_check(net(), sample(), arr([0]), elements=1, directions=1),
        SettingError,
        "either elements are compared or directions, not both",
    ),
    (
        lambda: gradient_check(net(), sample(), arr([0]), h=0.0),
        SettingError,
        "the step h is a positive number, not 0.0",
    ),
    (
        lambda: gradient_check(net(), sample(), arr([0]), elements=0),
        SettingError,
        "elements is a positive integer, not 0",
    ),
    (
        lambda: gradient_check(
            Network([Relu()], SoftmaxWithLoss(), backend=backend), sample(), arr([0])
        ),
        SettingError,
        "the network has no parameters, so there is no gradient to check",
    ),
    (
        lambda: gradient_check(net(), sample(), arr([2])),
        DataError,
        "gradient_check: the loss is nan: a label is outside the classes, or a layer returned NaN "
        "or infinity",
    ),
    (
        lambda: net().numerical_gradient(sample(), arr([0]), memory=0),
        SettingError,
        "memory is a positive number, not 0",
    ),
    (
        lambda: gradient_check(net(), sample(), arr([0]), memory=-1),
        SettingError,
        "memory is a positive number, not -1",
    ),
    (
        lambda: gradient_check(net(), sample(), arr([0]), seed=-1),
        SettingError,
        "seed is an integer ≥ 0, not -1",
    ),
    (
        lambda: sum_squared_error(
            ones(1),
            backend.xp.asarray([1j], dtype=backend.xp.complex64, device=backend.native_device),
        ),
        DTypeError,
        "sum_squared_error: targets are real numbers, got complex64",
    ),
    (
        lambda: net().bound_to({**net().params, "W1": [1.0]}),
        DTypeError,
        f"params['W1']: {NO_ARRAY}",
    ),
    (
        lambda: net().bound_to({**net().params, "W1": ones(3, 2)}),
        ShapeError,
        "params['W1'] has shape (2, 3), not (3, 2)",
    ),
    (
        lambda: IdentityWithLoss.check_targets(arr([1.0, np.nan], widest), 1),
        DataError,
        "t[1] is nan, not finite",
    ),
    (
        lambda: SoftmaxWithLoss.check_targets(arr([1, 1234567]), 2),
        DataError,
        "t[1] is 1234567, no label: the outputs are numbered 0 ... 1",
    ),
    (
        lambda: type("Slotted", (SGD,), {"__slots__": ("rate",)}),
        SettingError,
        "Slotted: what an optimizer remembers is copied and saved by its dictionary of attributes: "
        "leave out __slots__",
    ),
    *[
        (
            lambda params=params, grads=grads: SGD().update(params, grads),
            SettingError,
            "SGD.update takes parameters and gradients by key, as dictionaries",
        )
        for params, grads in (([1.0], {}), ({}, [1.0]))
    ],
    (
        lambda: SGD().update({}, {"V": ones(2)}),
        SettingError,
        "SGD.update, the gradient of V: the parameters are none",
    ),
    (
        lambda: SGD().update({"W": ones(2)}, {"W": ones(2, 3)}),
        ShapeError,
        "SGD.update, the gradient of W has shape (2, 3), the parameter (2,)",
    ),
    (
        lambda: SGD().update({"W": ones(2)}, {"W": [1.0, 1.0]}),
        DTypeError,
        f"SGD.update, the gradient of W: {NO_ARRAY}",
    ),
    (
        lambda: SGD().update({"W": [1.0, 1.0]}, {"W": ones(2)}),
        DTypeError,
        f"SGD.update, the gradient of W: {NO_ARRAY}",
    ),
    (lambda: SGD(0), SettingError, "lr is a positive number, not 0"),
    (lambda: Momentum(-1), SettingError, "lr is a positive number, not -1"),
    (
        lambda: Momentum(momentum=1),
        SettingError,
        "momentum is at least 0 and below 1, not 1",
    ),
    (lambda: Adam(0), SettingError, "lr is a positive number, not 0"),
    (lambda: Adam(beta1=1), SettingError, "beta1 is at least 0 and below 1, not 1"),
    (lambda: Adam(beta2=1), SettingError, "beta2 is at least 0 and below 1, not 1"),
    (lambda: Adam(epsilon=0), SettingError, "epsilon is a positive number, not 0"),
    (
        lambda: after_another_network(Momentum()),
        SettingError,
        f"Momentum: self.velocity['W'] is {ONES} (1,), {NO_MEMORY}",
    ),
    (
        lambda: after_another_network(Adam()),
        SettingError,
        f"Adam: self.mean['W'] is {ONES} (1,), {NO_MEMORY}",
    ),
]


@pytest.mark.parametrize(
    ("mistake", "error", "message"), FUNCTIONS_AND_LAYERS + NETWORKS_AND_GRADIENTS
)
def test_a_mistake_is_answered_word_for_word(
    mistake: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        mistake()
    assert str(caught.value) == message
