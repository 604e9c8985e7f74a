"""The other labels of an example as privileged features, and their weights.

The weights of the correcting function of a label are held as p + q[0] for each other
label, with q[1] the sum of p and q[2] the weight of the constant: so an inner product
takes as long as the label set has members, in either coding.
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
    for i in range(n_samples):
        labels = np.sort(Y.indices[Y.indptr[i] : Y.indptr[i + 1]]).astype(np.int32)
        group[i] = known.setdefault(labels.tobytes(), len(known))
        if group[i] == len(sets):
            sets.append(labels)
    indptr = np.concatenate([[0], np.cumsum([len(labels) for labels in sets])])
    return Labelsets(group, np.concatenate(sets), indptr, n_labels, coding == "signed")


@inlined(reassociate=False)
def correct(members, start, stop, own, n_labels, signed, p, q):
    """<wt, yt> of a label set, its squared norm and its number of other labels.

    In O(labels of the set): the weights of the other labels are p + q[0], of which only
    those in the set differ from the sum over all, n_labels * q[0] + q[1]; q[2] is the
    weight of the constant.
    """
    total, count = 0.0, 0
    for k in range(start, stop):
        if members[k] != own:
            total += p[members[k]]
            count += 1
    if signed:
        total = 2.0 * (total + q[0] * count) - q[1] - q[0] * (n_labels - 1)
        return total + q[2], float(n_labels), count
    return total + q[2], 1.0 + count, count


@inlined()
def shift(members, start, stop, own, count, signed, step, p, q):
    """Add step * yt to wt."""
    q[2] += step
    if signed:
        q[0] -= step
        q[1] += 2.0 * step * count
        step *= 2.0
    for k in range(start, stop):
        if members[k] != own:
            p[members[k]] += step


@inlined()
def squared_norm(p, q, own):
    """Squared norm of wt."""
    norm = q[2] * q[2]
    for j in range(p.size):
        weight = 0.0 if j == own else p[j] + q[0]
        norm += weight * weight
    return norm


@njit
def sweep_sets(gamma, sets, own, beta, p, q):
    """beta of one label; its terms of the gap and the greatest violation."""
    _, members, bounds, n_labels, signed = sets
    least, estimate = 0.0, 0.0
    for g in range(beta.size):
        start, stop = bounds[g], bounds[g + 1]
        slack, size, count = correct(members, start, stop, own, n_labels, signed, p, q)
        least = min(least, slack)
        estimate += beta[g] * slack
        change = max(-beta[g], -gamma * slack / size)
        if change != 0.0:
            beta[g] += change
            shift(members, start, stop, own, count, signed, change / gamma, p, q)
    return estimate, -least


@njit
def make_feasible(lift, p, q):
    """Lift the weight of the constant; NaN makes all weights zero."""
    if np.isnan(lift):
        p[:], q[:] = 0.0, 0.0
    else:
        q[2] += lift


@njit
def rebuild_privileged(alpha, beta, cost, gamma, sets, own, p, q):
    """(p, q) of one label from its multipliers."""
    group, members, bounds, _, signed = sets
    moment = beta.copy()
    for i in range(alpha.size):
        moment[group[i]] += alpha[i] - cost[i]
    p[:] = 0.0
    q[:] = 0.0
    for g in range(moment.size):
        start, stop = bounds[g], bounds[g + 1]
        _, _, count = correct(members, start, stop, own, 0, signed, p, q)
        shift(members, start, stop, own, count, signed, moment[g] / gamma, p, q)


def to_weights(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Weights of the other labels, one row a label."""
    weights = p + q[:, :1]
    np.fill_diagonal(weights, 0.0)
    return weights
