"""The kit for authors of layers: what it draws, what it finds, and what it says."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from faulty_layers import (
    Baking,
    Bent,
    Branching,
    Buffered,
    BufferedParams,
    ById,
    Claiming,
    ClaimingLoss,
    Coarse,
    Counting,
    Fixing,
    Flattening,
    Homeless,
    HomelessParams,
    HomelessTangent,
    Moving,
    Narrow,
    Numbered,
    OtherLosses,
    Piling,
    Pulled,
    Random,
    Rectifier,
    Rough,
    Sharing,
    Shortcut,
    Sideways,
    Squaring,
    Stale,
    Stamping,
    StampingTangent,
    Steep,
    Transposing,
    Wandering,
    Widening,
    WideTangent,
)
from hypothesis import find, given, settings
from right_layers import Scale, Softplus
from support import backend, dtype_of, except_slow, host, needs_float64, once, widest

import xbp
from xbp.differences import Comparison
from xbp.errors import SettingError
from xbp.layers import Layer, LossLayer, SoftmaxWithLoss
from xbp.namespace import Array, namespace_of
from xbp.testing import (
    LAYERS,
    Fixed,
    LayerTrial,
    Signature,
    arrays,
    assert_gradients,
    assert_vjp,
    declarations,
    host_arrays,
    layers,
    networks,
    properties,
)
from xbp.testing.cases import LayerCase
from xbp.testing.derivative import backward_is_the_derivative
from xbp.testing.examples import case_of
from xbp.testing.layouts import takes_views
from xbp.testing.proof import Differences


class LayerNormalization(Layer):
    """Features less their mean, over their standard deviation: steep where all are alike."""

    def forward(self, x: Array) -> Array:
        xp = namespace_of(x)
        centred = x - xp.mean(x, axis=1, keepdims=True)
        variance = xp.mean(centred * centred, axis=1, keepdims=True)
        self.deviation = xp.sqrt(variance + 1e-5)
        self.y = centred / self.deviation
        return self.y

    def backward(self, dout: Array) -> Array:
        xp = namespace_of(dout)
        along_y = self.y * xp.mean(dout * self.y, axis=1, keepdims=True)
        return (dout - xp.mean(dout, axis=1, keepdims=True) - along_y) / self.deviation


class Sine(Layer):
    """Has many periods between two neighbouring numbers of float32, and of float64 none."""

    def forward(self, x: Array) -> Array:
        self.x = x
        return namespace_of(x).sin(x)

    def backward(self, dout: Array) -> Array:
        return dout * namespace_of(dout).cos(self.x)


class Centre(Layer):
    """Subtracts the mean of the batch: its samples are not independent."""

    def forward(self, x: Array) -> Array:
        return x - namespace_of(x).mean(x, axis=0)

    def backward(self, dout: Array) -> Array:
        return dout - namespace_of(dout).mean(dout, axis=0)


SCALE = {"inputs": {"x": ("N", "D")}, "params": {"scale": ("D",)}}


def message(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(AssertionError) as failure:
        assert_gradients(*arguments, backend=backend, **settings)
    return str(failure.value)


@except_slow
def test_layers_of_ones_own_pass() -> None:
    assert_gradients(Softplus, backend=backend)
    assert_gradients(Scale, backend=backend, **SCALE)  # type: ignore[arg-type]
    assert_gradients(Signature(Softplus, {"x": ("A", "B", 2)}), backend=backend)


@except_slow
@needs_float64
@pytest.mark.parametrize("kind", [LayerNormalization, Sine])
def test_a_right_layer_passes_where_float32_can_tell_little(kind: type[Layer]) -> None:
    assert_gradients(kind, backend=backend)


def test_the_selected_backend_is_taken() -> None:
    with xbp.use_backend("array-api-strict:device1"):
        assert_gradients(Softplus, max_examples=3)


@except_slow
def test_a_layer_that_mixes_its_samples_says_so_by_another_name_of_the_axis() -> None:
    assert "Centre on" in message(Centre)
    assert_gradients(Centre, inputs={"x": ("B", "D")}, backend=backend)


def test_the_smallest_case_is_shown() -> None:
    class Forgetful(Scale):
        def backward(self, dout: Array) -> Array:
            super().backward(dout)
            return dout

    found = message(Forgetful, **SCALE)
    assert found.startswith(f"Forgetful on {backend.name}:{backend.device}, float")
    assert "1 of 2 derivatives differ from central differences" in found
    says = "with respect to x[0, 0]:\n  backward says 1.0\n  central differences say 0.0, give"
    assert says in found
    assert "smallest case found:\n  x = [[0.]]\n  scale = [0.]\n  dout = [[0.]]" in found


@except_slow
def test_gradients_that_pile_up_are_found() -> None:
    assert "Piling on" in message(Piling, **SCALE)


@except_slow
def test_a_shortcut_for_the_first_layer_is_looked_at() -> None:
    assert "backward_params and backward differ" in message(Shortcut, **SCALE)


@except_slow
def test_float32_that_loses_more_than_it_must_is_found() -> None:
    if backend.has_float64:
        assert "float32 and float64 differ in the derivative with respect to x" in message(
            Rough, **SCALE
        )


# Each property, with a layer for which it does not hold.
BROKEN: list[tuple[Any, type[Layer], str]] = [
    (properties.inputs_stay_as_they_are, Stamping, "read-only|input dout in place"),
    (properties.dtype_shape_and_device_stay, Widening, "to x has dtype float32, not float64"),
    (properties.inputs_stay_as_they_are, StampingTangent, "read-only|input tangent of x in place"),
    (properties.dtype_shape_and_device_stay, WideTangent, "the output by jvp has dtype float32"),
    (properties.backward_leaves_the_state, Wandering, "backward changes the state count: forward"),
    (backward_is_the_derivative, Pulled, "backward is wrong: "),
    (properties.equal_layers_do_the_same, Random, "made alike differ, as if random, in the output"),
    (properties.results_are_not_overwritten, Buffered, "a later call overwrites the output of an"),
    (properties.a_layer_keeps_nothing_of_earlier_calls, Counting, "seen other inputs differs in"),
    (
        properties.results_are_not_overwritten,
        BufferedParams,
        "scale that backward_params leaves of",
    ),
    (properties.a_layer_keeps_nothing_of_earlier_calls, ById, "the same arrays with other numbers"),
    (properties.any_order_of_memory_gives_the_same, Flattening, "transposed views change the out"),
    (properties.forward_is_the_reference, Squaring, "is not that of the reference: it is 1.0 at"),
    (properties.forward_mode_agrees, Sideways, "jvp and backward differ: .* along the tangents is"),
    (properties.backward_is_linear, Bent, "backward is not linear in dout: .* to x is"),
    (properties.parameters_alone_get_the_same_gradients, Shortcut, "and backward differ: .* scale"),
    (properties.samples_are_independent, Numbered, "output of a batch is not that of its samples"),
    (properties.samples_are_independent, Pulled, "gradients of a batch are not those .* to x is"),
    (properties.a_permuted_batch_is_permuted_throughout, Numbered, "changes the outputs is"),
    (
        properties.a_permuted_batch_is_permuted_throughout,
        Pulled,
        "derivative with respect to x is",
    ),
    (properties.parameters_may_change, Fixing, "whose parameters were replaced differs in the out"),
    (properties.arrays_are_made_beside_their_inputs, Homeless, "makes an array on the default dev"),
    (properties.arrays_are_made_beside_their_inputs, HomelessParams, "makes an array on the defau"),
    (properties.arrays_are_made_beside_their_inputs, HomelessTangent, "makes an array on the defa"),
    (
        declarations.a_samplewise_layer_minds_no_other_sample,
        Claiming,
        "in a batch the output of a",
    ),
    (
        declarations.a_samplewise_loss_is_the_mean_of_its_losses,
        OtherLosses,
        "its loss of a batch, not the mean of losses, is",
    ),
    (declarations.a_samplewise_loss_is_the_mean_of_its_losses, ClaimingLoss, "mean of losses, is"),
    (
        declarations.a_trace_of_the_layer_computes_the_same,
        Branching,
        "cannot be traced: .* in forward",
    ),
    (declarations.a_trace_of_the_layer_computes_the_same, Baking, "but its trace differs in the o"),
    (properties.float32_agrees_with_float64, Coarse, "differ in the output, which in float32"),
]


def trial_of(kind: type[Layer], dtype: str) -> LayerTrial:
    """Return a layer on trial with two samples, of which the first is large."""
    if issubclass(kind, LossLayer):
        scores = {"x": [[1.0, 0.75], [-0.5, -0.25]], "t": [[1.0, 0.0], [0.0, 1.0]], "dout": 1.0}
        of_loss = Signature(kind, {"x": ("B", "C"), "t": Fixed(("B", "C"))}, ())
        return LayerTrial(case_of(of_loss, scores), backend, dtype)
    with_scale = {"scale": ("D",)} if issubclass(kind, Scale) else {}
    x = np.array([[1.0, 0.75], [-0.5, 0.25]])
    drawn = {"x": x, **({"scale": np.array([1.5, -0.5])} if with_scale else {})}
    reference = getattr(kind, "reference", None)
    inputs = {"x": ("B" if kind is Claiming else "N", "D")}
    signature = Signature(kind, inputs, None, with_scale, reference)
    return LayerTrial(
        LayerCase(signature, drawn, np.array([[2.0, -3.0], [0.5, 4.0]])), backend, dtype
    )


@needs_float64
@pytest.mark.parametrize(
    ("holds", "kind", "complaint"),
    BROKEN,
    ids=[f"{it[0].__name__}-{it[1].__name__}" for it in BROKEN],
)
def test_each_property_finds_what_it_is_for(holds: Any, kind: type[Layer], complaint: str) -> None:
    in_place = (Stamping, StampingTangent, Buffered, BufferedParams, ById)
    if kind in in_place and backend.name == "jax":
        pytest.skip("its arrays cannot be changed")
    if kind is WideTangent and not backend.has_float64:
        pytest.skip("is about two dtypes")
    if kind is Flattening and backend.name != "numpy":
        pytest.skip("is about NumPy's strides")
    is_homeless = holds is properties.arrays_are_made_beside_their_inputs
    if is_homeless and backend.name == "array-api-strict":
        pytest.skip("the library itself refuses it")
    dtype = "float32" if is_homeless else widest
    for right in (Softplus, Scale, SoftmaxWithLoss):
        holds(trial_of(right, dtype))
    with pytest.raises(AssertionError, match=f"(?s)^{kind.__name__} on .*{complaint}"):
        holds(trial_of(kind, dtype))


def test_a_samplewise_layer_is_asked_of_a_batch_of_one_length() -> None:
    with_number = {"inputs": {"x": (3, "D")}, "max_examples": 5}
    assert "it says samplewise = True, but in a batch" in message(Claiming, **with_number)


def test_a_check_of_the_layer_itself_is_told_with_the_case() -> None:
    class Odd(Softplus):
        def forward(self, x: Array) -> Array:
            assert x.shape[1] == 1, "one feature"
            return super().forward(x)

    says = message(Odd, max_examples=20)
    assert says.startswith("Odd on ")
    assert "forward raised AssertionError: one feature" in says
    assert "the smallest case found:" in says


@except_slow
def test_a_mask_that_outlives_its_input_is_found() -> None:
    assert "a layer that has seen other inputs differs in the derivative" in message(Stale)


@except_slow
def test_layers_that_share_what_they_keep_are_found() -> None:
    assert "after a forward of another layer" in message(Sharing, inputs={"x": ("T", "D")})
    shapes = {"inputs": {"x": ("N", "D")}, "output": ("N", "M")}
    weights = {"W": ("D", "M"), "b": ("M",)}
    assert "whose parameters were replaced" in message(Transposing, **shapes, params=weights)


@except_slow
def test_a_staircase_is_no_excuse() -> None:
    class Quantized(Layer):
        """Rounds to 256ths; the derivative goes straight through."""

        slope = 3.0

        def forward(self, x: Array) -> Array:
            return namespace_of(x).round(x * 256) / 256 * 3

        def backward(self, dout: Array) -> Array:
            return dout * self.slope

    class Backwards(Quantized):
        slope = -7.0

    example = {"x": [[1.5, 0.75]], "dout": [[1.0, 1.0]]}
    assert_gradients(Narrow, backend=backend, largest=10, examples=[example])
    assert "backward is wrong" in message(Steep, largest=10, examples=[example])
    prove_one(Quantized, example)
    with pytest.raises(AssertionError, match="backward is wrong"):
        prove_one(Backwards, example)


def prove_one(kind: type[Layer], example: dict[str, Any]) -> None:
    trial = LayerTrial(case_of(Signature(kind), example), backend, widest)
    backward_is_the_derivative(trial)


def test_equal_numbers_that_are_sorted_have_no_derivative() -> None:
    class Sorting(Layer):
        def forward(self, x: Array) -> Array:
            xp = namespace_of(x)
            self.order = xp.argsort(xp.argsort(x, axis=1), axis=1)
            return xp.sort(x, axis=1)

        def backward(self, dout: Array) -> Array:
            return namespace_of(dout).take_along_axis(dout, self.order, axis=1)

    class Unsorted(Sorting):
        def backward(self, dout: Array) -> Array:
            return dout

    ties = {"x": [[0.0, 0.0, 0.0]], "dout": [[1.0, 2.0, 3.0]]}
    prove_one(Sorting, ties)
    different = {"x": [[2.0, 0.5, 1.0]], "dout": [[1.0, 2.0, 3.0]]}
    prove_one(Sorting, different)
    with pytest.raises(AssertionError, match="backward is wrong"):
        prove_one(Unsorted, different)


@once
def test_layers_that_do_large_sizes_otherwise_are_found() -> None:
    class Blocked(Scale):
        """Sums up to four samples."""

        block = 4

        def backward(self, dout: Array) -> Array:
            dx = super().backward(dout)
            first = (dout * self.x)[: min(self.block, dout.shape[0]), ...]
            self.dscale = namespace_of(dout).sum(first, axis=0)
            return dx

    class Wide(Blocked):
        block = 20

    narrow = {"sizes": {"D": (1, 1)}}
    assert "Blocked on" in message(Blocked, **SCALE, **narrow)
    assert_gradients(Wide, backend=backend, **SCALE, **narrow)  # type: ignore[arg-type]
    large = {"sizes": {"N": (21, 24), "D": (1, 1)}, "max_examples": 3}
    assert "Wide on" in message(Wide, **SCALE, **large)


def test_mistakes_in_sizes() -> None:
    for sizes, complaint in (
        ({"E": (1, 2)}, r"Scale: sizes names 'E', and the sizes of Scale\(.*\) are N, D"),
        ([("N", 3)], r"Scale: sizes are bounds by name, such as {'D': \(1, 8\)}, not \["),
        ({"N": 3}, r"Scale: sizes\['N'\] is the smallest and the largest number, .*, not 3"),
        ({"N": (0, 3)}, r"not \(0, 3\)"),
        ({"N": (3, 2)}, r"not \(3, 2\)"),
        ({"N": (1, 2.5)}, r"not \(1, 2.5\)"),
    ):
        with pytest.raises(SettingError, match=complaint):
            assert_gradients(Scale, backend=backend, sizes=sizes, **SCALE)  # type: ignore[arg-type]


def test_a_pair_of_functions_is_proven() -> None:
    def product(x: Array, y: Array) -> Array:
        return x * y

    both = {"x": ("N", "D"), "y": ("N", "D")}
    few: dict[str, Any] = {"inputs": both, "backend": backend, "max_examples": 5}
    assert_vjp(product, lambda dout, x, y: (dout * y, dout * x), **few)
    example = [{"x": [[1.0]], "y": [[2.0]], "dout": [[1.0]]}]
    with pytest.raises(
        AssertionError, match=r"^product on .*\n.* with respect to [xy]\[0, 0\]:\n  backward says"
    ):
        assert_vjp(product, lambda dout, x, y: (dout * x, dout * y), examples=example, **few)


@pytest.mark.skipif(backend.name not in ("torch", "jax"), reason="differentiates nothing itself")
def test_a_function_that_a_library_differentiates_is_proven() -> None:
    library = import_module(backend.name)
    if backend.name == "torch":

        class Cube(library.autograd.Function):  # type: ignore[name-defined, misc]
            factor = 3

            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x)
                return x**3

            @staticmethod
            def backward(ctx: Any, dout: Any) -> Any:
                return Cube.factor * dout * ctx.saved_tensors[0] ** 2

        cube = Cube.apply

        def pull(dout: Any, x: Any) -> Any:
            with library.enable_grad():
                x = x.detach().requires_grad_()
                return library.autograd.grad(cube(x), x, dout)[0]
    else:

        class Cube:  # type: ignore[no-redef]
            factor = 3

        cube = library.custom_vjp(lambda x: x**3)
        cube.defvjp(lambda x: (x**3, x), lambda x, dout: (Cube.factor * dout * x**2,))

        def pull(dout: Any, x: Any) -> Any:
            return library.vjp(cube, x)[1](dout)[0]

    settings: dict[str, Any] = {"backend": backend, "max_examples": 5, "largest": 100}
    assert_vjp(cube, pull, **settings)
    Cube.factor = 2
    with pytest.raises(AssertionError, match="backward is wrong"):
        assert_vjp(cube, pull, **settings)


def test_no_number_is_not_called_random() -> None:
    class Divided(Layer):
        def forward(self, x: Array) -> Array:
            self.x = x
            return namespace_of(x).abs(x)

        def backward(self, dout: Array) -> Array:
            return dout * self.x / namespace_of(dout).abs(self.x)

    example = {"x": [[0.0]], "dout": [[1.0]]}
    with np.errstate(all="ignore"):
        found = message(Divided, max_examples=1, examples=[example])
    assert "as if random" not in found
    assert "it overflows, or leaves its domain" in found


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0])
def test_a_derivative_at_a_kink_lies_between_the_slopes(slope: float) -> None:
    class Between(Rectifier):
        def backward(self, dout: Array) -> Array:
            xp = namespace_of(dout)
            return super().backward(dout) + xp.where(self.x == 0, slope * dout, 0 * dout)

    class Beyond(Between):
        def backward(self, dout: Array) -> Array:
            xp = namespace_of(dout)
            by = -0.001 if slope == 0 else 1.001 - slope
            return super().backward(dout) + xp.where(self.x == 0, by * dout, 0 * dout)

    examples = [{"x": [[0.0, 1.0, -1.0]], "dout": [[1.0, 1.0, 1.0]]}]
    some: dict[str, Any] = {"max_examples": 5, "examples": examples}
    assert_gradients(Between, backend=backend, **some)
    assert "with respect to x[0, 0]" in message(Beyond, **some)


def slope_where(is_there: Array, slope: float, dout: Array) -> Array:
    return namespace_of(dout).where(is_there, slope * dout, 0 * dout)


@pytest.mark.parametrize("slope", [-5.0, -2.0, -1.2, 1.2, 2.0, 5.0])
@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (lambda x: abs(x - 1), lambda d, x: d * namespace_of(d).sign(x - 1)),
        (
            lambda x: namespace_of(x).maximum(1 - x, 0 * x),
            lambda d, x: slope_where(x < 1, -1.0, d),
        ),
        (
            lambda x: namespace_of(x).clip(x, -1, 1),
            lambda d, x: slope_where((x >= -1) & (x <= 1), 1.0, d),
        ),
        (lambda x: namespace_of(x).astype(x >= 1, x.dtype), lambda d, x: 0 * d),
    ],
    ids=["distance", "hinge", "clip", "step"],
)
def test_rounding_is_no_excuse_for_a_slope_at_one_number_alone(
    function: Callable[[Array], Array], derivative: Callable[[Array, Array], Array], slope: float
) -> None:
    def wrong(dout: Array, x: Array) -> Array:
        return derivative(dout, x) + slope_where(x == 1, slope, dout)

    examples = [{"x": [[1.0]], "dout": [[1.0]]}]
    one: dict[str, Any] = {"backend": backend, "max_examples": 1, "examples": examples}
    assert_vjp(function, derivative, **one)
    with pytest.raises(AssertionError, match="backward is wrong"):
        assert_vjp(function, wrong, **one)


@needs_float64
def test_where_two_numbers_tie_their_derivatives_share_the_slope() -> None:
    class Largest(Layer):
        """The larger of two numbers; where they tie, each has its share."""

        shares = (0.5, 0.5)

        def forward(self, x: Array, y: Array) -> Array:
            self.x, self.y = x, y
            return namespace_of(x, y).maximum(x, y)

        def backward(self, dout: Array) -> Any:
            xp, (first, second) = namespace_of(dout), self.shares
            ties = xp.where(self.x == self.y, dout, 0 * dout)
            rest = [
                xp.where(a > b, dout, 0 * dout) for a, b in ((self.x, self.y), (self.y, self.x))
            ]
            return rest[0] + first * ties, rest[1] + second * ties

    class First(Largest):
        shares = (1.0, 0.0)

    class Twice(Largest):
        shares = (1.0, 1.0)

    class Neither(Largest):
        shares = (0.0, 0.0)

    example = {"x": [[1.0, 2.0, 0.0]], "y": [[1.0, 3.0, 0.0]], "dout": [[1.0, 1.0, 1.0]]}
    both: dict[str, Any] = {"inputs": {"x": ("N", "D"), "y": ("N", "D")}, "examples": [example]}
    for kind in (Largest, First):
        assert_gradients(kind, backend=backend, max_examples=5, **both)
    found = message(Twice, max_examples=1, **both)
    assert "backward is wrong where x[0, 0] and y[0, 0] tie:\n  backward says 1.0 + 1.0" in found
    assert "close by say 1 to 1" in found
    assert "0.0 + 0.0 of output[0, 0] along both" in message(Neither, max_examples=1, **both)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_where_three_numbers_tie_their_derivatives_share_the_slope(share: float) -> None:
    def largest(x: Array) -> Array:
        return namespace_of(x).max(x, axis=1)

    def backward(dout: Array, x: Array) -> Array:
        xp = namespace_of(x)
        is_largest = xp.astype(x == xp.max(x, axis=1, keepdims=True), x.dtype)
        count = xp.sum(is_largest, axis=1, keepdims=True)
        shares = xp.where(count == 3, share + 0 * count, 1 / count)
        return dout[:, None] * is_largest * shares

    example = {"x": [[2.0, 2.0, 2.0]], "dout": [1.0]}
    one: dict[str, Any] = {"inputs": {"x": ("N", 3)}, "output": ("N",), "examples": [example]}
    with pytest.raises(
        AssertionError, match=rf"says {share} \+ {share} \+ {share} of output\[0\] al"
    ):
        assert_vjp(largest, backward, **one, max_examples=1, backend=backend)
    share = 1 / 3
    assert_vjp(largest, backward, **one, max_examples=5, backend=backend)


@needs_float64
def test_kinks_that_meet_by_chance_are_no_tie() -> None:
    class Difference(Layer):
        """At 0 one part takes the slope to the right, and the other that to the left."""

        def forward(self, x: Array, y: Array) -> Array:
            xp = namespace_of(x, y)
            self.x, self.y = x, y
            return xp.where(x > 0, x, 0 * x) - xp.where(y > 0, y, 0 * y)

        def backward(self, dout: Array) -> Any:
            xp = namespace_of(dout)
            return xp.where(self.x >= 0, dout, 0 * dout), -xp.where(self.y > 0, dout, 0 * dout)

    example = {"x": [[0.0]], "y": [[0.0]], "dout": [[1.0]]}
    both: dict[str, Any] = {"x": ("N", "D"), "y": ("N", "D")}
    assert_gradients(Difference, inputs=both, backend=backend, max_examples=10, examples=[example])


@pytest.mark.parametrize("layout", ["transposed", "reversed", "strided"])
def test_what_the_library_cannot_read_is_no_fault_of_a_layer(layout: str) -> None:
    with backend.scope():
        assert takes_views(backend, layout) == ((backend.name, layout) != ("dpnp", "reversed"))


def test_every_property_is_shown_to_find_something() -> None:
    assert {holds for holds, *_ in BROKEN} == set(properties.PROPERTIES)


@needs_float64
def test_a_proof_says_what_it_has_seen() -> None:
    proof = assert_gradients(Rectifier, backend=backend, sizes={"N": (1, 1), "D": (2, 2)})
    cases = settings.default.max_examples  # type: ignore[union-attr]
    assert proof.cases == cases
    assert proof.differences.compared == 4 * cases
    assert 0 < proof.differences.kinks < 4 * cases
    assert proof.smallest_share == pytest.approx(1 - 0.05 ** (1 / cases))
    assert 0 < proof.smallest_error < 1e-6
    assert str(proof).startswith(f"Rectifier on {backend.name}:{backend.device}: {cases} cases, ")
    assert f"cases, {4 * cases} derivatives compared" in str(proof)
    one = assert_gradients(Scale, **SCALE, backend=backend, directions=3)  # type: ignore[arg-type]
    assert (one.cases, one.differences.compared) == (1, 6)
    assert "a fault that shows in 95.0% of such cases is found" in str(one)


def test_derivatives_are_counted() -> None:
    seen = Differences()
    for comparison in (
        Comparison(1.0, 1.0, 0.5),
        Comparison(0.5, 2.0, 0.5, kink=True),
        Comparison(0.0, 0.0, 0.5),
    ):
        seen.note(comparison)
    seen.add(seen)
    assert (seen.compared, seen.kinks, seen.errors) == (6, 2, [0.5, 0.5])


def test_derivatives_that_are_missing_are_missed() -> None:
    class Single(xbp.layers.MulLayer):
        def backward(self, dout: Array) -> Any:
            return super().backward(dout)[0]

    both = {"x": ("N",), "y": ("N",)}
    assert "one is needed for each of x, y" in message(Single, inputs=both)

    class Secret(Scale):
        param_names = ()  # type: ignore[assignment]

    complaint = "the signature's parameters are scale, those in the layer's param_names are none"
    assert complaint in message(Secret, **SCALE)


def test_an_input_that_is_changed_is_shown_as_it_was() -> None:
    if backend.name == "numpy":
        complaint = "read-only; the arrays it is given are not to be changed"
    elif backend.name == "jax":
        return  # its arrays cannot be changed
    else:
        complaint = "the layer changes its input x in place\n  before = [[0.]]\n  after = [[1.]]"
    assert complaint in message(Moving)


def test_a_layer_is_called_by_its_name_whatever_makes_it() -> None:
    class Forgetful(Softplus):
        def backward(self, dout: Array) -> Array:
            return dout

    assert message(partial(Forgetful)).startswith("Forgetful on")


def test_an_error_in_the_layer_names_the_layer_and_the_case() -> None:
    class Broken(Layer):
        def forward(self, x: Array) -> Array:
            raise KeyError("gone")

    found = message(Broken)
    assert "Broken on" in found
    assert "forward raised KeyError: 'gone'" in found

    class NoArray(Softplus):
        def backward(self, dout: Array) -> Any:
            return "nothing"

    assert "the derivative with respect to x is 'nothing', no array" in message(NoArray)


def test_a_wrong_shape_is_found() -> None:
    class Flat(Softplus):
        def forward(self, x: Array) -> Array:
            return namespace_of(x).reshape(super().forward(x), (-1,))

        def backward(self, dout: Array) -> Array:
            return super().backward(namespace_of(dout).reshape(dout, self.x.shape))

    complaint = "the output has shape (1,), not (1, 1) as the signature says, Flat(x: N D)"
    assert complaint in message(Flat)


@given(arrays((2, 3), largest=10, backend=backend))
def test_arrays_are_on_the_backend(x: Array) -> None:
    values = host(x)
    assert dtype_of(x) == backend.default_float
    assert values.shape == (2, 3)
    assert np.all(abs(values) <= 10)
    assert np.all((values == 0) | (abs(values) >= 0.99e-6))
    np.testing.assert_array_equal(values, values.astype(np.float32))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1e-6, 1e-5), (1e5, 1e6), (-1e6, -1e5)])
def test_numbers_of_every_size_are_drawn(low: float, high: float) -> None:
    find(host_arrays((1,)), lambda values: low <= values[0] <= high)


@given(layers(LAYERS, dtype=widest, backend=backend))
@settings(max_examples=10)
def test_layers_come_with_their_inputs(drawn: LayerTrial) -> None:
    y = drawn.layer.forward(*drawn.inputs)
    assert y.shape == drawn.case.dout.shape
    assert backend.owns(y)
    assert drawn.layer.name in repr(drawn)


@except_slow
@given(networks(depth=3, backend=backend))
@settings(max_examples=10)
def test_networks_come_with_their_data(drawn: Any) -> None:
    network, x, t = drawn
    assert network.loss(x, t).shape == ()
    assert len(network.params) in (2, 4, 6)
    assert network.dtype == "float32"
