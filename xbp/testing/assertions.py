"""Tests of a layer: every property, on cases that Hypothesis generates and shrinks."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy

from xbp.backend import Backend
from xbp.errors import SettingError
from xbp.layers import Layer
from xbp.registry import get_backend
from xbp.settings import positive_integer
from xbp.testing.cases import LayerCase
from xbp.testing.directions import backward_is_the_derivative_along, random_case
from xbp.testing.domains import Input, Labels, Parameter, is_differentiable
from xbp.testing.examples import cases_of
from xbp.testing.proof import Differences, Proof
from xbp.testing.properties import FAST_PROPERTIES, PROPERTIES
from xbp.testing.signatures import Option, Signature
from xbp.testing.sizes import Shape
from xbp.testing.strategies import LARGEST, check_largest, layer_cases, portions
from xbp.testing.trial import LayerTrial

__tracebackhide__ = True


def assert_gradients(
    layer: Callable[..., Layer] | Signature,
    *,
    inputs: Mapping[str, Input] | None = None,
    output: Shape | tuple[Shape, ...] | None = None,
    params: Mapping[str, Parameter] | None = None,
    reference: Callable[..., Any] | None = None,
    options: Mapping[str, Option] | None = None,
    largest: float = LARGEST,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    backend: str | Backend | None = None,
    max_examples: int | None = None,
    examples: Iterable[Mapping[str, object]] = (),
    directions: int | None = None,
) -> Proof:
    """Test a layer's ``backward``: every property of `xbp.testing.properties`, on many cases.

    Parameters
    ----------
    layer
        The layer's class, or a function that returns a layer, called with the parameters by name.
        Or a `Signature`, which says all that the next five arguments do.
    inputs, output, params, reference, options
        The shapes, in named sizes, what ``forward`` is to return, and what the layer is made with
        beside its parameters, as in `Signature`. By default the layer has one input of shape
        ``("N", "D")``, an output of the same shape, and neither parameters nor options.
    largest
        The largest absolute value of an element, 1e-5 to 1e6. Lower it for a layer that overflows.
    sizes
        The smallest and the largest number that a named size stands for, ``{"D": (1, 40)}``. Others
        are 1 to 3, and in one of five cases one of them is 4 to 9: say so of a layer that does
        large ones otherwise.
    backend
        Where to run the tests; None takes the selected backend.
    max_examples
        The number of cases; None takes it from the Hypothesis profile.
    examples
        Cases that are tried first: the values of each input, parameter and option, and of ``dout``,
        by name; of ``upstream_dout``, if an input is called ``dout``. Of several outputs it is all
        of them side by side, for each sample if there are any. So a case that failed is tried again
        each time.
    directions
        For large layers: compare the derivative along so many random directions of each array, in
        cases of random numbers, one unless max_examples says more. The first has the largest sizes
        of ``sizes``. What needs the derivative by every element is not looked at: that samples are
        independent, that backward is linear, and how precise float32 is. None proves all.

    Returns
    -------
    Proof
        What was compared, and which faults would have been found.

    Raises
    ------
    AssertionError
        If a property does not hold. The message names the layer and the property, and shows the
        smallest case found, both gradients, and where they differ.
    SettingError
        If the shapes are not valid: see `Signature`; or an example, or a size, is not one of the
        signature; or `largest` is none; or a signature and what it decides are both given.

    Examples
    --------
    >>> from xbp.layers import Affine
    >>> proof = assert_gradients(
    ...     Affine,
    ...     inputs={"x": ("N", "D")},
    ...     output=("N", "M"),
    ...     params={"W": ("D", "M"), "b": ("M",)},
    ...     max_examples=5,
    ... )
    >>> proof.cases
    5
    """
    signature = (
        _alone(
            layer, inputs=inputs, output=output, params=params, reference=reference, options=options
        )
        if isinstance(layer, Signature)
        else Signature(
            layer,
            {"x": ("N", "D")} if inputs is None else inputs,
            output,
            {} if params is None else params,
            reference,
            {} if options is None else options,
        )
    )
    backend = get_backend(backend)
    if max_examples is not None:
        positive_integer("max_examples", max_examples)
    signature.require_make()
    signature.fitting_sizes(signature.bounds(sizes or {}))
    check_largest(largest)

    found: list[Differences] = [prove(case, backend) for case in cases_of(signature, examples)]
    title = f"{signature.name} on {backend.name}:{backend.device}"
    if directions is not None:
        count = positive_integer("directions", directions)
        for seed in range(max_examples or 1):
            case = random_case(signature, sizes or {}, seed, largest)
            found.append(prove_along(case, backend, count))
        return Proof.of(title, found)

    count = max_examples or settings.default.max_examples  # type: ignore[union-attr]
    for is_large, share in portions(count).items():
        cases = layer_cases(signature, largest=largest, sizes=sizes, is_large=is_large)
        _for_each(signature.name, cases, share, lambda case: found.append(prove(case, backend)))
    return Proof.of(title, found)


def _for_each(
    name: str, cases: SearchStrategy[LayerCase], count: int, function: Callable[[LayerCase], None]
) -> None:
    """Call a function with so many cases; if it raises an error, with the smallest that does."""

    @settings(
        parent=settings.default,
        max_examples=count,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(cases)
    def every_property_holds(case: LayerCase) -> None:
        function(case)

    try:
        every_property_holds()
    except Unsatisfiable as error:
        raise SettingError(
            f"{name}: hardly any case can be drawn: let the strategies of its arrays filter less"
        ) from error


def _alone(signature: Signature, **others: object) -> Signature:
    """Return a signature; raise `SettingError` if there is another argument that it decides."""
    for name, value in others.items():
        if value is not None:
            raise SettingError(f"{signature.name}: its Signature says {name}=: say it there alone")
    return signature


def assert_vjp(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *,
    inputs: Mapping[str, Input] | None = None,
    output: Shape | tuple[Shape, ...] | None = None,
    reference: Callable[..., Any] | None = None,
    options: Mapping[str, Option] | None = None,
    largest: float = LARGEST,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    backend: str | Backend | None = None,
    max_examples: int | None = None,
    examples: Iterable[Mapping[str, object]] = (),
    directions: int | None = None,
    jvp: Callable[..., Any] | None = None,
) -> Proof:
    """Test a pair of functions, without a layer: see `assert_gradients`.

    Parameters
    ----------
    forward
        ``forward(*inputs, **options)`` returns the output.
    backward
        ``backward(dout, *inputs, **options)`` returns the derivative with respect to the input, or
        a tuple of one for each that has one: the product of dout and the Jacobian. If forward
        returns a tuple of outputs, dout is a tuple, too.
    inputs, output, reference, options, largest, sizes, backend, max_examples, examples, \
    directions
        As in `assert_gradients`.
    jvp
        ``jvp(tangents, *inputs, **options)`` returns the derivative of the output along tangents, a
        tuple of one array for each input that has a derivative: the product of the Jacobian and the
        tangents. None tests backward alone.

    Returns
    -------
    Proof
        As of `assert_gradients`.

    Raises
    ------
    AssertionError, SettingError
        As in `assert_gradients`.

    Examples
    --------
    >>> proof = assert_vjp(lambda x: x * x, lambda dout, x: 2 * dout * x, max_examples=5)
    """
    for name, function in (("forward", forward), ("backward", backward), ("jvp", jvp)):
        if not callable(function) and (name, function) != ("jvp", None):
            raise SettingError(f"assert_vjp: {name} is a function of arrays, not {function!r}")
    kind = layer_of_functions(forward, backward, jvp, inputs)
    return assert_gradients(
        kind,
        inputs=inputs,
        output=output,
        reference=reference,
        options=options,
        largest=largest,
        sizes=sizes,
        backend=backend,
        max_examples=max_examples,
        examples=examples,
        directions=directions,
    )


def layer_of_functions(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    jvp: Callable[..., Any] | None = None,
    inputs: Mapping[str, Input] | None = None,
) -> type[Layer]:
    """Return the class of layers that call these functions: see `assert_vjp`."""
    kinds = list(inputs.values()) if isinstance(inputs, Mapping) else []
    differentiable = [is_differentiable(it) for it in kinds]

    def in_their_places(returned: Any) -> Any:
        """Return one derivative for each input, None for those that have none."""
        derivatives = returned if isinstance(returned, tuple | list) else (returned,)
        if len(derivatives) != sum(differentiable) or all(differentiable):
            return returned
        of = iter(derivatives)
        return tuple(next(of) if has_one else None for has_one in differentiable)

    class Pair(Layer):
        def __init__(self, **options: Any) -> None:
            self.options = options

        def forward(self, *inputs: Any) -> Any:
            self.inputs = inputs
            return forward(*inputs, **self.options)

        def backward(self, *douts: Any) -> Any:
            dout = douts if len(douts) > 1 else douts[0]
            return in_their_places(backward(dout, *self.inputs, **self.options))

    class WithForwardMode(Pair):
        def jvp(self, *tangents: Any) -> Any:
            return jvp(tangents, *self.inputs, **self.options)  # type: ignore[misc]

    kind = Pair if jvp is None else WithForwardMode
    kind.takes_integers = bool(kinds) and isinstance(kinds[0], Labels)
    kind.__name__ = kind.name = getattr(forward, "__name__", type(forward).__name__)
    return kind


def prove(case: LayerCase, backend: Backend) -> Differences:
    """Raise `AssertionError` unless every property holds for one case, in each dtype."""
    differences = Differences()
    with backend.scope(), np.errstate(all="ignore"):  # results are judged, not warnings
        for dtype in ("float64", "float32") if backend.has_float64 else ("float32",):
            trial = LayerTrial(case, backend, dtype)
            for holds in PROPERTIES:
                if found := holds(trial):
                    differences.add(found)
    return differences


def prove_along(case: LayerCase, backend: Backend, directions: int) -> Differences:
    """Raise `AssertionError` unless what is fast to see of a large case holds, in each dtype."""
    differences = Differences()
    with backend.scope(), np.errstate(all="ignore"):  # results are judged, not warnings
        for dtype in ("float64", "float32") if backend.has_float64 else ("float32",):
            trial = LayerTrial(case, backend, dtype)
            differences.add(backward_is_the_derivative_along(trial, directions))
            for holds in FAST_PROPERTIES:
                holds(trial)
    return differences
