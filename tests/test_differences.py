"""Difference quotients of functions of one number whose derivative and rounding are known.

Steps and roundings are powers of two, so that most results are exact.
"""

from collections.abc import Callable
from math import cbrt, copysign, exp, floor, inf, log, nan, sin, tanh
from typing import Any

import numpy as np
import pytest
from support import arr, needs_float64

from xbp.differences import (
    Comparison,
    compare,
    excludes,
    is_staircase,
    noise_of,
    step_for,
    turns_close_by,
    unravel,
)

STEP, NOISE = 2.0**-10, 2.0**-40


def line(x: float) -> float:
    return 3 * x


def parabola(x: float) -> float:
    return 1 + 3 * x + 64 * x * x


def kinked(x: float) -> float:
    """Like the loss around a ReLU's zero."""
    return 1 + max(x, 0.0)


def check(claimed: float, f: Callable[[float], float], h: float = 1e-4) -> Comparison:
    """Compare in float64, with the rounding of a value around 1."""
    return compare(claimed, f, h, noise_of(2.0**-52, 1, 1.0))


# What is right -----------------------------------------------------------------------------------


def test_the_first_step_is_enough_for_a_line() -> None:
    assert compare(3.0, line, STEP, NOISE) == Comparison(3.0, 3.0, error=2.0**-29)


@pytest.mark.parametrize(
    ("claimed", "f"),
    [
        (1.0, exp),
        (1.0, sin),
        (0.0, lambda x: x * x),
        (0.0, lambda x: x**3),
        (300.0, lambda x: sin(300 * x)),
        (-30.0, lambda x: 1 / (1 + exp(120 * x))),
    ],
)
def test_a_right_claim_is_right(claimed: float, f: Callable[[float], float]) -> None:
    found = check(claimed, f)
    assert found.right
    assert not found.kink
    assert found.error <= 1e-7


def test_values_may_be_off_by_their_rounding() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        found = compare(1.0, lambda x: exp(x) + random.uniform(-1e-9, 1e-9), 1e-2, 1e-9)
        assert found.right
        assert not found.kink


# What is wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("claimed", "steepest"), [(3.0, 3), (-5.0, 5)])
def test_a_step_adds_to_what_is_rounded(claimed: float, steepest: float) -> None:
    found = compare(claimed, line, STEP, NOISE, unit=2.0**-20)
    exactly = compare(claimed, line, STEP, NOISE)
    assert found.error == exactly.error + 2 * steepest * 2.0**-20


@pytest.mark.parametrize(("part", "seen"), [(4, False), (32, True)])
def test_a_kink_below_the_rounding_of_a_step_is_none(part: float, seen: bool) -> None:
    unit = 2.0**-20
    found = compare(7.0, lambda x: x + part * unit * abs(x), STEP, NOISE, unit)
    assert not found.right
    assert found.kink == seen


def test_a_wrong_claim_is_held_against_the_largest_step_that_has_converged() -> None:
    assert compare(3.5, line, STEP, NOISE) == Comparison(3.5, 3.0, error=2.0**-26)


@pytest.mark.parametrize("off", [1e-3, -1e-4, 1e-5, -1e-6, 1e-7, -1e-8])
@pytest.mark.parametrize("f", [exp, sin, lambda x: x + x * x])
def test_a_wrong_claim_is_wrong(f: Callable[[float], float], off: float) -> None:
    found = check(1 + off, f)
    assert not found.right
    assert not found.kink
    assert found.numerical == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("claimed", [1e-3, -1e-7])
def test_where_the_derivative_is_zero_a_wrong_claim_is_wrong(claimed: float) -> None:
    assert not check(claimed, lambda x: x * x).right


def test_curvature_is_no_kink() -> None:
    assert compare(3.5, parabola, STEP, NOISE) == Comparison(3.5, 3.0, error=2.0**-26)


def test_an_infinite_slope_has_no_right_claim() -> None:
    for claimed in (0.0, 1.0, 1e3):
        assert not check(claimed, cbrt).right


def test_no_value_is_asked_for_twice() -> None:
    asked: list[float] = []

    def f(x: float) -> float:
        asked.append(x)
        return parabola(x)

    compare(3.5, f, STEP, NOISE)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("claimed", [inf, -inf])
def test_a_claim_that_is_not_finite_is_never_right(claimed: float) -> None:
    assert compare(claimed, line, STEP, NOISE) == Comparison(claimed, 3.0, error=0.0)


def test_what_is_flat_and_not_rounded_is_no_staircase() -> None:
    assert compare(1.0, lambda x: 2.0, STEP, noise=0.0) == Comparison(1.0, 0.0, error=0.0)


def test_what_a_kink_within_the_step_explains_is_not_certain() -> None:
    assert check(0.5, line).certain
    assert not check(1.0, lambda x: abs(x) + x).certain
    # The kink is finer than the finest step; the slope to its left is claimed.
    assert not compare(0.0, lambda x: kinked(x - 2.0**-34), STEP, 2.0**-30).certain


@pytest.mark.parametrize(("f", "smooth"), [(line, True), (abs, False), (cbrt, False)])
def test_a_claim_that_is_not_finite_may_stand_on_a_kink(
    f: Callable[[float], float], smooth: bool
) -> None:
    assert compare(inf, f, STEP, NOISE).kink != smooth


@pytest.mark.parametrize(("claimed", "f"), [(5e3, log), (1.0, lambda x: x - 2e-4), (0.0, log)])
def test_a_step_that_leaves_what_f_is_defined_for_is_refined(
    claimed: float, f: Callable[[float], float]
) -> None:
    found = compare(claimed, lambda x: f(x + 2e-4) if x > -2e-4 else nan, STEP, NOISE)
    assert found.right == (claimed > 0)
    assert not found.kink
    assert found.error < 1


def test_at_the_edge_of_what_f_is_defined_for_there_is_no_derivative() -> None:
    found = compare(1.0, lambda x: x if x >= 0 else nan, STEP, NOISE)
    assert found.kink


# Kinks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [0.0, 1.0])
def test_at_a_kink_there_is_no_derivative(claimed: float) -> None:
    assert compare(claimed, kinked, STEP, NOISE) == Comparison(
        claimed, 0.5, error=2.0**-26, kink=True
    )


def test_a_jump_is_seen_of_a_periodic_function() -> None:
    found = compare(1.0, lambda x: x - floor(x), 2.0**-6, NOISE)
    assert found.kink
    assert not found.outside


def test_what_a_long_step_reaches_over_is_not_held_against_a_claim() -> None:
    # A first step of a large element spans many jumps, between which the claim is right.
    found = compare(1.0, lambda x: (1e5 + x) - floor(1e5 + x), 2.0**-6 * 1e5, 1e-9, 1e-14)
    assert found.kink
    assert not found.outside


@pytest.mark.parametrize(("claimed", "outside"), [(1.0, False), (2.5, False), (7.0, True)])
def test_at_a_jump_a_claim_lies_between_the_slopes_beside_it(claimed: float, outside: bool) -> None:
    def jumping(x: float) -> float:
        return 1 + x if x > 0 else 3 * x

    found = compare(claimed, jumping, STEP, NOISE)
    assert found.kink
    assert found.outside == outside


@pytest.mark.parametrize("distance", [3e-5, -3e-5, 1e-6, 2e-4, -1e-3])
def test_a_kink_beside_the_point_is_refined_away(distance: float) -> None:
    slope = 1.0 if distance < 0 else 0.0
    found = check(slope, lambda x: kinked(x - distance))
    assert found.right
    assert not found.kink
    assert found.numerical == pytest.approx(slope, abs=1e-6)
    assert not check(slope + 1e-3, lambda x: kinked(x - distance)).right


def between_two_kinks(x: float) -> float:
    """Be flat around 0; from STEP / 8 on, reach the line of slope 1."""
    inner, outer = STEP / 64, STEP / 8
    size = abs(x)
    rise = size if size >= outer else max(size - inner, 0.0) / (outer - inner) * outer
    return rise if x > 0 else -rise


def test_coarse_steps_that_agree_over_two_kinks_are_found_out() -> None:
    assert compare(0.0, between_two_kinks, STEP, NOISE) == Comparison(0.0, 0.0, error=2.0**-23)
    found = compare(0.5, between_two_kinks, STEP, NOISE)
    assert (found.numerical, found.error) == (0, 2.0**-20)


@pytest.mark.parametrize(("part", "seen"), [(1.03, True), (1.0, False)])
def test_a_kink_is_seen_while_it_stands_out_of_the_rounding(part: float, seen: bool) -> None:
    # Of eight steps, the gap between the slopes is 2 part noise; the rounding, 16 noise / 8.
    noise = 2.0**-10
    found = compare(1.0, lambda x: 1 + part * noise * abs(x), 1.0, noise)
    assert found == Comparison(1.0, 0.0, error=2.0**-6, kink=seen)


@pytest.mark.parametrize(("power", "seen"), [(1.0, True), (1.2, True), (1.4, False), (2, False)])
def test_slopes_that_come_closer_meet(power: float, seen: bool) -> None:
    assert compare(1.0, lambda x: abs(x) ** power, STEP, NOISE).kink == seen


def test_a_kink_is_seen_though_the_claim_is_right_beside_it() -> None:
    # Only a step whose rounding is 1/32 stays on one side: it proves little about slopes of 1/2.
    found = compare(0.0, lambda x: kinked(x - 2.0**-34), STEP, NOISE)
    assert found == Comparison(0.0, 0.0, error=2.0**-5, kink=True)
    # Beside slopes of 8, one of 1/256 is small enough.
    found = compare(0.0, lambda x: 16 * kinked(x - 2.0**-31), STEP, NOISE)
    assert found == Comparison(0.0, 0.0, error=2.0**-8, kink=False)


# On the boundary ---------------------------------------------------------------------------------


def test_two_steps_that_differ_by_the_rounding_agree() -> None:
    def f(x: float) -> float:
        far = 16 * NOISE if abs(x) >= STEP else 0.0
        return line(x) + copysign(far, x)

    assert compare(3.5, f, STEP, NOISE) == Comparison(3.5, 3.0, error=2.0**-26)


def test_a_step_whose_rounding_is_the_difference_is_still_asked() -> None:
    def f(x: float) -> float:
        return (3.0 if abs(x) > STEP / 8**3 else 3 + 2.0**-19) * x

    claimed = 3 + 2.0**-20
    assert compare(claimed, f, STEP, NOISE) == Comparison(claimed, 3 + 2.0**-19, error=2.0**-20)


def test_three_steps_after_the_one_that_has_converged_are_asked() -> None:
    def f(x: float, until: int) -> float:
        return (3.0 if abs(x) > STEP / 8**until else 3.5) * x

    found = compare(3.25, lambda x: f(x, 4), STEP, NOISE)
    assert found == Comparison(3.25, 3.5, error=2.0**-14)
    found = compare(3.25, lambda x: f(x, 5), STEP, NOISE)
    assert found == Comparison(3.25, 3.0, error=2.0**-26)


def test_a_rounding_of_a_thousandth_of_the_slope_is_small_enough() -> None:
    def f(x: float) -> float:
        return 1 + 1000 * min(x, 2.0**-39)

    assert compare(1000.0, f, 2.0**-12, NOISE) == Comparison(1000.0, 1000.0, error=1.0)


def test_slopes_that_come_closer_by_half_meet() -> None:
    rises = {64.0: 2.0**-1, 8.0: 2.0**-5}
    assert not compare(1.0, lambda x: 1 + rises.get(abs(x), 0.0), 1.0, 2.0**-10).kink


@pytest.mark.parametrize("width", [2.0**-30, 2.0**-14, 2.0**-10, 2.0**-6])
@pytest.mark.parametrize("claimed", [0.0, 1.0])
def test_a_staircase_has_no_derivative(claimed: float, width: float) -> None:
    def stairs(x: float) -> float:
        return width * floor((x + 0.3) / width)

    assert is_staircase(stairs, STEP, NOISE)
    found = compare(claimed, stairs, STEP, NOISE)
    assert found.kink or found.right


@pytest.mark.parametrize(
    "f", [line, parabola, kinked, abs, between_two_kinks, lambda x: max(x - STEP, 0.0), cbrt]
)
def test_what_is_smooth_or_has_a_kink_is_no_staircase(f: Callable[[float], float]) -> None:
    assert not is_staircase(f, STEP, NOISE)


def test_where_the_finer_steps_are_flat_a_staircase_has_no_derivative() -> None:
    def stairs(x: float) -> float:
        return 2.0**-12 * floor(2.0**12 * x + 0.3)

    assert compare(0.0, stairs, STEP, NOISE).kink


def test_what_never_has_a_value_has_no_error() -> None:
    found = compare(1.0, lambda x: inf if x > 0 else 0.0, STEP, NOISE)
    assert found == Comparison(1.0, inf, error=0.0, kink=True)


def clipped(x: float) -> float:
    return min(max(x, -STEP), STEP)


def test_a_slope_is_steep_if_it_grows_by_half_where_the_step_is_finer() -> None:
    # It is not, however it goes on beyond the step.
    assert not compare(inf, clipped, STEP, NOISE).kink
    # By half of the finer slope just not, nor by what rounding may be.
    assert not compare(inf, lambda x: x if abs(x) < STEP else 1.5 * x, STEP, NOISE).kink
    noise = 2.0**-10 * STEP
    for part, steep in ((1.0, False), (1.25, True)):
        slope = part * 2.0**-7

        def bent(x: float, slope: float = slope) -> float:
            return 0.0 if abs(x) < STEP else copysign(slope * STEP, x)

        assert compare(inf, bent, STEP, noise).kink == steep


def test_a_kink_that_a_finer_step_shows_explains_a_claim() -> None:
    assert not compare(1.0, lambda x: min(abs(x), STEP / 8), STEP, NOISE).certain


def test_a_claim_is_excluded_beyond_the_rounding() -> None:
    # Of 4 (2**-10 / 2**-4 + 2**-8 * 4), which is 1/8.
    for claimed, excluded in ((3.875, False), (3.875 - 2.0**-20, True), (4.0, False)):
        assert excludes(claimed, lambda x: 4 * x, 2.0**-4, 2.0**-10, 2.0**-8) == excluded


def flat_at(places: list[float], left: bool = True, right: bool = True) -> Any:
    """Return a line that is flat around some places, on the left of each and on the right."""
    width = STEP / 32

    def f(x: float) -> float:
        for place in places:
            if (left or x >= place) and (right or x <= place) and abs(x - place) < width:
                return place
        return x

    return f


PLACES = [STEP * part for part in (0.0, 0.83, -0.71, 0.47, -0.39)]


@pytest.mark.parametrize(
    ("f", "seen"),
    [
        (flat_at(PLACES), True),
        (flat_at(PLACES[1:]), True),
        (flat_at(PLACES[2:]), False),
        (flat_at(PLACES, left=False), False),
        (flat_at(PLACES, right=False), False),
        (lambda x: 0.0 if x > -STEP / 2 else -1.0, True),
        (lambda x: inf if x > 0 else 0.0, False),
    ],
)
def test_a_staircase_is_flat_around_almost_each_place(
    f: Callable[[float], float], seen: bool
) -> None:
    assert is_staircase(f, STEP, STEP / 64) == seen


def test_a_step_however_long_is_asked_for_a_staircase() -> None:
    assert is_staircase(lambda x: float(x > -0.25), 0.5, NOISE)


@pytest.mark.parametrize(("rise", "seen"), [(8.0, False), (8.5, True)])
def test_a_step_of_a_staircase_stands_out_of_the_rounding(rise: float, seen: bool) -> None:
    assert is_staircase(lambda x: rise * NOISE * (x > 0.6 * STEP), STEP, NOISE) == seen


# The parts ---------------------------------------------------------------------------------------


def test_rounding_grows_with_the_sum_and_the_size() -> None:
    assert noise_of(2.0**-52, 10, 3.0) == 18 * 2.0**-53 * 3


@pytest.mark.parametrize(("numerical", "agree"), [(1.75, True), (1.8, False), (0.25, True)])
def test_quotients_agree_within_both_errors(numerical: float, agree: bool) -> None:
    found, other = Comparison(0.0, 1.0, error=0.25), Comparison(0.0, numerical, error=0.5)
    assert found.agrees_with(other) == other.agrees_with(found) == agree


@pytest.mark.parametrize(("claimed", "right"), [(1.25, True), (0.75, True), (1.26, False)])
def test_a_claim_is_right_within_the_error(claimed: float, right: bool) -> None:
    assert Comparison(claimed, 1.0, error=0.25).right == right


def test_elements_are_counted_along_the_last_axis_first() -> None:
    shape = (2, 3, 4)
    assert [unravel(i, shape) for i in range(24)] == list(np.ndindex(shape))
    assert unravel(0, ()) == ()


def test_a_step_is_widened_in_float32_only() -> None:
    x = arr([1.0], "float32")
    assert step_for(x, 1e-4) == pytest.approx(2 ** (-23 / 3))
    assert step_for(x, 0.5) == 0.5


@needs_float64
def test_a_step_in_float64_is_the_one_asked_for() -> None:
    assert step_for(arr([1.0], "float64"), 1e-9) == 1e-9


@pytest.mark.parametrize(("claimed", "is_so"), [(2e-11, True), (2.5e-11, False), (1e-15, False)])
def test_what_turns_within_a_step_is_seen_in_finer_ones(claimed: float, is_so: bool) -> None:
    def f(step: float) -> float:
        return 2e-17 * tanh(1e6 * step)

    h = 2.0**-6
    quotient = (f(h) - f(-h)) / (2 * h)
    assert turns_close_by(claimed, quotient, f, h, noise=1e-33, unit=1e-15) == is_so
    assert turns_close_by(claimed, inf, f, h, noise=1e-33, unit=1e-15) == is_so
    # Where rounding is as large as the claim, it is not told.
    assert not turns_close_by(claimed, quotient, f, h, noise=1e-17, unit=1e-15)
