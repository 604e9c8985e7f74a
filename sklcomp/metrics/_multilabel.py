"""Measures of how multi-label classifiers rank labels, for users and as scorers."""

from numbers import Integral
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.metrics import coverage_error, make_scorer
from sklearn.utils import check_array, check_consistent_length

from sklcomp.utils._sklearn import Interval, check_sample_weight, validate_params
from sklcomp.utils._targets import (
    check_indicator,
    column_names,
    match_columns,
    read_targets,
)
from sklcomp.utils._validation import refuse_masked

_RANKING = {
    "y_true": ["array-like", "sparse matrix"],
    "y_score": ["array-like"],
    "sample_weight": ["array-like", None],
}


@refuse_masked
@validate_params(
    _RANKING | {"k": [Interval(Integral, 1, None, closed="left")]},
    prefer_skip_nested_validation=True,
)
def precision_at_k(
    y_true: Any, y_score: Any, *, k: int = 3, sample_weight: Any = None
) -> float:
    r"""Mean share of the k best-scored labels that an example has; higher is better.

    .. math:: \frac1n \sum_i \frac1k \, \bigl| Y_i \cap \mathrm{top}_k(s_i) \bigr|

    for the labels :math:`Y_i` and the scores :math:`s_i` of example i. Where equal
    scores leave the k best open, it is the expectation over a random choice among
    them, so that the order of the columns never counts. An example with fewer than k
    labels cannot reach 1.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_samples, n_labels)
        Indicator of the labels, 0/1 or False/True.
    y_score : array-like of shape (n_samples, n_labels)
        Scores, such as from ``decision_function``; larger means more likely. Columns
        of two frames are matched by name.
    k : int, default=3
        Labels counted, at most ``n_labels``.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the examples; None counts all alike.

    Returns
    -------
    precision : float in [0, 1]
        1 if the k best-scored labels are present everywhere.

    Raises
    ------
    ValueError
        If the shapes differ, ``y_true`` is no indicator, ``k`` exceeds the number of
        labels or all weights are 0.

    See Also
    --------
    one_error : Its complement for k = 1.
    sklearn.metrics.label_ranking_average_precision_score : Looks at the whole ranking.

    Examples
    --------
    >>> from sklcomp.metrics import precision_at_k
    >>> y_true = [[1, 0, 1], [0, 0, 1]]
    >>> y_score = [[0.9, 0.2, 0.4], [0.3, 0.8, 0.5]]
    >>> precision_at_k(y_true, y_score, k=2)
    0.75
    """
    labels, scores, weight = _check_ranking(y_true, y_score, sample_weight)
    n_labels = labels.shape[1]
    if k > n_labels:
        msg = f"k={k} exceeds the number of labels {n_labels}; take k <= {n_labels}."
        raise ValueError(msg)
    # The k-th largest score of every row; labels at it share the places that are left.
    last = np.partition(scores, n_labels - k, axis=1)[:, [n_labels - k]]
    above, level = scores > last, scores == last
    share = (k - above.sum(axis=1)) / level.sum(axis=1)
    hits = (above & labels).sum(axis=1) + share * (level & labels).sum(axis=1)
    return float(np.average(hits / k, weights=weight))


@refuse_masked
@validate_params(_RANKING, prefer_skip_nested_validation=True)
def one_error(y_true: Any, y_score: Any, *, sample_weight: Any = None) -> float:
    r"""Share of the examples whose best-scored label is absent; lower is better.

    .. math:: \frac1n \sum_i [\arg\max_j s_{ij} \notin Y_i]

    Among labels with the same best score one is chosen at random, in expectation. An
    example without any label counts as an error whatever its scores are.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_samples, n_labels)
        Indicator of the labels, 0/1 or False/True.
    y_score : array-like of shape (n_samples, n_labels)
        Scores; larger means more likely. Columns of two frames are matched by name.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the examples; None counts all alike.

    Returns
    -------
    error : float in [0, 1]
        0 if the best-scored label is always present.

    Raises
    ------
    ValueError
        If the shapes differ, ``y_true`` is no indicator or all weights are 0.

    See Also
    --------
    precision_at_k : 1 minus this for k = 1.

    Examples
    --------
    >>> from sklcomp.metrics import one_error
    >>> one_error([[1, 0, 1], [0, 0, 1]], [[0.9, 0.2, 0.4], [0.3, 0.8, 0.5]])
    0.5
    """
    return 1.0 - precision_at_k(y_true, y_score, k=1, sample_weight=sample_weight)


@refuse_masked
@validate_params(_RANKING, prefer_skip_nested_validation=True)
def normalized_coverage(
    y_true: Any, y_score: Any, *, sample_weight: Any = None
) -> float:
    r"""How far down the ranking the last label of an example is; lower is better.

    .. math:: \frac1n \sum_i \frac{\max_{j \in Y_i} \mathrm{rank}_{ij} - 1}{m}

    for m labels. This is the coverage of the multi-label literature, as a share of the
    labels: 0 if every example's labels stood alone and came first.
    :func:`sklearn.metrics.coverage_error` counts from 1 and does not divide. Labels
    with the same score all take the worst of their ranks; examples without labels
    count 0, and so do all where there is one label only.

    Parameters
    ----------
    y_true : {array-like, sparse matrix} of shape (n_samples, n_labels)
        Indicator of the labels, 0/1 or False/True.
    y_score : array-like of shape (n_samples, n_labels)
        Scores; larger means more likely. Columns of two frames are matched by name.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the examples; None counts all alike.

    Returns
    -------
    coverage : float in [0, 1)
        Share of the ranking, without its first place, that has to be read.

    Raises
    ------
    ValueError
        If the shapes differ, ``y_true`` is no indicator or all weights are 0.

    Examples
    --------
    >>> from sklcomp.metrics import normalized_coverage
    >>> normalized_coverage([[1, 0, 1, 0]], [[0.9, 0.2, 0.4, 0.1]])
    0.25
    """
    labels, scores, weight = _check_ranking(y_true, y_score, sample_weight)
    if labels.shape[1] == 1:  # always first, but scikit-learn refuses one label
        return 0.0
    depth = coverage_error(labels, scores, sample_weight=weight)
    labelled = np.average(labels.any(axis=1), weights=weight)
    return float(depth - labelled) / labels.shape[1]


def _check_ranking(y_true: Any, y_score: Any, sample_weight: Any) -> tuple:
    """Labels as bool, scores, and weights or None; all checked."""
    labels = check_indicator(read_targets(y_true, "y_true"), "y_true")
    labels = labels.toarray() > 0 if sparse.issparse(labels) else labels
    scores = check_array(y_score, dtype=[np.float64, np.float32], input_name="y_score")
    check_consistent_length(labels, scores)
    if labels.shape != scores.shape:
        msg = (
            f"y_true has shape {labels.shape} and y_score {scores.shape}; they must be "
            "equal, one column a label."
        )
        raise ValueError(msg)
    names, known = column_names(y_score), column_names(y_true)
    if names and known:
        scores = match_columns(scores, names, known, "y_score")
    weight = None
    if sample_weight is not None:
        weight = check_sample_weight(
            sample_weight, scores, dtype=np.float64, ensure_non_negative=True
        )
    return labels, scores, weight


_RESPONSE = ("decision_function", "predict_proba")
one_error_scorer = make_scorer(
    one_error, greater_is_better=False, response_method=_RESPONSE
)
normalized_coverage_scorer = make_scorer(
    normalized_coverage, greater_is_better=False, response_method=_RESPONSE
)
precision_at_k_scorer = make_scorer(precision_at_k, response_method=_RESPONSE)
