"""PrivilegedMultiLabelClassifier: labels that teach each other (arXiv 1701.07194)."""

from numbers import Integral, Real
from typing import Any

import joblib
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklcomp.multilabel._base import (
    LinearMultiLabelClassifier,
    check_total,
    split_constant,
)
from sklcomp.solvers.margin._low_rank import solve_low_rank
from sklcomp.solvers.margin._per_label import best_thresholds
from sklcomp.solvers.margin._privileged import PrivilegedResult, solve_privileged
from sklcomp.solvers.margin._rows import squared_norms
from sklcomp.utils._messages import warn_user
from sklcomp.utils._sklearn import (
    Interval,
    IterationReporter,
    Options,
    StrOptions,
    fit_context,
    with_callbacks,
)
from sklcomp.utils._stratification import stratify
from sklcomp.utils._validation import refuse_masked

N_THRESHOLD_FOLDS = 3
# A label all of whose scores are smaller has been given up.
LEAST_SCORE = 1e-3


class PrivilegedMultiLabelClassifier(LinearMultiLabelClassifier):
    r"""Linear classifiers whose hinge slack is explained by the other labels.

    While label j is learned, the other labels of an example act as a teacher: they are
    known in training, not in prediction, and say how hard the example is. The slack of
    a support vector machine becomes a *correcting function* of them, linear in the
    privileged features :math:`\tilde y_{ij}` (the other labels of example i, and 1):

    .. math:: \min \; \tfrac12 \|Z\|^2 + \tfrac{\gamma}{2} \|\tilde W\|_F^2
              + C \sum_{ij} \left( \langle \tilde w_j, \tilde y_{ij} \rangle
              + \rho \, \zeta_{ij} \right)

    subject to :math:`y_{ij} z_j^T x_i \ge 1 - \langle \tilde w_j, \tilde y_{ij}\rangle
    - \zeta_{ij}`, :math:`\langle \tilde w_j, \tilde y_{ij} \rangle \ge 0` and
    :math:`\zeta_{ij} \ge 0`. With ``rank=None`` the norm of Z is Frobenius' and the
    problem convex, one a label; with a rank k, :math:`Z = D^T W` and the norm is
    :math:`\|W\|_F^2 + \|D\|_F^2`, twice the trace norm of Z where the rank allows it.

    Parameters
    ----------
    C : float, default=1.0
        Cost of slack; the smaller, the stronger is the regularisation.
    rank : int, default=None
        Rank k of the coefficients, the paper's low-rank model; None for full rank,
        many times faster on sparse text.
    gamma : "scale" or float, default="scale"
        Weight of the correcting functions; "scale" is ``3 * C *
        sum(sample_weight)``. The larger, the less do other labels explain.
    slack_cap : float in [1, inf], default=3.0
        Cost :math:`\rho` of slack beyond the correcting function, in units of C. 1 is
        the plain hinge loss, ``np.inf`` the paper's model, see Notes.
    privileged : {"signed", "binary", "constant"} or None, default="signed"
        Other labels as +-1 or as 0/1; "constant" keeps the 1 alone, which is a
        nu-SVM; None is the hinge loss of cost C, whatever ``slack_cap``.
    fit_intercept : bool, default=True
        Whether to learn an intercept, as the (regularised) weight of a constant.
    intercept_scaling : float, default=1.0
        Value of that constant; the larger, the less is the intercept regularised.
    prox : "auto" or float, default="auto"
        With a rank: weight of the proximal term of the alternation.
    max_iter : int, default=40
        With a rank: iterations of the alternation. Without: ``max_iter *
        inner_max_iter`` bounds the epochs.
    inner_max_iter : int, default=30
        With a rank: epochs of each of the two problems of an iteration.
    tol : float, default=1e-3
        Without a rank: relative duality gap to stop at. With: relative fall of the
        objective.
    inner_tol : float, default=1e-3
        With a rank: relative duality gap of the two problems.
    threshold : {"zero", "f1"}, default="zero"
        What a score must exceed: zero, or per label the value with the highest F1 in
        three-fold cross-validation on the training data. Not used for multi-class y.
    class_weight : "balanced", dict, list of dict or None, default=None
        Factors of the cost: for an indicator matrix ``{0: ..., 1: ...}`` for all labels
        or a list of one for each, "balanced" for inversely proportional to the counts;
        for 1-D y ``{class: weight}``.
    dtype : {np.float32, np.float64} or None, default=None
        Precision of X and of the dual variables; None keeps that of X.
    warm_start : bool, default=False
        Go on from the last solution if X has the same shape and y the same labels. It
        keeps the dual variables, of shape (n_labels, n_samples).
    n_jobs : int, default=None
        Threads over labels; results do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Order of the coordinates, and folds of ``threshold="f1"``.
    verbose : int, default=0
        1 prints a line at the end of the fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_labels, n_features)
        Coefficients; (1, n_features) for binary targets.
    intercept_ : ndarray of shape (n_labels,)
        Intercepts.
    components_ : ndarray of shape (rank, n_features)
        Shared projection; only with a rank. ``label_codes_ @ components_`` is ``coef_``
        where a label is not constant.
    label_codes_ : ndarray of shape (n_labels, rank)
        Codes of the labels; only with a rank.
    rank_ : int
        Rank used, at most the number of labels that vary; only with a rank.
    privileged_coef_ : ndarray of shape (n_labels, n_labels)
        Row j: how much the other labels explain the slack of label j.
    privileged_intercept_ : ndarray of shape (n_labels,)
        Slack of label j where other labels say nothing.
    thresholds_ : ndarray of shape (n_labels,)
        What a score must exceed.
    classes_ : ndarray of shape (n_labels,) or (n_classes,)
        Numbers of the labels, or classes of 1-D targets.
    label_names_ : ndarray of shape (n_labels,), object
        Names from the columns of y, else numbers; classes of multi-class targets.
    gamma_ : float
        Weight of the correcting functions that was used.
    n_iter_ : int
        Most epochs of a label; with a rank, iterations.
    objective_ : float
        Primal objective.
    dual_gap_ : float
        Relative duality gap: of all labels together or, with a rank, of the last
        problem for the components.
    loss_curve_ : list of float
        Objective after each iteration, which never rises; only with a rank.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X had string names.

    See Also
    --------
    StreamingLabelClassifier : Labels that arrive after the fit.
    sklearn.svm.LinearSVC : The hinge loss for one label.
    sklearn.multioutput.ClassifierChain : Predicted labels as features of others.

    Notes
    -----
    The paper has no :math:`\zeta` (``slack_cap=np.inf``). Where the positives and the
    negatives of a label overlap among examples with interchangeable other labels, the
    optimum is then :math:`z_j = 0` with slack 1 everywhere: the model collapses on
    dense data with many rows, which a warning tells. A finite cap bounds what one
    example can weigh. The cap, the scale of ``gamma``, the starting point and the
    solver are ours; so is ``rank=None``. :meth:`score` is the subset accuracy, a harsh
    measure; see :mod:`sklcomp.metrics` for others.

    References
    ----------
    S. You, C. Xu, Y. Wang, C. Xu, D. Tao: Privileged Multi-label Learning, IJCAI 2017,
    arXiv:1701.07194.

    Examples
    --------
    >>> import numpy as np
    >>> from sklcomp.multilabel import PrivilegedMultiLabelClassifier
    >>> X = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, -1.0], [-2.0, 0.0]])
    >>> Y = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [0, 0]])
    >>> model = PrivilegedMultiLabelClassifier(C=10, random_state=0).fit(X, Y)
    >>> model.predict([[3.0, 3.0], [-3.0, 0.0]])
    array([[1, 1],
           [0, 0]])
    """

    _parameter_constraints = {
        "C": [Interval(Real, 0, None, closed="neither")],
        "rank": [Interval(Integral, 1, None, closed="left"), None],
        "gamma": [Interval(Real, 0, None, closed="neither"), StrOptions({"scale"})],
        "slack_cap": [
            Interval(Real, 1, None, closed="left"), Options(Real, {np.inf}),
        ],
        "privileged": [StrOptions({"signed", "binary", "constant"}), None],
        "fit_intercept": ["boolean"],
        "intercept_scaling": [Interval(Real, 0, None, closed="neither")],
        "prox": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "inner_max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "inner_tol": [Interval(Real, 0, None, closed="left")],
        "threshold": [StrOptions({"zero", "f1"})],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
        "dtype": [
            Options(type, {np.float32, np.float64}),
            StrOptions({"float32", "float64"}),
            None,
        ],
        "warm_start": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }  # fmt: skip

    def __init__(
        self,
        C: float = 1.0,
        *,
        rank: Any = None,
        gamma: Any = "scale",
        slack_cap: Any = 3.0,
        privileged: Any = "signed",
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        prox: Any = "auto",
        max_iter: int = 40,
        inner_max_iter: Any = 30,
        tol: float = 1e-3,
        inner_tol: Any = 1e-3,
        threshold: Any = "zero",
        class_weight: Any = None,
        dtype: Any = None,
        warm_start: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.C = C
        self.rank = rank
        self.gamma = gamma
        self.slack_cap = slack_cap
        self.privileged = privileged
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.prox = prox
        self.max_iter = max_iter
        self.inner_max_iter = inner_max_iter
        self.tol = tol
        self.inner_tol = inner_tol
        self.threshold = threshold
        self.class_weight = class_weight
        self.dtype = dtype
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @refuse_masked
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn all labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples; sparse ones are never made dense.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            Indicator matrix of 0/1 or False/True, or 1-D classes of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the cost of every example; 0 removes it.

        Returns
        -------
        self : PrivilegedMultiLabelClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If ``rank`` exceeds the number of labels, y holds other values than 0/1 or
            two columns of one name, the features are too large to multiply or the costs
            too large to sum, or ``class_weight`` holds anything but finite numbers from
            0.
        """
        X, Y, weight, _ = self._check_data(X, y, sample_weight, self.C, self.dtype)
        if self.rank is not None and self.rank > Y.shape[1]:
            msg = (
                f"rank={self.rank} exceeds the {Y.shape[1]} labels in y; choose rank "
                f"<= {Y.shape[1]}, or None for full rank."
            )
            raise ValueError(msg)
        factor, label_factors = self._class_factors(Y, weight, self.class_weight)
        varies, constant_scores = split_constant(Y, self._is_indicator)
        if label_factors is not None:
            label_factors = label_factors[varies]
        self.gamma_ = float(
            3.0 * self.C * weight.sum() if self.gamma == "scale" else self.gamma
        )
        cost = self._check_cost(self.C * weight, factor, label_factors)
        # With a cap of 1 the correcting function is zero.
        self._coding = None if self.slack_cap == 1 else self.privileged
        rng = check_random_state(self.random_state)
        reporter = IterationReporter(self, X=X, y=y)
        task = (X, Y[:, varies], cost, label_factors)
        result = self._solve(*task, rng, reporter) if varies.any() else None
        self._name_results(result, X, task[1], varies, constant_scores)
        if self.threshold == "f1" and result is not None and not reporter.stopped:
            self.thresholds_[varies] = self._find_thresholds(*task, rng)
        reporter.finish()
        if not reporter.stopped:
            self._warn(result, varies, X)
        if self.verbose:
            print(  # noqa: T201
                f"[{type(self).__name__}] {Y.shape[1]} labels, {self.n_iter_} "
                f"iterations, gap {self.dual_gap_:.2g}, objective {self.objective_:.6g}"
            )
        return self

    @refuse_masked
    def correcting_function(self, y: Any) -> np.ndarray:
        """Slack of every label that the other labels of an example predict.

        Parameters
        ----------
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            Targets as in ``fit``; named columns may be in any order.

        Returns
        -------
        slack : ndarray of shape (n_samples, n_labels)
            0 for examples that should be classified with the full margin; at 1 and
            above, the other labels expect an example to be misclassified.

        Raises
        ------
        ValueError
            If y has another number of columns than in ``fit``, or other names, other
            values than 0/1 where an indicator matrix is expected, or classes that were
            not in ``fit``.
        """
        check_is_fitted(self)
        slack = self._encode_again(y) @ self.privileged_coef_.T
        if self._coding == "signed":
            slack = 2.0 * slack - self.privileged_coef_.sum(axis=1)
        return np.maximum(slack + self.privileged_intercept_, 0.0)

    def _check_cost(self, cost: np.ndarray, factor: Any, label_factors: Any) -> Any:
        """Costs times the factors of the classes, whose sums must be finite."""
        largest = 1.0 if label_factors is None else label_factors.max(initial=1.0)
        cap = 1.0 if self.slack_cap == np.inf else self.slack_cap
        sources = f"C={self.C:g}, slack_cap={self.slack_cap:g} and class_weight"
        with np.errstate(all="ignore"):
            cost = cost * factor
            total = cap * largest * cost.sum()
            check_total(total, sources)
            # Multipliers divided by gamma are the weights of the other labels.
            check_total(
                total / self.gamma_, f"costs over gamma={self.gamma_:g}", "raise gamma"
            )
        return cost

    def _solve(
        self,
        X: Any,
        Y: Any,
        cost: np.ndarray,
        label_factors: Any,
        rng: np.random.RandomState,
        reporter: Any = None,
    ) -> Any:
        settings = {
            "cost": cost,
            "class_weight": label_factors,
            "gamma": self.gamma_,
            "slack_cap": float(self.slack_cap),
            "coding": self._coding,
            "constant": self._constant(),
            "tol": self.tol,
            "n_jobs": self.n_jobs,
            "callback": reporter,
            "init": self._initial_state(X, Y) if reporter is not None else None,
        }
        if self.rank is None:
            n_epochs = self.max_iter * self.inner_max_iter
            seeds = rng.randint(2**31 - 1, size=Y.shape[1])
            return solve_privileged(X, Y, max_iter=n_epochs, seeds=seeds, **settings)
        return solve_low_rank(
            X,
            Y,
            rank=min(self.rank, Y.shape[1]),
            inner_tol=self.inner_tol,
            prox=None if self.prox == "auto" else float(self.prox),
            max_iter=self.max_iter,
            inner_max_iter=self.inner_max_iter,
            seed=int(rng.randint(2**30)),
            **settings,
        )

    def _constant(self) -> Any:
        """Value of the constant feature."""
        return float(self.intercept_scaling) if self.fit_intercept else 0.0

    def _initial_state(self, X: Any, Y: Any) -> Any:
        """What an earlier fit of the same labels left for a warm start."""
        if not self.warm_start or "_warm" not in vars(self):
            return None
        key, state = self._warm
        return state if key == self._warm_key(X, Y) else None

    def _warm_key(self, X: Any, Y: Any) -> Any:
        # The multipliers belong to the label sets of the examples.
        labels = joblib.hash((Y.shape, Y.indptr, Y.indices))
        return X.shape, labels, self.rank, self._coding

    def _name_results(
        self, result: Any, X: Any, Y: Any, varies: Any, constant_scores: Any
    ) -> None:
        n_labels = len(varies)
        self.coef_ = np.zeros((n_labels, X.shape[1]), dtype=X.dtype)
        self.intercept_ = np.where(varies, 0.0, constant_scores).astype(X.dtype)
        self.privileged_coef_ = np.zeros((n_labels, n_labels))
        self.privileged_intercept_ = np.zeros(n_labels)
        self.thresholds_ = np.zeros(n_labels)
        for name in ("components_", "label_codes_", "rank_", "loss_curve_", "_warm"):
            self.__dict__.pop(name, None)  # of an earlier fit
        self.n_iter_, self.objective_, self.dual_gap_ = 1, 0.0, 0.0
        if result is None:
            return
        self.coef_[varies] = result.solution[:, :-1]
        self.intercept_[varies] = result.solution[:, -1] * self._constant()
        self.privileged_coef_[np.ix_(varies, varies)] = result.privileged_coef
        self.privileged_intercept_[varies] = result.privileged_intercept
        self.n_iter_ = int(result.n_iter.max())
        self.objective_ = float(result.objective.sum())
        self.dual_gap_ = float(
            (result.gap * result.objective).sum() / (self.objective_ or 1.0)
        )
        state = result.dual
        if self.rank is not None:
            self.components_ = result.components[:-1].T.astype(X.dtype)
            self.label_codes_ = np.zeros((n_labels, result.codes.shape[1]), X.dtype)
            self.label_codes_[varies] = result.codes
            self.rank_ = result.codes.shape[1]
            self.loss_curve_ = result.loss_curve
            state = (*state, result.components, result.codes)
        if self.warm_start:
            self._warm = (self._warm_key(X, Y), state)

    def _find_thresholds(
        self, X: Any, Y: Any, cost: np.ndarray, label_factors: Any, rng: Any
    ) -> Any:
        """Per label the score with the highest F1 in cross-validation."""
        folds = stratify(Y, min(N_THRESHOLD_FOLDS, Y.shape[0]), rng)
        scores = np.empty(Y.shape)
        for fold in np.unique(folds):
            train, test = folds != fold, folds == fold
            counts = np.asarray(Y[train].sum(axis=0)).ravel()
            varies = (counts > 0) & (counts < train.sum())
            scores[test] = np.where(counts == 0, -1.0, 1.0)
            if not varies.any():
                continue
            factors = None if label_factors is None else label_factors[varies]
            result = self._solve(
                X[train], Y[train][:, varies], cost[train], factors, rng
            )
            W = result.solution
            found = X[test] @ W[:, :-1].T + self._constant() * W[:, -1]
            scores[np.ix_(test, varies)] = found
        return best_thresholds(Y, scores)

    def _warn(self, result: PrivilegedResult | None, varies: Any, X: Any) -> None:
        if result is None:
            return
        if not result.converged.all():
            if self.rank is None:
                what = (
                    f"{(~result.converged).sum()} of {len(result.converged)} labels "
                    f"did not reach the relative duality gap tol={self.tol:g} in "
                    f"{self.max_iter * self.inner_max_iter} epochs; the largest gap is "
                    f"{result.gap.max():.2g}"
                )
            else:
                what = (
                    f"the objective still fell by more than tol={self.tol:g} of itself "
                    f"after max_iter={self.max_iter} iterations"
                )
            warn_user(
                f"{what}. The model is usable; scale the features, lower C or raise "
                "max_iter for a more accurate one.",
                ConvergenceWarning,
            )
        # Scores, roughly; a margin is 1.
        size = np.linalg.norm(self.coef_[varies].astype(np.float64), axis=1)
        size *= np.sqrt(squared_norms(X).mean())
        is_zero = size < LEAST_SCORE
        has_vanished = self.rank is not None and is_zero.all()
        if has_vanished or (self.slack_cap == np.inf and is_zero.any()):
            cure = (
                "choose a finite slack_cap, such as 3"
                if self.slack_cap == np.inf
                else "raise C"
            )
            warn_user(
                f"{is_zero.sum()} labels have zero coefficients although they "
                f"vary in y (C={self.C:g}, slack_cap={self.slack_cap:g}); {cure}.",
                UserWarning,
            )
