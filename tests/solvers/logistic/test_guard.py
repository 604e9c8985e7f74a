"""The guard: scikit-learn's measures, and which scores they keep."""

import numpy as np
import pytest
from sklearn.metrics import (
    label_ranking_average_precision_score,
    label_ranking_loss,
)

from sklcomp.solvers.logistic._guard import guard, ranking_errors


@pytest.fixture
def problem(rng):
    """Labels, scores that tell something of them, and whole weights."""
    Y = (rng.random((60, 7)) < 0.4).astype(np.int8)
    Y[0], Y[1] = 0, 1  # no pair to rank
    return Y, Y + rng.normal(0.0, 0.7, Y.shape), rng.integers(1, 4, 60).astype(float)


def test_measures_are_those_of_scikit_learn(problem, rng):
    Y, coupled, weight = problem
    plain = coupled + rng.normal(size=Y.shape)
    found = guard(Y, coupled, plain, weight)
    for name, measure in (
        ("ranking_loss", label_ranking_loss),
        ("average_precision", label_ranking_average_precision_score),
    ):
        expected = [measure(Y, Z, sample_weight=weight) for Z in (coupled, plain)]
        np.testing.assert_allclose(found[name], expected, rtol=1e-10)


def test_errors_of_perfect_reversed_and_missing_rankings(problem):
    Y = problem[0]
    np.testing.assert_array_equal(ranking_errors(Y, 1.0 * Y), 0.0)
    losses, misses = ranking_errors(Y, -1.0 * Y)
    ranked = (Y.min(axis=1) == 0) & (Y.max(axis=1) == 1)
    np.testing.assert_array_equal(losses, ranked)
    assert not misses[~ranked].any()
    assert (misses[ranked] > 0).all()


def test_only_the_order_within_a_row_counts(problem, rng):
    Y, scores, _ = problem
    risen = np.exp(2.0 * scores) + rng.normal(size=(60, 1))
    found = ranking_errors(Y, risen)
    np.testing.assert_array_equal(found, ranking_errors(Y, scores))


def test_equal_scores_are_kept_and_clearly_worse_ones_are_not(problem, rng):
    Y, good, weight = problem
    bad = rng.normal(size=Y.shape)
    assert guard(Y, good, good, weight)["kept"] == "privileged"
    assert guard(Y, good, bad, weight)["kept"] == "privileged"
    assert guard(Y, bad, good, weight)["kept"] == "plain"
    # Even where the plain ones are without an error.
    assert guard(Y, bad, 1.0 * Y, weight)["kept"] == "plain"
    assert guard(Y, 1.0 * Y, 1.0 * Y, weight)["kept"] == "privileged"


def test_what_chance_explains_is_not_worse(problem):
    # One row of 60 is ranked the other way round: worse, but by one standard error.
    Y = problem[0]
    plain = 1.0 * Y
    plain[2, np.argsort(Y[2])[[0, -1]]] = [1.0, 0.0]
    coupled = plain.copy()
    coupled[3] = -Y[3]
    weight = np.ones(60)
    found = guard(Y, coupled, plain, weight)
    assert found["ranking_loss"][0] > 1.5 * found["ranking_loss"][1]
    assert found["kept"] == "privileged"
    # Nine times as many rows err three times as far from chance.
    assert guard(Y, coupled, plain, 9 * weight)["kept"] == "plain"
    rows = (np.repeat(one, 9, axis=0) for one in (Y, coupled, plain))
    assert guard(*rows, np.ones(540))["kept"] == "plain"


def test_what_is_worse_by_a_small_share_is_kept():
    # A hundred rows of one kind err more by 1 in 24 alike: not chance, but little.
    Y = np.tile([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], (99, 1))
    plain = np.arange(20.0, 0.0, -1.0) * np.ones((99, 1))
    plain[:, 0] = 3.5  # 16 of the 19 others are above it
    coupled = plain.copy()
    coupled[:, 0] = 2.5
    weight = np.ones(99)
    worse = 1 / 16 + (1 / 17 - 1 / 18) / (1 - 1 / 17)
    assert worse < 0.1
    assert guard(Y, coupled, plain, weight)["kept"] == "privileged"
    coupled[:, 0] = 1.5
    assert guard(Y, coupled, plain, weight)["kept"] == "plain"


@pytest.mark.parametrize("noise", [0.2, 0.4, 0.8, 1.6])
def test_weights_are_repeated_rows(problem, rng, noise):
    Y, plain, weight = problem
    coupled = plain + noise * rng.normal(size=Y.shape)
    times = weight.astype(int)
    rows = (np.repeat(one, times, axis=0) for one in (Y, coupled, plain))
    repeated = guard(*rows, np.ones(times.sum()))
    found = guard(Y, coupled, plain, weight)
    assert found["kept"] == repeated["kept"]
    for name in ("ranking_loss", "average_precision"):
        np.testing.assert_allclose(found[name], repeated[name], rtol=1e-10)
