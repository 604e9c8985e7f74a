"""Limited-memory BFGS for many problems of one design at once, one a row.

The logistic labels and the gate of the prototypes are solved by it.
"""

from typing import Any, Protocol

import numpy as np

MEMORY = 6
MAX_HALVINGS = 12
# Armijo's share of the predicted decrease, and what rounding may add to a loss.
SUFFICIENT, ROUNDING = 1e-4, 1e-10
# Curvature along a step below this says nothing.
LEAST_CURVATURE = 1e-14


class RowProblems(Protocol):
    """Sums of losses of linear scores, plus a quadratic penalty, one a row."""

    penalty: np.ndarray
    preconditioner: np.ndarray

    def start(self, W: np.ndarray) -> np.ndarray:
        """Scores at W, any offset included; makes the preconditioner ready."""

    def scores(self, W: np.ndarray) -> np.ndarray:
        """Scores without an offset, of shape (n_rows, ...), linear in W."""

    def losses(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the losses of each row, and their derivatives by Z."""

    def gradients(self, R: np.ndarray) -> np.ndarray:
        """Transpose of ``scores``."""

    def take(self, kept: np.ndarray) -> "RowProblems":
        """Some of the rows."""


def dots(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Inner product of each row of A with that of B."""
    return np.einsum("ij,ij->i", A, B)


def minimise_rows(
    problem: Any, W: np.ndarray, *, tol: float, max_iter: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimise each row of ``problem`` from W; returns W, iterations, converged.

    A row is done once the decrease that its quadratic model predicts is at most
    ``tol**2`` of its objective; the others go on without it. Scores are linear in W, so
    that an iteration takes two products with the design however often the line search
    halves its step.
    """
    solution, n_iter = np.array(W), np.full(len(W), max_iter)
    converged = np.zeros(len(W), dtype=bool)
    rows = np.arange(len(W))
    Z = problem.start(solution)
    objective, G = _evaluate(problem, solution, Z)
    W = solution.copy()
    memory: list[tuple] = []
    for iteration in range(max_iter):
        step = _direction(G, memory, problem.preconditioner)
        decrease = -dots(G, step)
        done = decrease <= tol**2 * np.abs(objective)
        if done.any():
            stopped = rows[done]
            solution[stopped], n_iter[stopped] = W[done], iteration
            converged[stopped] = True
            kept = ~done
            rows, W = rows[kept], W[kept]
            if not rows.size:
                break
            problem = problem.take(kept)
            Z, G, step = Z[kept], G[kept], step[kept]
            objective, decrease = objective[kept], decrease[kept]
            memory = [tuple(part[kept] for part in pair) for pair in memory]
        size, Z, objective, R = _search(problem, W, Z, step, objective, decrease)
        step *= size[:, None]
        W = W + step
        G_new = problem.gradients(R) + problem.penalty * W
        memory = _remember(memory, step, G_new - G)
        G = G_new
    solution[rows] = W
    return solution, n_iter, converged


def _evaluate(problem: Any, W: np.ndarray, Z: np.ndarray) -> tuple:
    loss, R = problem.losses(Z)
    penalised = problem.penalty * W
    return loss + 0.5 * dots(penalised, W), problem.gradients(R) + penalised


def _direction(G: np.ndarray, memory: list, preconditioner: np.ndarray) -> np.ndarray:
    """Minus the product of the inverse Hessian's estimate with G (two loops)."""
    q, factors = -G, []
    for step, change, inverse in reversed(memory):
        factor = inverse * dots(step, q)
        q -= factor[:, None] * change
        factors.append(factor)
    if memory:
        step, change, inverse = memory[-1]
        curved = inverse * dots(change * preconditioner, change)
        q *= np.where(inverse > 0, 1.0 / np.where(inverse > 0, curved, 1.0), 1.0)[
            :, None
        ]
    q *= preconditioner
    for (step, change, inverse), factor in zip(memory, reversed(factors), strict=True):
        q += (factor - inverse * dots(change, q))[:, None] * step
    return q


def _remember(memory: list, step: np.ndarray, change: np.ndarray) -> list:
    curvature = dots(step, change)
    known = curvature > LEAST_CURVATURE
    inverse = np.where(known, 1.0 / np.where(known, curvature, 1.0), 0.0)
    return [*memory[-(MEMORY - 1) :], (step, change, inverse)]


def _search(
    problem: Any,
    W: np.ndarray,
    Z: np.ndarray,
    step: np.ndarray,
    objective: np.ndarray,
    decrease: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of the steps by Armijo's rule, and the scores and losses that they lead to.

    The penalty along the step is a parabola, known from three inner products.
    """
    along = problem.scores(step)
    penalised = problem.penalty * step
    linear, squared = dots(penalised, W), dots(penalised, step)
    constant = 0.5 * dots(problem.penalty * W, W)
    size, reached = np.ones(len(W)), Z + along
    loss, R = problem.losses(reached)
    found = loss + constant + linear + 0.5 * squared
    for halving in range(MAX_HALVINGS):
        allowed = (
            objective - SUFFICIENT * size * decrease + ROUNDING * np.abs(objective)
        )
        far = np.flatnonzero(~(found <= allowed))
        if not far.size:
            break
        # Where rounding hides any descent a row stays where it is.
        size[far] *= 0.4 if halving < MAX_HALVINGS - 1 else 0.0
        part = size[far].reshape(-1, *[1] * (Z.ndim - 1))
        reached[far] = Z[far] + part * along[far]
        loss, R[far] = problem.take(far).losses(reached[far])
        found[far] = loss + constant[far]
        found[far] += size[far] * (linear[far] + 0.5 * size[far] * squared[far])
    return size, reached, found, R
