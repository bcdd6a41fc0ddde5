"""Tests of a layer: every property, on cases that Hypothesis generates and shrinks."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from xbp.backend import Backend
from xbp.layers import Layer
from xbp.registry import get_backend
from xbp.testing.cases import LayerCase, case_of
from xbp.testing.properties import PROPERTIES
from xbp.testing.signatures import Input, Shape, Signature
from xbp.testing.strategies import LARGEST, layer_cases
from xbp.testing.trial import LayerTrial

__tracebackhide__ = True


def assert_gradients(
    layer: Callable[..., Layer] | Signature,
    *,
    inputs: Mapping[str, Input] | None = None,
    output: Shape | None = None,
    params: Mapping[str, Shape] | None = None,
    largest: float = LARGEST,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    backend: str | Backend | None = None,
    max_examples: int | None = None,
    examples: Iterable[Mapping[str, object]] = (),
) -> None:
    """Test a layer's ``backward``: every property of `xbp.testing.properties`, on many cases.

    Parameters
    ----------
    layer
        The layer's class, or a function that returns a layer, called with the parameters by name.
        Or a `Signature`, which has the shapes: then the next three arguments are not used.
    inputs, output, params
        The shapes, in named sizes, as in `Signature`. By default the layer has one input of shape
        ``("N", "D")``, an output of the same shape, and no parameters.
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
        else Signature(layer, inputs or {"x": ("N", "D")}, output, params or {})
    )
    backend = get_backend(backend)
    signature.bounds(sizes or {})

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

    for example in examples:
        prove(case_of(signature, example), backend)
    every_property_holds()


def assert_vjp(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *,
    inputs: Mapping[str, Input] | None = None,
    output: Shape | None = None,
    largest: float = LARGEST,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    backend: str | Backend | None = None,
    max_examples: int | None = None,
    examples: Iterable[Mapping[str, object]] = (),
) -> None:
    """Test a pair of functions, without a layer: see `assert_gradients`.

    Parameters
    ----------
    forward
        ``forward(*inputs)`` returns the output.
    backward
        ``backward(dout, *inputs)`` returns the derivative with respect to the input, or a tuple of
        one for each: the product of dout and the Jacobian.
    inputs, output, largest, sizes, backend, max_examples, examples
        As in `assert_gradients`.

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

        def backward(self, dout: Any) -> Any:
            return backward(dout, *self.inputs)

    Pair.__name__ = Pair.name = getattr(forward, "__name__", type(forward).__name__)
    assert_gradients(
        Pair,
        inputs=inputs,
        output=output,
        largest=largest,
        sizes=sizes,
        backend=backend,
        max_examples=max_examples,
        examples=examples,
    )


def prove(case: LayerCase, backend: Backend) -> None:
    """Raise `AssertionError` unless every property holds for one case, in each dtype."""
    with backend.scope():
        for dtype in ("float64", "float32") if backend.has_float64 else ("float32",):
            trial = LayerTrial(case, backend, dtype)
            for holds in PROPERTIES:
                holds(trial)
