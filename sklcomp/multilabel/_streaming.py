"""StreamingLabelClassifier: labels that arrive after the fit (arXiv 1604.05449)."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from sklcomp.multilabel._base import (
    LinearMultiLabelClassifier,
    keep_weighted,
    split_constant,
)
from sklcomp.multilabel._names import check_names, next_numbers
from sklcomp.solvers._result import SolverResult
from sklcomp.solvers.margin._arriving import LabelLearner, solve_arriving
from sklcomp.utils._messages import show_some, warn_user
from sklcomp.utils._sklearn import (
    Interval,
    IterationReporter,
    StrOptions,
    fit_context,
    with_callbacks,
)
from sklcomp.utils._targets import (
    as_indicator,
    column_names,
    match_columns,
    read_targets,
)
from sklcomp.utils._validation import refuse_masked


class StreamingLabelClassifier(LinearMultiLabelClassifier):
    r"""Linear classifiers to which labels can be added later.

    :meth:`fit` learns one linear classifier a label. :meth:`add_labels` learns further
    labels, from as few annotated examples as there are, and leaves what was learned
    before as it is, bit for bit. Two steps do it: the new label is represented by the
    labels known before, through a ridge regression with coefficients s, and the
    combination W s of their hypotheses becomes the prior of its own,

    .. math:: \min_w \; \tfrac12 \| w - c W s \|^2 + C \sum_i \ell(y_i \, w^T x_i) .

    Where labels are related and annotations few, that is better than learning from
    scratch; where they are not, the learned scale c of the prior goes to zero.

    Parameters
    ----------
    C : float, default=1.0
        Cost of the losses; the smaller, the more a new label keeps to its prior.
    loss : {"hinge", "squared_hinge", "squared_error"}, default="hinge"
        Loss :math:`\ell`; "squared_error" is :math:`\tfrac12 (y_i - w^T x_i)^2`, solved
        in closed form, with one factorisation for all labels of a call unless X has
        more than 4,000 rows and columns.
    representation : {"labels", "scores"}, default="labels"
        Whether a new label is regressed on earlier labels (:math:`\pm 1`) or on their
        scores, clipped to [-2, 2].
    alpha : float, default=10.0
        Penalty :math:`\tfrac{\alpha}{2} \|s\|^2` of that regression.
    prior_scale : "auto" or float in [0, 1], default="auto"
        Scale c of the prior; "auto" is the least-squares scale of the inherited scores
        on the targets, clipped to [0, 1]. 0 is learning from scratch.
    fit_intercept : bool, default=True
        Whether to learn an intercept, as the (regularised) weight of a constant 1.
    tol : float, default=1e-2
        Relative duality gap to stop at; not used by "squared_error".
    max_iter : int, default=1000
        Most epochs for a label.
    n_jobs : int, default=None
        Threads over the labels of ``fit``; results do not depend on it. Labels of one
        :meth:`add_labels` are learned one after the other, as each may build on those
        before.
    random_state : int, RandomState instance or None, default=None
        Order of the coordinates.
    verbose : int, default=0
        1 prints a line for each call.

    Attributes
    ----------
    coef_ : ndarray of shape (n_labels, n_features)
        Coefficients, new labels last; (1, n_features) for binary targets.
    intercept_ : ndarray of shape (n_labels,)
        Intercepts.
    classes_ : ndarray of shape (n_labels,) or (n_classes,)
        Numbers of the labels, or classes of 1-D targets.
    label_names_ : ndarray of shape (n_labels,), object
        Names from the columns of y or from ``label_names``, else numbers; classes of
        multi-class targets.
    n_labels_ : int
        Number of labels, new ones included.
    representation_ : list of ndarray
        For each label added, in order, its coefficients s for the labels before.
    prior_scale_ : ndarray of shape (n_added,)
        For each label added, the scale c of its prior.
    n_iter_ : int
        Most epochs of a label in the last call.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X had string names.

    See Also
    --------
    PrivilegedMultiLabelClassifier : All labels at once.
    sklcomp.inspection.LabelStreamDisplay : What arrived labels took from earlier ones.

    Notes
    -----
    ``clone`` and a second ``fit`` forget the labels that were added: they are not
    parameters. Where labels are unrelated, or thousands of examples annotated, there is
    little to inherit. What is saved is learning the others anew. The scale is
    found by leaving each example out, in closed form, unless that would take long (some
    hundred labels) and there are more than ten examples a label.

    References
    ----------
    S. You, C. Xu, Y. Wang, C. Xu, D. Tao: Streaming Label Learning for Modeling Labels
    on the Fly, arXiv:1604.05449.

    Examples
    --------
    >>> import numpy as np
    >>> from sklcomp.multilabel import StreamingLabelClassifier
    >>> X = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, -1.0], [-2.0, 0.0]])
    >>> Y = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [0, 0]])
    >>> model = StreamingLabelClassifier(C=10, random_state=0).fit(X, Y)
    >>> model.predict([[3.0, 3.0]])
    array([[1, 1]])

    A third label arrives, annotated on three of the examples:

    >>> model = model.add_labels(X[1:4], [1, 1, 0], y_past=Y[1:4], label_names="any")
    >>> model.predict([[3.0, 3.0], [-3.0, -3.0]])
    array([[1, 1, 1],
           [0, 0, 0]])
    >>> model.label_names_
    array([0, 1, 'any'], dtype=object)
    """

    _parameter_constraints = {
        "C": [Interval(Real, 0, None, closed="neither")],
        "loss": [StrOptions({"hinge", "squared_hinge", "squared_error"})],
        "representation": [StrOptions({"labels", "scores"})],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "prior_scale": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})],
        "fit_intercept": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        C: float = 1.0,
        *,
        loss: Any = "hinge",
        representation: Any = "labels",
        alpha: Any = 10.0,
        prior_scale: Any = "auto",
        fit_intercept: bool = True,
        tol: float = 1e-2,
        max_iter: int = 1000,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.C = C
        self.loss = loss
        self.representation = representation
        self.alpha = alpha
        self.prior_scale = prior_scale
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @refuse_masked
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn the labels that are known now.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples; sparse ones are never made dense.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            Indicator matrix of 0/1 or False/True, or 1-D classes of any type. Labels
            can be added to an indicator matrix or to one column of 0/1.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the cost of every example; 0 removes it.

        Returns
        -------
        self : StreamingLabelClassifier
            The fitted classifier, without any label added earlier.
        """
        X, Y, weight, _ = self._check_data(X, y, sample_weight, self.C)
        varies, constant_scores = split_constant(Y, self._is_indicator)
        reporter = IterationReporter(self, X=X, y=y)
        W = np.zeros((Y.shape[1], X.shape[1] + 1))
        W[:, -1] = np.where(varies, 0.0, constant_scores)
        result = None
        if varies.any():
            learner = self._learner(X, weight)
            result = learner.solve(Y[:, varies], W[varies], reporter)
            W[varies] = result.solution
        self.coef_ = W[:, :-1].astype(X.dtype)
        self.intercept_ = W[:, -1].astype(X.dtype)
        self.n_labels_ = Y.shape[1]
        self.representation_: list[np.ndarray] = []
        self.prior_scale_ = np.zeros(0)
        self.n_iter_ = 1 if result is None else int(result.n_iter.max())
        reporter.finish()
        if not reporter.stopped:
            self._report([] if result is None else [result])
        return self

    @refuse_masked
    @fit_context(prefer_skip_nested_validation=True)
    def add_labels(
        self,
        X: Any,
        y_new: Any,
        *,
        y_past: Any = None,
        label_names: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Learn labels that have arrived; those learned before are left alone.

        Several labels are learned in the order of their columns, each with those before
        it among the earlier ones. If anything fails, the model stays as it was.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples annotated for the new labels: any, not only those of ``fit``. Do
            not pass examples without an annotation.
        y_new : {array-like, sparse matrix} of shape (n_samples,) or (n_samples, n_new)
            Indicator of the new labels.
        y_past : {array-like, sparse matrix} of shape (n_samples, n_labels), \
default=None
            All earlier labels of the same examples, those added included; columns of a
            frame are matched by name, in any order. If None, the model's own
            predictions stand in. Not used by ``representation="scores"``.
        label_names : str or array-like of shape (n_new,), default=None
            Names of the new labels; None takes those of the columns of ``y_new``
            (strings or integers, but not the 0, 1, 2 ... that pandas gives by itself)
            or the next numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the cost of every example, also in the representation.

        Returns
        -------
        self : StreamingLabelClassifier
            The classifier, which predicts the new labels in its last columns.

        Raises
        ------
        ValueError
            If a name is taken, ``y_new`` has no column or other values than 0/1,
            ``y_past`` has another shape or other names, or the classifier was fitted
            with 1-D targets other than 0/1.
        """
        check_is_fitted(self)
        self._check_open()
        X = validate_data(
            self,
            X,
            accept_sparse="csr",
            order="C",
            dtype=[np.float64, np.float32],
            reset=False,
        )
        names = column_names(y_new) if label_names is None else label_names
        new = as_columns(y_new, "y_new")
        check_consistent_length(X, new)
        if names is None:
            names = next_numbers(self.label_names_, new.shape[1])
        names = check_names(names, new.shape[1], known=self.label_names_)
        past = self._check_past(X, y_past)
        X, weight, kept = keep_weighted(X, sample_weight, self.C)
        if kept is not None:
            new, past = new[kept], past if past is None else past[kept]
        varies, constant_scores = split_constant(new, True)
        learned = solve_arriving(
            self._learner(X, weight),
            new,
            past,
            np.column_stack([self.coef_, self.intercept_]),
            weight,
            alpha=self.alpha,
            prior_scale=self.prior_scale,
            constant_scores=np.where(varies, 0.0, constant_scores),
        )
        W = np.array([label.solution[0] for label in learned.results])
        kind = self.coef_.dtype
        n_labels = self.n_labels_ + len(names)
        self.__dict__.update(
            coef_=np.vstack([self.coef_, W[:, :-1].astype(kind)]),
            intercept_=np.append(self.intercept_, W[:, -1].astype(kind)),
            classes_=np.arange(n_labels),
            label_names_=np.append(self.label_names_, names),
            n_labels_=n_labels,
            representation_=[*self.representation_, *learned.representation],
            prior_scale_=np.append(self.prior_scale_, learned.scale),
            n_iter_=int(max(label.n_iter[0] for label in learned.results)),
            _kind="multilabel",
        )
        self._report(learned.results)
        return self

    def _learner(self, X: Any, weight: np.ndarray) -> LabelLearner:
        return LabelLearner(
            X,
            self.C * weight,
            self.loss,
            self.fit_intercept,
            self.tol,
            self.max_iter,
            self.n_jobs,
            check_random_state(self.random_state),
        )

    def _check_open(self) -> None:
        if self._kind == "multilabel" or np.array_equal(self.classes_, [0, 1]):
            return
        msg = (
            f"labels cannot be added to a {type(self).__name__} that was fitted with "
            f"the classes {show_some(self.classes_)}; fit it "
            "with an indicator matrix of 0/1, or with one column of 0/1."
        )
        raise ValueError(msg)

    def _check_past(self, X: Any, y_past: Any) -> Any:
        """Indicator of the earlier labels; None if scores take their place."""
        if self.representation == "scores" and y_past is None:
            return None
        if y_past is None:
            return as_indicator(self._score(X) > 0)
        past = as_columns(y_past, "y_past", self.label_names_)
        shape = (X.shape[0], self.n_labels_)
        if past.shape != shape:
            msg = (
                f"y_past has shape {past.shape}, but {shape} is needed: the "
                f"{self.n_labels_} earlier labels of the same rows, in the order of "
                "label_names_ or named."
            )
            raise ValueError(msg)
        return None if self.representation == "scores" else past

    def _report(self, results: list[SolverResult]) -> None:
        gaps = np.concatenate([np.zeros(1), *(result.gap for result in results)])
        if self.verbose:
            print(  # noqa: T201
                f"[{type(self).__name__}] {self.n_labels_} labels, {self.n_iter_} "
                f"epochs, gap {gaps.max():.2g}"
            )
        n_open = sum(int((~result.converged).sum()) for result in results)
        if n_open:
            warn_user(
                f"{n_open} labels did not reach the relative duality gap "
                f"tol={self.tol:g} in max_iter={self.max_iter} epochs; the largest gap "
                f"is {gaps.max():.2g}. The model is usable; scale the features, lower "
                "C or raise max_iter for a more accurate one.",
                ConvergenceWarning,
            )


def as_columns(y: Any, name: str, label_names: Any = None) -> sparse.csr_array:
    """Indicator of one or more labels as CSR; a vector is one label."""
    Y = read_targets(y, name)
    if label_names is not None:
        Y = match_columns(Y, column_names(y), label_names, name)
    return as_indicator(Y.reshape(-1, 1) if Y.ndim == 1 else Y, name)
