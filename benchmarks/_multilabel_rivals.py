"""Rivals of PrivilegedLogisticClassifier, each tuned for ranking loss.

Logistic rivals are tuned by the library's solver, which learns all labels at once;
``gap_to_sklearn`` shows for each split that it ranks as LogisticRegression does.
"""

from functools import partial

import numpy as np
from _multilabel_quality import COSTS, PRIVILEGED, RIVALS, scores_of
from scipy import sparse
from scipy.special import expit, logit
from sklearn.cluster import KMeans
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import label_ranking_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain

from sklcomp.solvers.logistic._design import prepare_design
from sklcomp.solvers.logistic._labels import solve_logistic

PLAIN, ONE_C = "logistic, a C for each label", "logistic, one C"
CHAINS = "chains (5)"
# Of the solver, and how far its ranking loss may be from that of LogisticRegression.
TOL, SAME = 1e-3, 1e-3
# Values of C times the mean squared norm of centred rows, by their number.
C_GRIDS = {
    12: np.geomspace(0.1, 300, 12),
    6: np.geomspace(0.3, 300, 6),
    4: np.geomspace(0.5, 100, 4),
    2: np.array([2.0, 20.0]),
}
# Parameter of the features, one C_GRIDS[...] for each of them; by configurations.
GAMMAS = {12: ((0.3, 1.0, 3.0), 4), 4: ((0.5, 2.0), 2)}
N_CLUSTERS = {12: ((20, 60), 6), 4: ((60,), 4)}
N_FOURIER = 600
# Share of the most labels or of 100, and penalty relative to where nothing is learned.
SQUARES = {
    12: [(rank, by) for rank in (0.3, 1.0) for by in np.geomspace(0.003, 0.3, 6)],
    4: [(1.0, by) for by in np.geomspace(0.01, 0.3, 4)],
}


def spread(X):
    """Mean squared norm of centred rows."""
    mean = np.asarray(X.mean(axis=0)).ravel()
    squares = X.multiply(X) if sparse.issparse(X) else X * X
    return float(squares.sum() / X.shape[0] - mean @ mean)


def as_given(X, seed):
    return lambda rows: rows


def fourier(gamma, X, seed):
    """Random features of a Gaussian kernel; gamma over the mean squared distance."""
    gamma = gamma / (2 * spread(X))
    return (
        RBFSampler(gamma=gamma, n_components=N_FOURIER, random_state=seed)
        .fit(X)
        .transform
    )


def clusters(n_clusters, X, seed):
    """Features, and which cluster of X a row is in, on the scale of its norm."""
    found = KMeans(n_clusters, n_init=1, random_state=seed).fit(X)
    scale = np.sqrt(spread(X))

    def features(rows):
        members = scale * np.eye(n_clusters)[found.predict(rows)]
        if sparse.issparse(rows):
            return sparse.csr_array(sparse.hstack([rows, members]))
        return np.hstack([rows, members])

    return features


def logistic_path(make_features, costs, X, Y, X_test, seed):
    """Test scores for one C after the other, or for an array of C for the labels."""
    features = make_features(X, seed)
    design = prepare_design(features(X))
    tested = design._replace(X=features(X_test))
    targets = np.ascontiguousarray(Y.T, dtype=np.int8)
    solution = None
    for cost in costs:
        penalty = np.full(len(targets), design.variance.sum() / cost)
        solution = solve_logistic(
            design, targets, penalty=penalty, init=solution, tol=TOL, max_iter=2000
        ).solution
        yield tested.scores(solution).T


def mean_loss(Y, scores, folds):
    return np.mean([label_ranking_loss(Y[test], scores[test]) for _, test in folds])


def out_of_fold(make_features, costs, X, Y, folds, seed):
    found = np.empty((len(costs), *Y.shape))
    for train, test in folds:
        path = logistic_path(make_features, costs, X[train], Y[train], X[test], seed)
        for k, scores in enumerate(path):
            found[k][test] = scores
    return found


def on_features(kind, plan, X, Y, folds, X_test, seed):
    """Scores of tuned logistic regressions on one kind of features, and the choice."""
    best = np.inf, None, None
    parameters, n_costs = plan
    for parameter in parameters:
        make, costs = partial(kind, parameter), C_GRIDS[n_costs]
        for cost, scores in zip(
            costs, out_of_fold(make, costs, X, Y, folds, seed), strict=True
        ):
            best = min(best, (mean_loss(Y, scores, folds), parameter, cost))
    _, parameter, cost = best
    (scores,) = logistic_path(partial(kind, parameter), [cost], X, Y, X_test, seed)
    return scores, f"{parameter:g}/{cost:.2g}"


def plain_logistic(size, X, Y, folds, X_test, seed):
    """Scores with one C tuned for ranking loss, and with each label's by log-loss."""
    costs = C_GRIDS[size]
    found = out_of_fold(as_given, costs, X, Y, folds, seed)
    one = costs[np.argmin([mean_loss(Y, scores, folds) for scores in found])]
    losses = [(np.logaddexp(0, scores) - Y * scores).sum(axis=0) for scores in found]
    each = costs[np.argmin(losses, axis=0)]
    (by_one,) = logistic_path(as_given, [one], X, Y, X_test, seed)
    (by_each,) = logistic_path(as_given, [each], X, Y, X_test, seed)
    shown = "{:.2g} ({:.2g} to {:.2g})".format(*np.percentile(each, [50, 0, 100]))
    return {ONE_C: (by_one, f"{one:.2g}"), PLAIN: (by_each, shown)}, one


def one_vs_rest(C, tol, **settings):
    return OneVsRestClassifier(LogisticRegression(C=C, tol=tol, **settings))


def gap_to_sklearn(cost, scores, X, Y, X_test, Y_test):
    """How much the ranking loss of scikit-learn's model with this C differs."""
    C = cost / spread(X)
    theirs = scores_of(
        lambda C, *_: one_vs_rest(C, 1e-5, max_iter=5000), C, X, Y, X_test
    )
    constant = Y.min(axis=0) == Y.max(axis=0)
    theirs[:, constant] = scores[:, constant]
    gap = label_ranking_loss(Y_test, scores) - label_ranking_loss(Y_test, theirs)
    assert abs(gap) <= SAME, f"the solver's ranking loss is off by {gap:.4f}"
    return abs(gap)


class LogisticChains:
    """Mean probabilities of random chains of logistic regressions."""

    def __init__(self, C, n_chains):
        self.chains = [
            ClassifierChain(
                LogisticRegression(C=C, tol=1e-3, max_iter=200),
                order="random",
                random_state=seed,
            )
            for seed in range(n_chains)
        ]

    def fit(self, X, Y):
        for chain in self.chains:
            chain.fit(X, Y)
        return self

    def decision_function(self, X):
        found = [expit(chain.decision_function(X)) for chain in self.chains]
        return logit(np.clip(np.mean(found, axis=0), 1e-15, 1 - 1e-15))


class LowRankSquares:
    """LEML: |Y - X W H|^2 + penalty (|W|^2 + |H|^2), by W and H in turn.

    In the eigenbasis of X^T X both are closed forms that do not touch the rows again.
    """

    def __init__(self, rank, penalty, n_iter=30):
        self.rank, self.penalty, self.n_iter = rank, penalty, n_iter

    def fit(self, X, Y):
        self.mean, self.shares = np.asarray(X.mean(axis=0)).ravel(), Y.mean(axis=0)
        gram = X.T @ X
        gram = gram.toarray() if sparse.issparse(gram) else gram
        gram = gram - len(Y) * np.outer(self.mean, self.mean)
        values, basis = np.linalg.eigh(gram)
        values = np.maximum(values, 0)[:, None]
        target = basis.T @ (X.T @ Y - len(Y) * np.outer(self.mean, self.shares))
        _, sizes, right = np.linalg.svd(target, full_matrices=False)
        # With a larger penalty W H is 0: it is that of the nuclear norm of W H.
        penalty = self.penalty * sizes[0]
        rank = max(1, round(self.rank * min(100, len(sizes))))
        H = np.sqrt(sizes[:rank, None]) * right[:rank]
        for _ in range(self.n_iter):
            # W stays in this basis of the directions, and the next H is found in it.
            curvature, rotation = np.linalg.eigh(H @ H.T)
            W = target @ H.T @ rotation / (values * curvature + penalty)
            H = np.linalg.solve(
                W.T @ (values * W) + penalty * np.eye(rank), W.T @ target
            )
        self.coef = basis @ W @ H
        return self

    def decision_function(self, X):
        return X @ self.coef - self.mean @ self.coef + self.shares - 0.5


def other_rivals(size, norm):
    """Name -> configurations, a model to tune, and the final one if it differs."""

    def chains(n_chains):
        return lambda cost, *_: LogisticChains(cost / norm, n_chains)

    return {
        # On the large sets C is tuned on one chain: on five it would take hours.
        CHAINS: (C_GRIDS[size], chains(5 if size == 12 else 1), chains(5)),
        "LEML": (SQUARES[size], lambda config, *_: LowRankSquares(*config)),
        "hinge": (COSTS[size], RIVALS["OvR hinge SVM"]),
        "PrML": (PRIVILEGED[size], RIVALS["PrML"]),
    }


def tuned(X, Y, folds, X_test, configs, make, make_final=None):
    """Test scores with the configuration of the least ranking loss over the folds."""
    losses = [
        np.mean(
            [
                label_ranking_loss(
                    Y[test], scores_of(make, config, X[train], Y[train], X[test])
                )
                for train, test in folds
            ]
        )
        for config in configs
    ]
    best = configs[int(np.argmin(losses))]
    parts = best if isinstance(best, tuple) else (best,)
    shown = "/".join(f"{float(part):.2g}" for part in parts)
    return scores_of(make_final or make, best, X, Y, X_test), shown


def tuned_rivals(size, X, Y, folds, X_test, Y_test, seed):
    """Rival -> test scores, whether they are logits, the choice; the solver's gap."""
    found, one = plain_logistic(size, X, Y, folds, X_test, seed)
    gap = gap_to_sklearn(one, found[ONE_C][0], X, Y, X_test, Y_test)
    for rival, kind, plans in (
        ("logistic on Fourier features", fourier, GAMMAS),
        ("logistic on x and clusters", clusters, N_CLUSTERS),
    ):
        found[rival] = on_features(kind, plans[size], X, Y, folds, X_test, seed)
    logits = {*found, CHAINS}
    for rival, how in other_rivals(size, spread(X)).items():
        found[rival] = tuned(X, Y, folds, X_test, *how)
    # What the logistic solver says of a label that no training row has.
    unmet = -np.log(2 * len(Y) + 1)
    scores, chosen = found[CHAINS]
    found[CHAINS] = np.where(scores > -1e3, scores, unmet), chosen
    return {
        rival: (scores, rival in logits, chosen)
        for rival, (scores, chosen) in found.items()
    }, gap
