"""Few components for all labels: descent, the trace norm, and where they are zero."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklcomp.multilabel import PrivilegedMultiLabelClassifier


@pytest.mark.filterwarnings("ignore:.*zero coefficients")
def test_low_rank_never_rises_and_its_factors_are_balanced(labelled):
    X, Y = labelled
    for cap in (1, 3, np.inf):
        model = PrivilegedMultiLabelClassifier(
            C=0.3, rank=2, slack_cap=cap, max_iter=40, tol=0, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, Y)
        curve = np.array(model.loss_curve_)
        assert (np.diff(curve) <= 1e-12 * curve[1:]).all()
        assert curve[-1] < curve[0]
        np.testing.assert_allclose(
            model.label_codes_ @ model.components_, model.coef_, atol=1e-10
        )
        assert np.linalg.matrix_rank(model.coef_) <= 2


def trace_norm_bound(rows, signs, C, weight=0.1, n_iter=2000):
    """Least trace norm plus C times the hinge losses, bounded from below.

    Multipliers in [0, C] do so: their sum, once they are scaled to an operator of norm
    one. Those of the alternating direction method of multipliers come near.
    """
    inverse = np.linalg.inv(rows.T @ rows + np.eye(rows.shape[1]))
    Z = np.zeros((signs.shape[1], rows.shape[1]))
    margins, shift, alpha = np.zeros(signs.shape), np.zeros_like(Z), 0.0
    for _ in range(n_iter):
        left, values, right = np.linalg.svd(Z + shift, full_matrices=False)
        low = (left * np.maximum(values - 1 / weight, 0)) @ right
        shift = shift + Z - low
        goal = signs * (rows @ Z.T) - alpha / weight
        step = np.clip(1 - goal, 0, C / weight)
        margins, alpha = goal + step, weight * step
        Z = (low - shift + (signs * (margins + alpha / weight)).T @ rows) @ inverse
    size = np.linalg.norm((alpha * signs).T @ rows, 2)
    return alpha.sum() / max(size, 1.0)


def test_low_rank_at_full_rank_solves_the_trace_norm_problem(labelled):
    X, Y = labelled
    C = 0.3
    model = PrivilegedMultiLabelClassifier(
        C=C,
        rank=4,
        slack_cap=1,
        tol=1e-9,
        inner_tol=1e-9,
        max_iter=300,
        inner_max_iter=1000,
        random_state=0,
    ).fit(X, Y)
    rows, signs = np.column_stack([X, np.ones(60)]), 2 * Y - 1
    Z = np.column_stack([model.coef_, model.intercept_])
    losses = np.maximum(1 - signs * (rows @ Z.T), 0)
    objective = np.linalg.norm(Z, "nuc") + C * losses.sum()
    np.testing.assert_allclose(model.objective_, objective, rtol=1e-6)
    # Both are within 1e-5 of the optimum, for any seed of the data.
    bound = trace_norm_bound(rows, signs, C)
    assert bound <= objective <= (1 + 1e-4) * bound


def test_too_small_cost_gives_zero_at_low_rank_and_says_so(labelled):
    X, Y = labelled
    rows = np.column_stack([X, np.ones(60)])
    threshold = 1 / np.linalg.norm(rows.T @ (2 * Y - 1), 2)
    model = PrivilegedMultiLabelClassifier(
        C=0.5 * threshold, rank=2, slack_cap=1, max_iter=100, random_state=0
    )
    with pytest.warns(UserWarning, match="zero coefficients"):
        model.fit(X, Y)
    assert np.abs(model.coef_).max() < 1e-4
    model.set_params(C=2 * threshold).fit(X, Y)
    assert np.abs(model.coef_).max() > 1e-3


def test_the_paper_model_collapses_where_features_say_little(rng):
    X, Y = rng.normal(size=(200, 2)), rng.integers(0, 2, size=(200, 3))
    with pytest.warns(UserWarning, match="zero coefficients"):
        literal = PrivilegedMultiLabelClassifier(
            slack_cap=np.inf, tol=1e-6, max_iter=100, random_state=0
        ).fit(X, Y)
    assert np.abs(literal.coef_).max() < 1e-6
    np.testing.assert_allclose(literal.correcting_function(Y), 1.0, atol=1e-3)


def test_rank_beyond_the_labels_is_refused(labelled):
    X, Y = labelled
    with pytest.raises(ValueError, match="rank=5 exceeds the 4 labels"):
        PrivilegedMultiLabelClassifier(rank=5).fit(X, Y)
