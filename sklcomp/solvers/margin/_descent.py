r"""What all dual coordinate descents share: the step, the rows put aside, the stop.

Multipliers :math:`\alpha_i` between zero and :math:`\rho c_i` are carried with

.. math:: w = w_0 + \sum_i \alpha_i y_i x_i .                               \tag{1}

Of the dual objective, as something to minimise, :math:`g_i` is the slope in
:math:`\alpha_i` and :math:`h_i` the curvature. What the bounds let a step follow is

.. math:: \bar g_i = \begin{cases} \min(g_i, 0) & \alpha_i = 0 \\
          \max(g_i, 0) & \alpha_i = \rho c_i \\ g_i & \text{else,} \end{cases} \tag{2}

and where it is not zero the coordinate is solved exactly:

.. math:: \alpha_i \leftarrow \min(\max(\alpha_i - g_i / h_i, 0), \rho c_i) . \tag{3}

A row at a bound is put aside where its slope leads far beyond, as in LIBLINEAR (Hsieh
et al., ICML 2008), but sooner:

.. math:: g_i > \tfrac{1}{10} \max_k \bar g_k \;\text{at } 0, \qquad
          g_i < \tfrac{1}{10} \min_k \bar g_k \;\text{at } \rho c_i ,       \tag{4}

over the rows k of the epoch before. Descent ends when the gap between the primal and
the dual objective is small,

.. math:: P - D \le \varepsilon P .                                         \tag{5}

A solver brings its slopes, its curvature and its gap. So does a loss that is no
quadratic of its multiplier, which also has a step of its own in place of (3).
"""

from typing import NamedTuple

import numpy as np

from sklcomp.solvers._jit import inlined
from sklcomp.solvers.margin._rows import Rows

# A row at its bound is put aside if its gradient exceeds this share of the largest
# projected gradient of the epoch before (LIBLINEAR: 1).
SHRINKAGE = 0.1
# Rows that were put aside too soon come back after so many epochs at the latest.
EPOCHS_TO_CHECK = 100
# Relative gaps below are rounding.
LEAST_TOL = 3e-12
# Conjugate gradients take over from time to time, once few rows are free.
EPOCHS_BEFORE_CG, EPOCHS_BETWEEN_CG = 20, 10
# What is left of the squared residual where they end: the bounds that their step meets
# move its minimum more than the digits behind.
CG_TOL = 1e-2
# More free rows than weights are too many for good: most of them will reach a bound,
# which coordinate descent finds faster. Until then it goes on alone.
EPOCHS_BEFORE_ALL = 200


class Problem(NamedTuple):
    """What is given of one label, or of all labels in the low-rank model.

    ``norms`` are those of the rows, squared. ``y`` holds signs and ``cost`` positive
    costs, of shape (n_samples,) or (n_samples, n_labels). Multipliers lie between 0 and
    ``cap * cost``; a hinge loss that is ``squared`` has an infinite cap.
    """

    rows: Rows
    norms: np.ndarray
    y: np.ndarray
    cost: np.ndarray
    cap: float = 1.0
    squared: bool = False


class Effort(NamedTuple):
    """The relative gap to stop at, the most epochs, and the seed of their order."""

    tol: float
    max_epochs: int
    seed: int


class Progress(NamedTuple):
    """How far a descent has come.

    An epoch visits the rows ``order[:n_active]``, and puts those aside at a bound whose
    gradient is above or below these. ``trust`` is the share of the tolerance at which
    an estimated gap is checked; ``state`` that of the random order.
    """

    order: np.ndarray
    n_active: int
    above: float
    below: float
    trust: float
    state: int


@inlined()
def clip_gradient(gradient, is_least, is_most):
    """What of a gradient a step can follow from the lower or the upper bound, (2)."""
    if is_least:
        return min(gradient, 0.0)
    if is_most:
        return max(gradient, 0.0)
    return gradient


@inlined()
def minimise_one(a, gradient, curvature, limit):
    """Minimiser in [0, limit] of a quadratic with this slope and curvature at a, (3).

    A loss whose dual is no quadratic puts another function in its place.
    """
    if curvature <= 0.0:
        return limit if gradient < 0.0 else a
    return min(max(a - gradient / curvature, 0.0), limit)


@inlined()
def is_settled(a, gradient, above, below):
    """Whether a multiplier at its bound is likely to stay there, (4)."""
    return (a == 0.0 and gradient > above) or (a > 0.0 and gradient < below)


@inlined()
def put_aside(order, position, n_active):
    """Swap a row behind those that are active; how many these are now."""
    n_active -= 1
    order[position], order[n_active] = order[n_active], order[position]
    return n_active


@inlined()
def find_thresholds(upper, lower):
    """Gradients above and below which rows are put aside in the next epoch, (4)."""
    # Without a positive or a negative one nothing tells what is far.
    above = SHRINKAGE * upper if upper > 0.0 else np.inf
    below = SHRINKAGE * lower if lower < 0.0 else -np.inf
    return above, below


@inlined()
def begin(n_rows, seed):
    """All rows are active, and nothing is put aside in the first epoch."""
    return Progress(np.arange(n_rows), n_rows, np.inf, -np.inf, 1.0, seed)


@inlined()
def go_on(progress, n_active, upper, lower, state):
    """The progress after an epoch with these extreme projected gradients."""
    above, below = find_thresholds(upper, lower)
    return Progress(progress.order, n_active, above, below, progress.trust, state)


@inlined()
def take_back(progress):
    """All rows are active again, after a gap that was too large.

    If none was put aside, the estimate that called for the gap was too low by itself,
    and the next one has to be lower.
    """
    order, n_active, _, _, trust, state = progress
    if n_active == order.size:
        trust *= 0.5
    return Progress(order, order.size, np.inf, -np.inf, trust, state)


@inlined()
def is_small(gap, dual, tol):
    """Whether a gap is small beside the primal objective, (5)."""
    return gap <= tol * (dual + gap)


@inlined()
def is_due(estimate, dual, tol, epoch):
    """Whether the exact gap is worth its epoch: the estimate is small, or time is up.

    The estimate costs nothing, but its gradients are of different moments, and those of
    the rows that were put aside are missing.
    """
    return is_small(estimate, dual, tol) or epoch % EPOCHS_TO_CHECK == 0


@inlined()
def is_turn_of_gradients(epoch):
    """Whether conjugate gradients follow this epoch."""
    return epoch >= EPOCHS_BEFORE_CG and epoch % EPOCHS_BETWEEN_CG == 0


@inlined()
def count_most_free(epoch, n_weights, n_rows):
    """Up to how many free rows conjugate gradients are worth their time."""
    return n_weights if epoch < EPOCHS_BEFORE_ALL else n_rows
