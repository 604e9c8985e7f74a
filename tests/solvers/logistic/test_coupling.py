"""The coupling: its features, its limits, and what it learns of other labels."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.model_selection import KFold

from sklcomp.solvers.logistic import _coupling
from sklcomp.solvers.logistic._coupling import (
    GATE_SHARE,
    INTERCEPT_PENALTY,
    blend,
    leading_features,
    learn_coupling,
)
from sklcomp.solvers.logistic._labels import losses_of
from sklcomp.solvers.logistic._out_of_fold import LARGEST_LOGIT


def latent(rng, n_labels):
    """Scores and probabilities that four directions explain but for little."""
    sizes = np.diag([3.0, 2.0, 1.5, 1.0])
    states = sizes @ rng.normal(size=(4, 60))
    orthogonal = np.linalg.qr(rng.normal(size=(n_labels, 4)))[0]
    Z = orthogonal @ states + 0.05 * rng.normal(size=(n_labels, 60)) + 0.5
    Q = expit(0.3 * Z + 0.02 * rng.normal(size=Z.shape))
    return Z, Q, rng.integers(1, 4, 60).astype(float)


@pytest.fixture
def scores(rng):
    return latent(rng, 5)


def standardised(Z, Q, weight):
    """All three groups, centred, each of total variance 1; and their covariance."""
    groups = []
    for group in (Z, expit(Z), Q):
        centred = group - np.average(group, axis=1, weights=weight)[:, None]
        variance = np.average(centred**2, axis=1, weights=weight).sum()
        groups.append(centred / np.sqrt(variance))
    A = np.concatenate(groups)
    return A, A * weight @ A.T / weight.sum()


def test_groups_have_a_variance_of_one(scores):
    Z, Q, weight = scores
    features = leading_features(Z, Q, 15, weight, np.random.RandomState(0))
    expected, _ = standardised(Z, Q, weight)
    np.testing.assert_allclose(features.standardised(Z, Q), expected, atol=1e-10)
    # As many directions as there are numbers are those numbers.
    np.testing.assert_allclose(features(Z, Q), expected.T, atol=1e-10)
    for group in np.split(features(Z, Q), 3, axis=1):
        assert np.average(group**2, axis=0, weights=weight).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("n_labels", [5, 12])
def test_directions_are_the_leading_eigenvectors(rng, n_labels):
    # With 12 labels the subspace is narrower than all groups.
    Z, Q, weight = latent(rng, n_labels)
    features = leading_features(Z, Q, 3, weight, np.random.RandomState(0))
    _, covariance = standardised(Z, Q, weight)
    values, vectors = np.linalg.eigh(covariance)
    found, best = features.directions, vectors[:, -3:]
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-10)
    explained = np.trace(found.T @ covariance @ found)
    assert explained == pytest.approx(values[-3:].sum(), rel=1e-4)
    if n_labels == 5:
        np.testing.assert_allclose(found @ found.T, best @ best.T, atol=1e-4)


def test_features_do_not_depend_on_the_chunks(scores, monkeypatch):
    Z, Q, weight = scores
    whole = leading_features(Z, Q, 4, weight, np.random.RandomState(0))
    expected = whole(Z, Q)
    monkeypatch.setattr(_coupling, "ROWS", 7)
    chunked = leading_features(Z, Q, 4, weight, np.random.RandomState(0))
    np.testing.assert_allclose(chunked(Z, Q), expected, atol=1e-7)


def test_weights_are_repeated_rows(scores):
    Z, Q, weight = scores
    times = weight.astype(int)
    weighted = leading_features(Z, Q, 4, weight, np.random.RandomState(0))
    rows = (np.repeat(one, times, axis=1) for one in (Z, Q))
    repeated = leading_features(
        *rows, 4, np.ones(times.sum()), np.random.RandomState(0)
    )
    np.testing.assert_allclose(weighted(Z, Q), repeated(Z, Q), atol=1e-7)


def test_scores_that_are_all_alike_have_no_direction_and_no_fault():
    Z, Q = np.full((3, 20), 0.5), np.full((3, 20), 0.2)
    features = leading_features(Z, Q, 2, np.ones(20), np.random.RandomState(0))
    np.testing.assert_allclose(features(Z, Q), 0.0, atol=1e-7)


def test_the_blend_is_a_mean_of_scores_and_log_odds(scores):
    Z, Q, _ = scores
    odds = np.log(Q / (1.0 - Q))
    expected = (1.0 - GATE_SHARE) * Z + GATE_SHARE * odds
    np.testing.assert_allclose(blend(Z, Q), expected, atol=1e-10)
    # Probabilities that are nearly certain say no more than the largest score.
    certain = blend(np.zeros((1, 2)), np.array([[1e-15, 1.0 - 1e-15]]))
    limit = GATE_SHARE * LARGEST_LOGIT
    np.testing.assert_allclose(certain, [[-limit, limit]])


@pytest.fixture
def copied(rng):
    """Label 1 is drawn as label 0 is, but its own scores say nothing of it."""
    told = 2.0 * rng.normal(size=240)
    Z = np.array([told, 0.3 * rng.normal(size=240), 0.3 * rng.normal(size=240)])
    chances = expit(np.array([told, told, np.zeros(240)]))
    targets = (rng.random((3, 240)) < chances).astype(np.int8)
    return Z, expit(0.1 * Z), targets, list(KFold(3).split(told))


def learn(copied, penalties, weight=None, **settings):
    Z, Q, targets, splits = copied
    settings = {"rank": 9, "tol": 1e-7} | settings
    return learn_coupling(
        Z,
        Q,
        targets,
        splits,
        np.array(penalties),
        weight=np.ones(Z.shape[1]) if weight is None else weight,
        rng=np.random.RandomState(0),
        **settings,
    )


def test_a_penalty_that_grows_leaves_the_blend(copied):
    Z, Q, *_ = copied
    coupling, unseen = learn(copied, [1e12])
    assert coupling.penalty == 1e12
    np.testing.assert_allclose(coupling(Z, Q), blend(Z, Q), atol=1e-6)
    np.testing.assert_allclose(unseen, blend(Z, Q), atol=1e-6)


def test_slopes_are_zero_at_the_coupling(copied, rng):
    Z, Q, targets, _ = copied
    weight, factors = rng.uniform(0.5, 2.0, 240), rng.uniform(0.5, 2.0, (3, 2))
    coupling, _ = learn(copied, [2.0], weight, factors=factors, rank=5)
    cost = weight * np.where(targets == 1, factors[:, [1]], factors[:, [0]])
    residuals = cost * (expit(coupling(Z, Q)) - targets)
    slopes = residuals @ coupling.features(Z, Q)
    np.testing.assert_allclose(slopes, -2.0 * coupling.coef, atol=1e-3)
    pull = INTERCEPT_PENALTY * 2.0 * coupling.intercept
    np.testing.assert_allclose(residuals.sum(axis=1), -pull, atol=1e-3)


def test_what_another_label_tells_is_learned(copied):
    Z, Q, targets, _ = copied
    ones = np.ones(240)
    coupling, unseen = learn(copied, [1e12, 1.0])
    assert coupling.penalty == 1.0
    before = losses_of(blend(Z, Q), targets, ones)
    # Unseen rows of label 1 are scored nearly as by the scores that it was drawn from.
    after, drawn = (
        losses_of(unseen, targets, ones),
        losses_of(Z[[0]], targets[[1]], ones),
    )
    assert after[1] < 0.93 * before[1]
    assert after[1] < drawn[0] + 0.5 * (before[1] - drawn[0])
    # Of what nothing tells anything, little is made up.
    assert after[2] < 1.15 * before[2]


def test_the_penalty_of_the_least_unseen_loss_is_chosen(copied):
    penalties = np.array([1e12, 10.0, 1.0, 0.1, 1e-3])
    losses = [
        losses_of(learn(copied, [p])[1], copied[2], np.ones(240)).sum()
        for p in penalties
    ]
    coupling, unseen = learn(copied, penalties)
    found = losses_of(unseen, copied[2], np.ones(240)).sum()
    assert found == pytest.approx(min(losses), rel=1e-4)
    chosen = losses[int(np.flatnonzero(penalties == coupling.penalty)[0])]
    assert chosen == pytest.approx(min(losses), rel=1e-4)


def test_what_a_row_is_does_not_matter_for_its_unseen_score(copied):
    Z, Q, targets, splits = copied
    _, test = splits[1]
    other = targets.copy()
    other[:, test] = 1 - other[:, test]
    found = learn(copied, [1.0])[1]
    changed = learn((Z, Q, other, splits), [1.0])[1]
    np.testing.assert_array_equal(found[:, test], changed[:, test])
    assert not (found == changed).all()


def test_labels_that_a_fold_has_not_met_keep_their_own_scores(copied):
    Z, Q, targets, splits = copied
    train, test = splits[0]
    targets[2, train], targets[2, test] = 0, 1
    _, unseen = learn(copied, [1.0])
    np.testing.assert_array_equal(unseen[2, test], Z[2, test])
    assert not (unseen[:2] == Z[:2]).any()
    assert np.isfinite(unseen).all()


def test_doubled_weights_and_factors_are_half_the_penalty(copied):
    factors = np.full((3, 2), 2.0)
    base, weighted, factored = (
        learn(copied, [penalty], **settings)[0]
        for penalty, settings in (
            (1.0, {}),
            (2.0, {"weight": np.full(240, 2.0)}),
            (2.0, {"factors": factors}),
        )
    )
    for other in (weighted, factored):
        np.testing.assert_allclose(other.coef, base.coef, atol=1e-3)
        np.testing.assert_allclose(other.intercept, base.intercept, atol=1e-3)
