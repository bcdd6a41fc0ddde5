"""The signatures of xbp's own layers, for batches and samples, labels and one-hot targets."""

from xbp.layers import (
    AbsoluteWithLoss,
    AddLayer,
    Affine,
    BatchNormalization,
    DivLayer,
    Dropout,
    Elu,
    Gelu,
    HuberWithLoss,
    IdentityWithLoss,
    LayerNormalization,
    LeakyRelu,
    MulLayer,
    PoissonWithLoss,
    QuantileWithLoss,
    Relu,
    Rescale,
    Sigmoid,
    SigmoidWithLoss,
    Silu,
    SoftmaxWithLoss,
    Softplus,
    SubLayer,
    Tanh,
)
from xbp.testing.domains import Fixed, Input, Labels, Nonzero, OneHot, Values
from xbp.testing.signatures import Signature

_WEIGHTS = {"W": ("D", "M"), "b": ("M",)}
_SCALE = {"gamma": ("D",), "beta": ("D",)}
_TARGETS: dict[str, Input] = {"x": ("N", "M"), "t": Fixed(("N", "M"))}
_COUNTS = Values(("N", "M"), low=0, high=1000, differentiable=False)
_LABELS = Values(("N", "M"), low=0, high=1, differentiable=False)
_PAIR = {"x": ("N", "D"), "y": ("N", "D")}

LAYERS = (
    Signature(MulLayer, _PAIR),
    Signature(DivLayer, {"x": ("N", "D"), "y": Nonzero(("N", "D"))}),
    Signature(AddLayer, _PAIR),
    Signature(SubLayer, _PAIR),
    Signature(Relu),
    Signature(Relu, {"x": ("D",)}),
    Signature(Sigmoid),
    Signature(Sigmoid, {"x": ("D",)}),
    Signature(Tanh),
    Signature(LeakyRelu, options={"slope": [0.01, 0.3, -0.5]}),
    Signature(Elu, options={"alpha": [1.0, 0.3, 2.0]}),
    Signature(Gelu),
    Signature(Silu),
    Signature(Softplus),
    Signature(Rescale),
    Signature(Affine, {"x": ("N", "D")}, ("N", "M"), _WEIGHTS),
    Signature(Affine, {"x": ("D",)}, ("M",), _WEIGHTS),
    Signature(Affine, {"x": ("N", "H", "L")}, ("N", "M"), {**_WEIGHTS, "W": ("H*L", "M")}),
    Signature(LayerNormalization, params=_SCALE),
    Signature(LayerNormalization, {"x": ("D",)}, params=_SCALE),
    Signature(
        LayerNormalization,
        {"x": ("N", "C", "D")},
        params={"gamma": ("C", "D"), "beta": ("C", "D")},
    ),
    # Over a single number there is no variance.
    Signature(BatchNormalization, {"x": ("2*B", "D")}, params=_SCALE),
    Signature(BatchNormalization, {"x": ("B", "D", 2, "W")}, params=_SCALE),
    Signature(Dropout, options={"ratio": [0.5, 0.0, 0.9], "seed": [0, 1, 2**40]}),
    Signature(SoftmaxWithLoss, {"x": ("N", "C"), "t": Labels(("N",), "C")}, ()),
    Signature(SoftmaxWithLoss, {"x": ("N", "C"), "t": OneHot(("N", "C"))}, ()),
    Signature(SoftmaxWithLoss, {"x": ("C",), "t": Labels((), "C")}, ()),
    Signature(SoftmaxWithLoss, {"x": ("C",), "t": OneHot(("C",))}, ()),
    Signature(
        SoftmaxWithLoss,
        {"x": ("N", 3), "t": Labels(("N",), 3)},
        (),
        options={"class_weights": [[1.0, 0.25, 3.0]], "label_smoothing": [0.0, 0.1]},
    ),
    Signature(SigmoidWithLoss, {"x": ("N", "M"), "t": _LABELS}, ()),
    Signature(
        SigmoidWithLoss,
        {"x": ("M",), "t": OneHot(("M",))},
        (),
        options={"class_weights": [[0.5, 2.0]], "label_smoothing": [0.0, 0.1]},
    ),
    Signature(IdentityWithLoss, _TARGETS, ()),
    Signature(IdentityWithLoss, {"x": ("M",), "t": Fixed(("M",))}, ()),
    Signature(AbsoluteWithLoss, _TARGETS, ()),
    Signature(HuberWithLoss, _TARGETS, (), options={"delta": [1.0, 0.3, 5.0]}),
    Signature(QuantileWithLoss, _TARGETS, (), options={"q": [0.5, 0.1, 0.9]}),
    Signature(PoissonWithLoss, {"x": Values(("N", "M"), low=-50, high=50), "t": _COUNTS}, ()),
)
