"""SolverResult: what the solvers return to their estimators."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SolverResult:
    """Solutions of a batch of problems and how they were reached.

    Attributes
    ----------
    solution : ndarray of shape (n_problems, ...)
        One solution per problem.
    n_iter : ndarray of shape (n_problems,), int
        Iterations used; 0 where a direct method solved the problem.
    gap : ndarray of shape (n_problems,), float
        Relative residual at the end, in the norm that the solver stops on.
    converged : ndarray of shape (n_problems,), bool
        Whether ``gap`` is at most the tolerance.
    """

    solution: np.ndarray
    n_iter: np.ndarray
    gap: np.ndarray
    converged: np.ndarray
