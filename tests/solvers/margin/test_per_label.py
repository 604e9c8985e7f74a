"""Labels one by one: threads that keep the order, and thresholds of highest F1."""

from threading import Event

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import f1_score

from sklcomp.solvers.margin._per_label import best_thresholds, map_labels, signs_of


def test_signs_are_those_of_the_column(rng):
    Y = (rng.random((20, 5)) < 0.4).astype(np.int8)
    columns = sparse.csc_array(Y)
    for j in range(5):
        np.testing.assert_array_equal(signs_of(columns, j), 2.0 * Y[:, j] - 1)


@pytest.mark.parametrize("n_jobs", [None, 1, 4])
@pytest.mark.parametrize("n_labels", [1, 7, 300])
def test_every_label_is_solved_once_and_reported_in_order(n_labels, n_jobs):
    solved, reported = [], []
    n_kept = map_labels(
        solved.append, n_labels, n_jobs, lambda label: bool(reported.append(label))
    )
    assert n_kept == n_labels
    assert sorted(solved) == reported == list(range(n_labels))


@pytest.mark.parametrize("n_jobs", [1, 4])
def test_a_callback_ends_it_behind_the_same_label(n_jobs):
    solved, reported = [], []

    def stop(label):
        reported.append(label)
        return label == 5

    assert map_labels(solved.append, 100, n_jobs, stop) == 6
    assert reported == list(range(6))
    assert set(range(6)) <= set(solved)


def test_an_error_of_one_label_arrives():
    def fail(label):
        if label == 3:
            raise ZeroDivisionError("label 3")

    for n_jobs in (1, 4):
        with pytest.raises(ZeroDivisionError, match="label 3"):
            map_labels(fail, 10, n_jobs)


@pytest.mark.parametrize("n_values", [5, 1000])
def test_no_other_threshold_has_a_higher_f1(rng, n_values):
    # Few values are many ties.
    scores = np.round(rng.normal(size=(60, 4)) * n_values) / n_values
    Y = (scores + rng.normal(size=(60, 4)) > 0.5).astype(int)
    Y[0] = 1
    found = best_thresholds(sparse.csr_array(Y), scores)
    for j in range(4):
        ours = f1_score(Y[:, j], scores[:, j] > found[j])
        every = np.append(scores[:, j], scores[:, j].min() - 1)
        others = [f1_score(Y[:, j], scores[:, j] > t, zero_division=0) for t in every]
        assert ours == pytest.approx(max(others), abs=1e-12)
        # Half-way between two scores, so that rounding changes no answer.
        assert np.abs(scores[:, j] - found[j]).min() > 0


def test_no_label_is_none():
    solved = []
    assert map_labels(solved.append, 0, None, lambda label: True) == 0
    assert not solved


def test_without_a_callback_all_labels_are_kept():
    for n_jobs in (1, 4):
        solved = []
        assert map_labels(solved.append, 50, n_jobs) == 50
        assert sorted(solved) == list(range(50))


@pytest.mark.parametrize("n_jobs", [1, 4])
def test_what_is_kept_was_solved_before_it_was_reported(n_jobs):
    solved, early = set(), []

    def report(label):
        early.extend(set(range(label + 1)) - solved)
        return False

    map_labels(solved.add, 200, n_jobs, report)
    assert not early


def test_an_error_of_the_callback_arrives():
    def fail(label):
        raise ZeroDivisionError(f"label {label}")

    for n_jobs in (1, 4):
        with pytest.raises(ZeroDivisionError, match="label"):
            map_labels(lambda label: None, 10, n_jobs, fail)


def test_thresholds_follow_scores_that_are_stretched(rng):
    scores = rng.normal(size=(50, 3))
    Y = sparse.csr_array((scores + rng.normal(size=(50, 3)) > 0).astype(int))
    base = best_thresholds(Y, scores)
    np.testing.assert_allclose(best_thresholds(Y, 4 * scores - 1), 4 * base - 1)
    rows = rng.permutation(50)
    np.testing.assert_array_equal(best_thresholds(Y[rows], scores[rows]), base)


def test_a_threshold_separates_what_can_be_separated(rng):
    scores = rng.permutation(np.linspace(-1, 1, 40))[:, None]
    for bound in (-0.5, 0.0, 0.9):
        Y = sparse.csr_array((scores > bound).astype(int))
        found = best_thresholds(Y, scores)
        np.testing.assert_array_equal(scores > found, scores > bound)
    # Where all have the label, all are found.
    everything = sparse.csr_array(np.ones((40, 1)))
    assert best_thresholds(everything, scores)[0] < scores.min()


def test_labels_solved_before_an_earlier_one_that_stops_are_forgotten():
    ahead, reported = Event(), []

    def solve(label):
        if label == 0:
            # Other threads get far in the meantime.
            ahead.wait(timeout=10)
        if label == 7:
            ahead.set()

    def stop(label):
        reported.append(label)
        return label == 0

    assert map_labels(solve, 8, 4, stop) == 1
    assert reported == [0]
