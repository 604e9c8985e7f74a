"""Out-of-fold scores: those of scikit-learn's models of the same folds."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from sklcomp.solvers.logistic import _out_of_fold
from sklcomp.solvers.logistic._labels import losses_of, solve_logistic
from sklcomp.solvers.logistic._out_of_fold import (
    LARGEST_LOGIT,
    LEAST_PROBABILITY,
    choose_gate,
    choose_penalties,
    clipped,
    prepare_folds,
)
from sklcomp.solvers.logistic._prototypes import label_shares

PENALTIES = np.array([300.0, 30.0, 3.0, 0.3, 0.03])
SETTINGS = {"tol": 1e-7, "max_iter": 1000}


@pytest.fixture
def problem(rng):
    """Rows, six labels from clear to noise, weights, factors and three folds."""
    X = rng.normal(size=(75, 5))
    noise = np.geomspace(0.3, 10.0, 6)[:, None] * rng.normal(size=(6, 75))
    targets = (rng.normal(size=(6, 5)) @ X.T + noise > 0.5).astype(np.int8)
    splits = list(KFold(3).split(X))
    weight, factors = rng.uniform(0.5, 2.0, 75), rng.uniform(0.5, 2.0, (6, 2))
    return X, targets, splits, weight, factors


def their_scores(X, y, splits, cost, penalty):
    scores = np.empty(len(y))
    for train, test in splits:
        rival = LogisticRegression(C=1.0 / penalty, tol=1e-10, max_iter=10_000)
        rival.fit(X[train], y[train], sample_weight=cost[train])
        scores[test] = rival.decision_function(X[test])
    return np.clip(scores, -LARGEST_LOGIT, LARGEST_LOGIT)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_brute_force_chooses_the_same(problem, container, monkeypatch):
    X, targets, splits, weight, factors = problem
    monkeypatch.setattr(_out_of_fold, "POOLED", 0.0)
    if container is sparse.csr_array:
        weight, factors = np.ones(75), None
    folds = prepare_folds(container(X), weight, splits)
    settings = {"weight": weight, "factors": factors} | SETTINGS
    choice, scores = choose_penalties(folds, targets, PENALTIES, **settings)
    n_clear = 0
    for j, y in enumerate(targets):
        cost = weight if factors is None else weight * factors[j, y]
        theirs = [their_scores(X, y, splits, cost, p) for p in PENALTIES]
        np.testing.assert_allclose(scores[j], theirs[choice[j]], atol=2e-3)
        losses = np.array([cost @ (np.logaddexp(0.0, Z) - y * Z) for Z in theirs])
        # The path ends where the loss rises first.
        rises = np.diff(losses) >= 0
        if (np.abs(np.diff(losses)) > 1e-3 * losses[1:]).all():
            assert choice[j] == (rises.argmax() if rises.any() else len(rises))
            n_clear += 1
    assert n_clear


def test_what_follows_a_rise_is_not_solved(rng, monkeypatch):
    # Of a label that is noise twenty features learn but the noise.
    X, targets = rng.normal(size=(75, 20)), rng.integers(0, 2, (1, 75), dtype=np.int8)
    folds = prepare_folds(X, np.ones(75), list(KFold(3).split(X)))
    solved = []

    def watched(*args, penalty, **settings):
        solved.extend(penalty)
        return solve_logistic(*args, penalty=penalty, **settings)

    monkeypatch.setattr(_out_of_fold, "solve_logistic", watched)
    penalties = np.array([1e4, 1.0, 0.3, 0.1])
    choice, _ = choose_penalties(
        folds, targets, penalties, weight=np.ones(75), **SETTINGS
    )
    assert choice[0] == 0
    assert solved == [1e4] * 3 + [1.0] * 3


def test_labels_of_which_a_loss_tells_little_go_along(problem, monkeypatch):
    X, targets, splits, weight, _ = problem
    folds = prepare_folds(X, weight, splits)
    monkeypatch.setattr(_out_of_fold, "POOLED", 1e6)
    choice, _ = choose_penalties(folds, targets, PENALTIES, weight=weight, **SETTINGS)
    theirs = np.array(
        [[their_scores(X, y, splits, weight, p) for p in PENALTIES] for y in targets]
    )
    losses = np.logaddexp(0.0, theirs) - targets[:, None] * theirs
    pooled = (losses @ weight).sum(axis=0)
    rises = np.diff(pooled) >= 0
    if (np.abs(np.diff(pooled)) > 1e-3 * pooled[1:]).all():
        expected = rises.argmax() if rises.any() else len(rises)
        np.testing.assert_array_equal(choice, expected)
    assert len(set(choice)) == 1


def test_a_label_is_scored_as_it_would_be_alone(problem, monkeypatch):
    monkeypatch.setattr(_out_of_fold, "POOLED", 0.0)
    X, targets, splits, weight, factors = problem
    folds = prepare_folds(X, weight, splits)
    settings = {"weight": weight} | SETTINGS
    both = choose_penalties(folds, targets, PENALTIES, factors=factors, **settings)
    for j in range(6):
        alone = choose_penalties(
            folds, targets[[j]], PENALTIES, factors=factors[[j]], **settings
        )
        assert alone[0][0] == both[0][j]
        np.testing.assert_allclose(alone[1][0], both[1][j], atol=2e-4)


def test_a_label_that_a_fold_has_not_met_gets_its_log_odds(problem):
    X, targets, splits, weight, _ = problem
    train, test = splits[0]
    targets[0, train] = 0
    targets[0, test[:5]] = 1
    folds = prepare_folds(X, weight, splits)
    scores = choose_penalties(folds, targets, PENALTIES, weight=weight, **SETTINGS)[1]
    odds = np.log(0.5 / (weight[train].sum() + 0.5))
    np.testing.assert_allclose(scores[0, test], odds, rtol=1e-10)
    assert np.isfinite(scores).all()


def test_the_row_itself_does_not_matter(problem):
    # What a test row is cannot be seen in its own score.
    X, targets, splits, weight, _ = problem
    other, (_, test) = targets.copy(), splits[1]
    other[:, test] = 1 - other[:, test]
    one = {"weight": weight} | SETTINGS
    folds = prepare_folds(X, weight, splits)
    found, changed = (
        choose_penalties(folds, Y, PENALTIES[:1], **one)[1] for Y in (targets, other)
    )
    np.testing.assert_array_equal(found[:, test], changed[:, test])
    assert not (found == changed).all()


def test_scores_are_clipped_in_place(rng):
    Z = rng.normal(0.0, 20.0, size=(3, 40))
    expected = np.clip(Z, -LARGEST_LOGIT, LARGEST_LOGIT)
    assert clipped(Z) is Z
    np.testing.assert_array_equal(Z, expected)


def test_separable_labels_have_scores_within_the_limit(rng):
    X = rng.normal(size=(75, 3))
    X[:, 0] += np.sign(X[:, 0])
    targets = (X[:, 0] > 0).astype(np.int8)[None]
    folds = prepare_folds(X, np.ones(75), list(KFold(3).split(X)))
    penalties = np.array([1.0, 1e-4, 1e-8])
    settings = {"weight": np.ones(75)} | SETTINGS
    _, scores = choose_penalties(folds, targets, penalties, **settings)
    assert np.abs(scores).max() == LARGEST_LOGIT


@pytest.fixture
def gated(problem, rng):
    """The prototype of each row, which its features tell in part, and its labels."""
    X, _, splits, weight, factors = problem
    Z = X @ rng.normal(size=(5, 3)) + rng.gumbel(size=(75, 3))
    Z[::5] = 9.0 * np.eye(3)[np.arange(15) % 3]  # each has rows in every fold
    assigned = Z.argmax(axis=1)
    sets = rng.integers(0, 2, size=(3, 6))
    Y = np.where(rng.random((75, 6)) < 0.15, 1 - sets[assigned], sets[assigned])
    return X, Y, assigned, splits, weight, factors


def choose(gated, penalties):
    X, Y, assigned, splits, weight, factors = gated
    targets = np.ascontiguousarray(Y.T, dtype=np.int8)
    settings = {"weight": weight, "factors": factors} | SETTINGS
    folds = prepare_folds(X, weight, splits)
    found = choose_gate(
        folds, sparse.csr_array(Y), targets, assigned, penalties, **settings
    )
    return *found, losses_of(logit(found[1]), targets, weight, factors).sum()


def test_the_gate_expects_what_the_prototypes_share(gated):
    X, Y, assigned, splits, weight, _ = gated
    penalty, found, _ = choose(gated, np.array([2.0]))
    assert penalty == 2.0
    assert (found > 0).all()
    assert (found < 1).all()
    for train, test in splits:
        rival = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000)
        rival.fit(X[train], assigned[train], sample_weight=weight[train])
        known = sparse.csr_array(Y[train])
        shares = label_shares(known, assigned[train], 3, weight[train])
        expected = rival.predict_proba(X[test]) @ shares
        np.testing.assert_allclose(found[:, test], expected.T, atol=1e-4)


def test_the_gate_goes_down_the_path_until_its_loss_rises(gated):
    penalties = np.array([1e4, 1e2, 10.0, 1.0, 1e-2, 1e-4])
    chosen, found, loss = choose(gated, penalties)
    alone = [choose(gated, penalties[[k]]) for k in range(6)]
    losses = np.array([one[2] for one in alone])
    rises = np.diff(losses) >= 0
    # What lies below is separated nearly as well: the path has an end.
    best = rises.argmax() if rises.any() else 5
    np.testing.assert_allclose(loss, losses[best], rtol=1e-3)
    if np.abs(np.diff(losses)).min() > 1e-3 * losses.max():
        assert chosen == penalties[best]
    same = alone[int(np.flatnonzero(penalties == chosen)[0])]
    np.testing.assert_allclose(found, same[1], atol=1e-3)


def test_probabilities_stay_where_their_log_odds_are_finite(rng):
    # Two prototypes that the features tell apart, and labels that tell the prototype.
    X = np.repeat([[-9.0], [9.0]], 3000, axis=0) + rng.normal(size=(6000, 1))
    Y = np.repeat([[1, 0], [0, 1]], 3000, axis=0)
    weight, assigned = np.full(6000, 1e4), np.repeat([0, 1], 3000)
    order = rng.permutation(6000)
    gated = X[order], Y[order], assigned[order], list(KFold(2).split(X)), weight, None
    _, found, loss = choose(gated, np.array([1e-3]))
    np.testing.assert_allclose(np.minimum(found, 1 - found), LEAST_PROBABILITY)
    assert np.isfinite(loss)
