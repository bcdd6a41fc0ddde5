"""Tests of a layer: every property, on cases that Hypothesis generates and shrinks."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from xbp.backend import Backend
from xbp.layers import Layer
from xbp.registry import get_backend
from xbp.settings import positive_integer
from xbp.testing.cases import LayerCase, case_of
from xbp.testing.directions import backward_is_the_derivative_along, random_case
from xbp.testing.properties import FAST_PROPERTIES, PROPERTIES
from xbp.testing.signatures import Input, Labels, Parameter, Signature
from xbp.testing.sizes import Shape
from xbp.testing.strategies import LARGEST, layer_cases
from xbp.testing.trial import LayerTrial

__tracebackhide__ = True


def assert_gradients(
    layer: Callable[..., Layer] | Signature,
    *,
    inputs: Mapping[str, Input] | None = None,
    output: Shape | tuple[Shape, ...] | None = None,
    params: Mapping[str, Parameter] | None = None,
    reference: Callable[..., Any] | None = None,
    largest: float = LARGEST,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    backend: str | Backend | None = None,
    max_examples: int | None = None,
    examples: Iterable[Mapping[str, object]] = (),
    directions: int | None = None,
) -> None:
    """Test a layer's ``backward``: every property of `xbp.testing.properties`, on many cases.

    Parameters
    ----------
    layer
        The layer's class, or a function that returns a layer, called with the parameters by name.
        Or a `Signature`, which has the shapes: then the next four arguments are not used.
    inputs, output, params, reference
        The shapes, in named sizes, and what ``forward`` is to return, as in `Signature`. By default
        the layer has one input of shape ``("N", "D")``, an output of the same shape, and no
        parameters.
    largest
        The largest absolute value of an element. Lower it for a layer that overflows.
    sizes
        The smallest and the largest number that a named size stands for, ``{"D": (1, 40)}``. Others
        are 1 to 3, and rarely up to 9: say so of a layer that does large ones otherwise.
    backend
        Where to run the tests; None takes the selected backend.
    max_examples
        The number of cases; None takes it from the Hypothesis profile.
    examples
        Cases that are tried first: the values of each input, of each parameter, and of ``dout``, by
        name. So a case that failed is tried again each time.
    directions
        For large layers: compare the derivative along so many random directions of each array, in
        cases of random numbers, one unless max_examples says more. The first has the largest sizes
        of ``sizes``. What needs the derivative by every element is not looked at: that samples are
        independent, that backward is linear, and how precise float32 is. None proves all.

    Raises
    ------
    AssertionError
        If a property does not hold. The message names the layer and the property, and shows the
        smallest case found, both gradients, and where they differ.
    SettingError
        If the shapes are not valid: see `Signature`; or an example, or a size, is not one of the
        signature.

    Examples
    --------
    >>> from xbp.layers import Affine
    >>> assert_gradients(
    ...     Affine,
    ...     inputs={"x": ("N", "D")},
    ...     output=("N", "M"),
    ...     params={"W": ("D", "M"), "b": ("M",)},
    ...     max_examples=5,
    ... )
    """
    signature = (
        layer
        if isinstance(layer, Signature)
        else Signature(layer, inputs or {"x": ("N", "D")}, output, params or {}, reference)
    )
    backend = get_backend(backend)
    signature.fitting_sizes(signature.bounds(sizes or {}))

    for example in examples:
        prove(case_of(signature, example), backend)
    if directions is not None:
        for seed in range(max_examples or 1):
            case = random_case(signature, sizes or {}, seed, largest)
            prove_along(case, backend, positive_integer("directions", directions))
        return

    @settings(
        parent=settings.default,
        max_examples=max_examples or settings.default.max_examples,  # type: ignore[union-attr]
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(layer_cases(signature, largest=largest, sizes=sizes))
    def every_property_holds(case: LayerCase) -> None:
        prove(case, backend)

    every_property_holds()


def assert_vjp(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *,
    inputs: Mapping[str, Input] | None = None,
    output: Shape | tuple[Shape, ...] | None = None,
    reference: Callable[..., Any] | None = None,
    largest: float = LARGEST,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    backend: str | Backend | None = None,
    max_examples: int | None = None,
    examples: Iterable[Mapping[str, object]] = (),
    directions: int | None = None,
    jvp: Callable[..., Any] | None = None,
) -> None:
    """Test a pair of functions, without a layer: see `assert_gradients`.

    Parameters
    ----------
    forward
        ``forward(*inputs)`` returns the output.
    backward
        ``backward(dout, *inputs)`` returns the derivative with respect to the input, or a tuple of
        one for each: the product of dout and the Jacobian. If forward returns a tuple of outputs,
        dout is a tuple, too.
    inputs, output, reference, largest, sizes, backend, max_examples, examples, \
    directions
        As in `assert_gradients`.
    jvp
        ``jvp(tangents, *inputs)`` returns the derivative of the output along tangents, a tuple of
        one array for each input that has a derivative: the product of the Jacobian and the
        tangents. None tests backward alone.

    Raises
    ------
    AssertionError, SettingError
        As in `assert_gradients`.

    Examples
    --------
    >>> assert_vjp(lambda x: x * x, lambda dout, x: 2 * dout * x, max_examples=5)
    """

    class Pair(Layer):
        def forward(self, *inputs: Any) -> Any:
            self.inputs = inputs
            return forward(*inputs)

        def backward(self, *douts: Any) -> Any:
            return backward(douts if len(douts) > 1 else douts[0], *self.inputs)

    class WithForwardMode(Pair):
        def jvp(self, *tangents: Any) -> Any:
            return jvp(tangents, *self.inputs)  # type: ignore[misc]

    kind = Pair if jvp is None else WithForwardMode
    kind.takes_integers = isinstance(next(iter((inputs or {}).values()), None), Labels)
    kind.__name__ = kind.name = getattr(forward, "__name__", type(forward).__name__)
    assert_gradients(
        kind,
        inputs=inputs,
        output=output,
        reference=reference,
        largest=largest,
        sizes=sizes,
        backend=backend,
        max_examples=max_examples,
        examples=examples,
        directions=directions,
    )


def prove(case: LayerCase, backend: Backend) -> None:
    """Raise `AssertionError` unless every property holds for one case, in each dtype."""
    with backend.scope():
        for dtype in ("float64", "float32") if backend.has_float64 else ("float32",):
            trial = LayerTrial(case, backend, dtype)
            for holds in PROPERTIES:
                holds(trial)


def prove_along(case: LayerCase, backend: Backend, directions: int) -> None:
    """Raise `AssertionError` unless what is fast to see of a large case holds, in each dtype."""
    with backend.scope():
        for dtype in ("float64", "float32") if backend.has_float64 else ("float32",):
            trial = LayerTrial(case, backend, dtype)
            backward_is_the_derivative_along(trial, directions)
            for holds in FAST_PROPERTIES:
                holds(trial)
