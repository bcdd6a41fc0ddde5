"""The faults that the proofs are measured by: a layer that is right, and the same with a fault."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import faulty_layers as faulty
from hypothesis import HealthCheck, Phase, given, seed, settings
from right_layers import Scale, Softplus
from support import backend
from wrong_formulas import FORMULAS

from xbp.backend import Backend
from xbp.layers import Affine, Layer, SoftmaxWithLoss
from xbp.testing import Fixed, Labels, Signature, layer_cases
from xbp.testing.properties import PROPERTIES
from xbp.testing.strategies import portions
from xbp.testing.trial import LayerTrial


@dataclass(frozen=True)
class Fault:
    """A fault by name, and the layer with it, and without."""

    name: str
    wrong: Signature
    right: Signature | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Finding:
    """The property that a fault was found by, in which case, and what was said."""

    holds: str
    cases: int
    message: str


def find(
    signature: Signature, on: Backend, *, max_examples: int = 100, number: int = 0
) -> Finding | None:
    """Return what the proof finds, in the first of so many cases; None if it finds nothing.

    As `assert_gradients` does, but the case is not made smaller. The number chooses other cases.
    """
    tried, findings = 0, list[Finding]()

    def proof(case: Any) -> None:
        nonlocal tried
        tried += 1
        with on.scope():
            for dtype in ("float64", "float32") if on.has_float64 else ("float32",):
                trial = holds = None
                try:
                    trial = LayerTrial(case, on, dtype)
                    for holds in PROPERTIES:
                        holds(trial)
                except AssertionError as error:
                    name = holds.__name__ if holds else "the layer is made"
                    findings.append(Finding(name, tried, str(error)))
                    raise

    for is_large, share in portions(max_examples).items():
        of_these = settings(
            max_examples=share,
            derandomize=False,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        cases = layer_cases(signature, is_large=is_large)
        try:
            seed(number)(of_these(given(cases)(proof)))()
        except AssertionError:
            return findings[0]
    return None


SCALE = {"params": {"scale": ("D",)}}
AFFINE: dict[str, Any] = {
    "inputs": {"x": ("N", "D")},
    "output": ("N", "M"),
    "params": {"W": ("D", "M"), "b": ("M",)},
}
LOSS: dict[str, Any] = {"inputs": {"x": ("N", "C"), "t": Labels(("N",), "C")}, "output": ()}
BATCH = {"inputs": {"x": ("B", "D")}}


def _layers() -> Iterator[Fault]:
    softplus, scale = Signature(Softplus), Signature(Scale, **SCALE)  # type: ignore[arg-type]
    affine, loss = Signature(Affine, **AFFINE), Signature(SoftmaxWithLoss, **LOSS)
    kind: type[Layer]
    for name, kind in {
        "a mask outlives its input": faulty.Stale,
        "wrong from the third call on": faulty.Counting,
        "minds only that the array is another": faulty.ById,
        "keeps the first dout": faulty.First,
        "returns its buffer": faulty.Buffered,
        "backward overwrites the output": faulty.Clobbering,
        "returns two buffers in turns": faulty.TakingTurns,
        "a second backward overwrites the first": faulty.OneGradient,
        "what it carries is random": faulty.RandomState,
        "changes dout": faulty.Stamping,
        "changes its input": faulty.Moving,
        "is random": faulty.Random,
        "takes the order of the memory": faulty.Flattening,
        "makes an array on the default device": faulty.Homeless,
        "returns float32 always": faulty.Widening,
        "float32 loses three digits": faulty.Coarse,
        "not linear in dout": faulty.Bent,
        "adds the sample's number": faulty.Numbered,
        "looks at the first sample": faulty.Pulled,
        "says traceable, and asks for a value": faulty.Branching,
        "says traceable, and bakes a number in": faulty.Baking,
    }.items():
        yield Fault(name, Signature(kind), softplus)
    for name, kind in {
        "gradients pile up": faulty.Piling,
        "keeps what it computed of its parameter": faulty.Fixing,
        "keeps what it computed of a copy": faulty.Copying,
        "a shortcut for the first layer": faulty.Shortcut,
        "the first layer: gradients in float64": faulty.WideGradients,
        "the first layer: changes dout": faulty.StampingParams,
        "the first layer: returns its buffer": faulty.BufferedParams,
        "float32 off by 2e-5": faulty.Rough,
    }.items():
        yield Fault(name, Signature(kind, **SCALE), scale)  # type: ignore[arg-type]
    for name, kind in {
        "affine: W transposed once, when it is made": faulty.Transposing,
        "affine: W not transposed": faulty.SquareWeights,
        "affine: the gradient of W transposed": faulty.TransposedGradient,
        "affine: that of b along the wrong axis": faulty.WrongAxis,
        "affine: that of b of the first sample": faulty.FirstSample,
        "affine: that of b of W": faulty.OfWeights,
    }.items():
        yield Fault(name, Signature(kind, **AFFINE), affine)
    for name, kind in {
        "loss: 1/N missing": faulty.WithoutMean,
        "loss: 1/N twice": faulty.MeanTwice,
        "loss: t - y": faulty.Reversed,
    }.items():
        yield Fault(name, Signature(kind, **LOSS), loss)
    mixed: Any = {"x": ("B", "C"), "t": Fixed(("B", "C"))}
    yield Fault("loss: says samplewise, and is not", Signature(faulty.ClaimingLoss, mixed, ()))
    yield Fault("loss: losses of another", Signature(faulty.OtherLosses, **LOSS))
    yield Fault("layers share what they keep", Signature(faulty.Sharing, BATCH["inputs"]))
    yield Fault("says samplewise, and is not", Signature(faulty.Claiming, BATCH["inputs"]))
    yield Fault("backward changes the state", Signature(faulty.Wandering))
    yield Fault("a staircase of another slope", Signature(faulty.Steep))
    squaring = partial(Signature, reference=faulty.Squaring.reference)
    yield Fault("forward is another function", squaring(faulty.Squaring))
    yield Fault("jvp: the 2", Signature(faulty.Sideways))
    yield Fault("jvp: on the default device", Signature(faulty.HomelessTangent))


FAULTS = [
    *(Fault(f.name, f.signature(f.wrong), f.signature(f.right)) for f in FORMULAS),
    *_layers(),
]


IN_PLACE = (
    *(faulty.Stamping, faulty.StampingParams, faulty.Buffered, faulty.TakingTurns),
    *(faulty.Moving, faulty.Clobbering, faulty.OneGradient),
    *(faulty.BufferedParams, faulty.ById),
)


def cannot_be(fault: Fault) -> str:
    """Return why a fault cannot be on the backend that is tested; nothing if it can."""
    kind: Any = fault.wrong.make
    if backend.name == "jax" and kind in IN_PLACE:
        return "its arrays cannot be changed"
    if backend.name != "numpy" and kind is faulty.Flattening:
        return "is about NumPy's strides"
    if not backend.has_float64 and kind in (
        faulty.Coarse,
        faulty.Rough,
        faulty.Widening,
        faulty.WideGradients,
        faulty.Steep,
    ):
        return "is about two dtypes"
    return ""


if __name__ == "__main__":
    found = {
        fault.name: cannot_be(fault)
        or asdict(find(fault.wrong, backend, number=int(sys.argv[1])) or Finding("", 0, ""))
        for fault in FAULTS
    }
    print(json.dumps(found))
