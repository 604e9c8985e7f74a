"""Privileged inner products in O(labels of the example) against plain ones."""

import numpy as np
import pytest
from scipy import sparse

from sklcomp.solvers.margin._labelsets import (
    Privilege,
    as_labelsets,
    rebuild_privileged,
    to_weights,
)


@pytest.mark.parametrize("coding", ["signed", "binary", "constant"])
def test_weights_from_multipliers_equal_the_plain_sum(rng, coding):
    Y = (rng.random((30, 6)) < 0.4).astype(np.int8)
    Y[:4] = Y[4]
    Y[5] = 0
    sets = as_labelsets(sparse.csr_array(Y), coding)
    n_sets = len(sets.indptr) - 1
    assert n_sets == (1 if coding == "constant" else len(np.unique(Y, axis=0)))
    alpha, cost = rng.random(30), rng.random(30)
    beta, gamma = rng.random(n_sets), 3.0
    p, q = np.zeros((6, 6)), np.zeros((6, 3))
    for j in range(6):
        rebuild_privileged(alpha, beta, cost, Privilege(sets, gamma), j, p[j], q[j])
    moment = alpha - cost
    for g in range(n_sets):
        # One multiplier for all examples of a set; which of them holds it is free.
        moment[np.flatnonzero(sets.group == g)[0]] += beta[g]
    signs = {"signed": 2.0 * Y - 1, "binary": 1.0 * Y, "constant": 0.0 * Y}[coding]
    plain = np.tile(moment @ signs / gamma, (6, 1))
    np.fill_diagonal(plain, 0)
    np.testing.assert_allclose(to_weights(p, q), plain, atol=1e-12)
    np.testing.assert_allclose(q[:, 2], moment.sum() / gamma, atol=1e-12)


def test_without_privilege_there_is_no_set():
    sets = as_labelsets(sparse.csr_array(np.eye(3, dtype=np.int8)), None)
    assert len(sets.indptr) == 1
