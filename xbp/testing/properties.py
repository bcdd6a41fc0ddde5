"""The properties that every layer has to have.

Each takes a `LayerTrial`, and raises `AssertionError`, with the case in its message, if it fails.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import numpy as np

from xbp.namespace import Array, dtype_name
from xbp.testing.agreement import Agreement, equality, require_agreement
from xbp.testing.declarations import (
    a_samplewise_layer_minds_no_other_sample,
    a_samplewise_loss_is_the_mean_of_its_losses,
    a_trace_of_the_layer_computes_the_same,
)
from xbp.testing.derivative import backward_is_the_derivative
from xbp.testing.domains import HostArray
from xbp.testing.layouts import LAYOUTS, takes_views
from xbp.testing.proof import Differences
from xbp.testing.state import state_of
from xbp.testing.trial import LayerTrial, chained

# pytest's traceback then shows the user's test, not this module.
__tracebackhide__ = True


def forward_is_the_reference(trial: LayerTrial) -> None:
    """``forward`` gives what the signature's reference gives, a function of NumPy arrays."""
    signature, case = trial.case.signature, trial.case
    if signature.reference is None:
        return
    inputs = [np.array(case.arrays[name]) for name in signature.inputs]
    params = {name: np.array(case.arrays[name]) for name in signature.params}
    try:
        returned = signature.reference(*inputs, **params, **case.options)
        parts = returned if len(signature.outputs) > 1 else [returned]
        expected = case.whole([np.asarray(part, dtype=np.float64) for part in parts])
    except Exception as error:
        raise trial.fail(f"the reference raised {type(error).__name__}: {error}") from error

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        output = trial.forward()
        bound = trial.unit * trial.magnitude.reshape(output.shape)
        yield Agreement("the output is not that of the reference: it", output, expected, bound)

    require_agreement(trial, agreements)


def backward_is_linear(trial: LayerTrial) -> None:
    """``backward`` of dout is the sum over the unit vectors of ``backward``, weighted with dout."""

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        dout, jacobian = trial.case.dout, trial.jacobian
        trial.forward()
        for name, gradient in trial.backward(dout).items():
            yield Agreement(
                f"backward is not linear in dout: the derivative with respect to {name}",
                gradient,
                chained(dout, jacobian[name]),
                trial.rounding(name),
            )

    require_agreement(trial, agreements)


def forward_mode_agrees(trial: LayerTrial) -> None:
    """``jvp``, where there is one, is the Jacobian times the tangents: see `assert_vjp`."""
    if not hasattr(trial.layer, "jvp"):
        return

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        chance = np.random.default_rng(0)
        names = trial.case.signature.differentiable
        tangents = {
            name: np.asarray(
                np.float32(chance.uniform(-1, 1, trial.case.arrays[name].shape)), np.float64
            )
            for name in names
        }
        jacobian = trial.jacobian
        trial.forward()
        output = trial.jvp(tangents)
        expected, sizes = np.zeros(output.size), np.ones(output.size)
        for name, tangent in tangents.items():
            with np.errstate(all="ignore"):
                products = (jacobian[name] * tangent).reshape(output.size, -1)
            expected = expected + products.sum(axis=1)
            sizes = sizes + abs(products).sum(axis=1)
        yield Agreement(
            "jvp and backward differ: the derivative of the output along the tangents",
            output,
            expected.reshape(output.shape),
            (trial.unit * sizes).reshape(output.shape),
        )

    require_agreement(trial, agreements)


def parameters_alone_get_the_same_gradients(trial: LayerTrial) -> None:
    """``backward_params``, which a first layer runs, leaves the gradients of ``backward``."""
    if not trial.case.signature.params:
        return

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        dout = trial.case.dout
        trial.forward()
        whole = trial.backward(dout)
        trial.backward(2 * dout + 1)  # so that gradients that are not overwritten differ
        for name, gradient in trial.backward_params(dout).items():
            yield Agreement(
                f"backward_params and backward differ: the derivative with respect to {name}",
                gradient,
                whole[name],
                trial.rounding(name),
            )

    require_agreement(trial, agreements)


def samples_are_independent(trial: LayerTrial) -> None:
    """Check that a batch gives the results of its samples; a loss and its gradients the mean."""
    count = trial.case.sample_count
    if not count or trial.state:  # a layer's state may treat samples differently
        return
    signature = trial.case.signature
    mean = signature.takes_the_mean

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        singles = [trial.again(trial.case.samples([n])) for n in range(count)]
        outputs = [single.forward() for single in singles]
        gradients = [single.backward(single.case.dout) for single in singles]
        output = trial.forward()
        batch = trial.backward(trial.case.dout)
        yield Agreement(
            "the output of a batch is not that of its samples",
            output,
            np.mean(outputs, axis=0) if mean else np.concatenate(outputs),
            trial.unit * trial.magnitude.reshape(output.shape),
        )
        for name, batch_gradient in batch.items():
            parts = [gradient[name] for gradient in gradients]
            if name in signature.batched:
                expected = np.concatenate(parts) / (count if mean else 1)
                bound = trial.rounding(name)
            else:
                expected = np.mean(parts, axis=0) if mean else np.sum(parts, axis=0)
                bound = np.asarray(sum(single.rounding(name) for single in singles))
            yield Agreement(
                "the gradients of a batch are not those of its samples: the derivative with "
                f"respect to {name}",
                batch_gradient,
                expected,
                bound,
            )

    require_agreement(trial, agreements)


def a_permuted_batch_is_permuted_throughout(trial: LayerTrial) -> None:
    """Check that a batch in another order gives the same outputs and derivatives, reordered."""
    count = trial.case.sample_count
    if not count or trial.state:
        return
    order = [*range(1, count), 0]
    signature = trial.case.signature

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        other = trial.again(trial.case.samples(order))
        output, other_output = trial.forward(), other.forward()
        gradients = trial.backward(trial.case.dout)
        other_gradients = other.backward(other.case.dout)
        yield Agreement(
            "a permuted batch changes the outputs",
            other_output,
            output if signature.takes_the_mean else output[order],
            other.unit * other.magnitude.reshape(other_output.shape),
        )
        for name, gradient in other_gradients.items():
            expected = gradients[name]
            yield Agreement(
                f"a permuted batch changes the derivative with respect to {name}",
                gradient,
                expected[order] if name in signature.batched else expected,
                other.rounding(name),
            )

    require_agreement(trial, agreements)


def equal_layers_do_the_same(trial: LayerTrial) -> None:
    """Two layers that are made alike give the same for the same case: nothing is random.

    Nor is what they carry to the next step.
    """

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        one = trial.again(trial.case).results()
        complaint = "two layers that are made alike differ, as if random, in"
        yield from _same_results(complaint, one, trial.expected, trial.unit)
        layers = (trial.again(trial.case) for _ in range(2 if trial.state else 0))
        first, second = [layer.state_after() for layer in layers] or ({}, {})
        for key, value in first.items():
            yield equality(f"{complaint} the state {key}, which", value, second[key], trial.unit)

    require_agreement(trial, agreements, is_measured=False)


def a_layer_keeps_nothing_of_earlier_calls(trial: LayerTrial) -> None:
    """Check that a layer that has seen other inputs gives what a new one does.

    It sees the case, other numbers in a longer batch and in one as long, and the case again; also
    in arrays that are filled anew.
    """

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        trial.forward()
        trial.backward(trial.case.dout)
        others = (trial.case.otherwise(is_longer=True), trial.case.otherwise())
        one, between = trial.again(trial.case), trial.again(trial.case.otherwise())
        one.forward()
        between.forward()
        gradients = one.backward(trial.case.dout)
        for name, expected in trial.expected.items():
            if name:
                complaint = (
                    f"after a forward of another layer, the derivative with respect to {name}"
                )
                yield equality(complaint, gradients[name], expected, one.unit)
        for case in (*others, trial.case):
            used = trial.again(case, trial.layer).results()
            new = trial.expected if case is trial.case else trial.again(case).results()
            complaint = "a layer that has seen other inputs differs in"
            yield from _same_results(complaint, used, new, trial.unit)
        if refilled := trial.refilled(trial.again(others[1])):
            complaint = "a layer that has seen the same arrays with other numbers differs in"
            yield from _same_results(complaint, refilled.results(), trial.expected, trial.unit)

    require_agreement(trial, agreements)


def parameters_may_change(trial: LayerTrial) -> None:
    """Check that a layer does with other parameters what a layer that is made of them does."""
    names = list(trial.case.signature.params)
    if not names or not all(_holds(trial, name) for name in names):
        return

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        case = trial.case.otherwise(of_parameters=True)
        used, new = trial.again(trial.case), trial.again(case)
        used.forward()
        used.backward(trial.case.dout)
        used = trial.again(case, used.layer)
        for name in names:
            setattr(used.layer, name, used.arrays[name])
        complaint = "a layer whose parameters were replaced differs in"
        yield from _same_results(complaint, used.results(), new.results(), used.unit)

    require_agreement(trial, agreements)


def _holds(trial: LayerTrial, name: str) -> bool:
    """Tell whether a layer holds the array of a parameter, or a copy of it, under its name."""
    held, given = getattr(trial.layer, name, None), trial.arrays[name]
    if held is given:
        return True
    return trial.backend.owns(held) and np.array_equal(
        trial.host(held, name), trial.host(given, name), equal_nan=True
    )


def _same_results(
    complaint: str,
    results: Mapping[str, HostArray],
    expected: Mapping[str, HostArray],
    unit: float,
) -> Iterator[Agreement]:
    for name, value in expected.items():
        what = f"the derivative with respect to {name}" if name else "the output"
        yield equality(f"{complaint} {what}, which", results[name], value, unit)


def results_are_not_overwritten(trial: LayerTrial) -> None:
    """Check that what a call has returned stays as it is when the layer is called again.

    By its backward, by a second one, and by two later passes, since two buffers may take turns.
    """
    results: dict[str, Array] = {}
    before: dict[str, HostArray] = {}

    def note(what: str, result: Array) -> None:
        results[what], before[what] = result, trial.host(result, what).copy()

    def require_same() -> None:
        for what, result in results.items():
            after = trial.host(result, what)
            if not np.array_equal(after, before[what], equal_nan=True):
                raise trial.fail(
                    f"a later call overwrites {what} of an earlier one: return a new array",
                    before=before[what],
                    after=after,
                )

    for name, output in zip(trial.output_names, trial.forward_on_device(), strict=True):
        note(name, output)
    dout = trial.case.dout
    for name, gradient in trial.backward_on_device(trial.put_dout(dout)).items():
        note(f"the derivative with respect to {name}", gradient)
    require_same()
    trial.backward_on_device(trial.put_dout(2 * dout + 1))
    require_same()
    if trial.case.signature.params:
        trial.forward()
        for name, gradient in trial.backward_params_on_device(trial.put_dout(dout)).items():
            note(f"the derivative with respect to {name} that backward_params leaves", gradient)
        trial.backward_params_on_device(trial.put_dout(2 * dout + 1))
        require_same()
    other = trial.case.otherwise()
    for _ in range(2):
        again = trial.again(other, trial.layer)
        again.forward()
        again.backward(other.dout)
    require_same()


def any_order_of_memory_gives_the_same(trial: LayerTrial) -> None:
    """Check that arrays that are views give what whole arrays do.

    Transposed, reversed, and every second element from the second on.
    """

    def agreements(trial: LayerTrial) -> Iterator[Agreement]:
        for layout in layouts:
            view = trial.again(trial.case, layout=layout).results()
            complaint = f"inputs that are {layout} views change"
            yield from _same_results(complaint, view, trial.expected, trial.unit)

    layouts = [layout for layout in LAYOUTS if takes_views(trial.backend, layout)]

    require_agreement(trial, agreements)


def inputs_stay_as_they_are(trial: LayerTrial) -> None:
    """No method changes an array that it was given."""
    douts = trial.put_dout(trial.case.dout)
    upstream = trial.case.signature.upstream
    names = [upstream if len(douts) == 1 else f"{upstream} {n}" for n in range(len(douts))]
    arrays = {**trial.arrays, **dict(zip(names, douts, strict=True))}
    moves = {
        name: trial.put(name, trial.case.arrays[name])
        for name in trial.case.signature.differentiable
        if hasattr(trial.layer, "jvp")
    }
    arrays |= {f"tangent of {name}": tangent for name, tangent in moves.items()}
    before = {name: trial.host(array, name).copy() for name, array in arrays.items()}
    trial.forward()
    trial.backward_on_device(douts)
    if trial.case.signature.params:
        trial.forward()
        trial.backward_params_on_device(douts)
    if moves:
        trial.forward()
        trial.jvp_on_device(moves)
    for name, array in arrays.items():
        after = trial.host(array, name)
        if not np.array_equal(after, before[name], equal_nan=True):
            raise trial.fail(
                f"the layer changes its input {name} in place",
                before=before[name],
                after=after,
            )


def backward_leaves_the_state(trial: LayerTrial) -> None:
    """Check that ``forward`` alone changes what a layer carries from step to step."""
    if not trial.state:
        return
    trial.forward()
    before = state_of(trial.layer)
    trial.backward_on_device(trial.put_dout(trial.case.dout))
    after = state_of(trial.layer)
    for key in before:
        old, new = (
            trial.host(trial.backend.asarray(state[key]), f"the state {key}")
            for state in (before, after)
        )
        if not np.array_equal(old, new, equal_nan=True):
            raise trial.fail(
                f"backward changes the state {key}: forward alone does that, once in each step",
                before=old,
                after=new,
            )


def dtype_shape_and_device_stay(trial: LayerTrial) -> None:
    """All that a layer returns are arrays of the inputs' library, device and dtype."""
    for what, (array, shape) in trial.results_on_device().items():
        if not trial.backend.owns(array):
            raise trial.fail(f"{what} is {array!r}, no array on this backend")
        if tuple(array.shape) != shape:
            raise trial.fail(
                f"{what} has shape {tuple(array.shape)}, not {shape} as the signature says, "
                f"{trial.case.signature}"
            )
        if dtype_name(array.dtype) != trial.dtype:
            raise trial.fail(f"{what} has dtype {dtype_name(array.dtype)}, not {trial.dtype}")


def arrays_are_made_beside_their_inputs(trial: LayerTrial) -> None:
    """Check that no array is made on the default device.

    It is seen on the second device of array-api-strict, if the layer runs on the first.
    """
    if trial.dtype != "float32":
        return
    first, second = (
        trial.elsewhere(f"array-api-strict:{device}", "float32")
        for device in ("CPU_DEVICE", "device1")
    )
    if first and first.runs and second and not second.runs:
        raise second.fail(
            "it makes an array on the default device, not on that of its inputs: give "
            "device=x.device to xp.zeros, xp.arange, xp.asarray or what else makes it"
        )


def float32_agrees_with_float64(trial: LayerTrial) -> None:
    """Check that float32 gives what float64 gives, up to the rounding errors of float32.

    If the device has no float64, it is NumPy's.
    """
    try:
        _require_float32(trial)
    except AssertionError:
        # A number may lie beside a threshold, as 0.1 does, which float32 rounds up to 0.1; but not
        # numbers close by, nor random ones of another key, too.
        for other in (trial.with_other_keys(), trial.beside()):
            if other is None:
                continue
            with suppress(AssertionError):
                _require_float32(other)
                return
        if trial.takes_traced:
            raise
        # In a kernel terms may cancel that are as large as its inputs, and nobody sees it.
        largest = max(float(np.max(abs(value))) for value in trial.case.arrays.values())
        _require_float32(trial, max(1.0, largest))


def _require_float32(trial: LayerTrial, scale: float = 1.0) -> None:
    has_float64 = trial.backend.has_float64
    wide = trial.on_numpy if not has_float64 else trial if trial.dtype == "float64" else None
    if wide is None:
        return
    narrow = trial.on(trial.backend, "float32")
    dout = trial.case.dout

    def agreements(narrow: LayerTrial) -> Iterator[Agreement]:
        yield Agreement(
            "float32 and float64 differ in the output, which in float32",
            narrow.forward(),
            wide.output,
            unit * wide.magnitude.reshape(wide.output.shape),
        )
        for name, gradient in narrow.backward(dout).items():
            rows = wide.jacobian[name]
            yield Agreement(
                f"float32 and float64 differ in the derivative with respect to {name}, which in "
                "float32",
                gradient,
                chained(dout, rows),
                chained(abs(dout), unit * (1 + abs(rows))),
            )

    unit = narrow.unit * scale
    # How far float32 is off is seen from float64: float32 may be where no rounding leads back from,
    # as when a variance of 0 has become a small number.
    require_agreement(narrow, agreements, exact=wide)


# The first failure is the one reported: the most telling properties come first.
PROPERTIES: tuple[Callable[[LayerTrial], Differences | None], ...] = (
    inputs_stay_as_they_are,
    dtype_shape_and_device_stay,
    backward_leaves_the_state,
    equal_layers_do_the_same,
    forward_is_the_reference,
    backward_is_the_derivative,
    backward_is_linear,
    forward_mode_agrees,
    parameters_alone_get_the_same_gradients,
    results_are_not_overwritten,
    a_layer_keeps_nothing_of_earlier_calls,
    any_order_of_memory_gives_the_same,
    parameters_may_change,
    samples_are_independent,
    a_permuted_batch_is_permuted_throughout,
    a_samplewise_layer_minds_no_other_sample,
    a_samplewise_loss_is_the_mean_of_its_losses,
    a_trace_of_the_layer_computes_the_same,
    arrays_are_made_beside_their_inputs,
    float32_agrees_with_float64,
)

# Those that need no derivative by every element, for large layers.
FAST_PROPERTIES: tuple[Callable[[LayerTrial], None], ...] = (
    inputs_stay_as_they_are,
    dtype_shape_and_device_stay,
    backward_leaves_the_state,
    equal_layers_do_the_same,
    results_are_not_overwritten,
    a_layer_keeps_nothing_of_earlier_calls,
    any_order_of_memory_gives_the_same,
    parameters_may_change,
    arrays_are_made_beside_their_inputs,
)
