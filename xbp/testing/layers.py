"""The signatures of xbp's own layers, for batches and samples, labels and one-hot targets."""

from xbp.layers import (
    AbsoluteWithLoss,
    AddLayer,
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    DivLayer,
    Dropout,
    Elu,
    Embedding,
    Flatten,
    Gelu,
    HuberWithLoss,
    IdentityWithLoss,
    LayerNormalization,
    LeakyRelu,
    MaxPooling,
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
from xbp.testing.signatures import Option, Signature

_WEIGHTS = {"W": ("D", "M"), "b": ("M",)}
_SCALE = {"gamma": ("D",), "beta": ("D",)}
_TARGETS: dict[str, Input] = {"x": ("N", "M"), "t": Fixed(("N", "M"))}
_COUNTS = Values(("N", "M"), low=0, high=1000, differentiable=False)
_LABELS = Values(("N", "M"), low=0, high=1, differentiable=False)
# Windows of 3 rows and columns, 2 apart, that reach 1 beyond the image.
_OVERLAP: dict[str, Option] = {"size": [3], "stride": [2], "pad": [1]}
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
    Signature(
        Convolution,
        {"x": ("N", "C", "H+1", 3)},
        ("N", "F", "H", 2),
        {"W": ("F", "C", 2, 2), "b": ("F",)},
    ),
    Signature(
        Convolution,
        {"x": ("N", 1, 4, 3)},
        ("N", "F", 2, 2),
        {"W": ("F", 1, 3, 3), "b": ("F",)},
        options={"stride": [2], "pad": [1]},
    ),
    Signature(MaxPooling, {"x": ("N", 2, 4, 3)}, ("N", 2, 2, 1), options={"size": [2]}),
    Signature(MaxPooling, {"x": ("N", 1, 3, 4)}, ("N", 1, 2, 2), options=_OVERLAP),
    Signature(AveragePooling, {"x": ("N", 2, 4, 3)}, ("N", 2, 2, 1), options={"size": [2]}),
    Signature(AveragePooling, {"x": ("N", 1, 3, 4)}, ("N", 1, 2, 2), options=_OVERLAP),
    Signature(Embedding, {"x": Labels(("N", "L"), "V")}, ("N", "L", "D"), {"W": ("V", "D")}),
    Signature(Flatten, {"x": ("N", "C", "D")}, ("N", "C*D")),
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
