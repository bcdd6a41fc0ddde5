"""The properties that every layer has to have.

Each takes a `LayerTrial`, and raises `AssertionError`, with the case in its message, if it fails.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from math import isfinite
from typing import NamedTuple

import numpy as np

from xbp.differences import Comparison, compare
from xbp.namespace import dtype_name
from xbp.testing.cases import HostArray
from xbp.testing.trial import MOST_RUNS, RUNS, LayerTrial, chained

# pytest's traceback then shows the user's test, not this module.
__tracebackhide__ = True

# The first step of the central differences, for elements up to size 1; `compare` refines it.
STEP = 2.0**-6


@dataclass
class Differences:
    """The result of comparing the derivatives of a layer with central differences.

    Attributes
    ----------
    compared : int
        The number of derivatives, each of one output element with respect to one input element.
    kinks : int
        How many of them were not judged, because the function has a kink there.
    wrong : list of tuple
        For each wrong one: the array's name, the indices of output and input, the `Comparison`.
    """

    compared: int = 0
    kinks: int = 0
    wrong: list[tuple[str, tuple[int, ...], tuple[int, ...], Comparison]] = field(
        default_factory=list
    )


def backward_is_the_derivative(trial: LayerTrial) -> Differences:
    """``backward`` agrees with central differences, for each pair of output and input elements.

    The tolerance follows from the step and the dtype. A derivative at a kink is not judged. Float32
    is tested by `float32_agrees_with_float64`. If the device has no float64, differences are taken
    on NumPy, and in float32 only of a layer that does not run there.
    """
    result = Differences()
    if trial.dtype == "float32" and trial.backend.has_float64:
        return result
    if trial.dtype == "float32":
        trial = trial.on_numpy or trial
    unit = trial.unit_of_differences
    output, noise = trial.output, unit * trial.magnitude
    for name, claims in trial.jacobian.items():
        value = trial.case.arrays[name]
        if claims.shape[1:] != value.shape:
            raise trial.fail(
                f"the derivative with respect to {name} has shape {claims.shape[1:]}, {name} has "
                f"{value.shape}"
            )
        for index in np.ndindex(value.shape):
            outputs = _outputs_along(trial, name, index)
            for j, claimed in enumerate(claims[(slice(None), *index)]):
                f, h = partial(_item, outputs, j), STEP * max(1.0, abs(float(value[index])))
                comparison = compare(float(claimed), f, h, float(noise[j]), unit)
                if not (comparison.right or comparison.kink):
                    at = (j, *index)
                    comparison = _within_rounding(trial, name, at, comparison, f, h)
                result.compared += 1
                result.kinks += comparison.kink
                if not (comparison.right or comparison.kink):
                    where = tuple(int(k) for k in np.unravel_index(j, output.shape))
                    result.wrong.append((name, where, index, comparison))
    if result.wrong:
        raise _wrong_derivative(trial, result)
    return result


def _within_rounding(
    trial: LayerTrial,
    name: str,
    at: tuple[int, ...],
    comparison: Comparison,
    f: Callable[[float], float],
    h: float,
) -> Comparison:
    """Compare again what is closest to the quotient within the rounding that the trial makes."""
    if not isfinite(comparison.claimed):
        return comparison
    for runs in (RUNS, MOST_RUNS):
        noise = float(trial.noise(lambda trial: trial.output.reshape(-1)[at[0]], runs))
        by = float(trial.noise(lambda trial: trial.jacobian[name][at], runs))
        bound = max(noise, float(trial.unit_of_differences * trial.magnitude[at[0]]))
        claimed = comparison.claimed
        again = compare(claimed, f, h, bound, trial.unit_of_differences)
        if isfinite(again.numerical):
            claimed = min(max(again.numerical, claimed - by), claimed + by)
            again = compare(claimed, f, h, bound, trial.unit_of_differences)
        if again.right or again.kink:
            return again
    return replace(comparison, error=max(comparison.error, again.error + by))


def _item(outputs: Callable[[float], HostArray], j: int, step: float) -> float:
    return float(outputs(step)[j])


def _outputs_along(
    trial: LayerTrial, name: str, index: tuple[int, ...]
) -> Callable[[float], HostArray]:
    """Return a function from a step, added to one element, to the flat outputs."""

    @cache
    def outputs(step: float) -> HostArray:
        if step == 0:
            return trial.output.reshape(-1)
        value = trial.case.arrays[name].copy()
        value[index] += step
        with np.errstate(all="ignore"):  # a large step may reach a pole
            return trial.forward({name: value}).reshape(-1)

    return outputs


def _wrong_derivative(trial: LayerTrial, result: Differences) -> AssertionError:
    name, where, index, worst = max(
        result.wrong, key=lambda wrong: wrong[-1].difference / max(wrong[-1].error, 1e-300)
    )
    row = int(np.ravel_multi_index(where, trial.output.shape)) if where else 0
    # Arrays in any case: a parameter may be a single number.
    backward = np.asarray(trial.jacobian[name][row])
    differences = np.array(backward)
    for wrong_name, at, element, comparison in result.wrong:
        if (wrong_name, at) == (name, where):
            differences[element] = comparison.numerical
    which = f"of output{_at(where)} by"
    return trial.fail(
        f"backward is wrong in {len(result.wrong)} of {result.compared} derivatives, "
        "as unit vectors for dout show\n"
        f"the furthest off is that {which} {name}{_at(index)}:\n"
        f"  backward says {worst.claimed!r}{_why_not_finite(worst.claimed)}\n"
        f"  central differences say {worst.numerical!r}, give or take {worst.error:.1e}\n"
        f"{which} all of {name}:",
        backward=backward,
        differences=differences,
    )


def _why_not_finite(value: float) -> str:
    """Return what to do if a layer overflows; nothing if it does not."""
    if isfinite(value):
        return ""
    return " (it overflows, or leaves its domain: say how large its numbers may be, largest=100)"


def _within(index: tuple[int, ...]) -> str:
    """Return ``" at [i, j]"`` for an index; nothing for a 0-d array."""
    return f" at {list(index)}" if index else ""


def _at(index: tuple[int, ...]) -> str:
    """Return ``"[i, j]"`` for an index; nothing for a 0-d array."""
    return str(list(index)) if index else ""


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

    _require(trial, agreements)


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

    _require(trial, agreements)


def samples_are_independent(trial: LayerTrial) -> None:
    """Check that a batch gives the results of its samples; a loss and its gradients the mean."""
    count = trial.case.sample_count
    if not count or trial.made.state:  # a layer's state may treat samples differently
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

    _require(trial, agreements)


def a_permuted_batch_is_permuted_throughout(trial: LayerTrial) -> None:
    """Check that a batch in another order gives the same outputs and derivatives, reordered."""
    count = trial.case.sample_count
    if not count or trial.made.state:
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

    _require(trial, agreements)


def inputs_stay_as_they_are(trial: LayerTrial) -> None:
    """Neither ``forward`` nor ``backward`` changes an array that it was given."""
    arrays = {**trial.arrays, "dout": trial.put("dout", trial.case.dout)}
    before = {name: trial.host(array, name).copy() for name, array in arrays.items()}
    trial.forward()
    trial.backward_on_device(arrays["dout"])
    for name, array in arrays.items():
        after = trial.host(array, name)
        if not np.array_equal(after, before[name], equal_nan=True):
            raise trial.fail(
                f"the layer changes its input {name} in place",
                before=before[name],
                after=after,
            )


def dtype_shape_and_device_stay(trial: LayerTrial) -> None:
    """Output and derivatives are arrays of the inputs' library, device and dtype."""
    output = trial.forward_on_device()
    dout = trial.case.dout
    results = {"the output": (output, dout.shape)}
    for name, gradient in trial.backward_on_device(trial.put("dout", dout)).items():
        results[f"the derivative with respect to {name}"] = (
            gradient,
            trial.case.arrays[name].shape,
        )
    for what, (array, shape) in results.items():
        if not trial.backend.owns(array):
            raise trial.fail(f"{what} is {array!r}, no array on this backend")
        if tuple(array.shape) != shape:
            raise trial.fail(
                f"{what} has shape {tuple(array.shape)}, not {shape} as the signature says, "
                f"{trial.case.signature}"
            )
        if dtype_name(array.dtype) != trial.dtype:
            raise trial.fail(f"{what} has dtype {dtype_name(array.dtype)}, not {trial.dtype}")


def float32_agrees_with_float64(trial: LayerTrial) -> None:
    """Check that float32 gives what float64 gives, up to the rounding errors of float32.

    If the device has no float64, it is NumPy's.
    """
    has_float64 = trial.backend.has_float64
    wide = trial.on_numpy if not has_float64 else trial if trial.dtype == "float64" else None
    if wide is None or trial.made.state:  # the random numbers depend on the dtype
        return
    narrow = LayerTrial(trial.case, trial.backend, "float32")
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

    unit = narrow.unit
    # How far float32 is off is seen from float64: float32 may be where no rounding leads back from,
    # as when a variance of 0 has become a small number.
    _require(narrow, agreements, exact=wide)


class Agreement(NamedTuple):
    """Two results that are equal up to rounding; the bound holds if no terms cancel."""

    complaint: str
    actual: HostArray
    expected: HostArray
    bound: HostArray

    @property
    def difference(self) -> HostArray:
        """What is 0 but for rounding."""
        return self.actual - self.expected


def _require(
    trial: LayerTrial,
    agreements: Callable[[LayerTrial], Iterator[Agreement]],
    exact: LayerTrial | None = None,
) -> None:
    """Raise an error unless all agree, up to the rounding errors that the trial is seen to make.

    They are seen in the exact trial, when it rounds as the other does; None takes the trial itself.
    """
    for number, agreement in enumerate(agreements(trial)):
        complaint, actual, expected, bound = agreement
        if actual.shape != expected.shape:
            raise trial.fail(f"{complaint} has shape {actual.shape}, not {expected.shape}")

        def difference(trial: LayerTrial, number: int = number) -> HostArray:
            return next(islice(agreements(trial), number, None)).difference

        # Not `abs(...) > bound`, which is false for NaN.
        apart = ~(abs(agreement.difference) <= bound)
        for runs in (RUNS, MOST_RUNS):  # only where they are needed, since it is slow
            if apart.any():
                total = bound + (exact or trial).noise(difference, runs, trial.dtype)
                apart = ~(abs(agreement.difference) <= total)
        if apart.any():
            worst = tuple(int(k) for k in np.unravel_index(np.argmax(apart), apart.shape))
            raise trial.fail(
                f"{complaint} is {float(actual[worst])!r}{_within(worst)}, expected "
                f"{float(expected[worst])!r}, give or take {total[worst]:.1e}"
                f"{_why_not_finite(actual[worst])}:",
                found=actual,
                expected=expected,
            )


# The first failure is the one reported: the most telling properties come first.
PROPERTIES: tuple[Callable[[LayerTrial], object], ...] = (
    inputs_stay_as_they_are,
    dtype_shape_and_device_stay,
    backward_is_the_derivative,
    backward_is_linear,
    parameters_alone_get_the_same_gradients,
    samples_are_independent,
    a_permuted_batch_is_permuted_throughout,
    float32_agrees_with_float64,
)
