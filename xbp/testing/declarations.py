"""What a class says of its layers, ``traceable`` and ``samplewise``, has to be so."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from xbp.errors import XbpError
from xbp.layers import LossLayer
from xbp.recording import flatten
from xbp.testing.agreement import Agreement, equality, require_agreement
from xbp.testing.cases import LayerCase
from xbp.testing.domains import HostArray
from xbp.testing.sizes import Shape
from xbp.testing.trial import LayerTrial

__tracebackhide__ = True


def a_samplewise_layer_minds_no_other_sample(trial: LayerTrial) -> None:
    """Check that ``samplewise = True`` is so: a sample alone gives what it gives in a batch.

    Samples are along the first axis, if an input has two axes or more. Where that is ``"N"``,
    `samples_are_independent` says more.
    """
    is_loss = isinstance(trial.layer, LossLayer)
    if not trial.layer.samplewise or trial.state or is_loss or trial.case.signature.batched:
        return
    axes = {shape[:1] for shape in trial.case.signature.outputs}
    singles = _samples(trial.case, axes.pop()) if len(axes) == 1 else []

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        output = trial.forward()
        alone = np.concatenate([trial.again(single).forward() for single in singles])
        yield Agreement(
            "it says samplewise = True, but in a batch the output of a sample",
            output,
            alone,
            trial.unit * trial.magnitude.reshape(output.shape),
        )

    if singles:
        require_agreement(trial, agreements)


def a_samplewise_loss_is_the_mean_of_its_losses(trial: LayerTrial) -> None:
    """Check that ``samplewise = True`` of a loss is so: it is the mean of `losses` of each sample.

    Samples are along the first axis of the first input, if it has two axes or more.
    """
    layer = trial.layer
    if not layer.samplewise or trial.state or not isinstance(layer, LossLayer):
        return
    signature = trial.case.signature
    shape = signature.shape_of(next(iter(signature.inputs)))
    singles = _samples(trial.case, shape[:1]) if len(shape) >= _AXES_OF_A_BATCH else []

    def loss_of_one(trial: LayerTrial) -> HostArray:
        loss: Any = trial.layer
        return trial.host(loss.losses_of_samples(*trial.inputs), "losses").reshape(())

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        yield Agreement(
            "it says samplewise = True, but its loss of a batch, not the mean of losses,",
            trial.forward(),
            np.mean([loss_of_one(trial.again(single)) for single in singles], axis=0),
            trial.unit * trial.magnitude.reshape(()),
        )

    if singles:
        require_agreement(trial, agreements)


# Of one sample, a loss takes outputs of one axis.
_AXES_OF_A_BATCH = 2


def _samples(case: LayerCase, axis: Shape) -> list[LayerCase]:
    """Return the cases of one sample each, along a first axis of this name; none if it has none."""
    signature = case.signature
    names = [name for name in signature.inputs if signature.shape_of(name)[:1] == axis]
    # What has one axis alone may be one sample.
    if not names or not axis or len(signature.shape_of(names[0])) < _AXES_OF_A_BATCH:
        return []
    is_of_samples = all(shape[:1] == axis for shape in signature.outputs)
    return [
        replace(
            case,
            arrays={
                name: value[[number]] if name in names else value
                for name, value in case.arrays.items()
            },
            dout=case.dout[[number]] if is_of_samples else case.dout,
        )
        for number in range(len(case.arrays[names[0]]))
    ]


def a_trace_of_the_layer_computes_the_same(trial: LayerTrial) -> None:
    """Check that ``traceable = True`` is so: what is traced computes the same of other numbers.

    It is traced on NumPy, where nothing is compiled; on its own backend if it does not run there.
    """
    if not trial.layer.traceable:
        return
    there = trial if trial.backend.name == "numpy" else trial.elsewhere("numpy", trial.dtype)
    trial = there if there and there.runs else trial

    def step(params: Any, state: Any, inputs: Any, douts: Any) -> dict[str, Any]:
        layer = trial.layer.bound_to(params, state)
        output = layer.forward(*inputs)
        return {
            "the output": output,
            "the derivatives": layer.backward(*douts),
            "the gradients": dict(layer.grads),
            "the state": dict(layer.state),
        }

    traced = trial.backend.compile(step)

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        for case in (trial.case, trial.case.otherwise(of_parameters=True), trial.case):
            run = trial.again(case)
            run.forward()  # numbers of the state become arrays
            state = dict(run.layer.state)
            given = dict(run.layer.params), state, run.inputs, run.put_dout(case.dout)
            try:
                found, expected = traced(*given), step(*given)
            except XbpError as error:
                complaint = f"it says traceable = True, and cannot be traced: {error}"
                raise run.fail(complaint) from error
            for what in expected:
                pairs = zip(flatten(found[what])[0], flatten(expected[what])[0], strict=True)
                for pair in pairs:
                    actual, plain = (run.host(value, what) for value in pair)
                    complaint = f"it says traceable = True, but its trace differs in {what}, which"
                    yield equality(complaint, actual, plain, run.unit)

    with trial.backend.scope():
        require_agreement(trial, agreements, is_measured=False)
