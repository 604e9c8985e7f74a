"""What the solvers of labels never form, written out."""

import numpy as np
from scipy import sparse

from sklcomp.solvers.margin._descent import Problem
from sklcomp.solvers.margin._labelsets import (
    Multipliers,
    Privilege,
    Weights,
    as_labelsets,
    rebuild_privileged,
)
from sklcomp.solvers.margin._rows import as_rows, squared_norms


def privileged_features(Y, label, coding):
    """The other labels and a constant; shape (n_samples, n_labels + 1)."""
    features = {"signed": 2.0 * Y - 1, "binary": 1.0 * Y, "constant": 0.0 * Y}[coding]
    features[:, label] = 0
    return np.column_stack([features, np.ones(len(Y))])


class PrivilegedCase:
    """The problem of one label, as its kernels see it and as the paper writes it."""

    def __init__(self, X, Y, label, cost, coding="signed", cap=2.0, gamma=5.0):
        self.label, self.cost, self.cap, self.gamma = label, cost, cap, gamma
        self.y = 2.0 * Y[:, label] - 1
        norms = squared_norms(X, 1.0)
        self.problem = Problem(as_rows(X, 1.0), norms, self.y, cost, cap)
        sets = as_labelsets(sparse.csr_array(Y), coding)
        self.privilege = Privilege(sets, gamma)
        self.n_sets, self.n_labels = len(sets.indptr) - 1, Y.shape[1]
        dense = X.toarray() if sparse.issparse(X) else X
        self.design = np.column_stack([dense, np.ones(len(Y))]).astype(float)
        self.features = privileged_features(Y, label, coding)
        first = [np.flatnonzero(sets.group == g)[0] for g in range(self.n_sets)]
        self.set_features = self.features[first]
        self.start = np.zeros(self.design.shape[1])

    def state(self, alpha=None, beta=None):
        """Multipliers, by default zero, and the weights that follow from them."""
        alpha = np.zeros(len(self.y)) if alpha is None else alpha.copy()
        beta = np.zeros(self.n_sets) if beta is None else beta.copy()
        w = self.start + (alpha * self.y) @ self.design
        p, q = np.zeros(self.n_labels), np.zeros(3)
        rebuild_privileged(alpha, beta, self.cost, self.privilege, self.label, p, q)
        return Multipliers(alpha, beta), Weights(w, p, q)

    def correcting(self, weights):
        """Weights of the other labels and the constant, from (p, q)."""
        found = np.append(weights.p + weights.q[0], weights.q[2])
        found[self.label] = 0
        return found

    def primal(self, w, correcting):
        """The objective; missed margins are only allowed with a finite cap."""
        slack = self.features @ correcting
        miss = np.maximum(1 - self.y * (self.design @ w) - slack, 0)
        missed = self.cap * miss if np.isfinite(self.cap) else 0 * miss
        squares = np.sum((w - self.start) ** 2) + self.gamma * correcting @ correcting
        return 0.5 * squares + self.cost @ (slack + missed)

    def dual(self, alpha, beta):
        """The dual objective of multipliers alone."""
        w = self.start + (alpha * self.y) @ self.design
        correcting = self.moment(alpha, beta) / self.gamma
        squares = self.start @ self.start - w @ w
        squares -= self.gamma * correcting @ correcting
        return alpha.sum() + 0.5 * squares

    def moment(self, alpha, beta):
        return (alpha - self.cost) @ self.features + beta @ self.set_features
