"""What dual coordinate descents share: the step, what is put aside, the stop."""

import numpy as np
import pytest

from sklcomp.solvers._jit import njit
from sklcomp.solvers.margin._descent import (
    EPOCHS_TO_CHECK,
    begin,
    clip_gradient,
    find_thresholds,
    go_on,
    is_due,
    is_settled,
    is_small,
    minimise_one,
    put_aside,
    take_back,
)


@pytest.mark.parametrize(
    ("a", "gradient", "curvature", "limit", "expected"),
    [
        (0.5, 1.0, 4.0, 1.0, 0.25),
        (0.5, 9.0, 4.0, 1.0, 0.0),
        (0.5, -9.0, 4.0, 1.0, 1.0),
        (0.5, -1.0, 0.0, 1.0, 1.0),
        (0.5, 1.0, 0.0, 1.0, 0.5),
        (0.0, -2.0, 1.0, np.inf, 2.0),
    ],
)
def test_one_coordinate_is_solved_exactly(a, gradient, curvature, limit, expected):
    assert minimise_one(a, gradient, curvature, limit) == expected


@pytest.mark.parametrize("gradient", [-2.0, 0.0, 3.0])
def test_a_clipped_gradient_vanishes_exactly_where_no_step_is_possible(gradient):
    for a, limit in ((0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (7.0, np.inf)):
        moved = minimise_one(a, gradient, 2.0, limit) - a
        projected = clip_gradient(gradient, a == 0.0, a == limit)
        assert (projected == 0.0) == (moved == 0.0)
        assert projected in (0.0, gradient)


def test_only_what_the_bounds_hold_far_out_is_settled():
    above, below = find_thresholds(5.0, -3.0)
    assert (above, below) == pytest.approx((0.5, -0.3))
    assert is_settled(0.0, 0.6, above, below)
    assert not is_settled(0.0, 0.4, above, below)
    assert is_settled(1.0, -0.4, above, below)
    assert not is_settled(1.0, -0.2, above, below)
    # Where no gradient leads inwards, nothing can be far beyond it.
    for a, gradient in ((0.0, 1e300), (1.0, -1e300)):
        assert not is_settled(a, gradient, *find_thresholds(0.0, 0.0))


@njit
def put_away(order, places):
    n_active = order.size
    for place in places:
        n_active = put_aside(order, place, n_active)
    return n_active


def test_rows_put_aside_lie_behind_the_others():
    order = np.arange(6)
    assert put_away(order, np.array([1, 0])) == 4
    np.testing.assert_array_equal(np.sort(order[:4]), [2, 3, 4, 5])
    np.testing.assert_array_equal(np.sort(order[4:]), [0, 1])


@njit
def come_back(n_rows, n_active):
    return take_back(go_on(begin(n_rows, 3), n_active, 5.0, -3.0, 8))


def test_a_gap_that_was_too_large_brings_all_rows_back():
    for n_active, trust in ((2, 1.0), (4, 0.5)):
        progress = come_back(4, n_active)
        np.testing.assert_array_equal(progress.order, np.arange(4))
        assert progress[1:] == (4, np.inf, -np.inf, trust, 8)


def test_a_gap_is_small_beside_the_primal_objective():
    # 9 + 1 is the primal objective, of which the gap is a tenth.
    assert is_small(1.0, 9.0, 0.1)
    assert not is_small(1.01, 9.0, 0.1)
    assert is_due(1.0, 9.0, 0.1, 1)
    assert not is_due(1.01, 9.0, 0.1, EPOCHS_TO_CHECK - 1)
    assert is_due(1.01, 9.0, 0.1, EPOCHS_TO_CHECK)
