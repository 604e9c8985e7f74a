"""LinearMultiLabelClassifier: what both linear multi-label classifiers share.

It checks targets and weights, and gives linear scores and predictions.
"""

from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_class_weight, compute_sample_weight
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from sklcomp.multilabel._names import check_names
from sklcomp.utils._messages import show, show_some, warn_user
from sklcomp.utils._sklearn import (
    CallbackSupportMixin,
    align_sparse,
    check_sample_weight,
)
from sklcomp.utils._targets import (
    as_indicator,
    check_classes,
    column_names,
    match_columns,
    read_targets,
)
from sklcomp.utils._validation import refuse_masked

# Inner products of such features, and sums of those, stay far below 1.8e308; so do
# losses whose costs sum to such a number.
LARGEST_FEATURE = LARGEST_COST = 1e75


class LinearMultiLabelClassifier(ClassifierMixin, CallbackSupportMixin, BaseEstimator):
    """Scores X coef + intercept, one column a label; not public."""

    def _check_data(
        self, X: Any, y: Any, sample_weight: Any, C: float, dtype: Any = None
    ) -> Any:
        """Checked rows of positive weight, their targets and weights, and which.

        ``C`` is the largest factor of the weights; which rows is None if all are.
        """
        names = column_names(y)
        y = None if y is None else read_targets(y)
        X, y = validate_data(
            self,
            X,
            y,
            multi_output=True,
            accept_sparse="csr",
            order="C",
            dtype=[np.float64, np.float32],
            accept_large_sparse=True,
        )
        if X.shape[0] < 2:
            msg = (
                f"{type(self).__name__} cannot be fitted with n_samples=1; at least "
                "two examples are needed."
            )
            raise ValueError(msg)
        Y = self._encode(y)
        self._name_labels(names, Y.shape[1])
        with np.errstate(over="ignore"):  # refused below, by its size
            X = X.astype(dtype or X.dtype, copy=False)
        X, weight, kept = keep_weighted(X, sample_weight, C)
        return X, Y if kept is None else Y[kept], weight, kept

    def _encode(self, y: Any) -> Any:
        """Indicator of the positive labels as CSR; sets ``classes_`` and the kind."""
        self._has_sparse_targets = sparse.issparse(y)
        if y.ndim == 2 and y.shape[1] != 1:
            Y = as_indicator(y)
            self.classes_ = np.arange(Y.shape[1])
            self._kind, self._is_indicator = "multilabel", True
            return Y
        flat = check_classes(y)
        self.classes_ = np.unique(flat)
        if len(self.classes_) == 1 and self.classes_[0] in (0, 1):
            # A label that never or always occurs.
            self.classes_ = np.array([0, 1], dtype=flat.dtype)
        self._kind = "binary" if len(self.classes_) <= 2 else "multiclass"
        self._is_indicator = y.ndim == 2 and self._kind == "binary"
        return self._encode_classes(flat)

    def _name_labels(self, names: Any, n_labels: int) -> None:
        """Names of the labels of ``fit``; without any, their numbers."""
        if self._kind == "multiclass":
            names = self.classes_
        elif names is None:
            names = range(n_labels)
        self.label_names_ = check_names(names, n_labels, known=())

    def _encode_classes(self, y: Any) -> Any:
        """Indicator of the classes of 1-D targets as CSR; one column for two."""
        unknown = y[~np.isin(y, self.classes_)]
        if unknown.size:
            msg = (
                f"y holds {show_some(np.unique(unknown))}; {type(self).__name__} was "
                f"fitted with the classes {show_some(self.classes_)}."
            )
            raise ValueError(msg)
        codes = np.searchsorted(self.classes_, y)
        n_classes = len(self.classes_)
        columns = codes - 1 if n_classes <= 2 else codes
        rows = np.flatnonzero(columns >= 0)
        return sparse.csr_array(
            (np.ones(len(rows), dtype=np.int8), (rows, columns[rows])),
            shape=(len(y), 1 if n_classes <= 2 else n_classes),
        )

    def _read_again(self, y: Any, name: str = "y") -> Any:
        """Targets with their columns as in ``fit``, where both have names."""
        Y = read_targets(y, name)
        if self._kind == "multiclass":  # one column, whose name is not kept
            return Y
        return match_columns(Y, column_names(y), self.label_names_, name)

    def _encode_again(self, y: Any, name: str = "y") -> Any:
        """Indicator of targets like those of ``fit``, columns matched by name."""
        Y = self._read_again(y, name)
        is_indicator = self._kind == "multilabel"
        if is_indicator and Y.ndim == 2:
            Y = as_indicator(Y, name)
        n_columns = len(self.classes_) if is_indicator else 1
        is_vector = Y.ndim == 1 and not is_indicator
        if not is_vector and Y.shape[1:] != (n_columns,):
            msg = (
                f"{name} has shape {Y.shape}, but {type(self).__name__} is expecting "
                f"{n_columns} column(s), in the order of label_names_ or named."
            )
            raise ValueError(msg)
        return Y if is_indicator else self._encode_classes(check_classes(Y, name))

    def _class_factors(self, Y: Any, weight: Any, class_weight: Any) -> Any:
        """Factors of the costs: of shape (n_samples,), and (n_labels, 2) or None."""
        ones = np.ones(Y.shape[0])
        if class_weight is None:
            return ones, None
        if class_weight != "balanced":
            check_class_weight(class_weight)
        if self._kind == "multilabel":
            return ones, label_weights(Y, weight, class_weight)
        codes = Y.toarray().ravel() if self._kind == "binary" else Y.indices
        y = self.classes_[codes]
        if class_weight == "balanced":
            present = np.unique(y)
            factors = compute_class_weight(
                "balanced", classes=present, y=y, sample_weight=weight
            )
            return factors[np.searchsorted(present, y)], None
        return compute_sample_weight(class_weight, y), None

    @refuse_masked
    def decision_function(self, X: Any) -> np.ndarray:
        """Score of every label.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_labels) or (n_samples,)
            The higher, the likelier is the label; one column for binary targets is
            given as a vector. Scores are not probabilities.
        """
        check_is_fitted(self)
        X = validate_data(
            self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False
        )
        scores = self._score(X)
        return scores.ravel() if self._kind == "binary" else scores

    def _score(self, X: Any) -> Any:
        """Scores of checked examples, one column a label."""
        return safe_sparse_dot(X, self.coef_.T, dense_output=True) + self.intercept_

    @refuse_masked
    def predict(self, X: Any) -> Any:
        """Labels whose score exceeds their threshold, or the class of highest score.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        y : ndarray or sparse matrix of shape (n_samples, n_labels), or (n_samples,)
            Indicator matrix, or classes for 1-D targets or one column. If the targets
            of ``fit`` were sparse it is sparse too, with one column for one label;
            whether matrix or array, ``sklearn.set_config(sparse_interface=...)`` says.
        """
        check_is_fitted(self)
        scores = self.decision_function(X)
        if self._kind == "multiclass":
            y = self.classes_[scores.argmax(axis=1)]
        else:
            positive = scores > getattr(self, "thresholds_", 0.0)
            y = positive.astype(np.int64)
            if self._kind == "binary":
                y = self.classes_[y]
        if not self._has_sparse_targets:
            return y
        return align_sparse(sparse.csr_array(y if y.ndim == 2 else y[:, None]))

    @refuse_masked
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy; of an indicator matrix, the share of rows without any error.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            True targets as in ``fit``; named columns may be in any order.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the examples.

        Returns
        -------
        score : float in [0, 1]
            Higher is better.
        """
        found = self.predict(X)
        if self._kind == "multilabel":
            y = self._encode_again(y)
        else:
            y, found = check_classes(self._read_again(y)), check_classes(found)
        return float(accuracy_score(y, found, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags


def keep_weighted(X: Any, sample_weight: Any, C: float) -> tuple[Any, np.ndarray, Any]:
    """Rows of positive weight for the solvers, their weights, and which (None: all)."""
    check_scale(X)
    weight = check_sample_weight(sample_weight, X, ensure_non_negative=True)
    weight = weight.astype(np.float64)
    with np.errstate(over="ignore"):
        check_total(weight.sum() * max(C, 1.0), f"C={C:g} and sample_weight")
    kept = None
    if not weight.all():
        kept = weight > 0
        X, weight = X[kept], weight[kept]
    return canonical(X) if sparse.issparse(X) else X, weight, kept


def check_scale(X: Any) -> None:
    """Refuse features whose inner products would overflow."""
    values = X.data if sparse.issparse(X) else X
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST_FEATURE:
        msg = (
            f"X has {values.dtype} features of size {largest:.3g}, over "
            f"{LARGEST_FEATURE:.0e}, where inner products overflow; scale them first, "
            "for example with StandardScaler or MaxAbsScaler."
        )
        raise ValueError(msg)


def check_total(total: float, sources: str, cure: str = "choose smaller ones") -> None:
    """Refuse sums of costs that are too large, inf or NaN."""
    if not total <= LARGEST_COST:
        msg = (
            f"{sources} lead to a sum of {total:.3g}, over {LARGEST_COST:.0e}, "
            f"where losses overflow; {cure}."
        )
        raise ValueError(msg)


def canonical(X: Any) -> Any:
    """CSR without duplicates, sorted; a copy only where that changes something."""
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def check_class_weight(class_weight: Any) -> None:
    """Refuse anything but dictionaries of finite numbers that are not negative."""
    for table in class_weight if isinstance(class_weight, list) else [class_weight]:
        if not isinstance(table, dict):
            msg = (
                f"class_weight is a list that holds {show(table)}; give one dictionary "
                "{0: ..., 1: ...} for each label."
            )
            raise ValueError(msg)
        for key, value in table.items():
            if not (isinstance(value, Real) and 0 <= float(value) < np.inf):
                msg = (
                    f"class_weight gives {show(value)} to the class {show(key)}; give "
                    "finite numbers that are not negative."
                )
                raise ValueError(msg)


def label_weights(Y: sparse.csr_array, weight: np.ndarray, class_weight: Any) -> Any:
    """Factors of shape (n_labels, 2) for absence and presence of each label."""
    n_labels = Y.shape[1]
    if class_weight == "balanced":
        present = Y.T @ weight
        counts = np.stack([weight.sum() - present, present], axis=1)
        return weight.sum() / (2.0 * np.maximum(counts, np.finfo(float).tiny))
    tables = (
        class_weight if isinstance(class_weight, list) else [class_weight] * n_labels
    )
    if len(tables) != n_labels or any(set(table) - {0, 1} for table in tables):
        msg = (
            f"class_weight={show(class_weight)} does not fit {n_labels} labels: give "
            "'balanced', one dictionary {0: ..., 1: ...}, or a list of one for each."
        )
        raise ValueError(msg)
    return np.array([[float(table.get(k, 1.0)) for k in (0, 1)] for table in tables])


def split_constant(Y: sparse.csr_array, warn: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which labels have both classes, and the constant score of the others."""
    counts = np.asarray(Y.sum(axis=0, dtype=np.int64)).ravel()
    varies = (counts > 0) & (counts < Y.shape[0])
    if not varies.all() and warn:
        constant = np.flatnonzero(~varies)
        shown = ", ".join(map(str, constant[:10])) + (", ..." * (len(constant) > 10))
        warn_user(
            f"{len(constant)} of {len(varies)} labels are constant in y (columns "
            f"{shown}); they are predicted as such.",
            UserWarning,
        )
    return varies, np.where(counts == 0, -1.0, 1.0)
