r"""The other labels of an example as privileged features, and their weights.

With :math:`\tilde y_g` the features of label set g, its other labels and a constant 1,
the correcting function of a label gives it the correction

.. math:: s_g = \langle \tilde w, \tilde y_g \rangle .                      \tag{1}

Other labels are coded 0/1 or :math:`\pm 1`; of L labels,

.. math:: \|\tilde y_g\|^2 = 1 + |g| \quad \text{or} \quad L .              \tag{2}

The weights follow from multipliers :math:`\alpha, \beta` and costs c,

.. math:: \gamma \tilde w = \sum_i (\alpha_i - c_i) \, \tilde y_{g(i)}
          + \sum_g \beta_g \tilde y_g ,                                     \tag{3}

and the :math:`\beta_g` that is best while all others are fixed is

.. math:: \beta_g \leftarrow \max(0, \beta_g - \gamma s_g / \|\tilde y_g\|^2) .
          \tag{4}

The weights are held as p + q[0] for each other label, with q[1] the sum of p and q[2]
the weight of the constant: so an inner product takes as long as the label set has
members, in either coding. Of the labels outside the set it needs no more than the sum
over all of them, which is q[1] + q[0] (L - 1).
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from sklcomp.solvers._jit import inlined, njit


class Labelsets(NamedTuple):
    """The distinct label sets of the examples, as privileged features.

    Set g holds the labels ``members[indptr[g]:indptr[g + 1]]``; example i has the set
    ``group[i]``. ``signed`` codes the other labels +-1, else they are 0/1.
    """

    group: np.ndarray
    members: np.ndarray
    indptr: np.ndarray
    n_labels: int
    signed: bool


class Privilege(NamedTuple):
    """Label sets as privileged features, and what the squares of their weights cost."""

    sets: Labelsets
    gamma: float


class Multipliers(NamedTuple):
    """Those of the margins, one a row, and of the corrections, one a label set."""

    alpha: np.ndarray
    beta: np.ndarray


class Weights(NamedTuple):
    """What follows from the multipliers: w and the correcting function (p, q).

    In the low-rank model, components in the place of w, and a row of p and q a label.
    """

    w: np.ndarray
    p: np.ndarray
    q: np.ndarray


def as_labelsets(Y: sparse.csr_array, coding: str | None) -> Labelsets:
    """Label sets of a CSR indicator matrix.

    "constant" forgets the labels: one set, without members. None has no set at all.
    """
    n_samples, n_labels = Y.shape
    if coding is None:
        empty = np.empty(0, dtype=np.int32)
        group, indptr = np.zeros(n_samples, dtype=np.int64), np.zeros(1, dtype=np.int64)
        return Labelsets(group, empty, indptr, n_labels, False)
    if coding == "constant":
        group, indptr = np.zeros(n_samples, dtype=np.int64), np.zeros(2, dtype=np.int64)
        return Labelsets(group, np.empty(0, dtype=np.int32), indptr, n_labels, False)
    known: dict[bytes, int] = {}
    group = np.empty(n_samples, dtype=np.int64)
    sets: list[np.ndarray] = []
    # A dictionary of bytes, since np.unique would need the rows as a dense matrix.
    for i in range(n_samples):
        labels = np.sort(Y.indices[Y.indptr[i] : Y.indptr[i + 1]]).astype(np.int32)
        group[i] = known.setdefault(labels.tobytes(), len(known))
        if group[i] == len(sets):
            sets.append(labels)
    indptr = np.concatenate([[0], np.cumsum([len(labels) for labels in sets])])
    return Labelsets(group, np.concatenate(sets), indptr, n_labels, coding == "signed")


# Sums over a few labels, which LLVM's vector gathers would only slow down.
@inlined(reassociate=False)
def correction_of(members, start, stop, label, n_labels, signed, p, q):
    """The correction (1) of a label set, and the squared norm of its features, (2)."""
    total, count = 0.0, 0
    for k in range(start, stop):
        if members[k] != label:
            total += p[members[k]]
            count += 1
    if signed:
        # Twice those in the set less all of them, which have -1 outside of it.
        total = 2.0 * (total + q[0] * count) - q[1] - q[0] * (n_labels - 1)
        return total + q[2], float(n_labels)
    return total + q[2], 1.0 + count


@inlined()
def shift(members, start, stop, label, signed, step, p, q):
    """Add step times the features of a label set to the weights, (3)."""
    q[2] += step
    if signed:
        # All other labels lose a step; those in the set gain it back, and one more.
        q[0] -= step
        step *= 2.0
    count = 0
    for k in range(start, stop):
        if members[k] != label:
            p[members[k]] += step
            count += 1
    if signed:
        q[1] += step * count


@inlined()
def squared_norm(p, q, label):
    """Squared norm of the weights of a label's correcting function."""
    norm = q[2] * q[2]
    for j in range(p.size):
        weight = 0.0 if j == label else p[j] + q[0]
        norm += weight * weight
    return norm


@njit
def sweep_sets(privilege, label, beta, p, q):
    """beta of one label by (4); its terms of the gap and the greatest violation."""
    (_, members, bounds, n_labels, signed), gamma = privilege
    least, estimate = 0.0, 0.0
    for g in range(beta.size):
        start, stop = bounds[g], bounds[g + 1]
        slack, size = correction_of(members, start, stop, label, n_labels, signed, p, q)
        least = min(least, slack)
        estimate += beta[g] * slack
        change = max(-beta[g], -gamma * slack / size)  # (4)
        if change != 0.0:
            beta[g] += change
            shift(members, start, stop, label, signed, change / gamma, p, q)
    return estimate, -least


@njit
def make_feasible(lift, p, q):
    """Lift the weight of the constant; NaN makes all weights zero."""
    if np.isnan(lift):
        p[:], q[:] = 0.0, 0.0
    else:
        q[2] += lift


@njit
def rebuild_privileged(alpha, beta, cost, privilege, label, p, q):
    """(p, q) of one label from its multipliers, (3)."""
    (group, members, bounds, _, signed), gamma = privilege
    # Equal label sets have equal features: one sum of multipliers serves them all.
    moment = beta.copy()
    for i in range(alpha.size):
        moment[group[i]] += alpha[i] - cost[i]
    p[:] = 0.0
    q[:] = 0.0
    for g in range(moment.size):
        step = moment[g] / gamma
        shift(members, bounds[g], bounds[g + 1], label, signed, step, p, q)


def to_weights(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Weights of the other labels, one row a label."""
    weights = p + q[:, :1]
    np.fill_diagonal(weights, 0.0)
    return weights
