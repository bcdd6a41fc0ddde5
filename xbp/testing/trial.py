"""A layer under test: made from a case on a backend, with its results as NumPy arrays."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from xbp.backend import Backend
from xbp.differences import noise_of
from xbp.errors import SettingError
from xbp.layers import Layer
from xbp.namespace import Array, is_array
from xbp.recording import values
from xbp.registry import get_backend
from xbp.settings import without_base
from xbp.testing.cases import LayerCase, shown
from xbp.testing.domains import HostArray, Labels, rounded
from xbp.testing.layouts import AS_IT_IS, LAYOUTS
from xbp.testing.rounding import RoughArithmetic
from xbp.testing.state import LayerState, moved_state, place_state, state_of, with_other_keys

__tracebackhide__ = True

# More roundings than a layer does to one element, apart from those of its sums.
OPERATIONS = 64

# How often a layer is run to see its rounding errors, at first and at most.
RUNS = 8
MOST_RUNS = 32

# How many trials are made of numbers close by, at what relative distance, so that equal numbers
# hardly become equal ones, and what is added to each, also to 0.
_CLOSE_BY = 16
DISTANCES = {"float32": 1e-4, "float64": 1e-10}
_SHIFTS = {"float32": 1e-30, "float64": 1e-200}

# How many times the root of their mean square is a bound of them.
SPREADS = 4.0


class LayerTrial:
    """A layer and its inputs on a backend.

    Parameters
    ----------
    case
        The values of the arrays.
    backend
        The backend that the arrays are made on.
    dtype
        ``"float32"`` or ``"float64"``.
    layer
        A layer that has been used before; None makes a new one.
    layout
        ``"transposed"``, ``"reversed"`` or ``"strided"``: the arrays are such views. None takes
        whole arrays.
    state
        The layer's state before each forward; None takes what it has now.

    Attributes
    ----------
    layer : Layer
    inputs : list of Array
        What ``layer.forward`` takes.
    slopes : dict
        What `xbp.testing.ties` has computed, by the step.
    place, seen_on : str
        For messages: the backend and the device that the layer is tested on; and another where it
        is seen, after a comma.
    """

    def __init__(
        self,
        case: LayerCase,
        backend: Backend,
        dtype: str,
        layer: Layer | None = None,
        layout: str | None = None,
        state: LayerState | None = None,
    ) -> None:
        self.case = case
        self.backend = backend
        self.dtype = dtype
        self.layout = layout
        self.place = f"{backend.name}:{backend.device}"
        self.seen_on = ""
        self.arrays = {name: self.put(name, value) for name, value in case.arrays.items()}
        params = {name: self.arrays[name] for name in case.signature.params}
        self.layer: Layer = layer or self.make(params)
        self.state = state_of(self.layer) if state is None else state
        self.inputs = [self.arrays[name] for name in case.signature.inputs]
        self._rough_trials: dict[str, list[LayerTrial]] = {}
        self._rows: dict[int, dict[str, HostArray]] = {}
        self.slopes: dict[float, tuple[HostArray, HostArray]] = {}

    def __repr__(self) -> str:
        return f"{self.title} {self.dtype}\n{self.case}"

    @property
    def title(self) -> str:
        """The layer's name and the backend, for messages."""
        # What makes the layer may be a function without a name of its own.
        layer = getattr(self, "layer", None)
        name = self.case.signature.name if layer is None else type(layer).__name__
        return f"{name} on {self.place}"

    def fail(self, complaint: str, **details: HostArray) -> AssertionError:
        """Return the error with the layer, the complaint, the details and the case in it."""
        details_text = f"{shown(details)}\n" if details else ""
        return AssertionError(
            f"{self.title}, {self.dtype}{self.seen_on}: {complaint}\n{details_text}"
            f"{self.case.described()}"
        )

    # Running it ----------------------------------------------------------------------------------

    def make(self, params: Mapping[str, Array]) -> Layer:
        """Return a new layer with these parameters."""
        make, options = self.case.signature.make, self.case.options
        made = self._attempt("making the layer", lambda: make(**params, **options))
        if not isinstance(made, Layer):
            raise SettingError(
                f"{self.case.signature.name}: a layer is made for each case, not "
                f"{without_base(made, Layer)}"
            )
        return made

    def forward(self, moved: Mapping[str, HostArray] | None = None) -> HostArray:
        """Return the output on the host, for the case's arrays or with some of them replaced."""
        if not moved:
            return self._whole(self.forward_on_device())
        arrays = {**self.arrays, **{name: self.put(name, value) for name, value in moved.items()}}
        layer = self.make({name: arrays[name] for name in self.case.signature.params})
        place_state(layer, self.state)
        inputs = [arrays[name] for name in self.case.signature.inputs]
        return self._whole(self._outputs(self._attempt("forward", layer.forward, *inputs)))

    def forward_on_device(self) -> list[Array]:
        """Return the outputs as the layer returns them; fail unless they have their shapes."""
        place_state(self.layer, self.state)
        outputs = self._outputs(self._attempt("forward", self.layer.forward, *self.inputs))
        for what, output, expected in zip(
            self.output_names, outputs, map(np.shape, self.case.douts()), strict=True
        ):
            if (shape := tuple(getattr(output, "shape", ()))) != expected:
                raise self.fail(
                    f"{what} has shape {shape}, not {expected} as the signature says, "
                    f"{self.case.signature}"
                )
        return outputs

    @property
    def output_names(self) -> list[str]:
        """The outputs as they are called in messages."""
        count = len(self.case.signature.outputs)
        return ["the output"] if count == 1 else [f"output {number}" for number in range(count)]

    def output_at(self, number: int) -> str:
        """Return what an element is called, of the outputs side by side: ``"output[0, 1]"``."""
        numbers = np.arange(self.case.dout.size).reshape(self.case.dout.shape)
        for name, part in zip(self.output_names, self.case.parts(numbers), strict=True):
            if number in part:
                index = np.argwhere(part == number)[0]
                return f"{name.removeprefix('the ')}{at(tuple(map(int, index)))}"
        raise IndexError(number)

    def _outputs(self, returned: Any) -> list[Array]:
        count = len(self.case.signature.outputs)
        if not self.case.signature.returns_tuple:
            return [returned]
        if not isinstance(returned, tuple | list) or len(returned) != count:
            kind = type(returned).__name__
            what = f"{kind} of {len(returned)}" if kind in {"tuple", "list"} else kind
            raise self.fail(f"forward returned {what}: the signature says a tuple of {count}")
        return list(returned)

    def _whole(self, outputs: list[Array]) -> HostArray:
        return self.case.whole([self.host(output, "forward") for output in outputs])

    def backward(self, dout: HostArray) -> dict[str, HostArray]:
        """Return the derivatives on the host, by the name of the array; call `forward` first."""
        return {
            name: self.host(gradient, f"the derivative with respect to {name}")
            for name, gradient in self.backward_on_device(self.put_dout(dout)).items()
        }

    def results(self) -> dict[str, HostArray]:
        """Return the output, under ``""``, and the derivatives by the name of the array."""
        output = self.forward()
        return {"": output, **self.backward(self.case.dout)}

    @cached_property
    def expected(self) -> dict[str, HostArray]:
        """The `results` of a new layer, computed once."""
        return self.again(self.case).results()

    def backward_on_device(self, douts: Sequence[Array]) -> dict[str, Array]:
        """Return the derivatives as the layer returns them, by the name of the array."""
        returned = self._attempt("backward", self.layer.backward, *douts)
        return {**dict(self._derivatives(returned)), **self._gradients_left()}

    def _derivatives(self, returned: Any) -> Iterator[tuple[str, Array]]:
        """Yield the derivatives with respect to the inputs, and the name of each.

        There is one for each differentiable input; or one for each input, None for the others.
        """
        signature = self.case.signature
        inputs, names = list(signature.inputs), signature.differentiable
        gradients = list(returned) if isinstance(returned, tuple | list) else [returned]
        if returned is None and not names:
            return
        if len(gradients) == len(names):
            inputs = names
        if len(gradients) != len(inputs):
            raise self.fail(
                f"backward returned {len(gradients)} derivatives: one is needed for each of "
                f"{', '.join(names) or 'no input'}"
            )
        for name, gradient in zip(inputs, gradients, strict=True):
            is_none = gradient is None or "float0" in str(getattr(gradient, "dtype", ""))
            if name in names and is_none:
                raise self.fail(
                    f"backward returned None for {name}: it is Fixed in the signature, if it has "
                    "no derivative"
                )
            if name not in names and not is_none:
                raise self.fail(
                    f"backward returned a derivative with respect to {name}, which has none in the "
                    "signature: return None in its place, or nothing"
                )
            if name in names:
                yield name, gradient

    def backward_params(self, dout: HostArray) -> dict[str, HostArray]:
        """Return on the host the gradients that ``backward_params`` leaves in the layer."""
        gradients = self.backward_params_on_device(self.put_dout(dout))
        return {name: self.host(value, name) for name, value in gradients.items()}

    def backward_params_on_device(self, douts: Sequence[Array]) -> dict[str, Array]:
        """Return the gradients that ``backward_params`` leaves in the layer, by name."""
        self._attempt("backward_params", self.layer.backward_params, *douts)
        return self._gradients_left()

    def state_after(self) -> dict[str, HostArray]:
        """Return on the host what the layer carries after a call of ``forward``."""
        self.forward()
        return {
            key: self.host(self.backend.asarray(value), f"the state {key}")
            for key, value in state_of(self.layer).items()
        }

    def jvp(self, tangents: Mapping[str, HostArray]) -> HostArray:
        """Return the derivative of the output along tangents of the differentiable inputs."""
        moves = {name: self.put(name, tangent) for name, tangent in tangents.items()}
        return self._whole(self.jvp_on_device(moves))

    def jvp_on_device(self, tangents: Mapping[str, Array]) -> list[Array]:
        """Return the same as the layer returns it, for tangents on the device."""
        jvp: Any = getattr(self.layer, "jvp")  # noqa: B009  few layers have one
        return self._outputs(self._attempt("jvp", jvp, *tangents.values()))

    def _gradients_left(self) -> dict[str, Array]:
        gradients: dict[str, Array] = self._attempt("grads", lambda: dict(self.layer.grads))
        params = self.case.signature.params
        if params.keys() ^ gradients.keys():
            raise self.fail(
                f"the signature's parameters are {', '.join(params) or 'none'}, those in the "
                f"layer's param_names are {', '.join(gradients) or 'none'}"
            )
        return gradients

    def host(self, value: Array, what: str) -> HostArray:
        """Return an array of the backend as a NumPy array of float64."""
        try:
            return np.array(self.backend.to_numpy(value), dtype=np.float64)
        except Exception as error:
            raise self.fail(f"{what} gave {value!r}, no array of the backend") from error

    def _attempt(self, what: str, function: object, *args: object) -> Array:
        try:
            return function(*args)  # type: ignore[operator]
        except Exception as error:
            why = "; the arrays it is given are not to be changed" if _is_refusal(error) else ""
            raise self.fail(f"{what} raised {type(error).__name__}: {error}{why}") from error

    def put_dout(self, dout: HostArray) -> list[Array]:
        """Return the upstream derivatives on the backend, one for each output."""
        return [self.put("", part) for part in self.case.parts(dout)]

    def put(self, name: str, value: HostArray) -> Array:
        """Return an array on the backend, labels in int64, others in the trial's dtype.

        On NumPy it is read-only. The upstream derivative has no name.
        """
        kind = self.case.signature.inputs.get(name)
        dtype = "int64" if isinstance(kind, Labels) else self.dtype
        whole, view = LAYOUTS.get(self.layout or "", AS_IT_IS)
        array = view(self.backend.asarray(whole(np.array(value)), dtype))
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
        return array

    # Results and tolerances ----------------------------------------------------------------------

    @cached_property
    def output(self) -> HostArray:
        """The output for the case's arrays."""
        return self.forward()

    @cached_property
    def jacobian(self) -> dict[str, HostArray]:
        """The derivative of each output with respect to each element, according to ``backward``.

        For each name an array of shape ``(outputs, *shape of the array)``: its rows are the results
        of ``backward`` for the unit vectors.
        """
        shape = self.forward().shape
        rows = [
            self.backward(unit.reshape(shape)) for unit in np.eye(int(np.prod(shape, dtype=int)))
        ]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def row(self, number: int) -> dict[str, HostArray]:
        """Return one row of `jacobian`, which is not computed for it."""
        if number not in self._rows:
            unit = np.zeros(self.forward().shape)
            unit.reshape(-1)[number] = 1
            self._rows[number] = self.backward(unit)
        return self._rows[number]

    @cached_property
    def unit(self) -> float:
        """A bound of the rounding error that a layer adds to a number of size 1."""
        return self._unit_of(OPERATIONS)

    @cached_property
    def unit_of_differences(self) -> float:
        """The same in difference quotients; in float32, for no more operations than the sums."""
        return self.unit if self.dtype == "float64" else self._unit_of(0)

    def _unit_of(self, operations: int) -> float:
        # No sum has more terms than an array has elements.
        longest_sum = max(value.size for value in self.case.arrays.values())
        return noise_of(self._epsilon_of(self.dtype), operations + longest_sum, 1.0)

    @cached_property
    def magnitude(self) -> HostArray:
        """The size of the terms that each output is a sum of: see `xbp.differences.noise_of`."""
        magnitude = 1 + abs(self.output).reshape(-1)
        for name, rows in self.jacobian.items():
            with np.errstate(all="ignore"):  # an infinite derivative with respect to 0
                products = abs(rows * self.case.arrays[name])
            magnitude = magnitude + products.reshape(len(rows), -1).sum(axis=1)
        return magnitude

    def rounding(self, name: str) -> HostArray:
        """Return a bound, for each element, of the rounding error of a derivative.

        It holds if no terms cancel in ``backward``; if they may, add `noise`.
        """
        return self.unit * chained(abs(self.case.dout), 1 + abs(self.jacobian[name]))

    def noise(
        self,
        result: Callable[["LayerTrial"], HostArray],
        runs: int,
        *,
        dtype: str | None = None,
        plain: "LayerTrial | None" = None,
    ) -> HostArray:
        """Return how far a result lies apart from itself when each operation rounds otherwise.

        It rounds as in the given dtype; None takes that of the trial. Of a layer that cannot be run
        so, it is how far the result moves when each number of the case is rounded so. The plain
        trial is one of a new layer, as those are that round otherwise; None makes one.
        """
        exact = result(plain or self.again(self.case))
        with np.errstate(all="ignore"):
            apart = self.rounded_otherwise(result, runs, dtype) - exact
            far = SPREADS * np.sqrt(np.mean(apart**2, axis=0))
        return np.asarray(np.where(np.isnan(far) & ~np.isnan(exact), np.inf, far))

    def rounded_otherwise(
        self, result: Callable[["LayerTrial"], HostArray], runs: int, dtype: str | None = None
    ) -> HostArray:
        """Return what a result is in so many runs in which each operation rounds otherwise."""
        return np.stack([result(rough) for rough in self._rough(runs, dtype)])

    @cached_property
    def close_by(self) -> "list[LayerTrial]":
        """Trials in which each number, of the case and computed, is a little more or less.

        So nothing ties, and nothing is at a threshold.
        """
        distance, shift = DISTANCES[self.dtype], _SHIFTS[self.dtype]
        if not self.takes_traced:
            return [self.nudged(distance, seed, shift) for seed in range(_CLOSE_BY)]
        # First those of all results that are more, and less.
        signs = [1, -1, *[0] * (_CLOSE_BY - 2)]
        return [
            RoughTrial(
                self.case, self.backend, self.dtype, distance, seed, shift, sign, state=self.state
            )
            for seed, sign in enumerate(signs)
        ]

    def is_said_close_by(self, number: float, result: Callable[["LayerTrial"], float]) -> bool:
        """Tell whether a number is among those that a result is in the trials close by.

        So is the derivative by a layer of rectifiers that are fed the same 0: each takes one of its
        two slopes, and together they need not give what lies between the slopes of their sum.
        """
        results = [result(trial) for trial in self.close_by]
        low, high = min(results), max(results)
        margin = 1e3 * DISTANCES[self.dtype] * max(abs(low), abs(high), abs(number))
        return low - margin <= number <= high + margin

    @cached_property
    def plain(self) -> "LayerTrial":
        """A trial of a new layer, for results that are computed once."""
        return self.again(self.case)

    def _rough(self, runs: int, dtype: str | None) -> list["LayerTrial"]:
        trials = self._rough_trials.setdefault(dtype or self.dtype, [])
        epsilon = self._epsilon_of(dtype or self.dtype)
        for seed in range(len(trials), runs):
            if self.takes_traced:
                trials.append(self._rough_trial(epsilon, seed))
            else:
                trials.append(self.nudged(OPERATIONS * epsilon, seed))
        return trials[:runs]

    @cached_property
    def on_numpy(self) -> "LayerTrial | None":
        """The trial of the same case on NumPy, in float64; None if the layer does not run there."""
        trial = self.elsewhere("numpy", "float64")
        return trial if trial and trial.runs else None

    def elsewhere(self, spec: str, dtype: str) -> "LayerTrial | None":
        """Return a trial of the same case on another backend; None if no layer can be made there.

        In a message its place is named as one where the layer of this backend is seen.
        """
        with suppress(AssertionError):
            trial = self.on(get_backend(spec), dtype)
            trial.place, trial.seen_on = self.place, f", seen on {trial.place}"
            return trial
        return None

    def on(self, backend: Backend, dtype: str) -> "LayerTrial":
        """Return a trial of the same case and state on a backend, in a dtype."""
        state = moved_state(self.state, self.backend, backend, dtype)
        return LayerTrial(self.case, backend, dtype, state=state)

    def with_other_keys(self) -> "LayerTrial | None":
        """Return a trial whose random numbers are others; None if the state holds no key."""
        state = with_other_keys(self.state)
        if state is None:
            return None
        return LayerTrial(self.case, self.backend, self.dtype, state=state)

    def results_on_device(self) -> dict[str, tuple[Array, tuple[int, ...]]]:
        """Return all that the layer returns for the case, as it is: by name, with its shape."""
        outputs, shapes = self.forward_on_device(), map(np.shape, self.case.douts())
        douts = self.put_dout(self.case.dout)
        results = dict(zip(self.output_names, zip(outputs, shapes, strict=True), strict=True))
        gradients = {"": self.backward_on_device(douts)}
        if self.case.signature.params:
            self.forward_on_device()
            gradients[" that backward_params leaves"] = self.backward_params_on_device(douts)
        for whose, by_name in gradients.items():
            for name, gradient in by_name.items():
                what = f"the derivative with respect to {name}{whose}"
                results[what] = gradient, self.case.arrays[name].shape
        if hasattr(self.layer, "jvp"):
            self.forward_on_device()
            tangents = {name: self.arrays[name] for name in self.case.signature.differentiable}
            for what, output, dout in zip(
                self.output_names, self.jvp_on_device(tangents), self.case.douts(), strict=True
            ):
                results[f"the derivative of {what} by jvp"] = output, dout.shape
        return results

    @property
    def runs(self) -> bool:
        """Whether forward and backward raise no error, and return arrays of the backend."""
        with suppress(AssertionError), self.backend.scope():
            results = self.results_on_device().values()
            return all(self.backend.owns(array) for array, _ in results)
        return False

    @cached_property
    def takes_traced(self) -> bool:
        """Whether the layer computes with functions of the namespace alone, and asks no values."""
        try:
            self._rough_trial(0.0, 0).results()
        except Exception:  # whatever it raises, it cannot
            return False
        return True

    def _rough_trial(self, epsilon: float, seed: int) -> "RoughTrial":
        return RoughTrial(self.case, self.backend, self.dtype, epsilon, seed, state=self.state)

    def _epsilon_of(self, dtype: str) -> float:
        return float(self.backend.xp.finfo(self.backend.dtype(dtype)).eps)

    # Trials of other cases -----------------------------------------------------------------------

    def again(
        self, case: LayerCase, layer: Layer | None = None, layout: str | None = None
    ) -> "LayerTrial":
        """Return a trial of another case, on the same backend, in the same dtype and state."""
        return LayerTrial(case, self.backend, self.dtype, layer, layout, self.state)

    def refilled(self, earlier: "LayerTrial") -> "LayerTrial | None":
        """Return the trial of this case in the arrays of an earlier one, and with its layer.

        The earlier one has seen its own numbers in them. None, if the library's arrays do not
        change.
        """
        trial = self.again(self.case, earlier.layer)
        earlier.results()
        try:
            for kept, new in zip(*map(values, (earlier.inputs, trial.inputs)), strict=True):
                if isinstance(kept, np.ndarray):
                    kept.flags.writeable = True
                kept[...] = new
        except Exception:  # each library raises an error of its own
            return None
        trial.inputs = earlier.inputs
        return trial

    def nudged(self, distance: float, seed: int, shift: float = 0.0) -> "LayerTrial":
        """Return the trial with each number changed by up to a relative distance, randomly.

        And by up to a shift, also what is 0.
        """
        chance = np.random.default_rng(seed)
        arrays = {
            name: value * (1 + distance * chance.uniform(-1, 1, value.shape))
            + shift * chance.uniform(-1, 1, value.shape)
            if self.is_differentiable(name)
            else value
            for name, value in self.case.arrays.items()
        }
        # A kernel rounds what it is given upstream, too.
        dout = self.case.dout * (1 + distance * chance.uniform(-1, 1, self.case.dout.shape))
        return self.again(replace(self.case, arrays=arrays, dout=np.asarray(dout)))

    def beside(self) -> "LayerTrial":
        """Return a trial of numbers of float32 that are close by, a few steps of float32 away."""
        chance = np.random.default_rng(0)
        arrays = {
            name: rounded(value * (1 + 2.0**-20 * chance.choice([-1, 1], value.shape)))
            if self.is_differentiable(name)
            else value
            for name, value in self.case.arrays.items()
        }
        return self.again(replace(self.case, arrays=arrays))

    def is_differentiable(self, name: str) -> bool:
        """Tell whether ``backward`` returns the derivative with respect to the named array."""
        signature = self.case.signature
        return name in signature.differentiable or name in signature.params


class RoughTrial(LayerTrial):
    """A trial in which each operation is rounded otherwise: see `RoughArithmetic`."""

    def __init__(
        self,
        case: LayerCase,
        backend: Backend,
        dtype: str,
        epsilon: float,
        seed: int,
        shift: float = 0.0,
        sign: int = 0,
        *,
        layer: Layer | None = None,
        layout: str | None = None,
        state: LayerState | None = None,
    ) -> None:
        self._arithmetic = RoughArithmetic(backend, epsilon, seed, shift, sign)
        self._seeds = np.random.default_rng(seed)
        super().__init__(case, backend, dtype, layer, layout, state)
        self.state = {
            key: self._arithmetic.traced(values(value)) if is_array(value) else value
            for key, value in self.state.items()
        }

    def again(
        self, case: LayerCase, layer: Layer | None = None, layout: str | None = None
    ) -> LayerTrial:
        """Return a trial of another case, which rounds as roughly, and otherwise each time."""
        rough, seed = self._arithmetic, int(self._seeds.integers(2**62))
        return RoughTrial(
            case,
            self.backend,
            self.dtype,
            rough.epsilon,
            seed,
            rough.shift,
            rough.sign,
            layer=layer,
            layout=layout,
            state=self.state,
        )

    def put(self, name: str, value: HostArray) -> Array:
        """Return an array on the backend that computes roughly."""
        array, rough = super().put(name, value), self._arithmetic
        if rough.shift and name and self.is_differentiable(name):
            array = rough.shifted(rough.moved(array), rough.shift)
        return rough.traced(array)

    def forward_on_device(self) -> list[Array]:
        """Return the outputs as the layer returns them; fail unless they have their shapes."""
        self._arithmetic.start()
        return super().forward_on_device()

    def host(self, value: Array, what: str) -> HostArray:
        """Return what was computed as a NumPy array of float64."""
        return super().host(values(value), what)


def _is_refusal(error: Exception) -> bool:
    """Tell whether NumPy refused to write to what `LayerTrial.put` has made read-only."""
    return "read-only" in str(error)


def chained(dout: HostArray, rows: HostArray) -> HostArray:
    """Return the derivative with respect to an array: dout times the Jacobian, by the chain rule.

    The shapes are those of the outputs, and ``(outputs, *shape of the array)``.
    """
    with np.errstate(all="ignore"):  # an infinite derivative, and a dout of 0
        return np.asarray(np.tensordot(dout.reshape(-1), rows, axes=1))


def at(index: tuple[int, ...]) -> str:
    """Return ``"[i, j]"`` for an index; nothing for a 0-d array."""
    return str(list(index)) if index else ""
