"""Whether coupled scores rank the labels of unseen rows no worse than plain ones."""

from typing import Any

import numpy as np

# The plain scores are kept if both measures together, in units of theirs, are worse by
# more than this and by more than so many standard errors.
WORSE, CHANCE = 0.1, 2.0
ROWS = 1024


def guard(
    Y: np.ndarray, coupled: np.ndarray, plain: np.ndarray, weight: np.ndarray
) -> dict[str, Any]:
    """Which scores of unseen rows rank the labels better, and both measures.

    The plain ones are kept where the others are clearly worse: by a share, and by more
    than chance. Level scores of unseen rows go with coupled ones that are better: those
    were learned from the scores of weaker models, and C was chosen for the plain ones.
    """
    ours, theirs = (ranking_errors(Y, scores) for scores in (coupled, plain))
    total = weight.sum()
    weight = weight / total
    means = ours @ weight, theirs @ weight
    # Of plain scores without any error all others are worse by a share without end.
    units = np.maximum(means[1], np.finfo(float).eps)
    worse = ((ours - theirs) / units[:, None]).sum(axis=0)
    excess = worse @ weight
    error = np.sqrt(weight @ (worse - excess) ** 2 / total)
    is_worse = excess > max(WORSE, CHANCE * error)
    return {
        "kept": "plain" if is_worse else "privileged",
        "ranking_loss": (float(means[0][0]), float(means[1][0])),
        "average_precision": (float(1.0 - means[0][1]), float(1.0 - means[1][1])),
    }


def ranking_errors(Y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Ranking loss, and 1 - average precision, of every row; ties in any order.

    Those of scikit-learn loop over the rows, which would take longer than the fit. Some
    rows at a time, since their ranks are several arrays of that size.
    """
    parts = [slice(start, start + ROWS) for start in range(0, len(Y), ROWS)]
    return np.hstack([_errors_of_some(Y[part], scores[part]) for part in parts])


def _errors_of_some(Y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    present = np.take_along_axis(Y, np.argsort(-scores, axis=1), axis=1) > 0
    hits = np.cumsum(present, axis=1)
    n_present = hits[:, -1]
    n_pairs = n_present * (Y.shape[1] - n_present)
    missed = np.where(present, 0, n_present[:, None] - hits).sum(axis=1)
    precision = (present * hits / np.arange(1, Y.shape[1] + 1)).sum(axis=1)
    precision = np.where(n_pairs > 0, precision / np.maximum(n_present, 1), 1.0)
    return np.array([missed / np.maximum(n_pairs, 1), 1.0 - precision])
