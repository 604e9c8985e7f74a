"""PrivilegedLogisticClassifier: label sets as teachers of logistic regressions."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit, log_expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sklcomp.multilabel._base import LinearMultiLabelClassifier, split_constant
from sklcomp.solvers.logistic._design import product
from sklcomp.solvers.logistic._guard import guard
from sklcomp.solvers.logistic._out_of_fold import (
    LEAST_PROBABILITY,
    clipped,
)
from sklcomp.solvers.logistic._recipe import (
    PrivilegedLogisticResult,
    solve_privileged_logistic,
)
from sklcomp.solvers.margin._per_label import best_thresholds
from sklcomp.utils._messages import show, warn_user
from sklcomp.utils._sklearn import (
    Interval,
    IterationReporter,
    StrOptions,
    fit_context,
    with_callbacks,
)
from sklcomp.utils._stratification import stratify
from sklcomp.utils._validation import refuse_masked

# Penalties of the coupling that "auto" tries.
COUPLINGS = np.geomspace(400.0, 0.4, 7)


class PrivilegedLogisticClassifier(LinearMultiLabelClassifier):
    r"""Logistic regressions of all labels, taught by the label sets of the rows.

    In training the whole label set of an example is known, in prediction it is not: it
    is privileged information. Three steps make use of it.

    1. Each label has its own logistic regression on the features, with scores
       :math:`z_j(x)`; its C is chosen by cross-validation.
    2. The label sets name *prototypes*: the commonest sets or, where they are too many,
       clusters of them. A gate :math:`\pi(x)`, a multinomial logistic regression,
       learns which prototype to expect, and :math:`q(x) = \pi(x)^T \theta` what that
       says of each label, with :math:`\theta_{kj}` the share of the rows of prototype k
       that have label j.
    3. A small logistic regression couples all labels. Its features F(x) are the leading
       directions of z, :math:`\sigma(z)` and q, learned from scores of rows that the
       models had not seen:

       .. math:: s(x) = 0.7\, z(x) + 0.3 \operatorname{logit} q(x) + B\, F(x) + c .

    There z is clipped to [-12, 12]. Prediction needs x alone. Everything is chosen by
    out-of-fold log-loss on the training rows; there is nothing to tune.

    Parameters
    ----------
    Cs : int or array-like of shape (n_costs,), default=8
        Inverse strengths of regularisation to choose from for each label; an integer is
        the number of values between .1 and 300 over the mean squared norm of the
        centred rows. Labels of a few rows go along with the others.
    n_prototypes : int, default=60
        Most prototypes. Rows that have one of so many commonest label sets must be half
        of all, else label sets are clustered.
    rank : int, default=64
        Directions of the coupling; labels times three at most.
    coupling : "auto", float or None, default="auto"
        Penalty :math:`\tfrac{\lambda}{2} \|B\|^2` of the coupling, chosen from seven
        values between .4 and 400 by "auto". None leaves every label to itself.
    cv : int, splitter or iterable, default=3
        Folds, stratified for all labels if a number. Every row must be tested once.
    threshold : {"zero", "f1"}, default="zero"
        What a score must exceed: zero, which is a probability of one half, or per label
        the value with the highest F1 on the out-of-fold scores, by which at most three
        times as many rows have the label as in training. Not used for multi-class y.
    class_weight : "balanced", dict, list of dict or None, default=None
        Factors of the loss: for an indicator matrix ``{0: ..., 1: ...}`` for all labels
        or a list of one for each, "balanced" for inversely proportional to the counts;
        for 1-D y ``{class: weight}``. Probabilities are then those of the weighted
        rows.
    store_oof : bool, default=False
        Whether to keep ``oof_decision_``.
    tol : float, default=0.03
        A regression has converged where a step is expected to lower its objective by at
        most ``tol**2`` of it.
    max_iter : int, default=200
        Most iterations of a regression.
    n_jobs : int, default=None
        Threads over labels; results do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Folds, clusters of label sets, and start of the search for directions.
    verbose : int, default=0
        1 prints a line at the end of the fit.

    Attributes
    ----------
    coef_ : ndarray of shape (n_labels, n_features)
        Coefficients of the labels' own regressions, z; only a part of the model unless
        ``guard_`` says "plain". (1, n_features) for binary targets.
    intercept_ : ndarray of shape (n_labels,)
        Their intercepts.
    C_ : ndarray of shape (n_labels,)
        C of each label; NaN for a label that is constant.
    prototypes_ : ndarray of shape (n_prototypes, n_labels)
        Shares :math:`\theta` of the labels in the rows of each prototype, the commonest
        prototypes first.
    gate_coef_ : ndarray of shape (n_prototypes, n_features)
        Coefficients of the gate.
    gate_intercept_ : ndarray of shape (n_prototypes,)
        Intercepts of the gate.
    coupling_ : float
        Penalty of the coupling that was used.
    guard_ : dict
        What was kept, "privileged" or "plain", under ``"kept"``; ranking loss and label
        ranking average precision of unseen rows, (privileged, plain), under
        ``"ranking_loss"`` and ``"average_precision"`` if there was a choice.
    oof_decision_ : ndarray of shape (n_samples, n_labels)
        Scores of the training rows by models that had not seen them; only with
        ``store_oof``. Rows of weight 0 are left out.
    thresholds_ : ndarray of shape (n_labels,)
        What a score must exceed.
    classes_ : ndarray of shape (n_labels,) or (n_classes,)
        Numbers of the labels, or classes of 1-D targets.
    label_names_ : ndarray of shape (n_labels,), object
        Names from the columns of y, else numbers; classes of multi-class targets.
    n_iter_ : int
        Most iterations of a label in the last fit of its regression.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X had string names.

    See Also
    --------
    PrivilegedMultiLabelClassifier : The paper's form, with hinge losses.
    StreamingLabelClassifier : Labels that arrive after the fit.
    sklearn.linear_model.LogisticRegressionCV : One label, whose C is chosen.

    Notes
    -----
    The paper lets the other labels of an example explain its slack; here they teach in
    the way of generalised distillation (Lopez-Paz et al.). Attributes of gate and
    coupling are absent where there is nothing to couple: one label, or
    ``coupling=None``. If the coupled scores of unseen rows rank labels clearly worse
    than each label's own, those are kept (``guard_``).
    On dense features much of the gain comes from the non-linearity that the gate
    brings, on text from the labels.

    References
    ----------
    S. You, C. Xu, Y. Wang, C. Xu, D. Tao: Privileged Multi-label Learning, IJCAI 2017,
    arXiv:1701.07194.

    D. Lopez-Paz, L. Bottou, B. Schoelkopf, V. Vapnik: Unifying Distillation and
    Privileged Information, ICLR 2016, arXiv:1511.03643.

    Examples
    --------
    >>> from sklcomp.datasets import load_digit_attributes
    >>> from sklcomp.multilabel import PrivilegedLogisticClassifier
    >>> X, Y = load_digit_attributes(return_X_y=True)
    >>> model = PrivilegedLogisticClassifier(random_state=0).fit(X[:400], Y[:400])
    >>> model.guard_["kept"]
    'privileged'
    >>> bool(model.score(X[400:], Y[400:]) > 0.7)
    True
    """

    _parameter_constraints = {
        "Cs": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "n_prototypes": [Interval(Integral, 2, None, closed="left")],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "coupling": [
            Interval(Real, 0, None, closed="neither"), StrOptions({"auto"}), None,
        ],
        "cv": ["cv_object"],
        "threshold": [StrOptions({"zero", "f1"})],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
        "store_oof": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }  # fmt: skip

    def __init__(
        self,
        Cs: Any = 8,
        *,
        n_prototypes: int = 60,
        rank: int = 64,
        coupling: Any = "auto",
        cv: Any = 3,
        threshold: str = "zero",
        class_weight: Any = None,
        store_oof: bool = False,
        tol: float = 0.03,
        max_iter: int = 200,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.Cs = Cs
        self.n_prototypes = n_prototypes
        self.rank = rank
        self.coupling = coupling
        self.cv = cv
        self.threshold = threshold
        self.class_weight = class_weight
        self.store_oof = store_oof
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @refuse_masked
    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn all labels, and what their sets say of each.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples; sparse ones are never made dense. Scale dense features first.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            Indicator matrix of 0/1 or False/True, or 1-D classes of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Factors of the loss of every example; 0 removes it.

        Returns
        -------
        self : PrivilegedLogisticClassifier
            The fitted classifier.

        Raises
        ------
        ValueError
            If ``Cs`` holds anything but finite positive numbers, ``cv`` does not test
            every row once, y holds other values than 0/1 or two columns of one name,
            the features or weights are too large, or ``class_weight`` holds anything
            but finite numbers from 0.
        """
        costs = np.empty(0) if isinstance(self.Cs, Integral) else check_costs(self.Cs)
        X, Y, weight, kept = self._check_data(
            X, y, sample_weight, costs.max(initial=1.0)
        )
        factor, factors = self._class_factors(Y, weight, self.class_weight)
        weight = weight * factor
        varies, constant_scores = split_constant(Y, self._is_indicator)
        reporter = IterationReporter(self, X=X, y=y)
        result = None
        if varies.any():
            known = None if factors is None else factors[varies]
            result = self._solve(X, Y, varies, costs, weight, known, kept, reporter)
        self._name_results(result, X, Y, weight, varies, constant_scores)
        reporter.finish()
        if result is not None and not result.converged.all() and not reporter.stopped:
            warn_user(
                f"{(~result.converged).sum()} of {len(result.converged)} labels did "
                f"not converge to tol={self.tol:g} in max_iter={self.max_iter} "
                "iterations. The model is usable; scale the features, lower Cs or "
                "raise max_iter for a more accurate one.",
                ConvergenceWarning,
            )
        if self.verbose:
            print(  # noqa: T201
                f"[{type(self).__name__}] {Y.shape[1]} labels, {self.n_iter_} "
                f"iterations, kept: {self.guard_['kept']}"
            )
        return self

    @refuse_masked
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of every label.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        P : ndarray of shape (n_samples, n_labels) or (n_samples, n_classes)
            Of an indicator matrix the probability of each label; of 1-D targets those
            of the classes, which sum to 1.
        """
        scores = self.decision_function(X)
        if self._kind == "multiclass":
            # By logarithms: far from all classes every probability may underflow.
            return softmax(log_expit(scores), axis=1)
        if self._kind == "binary":
            return np.column_stack([expit(-scores), expit(scores)])
        return expit(scores)

    @refuse_masked
    def prototype_proba(self, X: Any) -> np.ndarray:
        """Probability of every prototype: which label sets are expected.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        P : ndarray of shape (n_samples, n_prototypes)
            Rows sum to 1; ``P @ prototypes_`` is what the label sets say of the labels.

        Raises
        ------
        AttributeError
            If nothing was coupled: there was one label, or ``coupling=None``.
        """
        check_is_fitted(self)
        if not hasattr(self, "gate_coef_"):
            msg = (
                "There are no prototypes: they are learned from two labels or more, "
                f"with coupling='auto' or a number; this is coupling="
                f"{show(self.coupling)} with {len(self.label_names_)} label(s)."
            )
            raise AttributeError(msg)
        return self._gate(self._check_rows(X)).T

    def _check_rows(self, X: Any) -> Any:
        return validate_data(
            self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False
        )

    def _score(self, X: Any) -> np.ndarray:
        Z = product(self.coef_, X) + self.intercept_[:, None]
        if self.guard_["kept"] == "plain":
            return Z.T
        own = clipped(Z[self._varies])
        given = self.prototypes_[:, self._varies].T @ self._gate(X)
        np.clip(given, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY, out=given)
        Z[self._varies] = self._coupled(own, given)
        return Z.T

    def _gate(self, X: Any) -> np.ndarray:
        scores = product(self.gate_coef_, X) + self.gate_intercept_[:, None]
        return softmax(scores, axis=0)

    def _solve(
        self,
        X: Any,
        Y: Any,
        varies: np.ndarray,
        costs: np.ndarray,
        weight: np.ndarray,
        factors: np.ndarray | None,
        kept: np.ndarray | None,
        reporter: IterationReporter,
    ) -> PrivilegedLogisticResult:
        """Learn the labels that vary; without folds where nothing is to be chosen."""
        rng = check_random_state(self.random_state)
        couplings = COUPLINGS if self.coupling == "auto" else np.array([self.coupling])
        if self.coupling is None or varies.sum() == 1:
            couplings = np.empty(0)
        asks = len(couplings) or self.threshold == "f1" or self.store_oof
        return solve_privileged_logistic(
            X,
            Y[:, varies],
            costs=costs if len(costs) else int(self.Cs),
            splits=self._split(X, Y, kept, rng) if asks or len(costs) != 1 else [],
            n_prototypes=self.n_prototypes,
            rank=self.rank,
            couplings=couplings,
            weight=weight,
            factors=factors,
            tol=self.tol,
            max_iter=self.max_iter,
            rng=rng,
            n_jobs=self.n_jobs,
            callback=reporter,
        )

    def _split(self, X: Any, Y: Any, kept: Any, rng: np.random.RandomState) -> list:
        """Train and test rows of every fold; each row is tested once."""
        n_rows = X.shape[0]
        if isinstance(self.cv, Integral):
            numbers = stratify(Y, min(int(self.cv), n_rows), rng)
            return [
                (np.flatnonzero(numbers != k), np.flatnonzero(numbers == k))
                for k in np.unique(numbers)
            ]
        if hasattr(self.cv, "split"):
            y = Y.toarray()
            if self._kind != "multilabel":
                y = y.ravel() if self._kind == "binary" else y.argmax(axis=1)
            folds = list(self.cv.split(X, y))
        else:  # numbers of the rows as they were given, those of weight 0 among them
            folds = [tuple(map(np.asarray, fold)) for fold in self.cv]
            if kept is not None:
                place = np.cumsum(kept) - 1
                folds = [tuple(place[r[kept[r]]] for r in fold) for fold in folds]
        tested = np.concatenate([np.asarray(test) for _, test in folds])
        if len(tested) != n_rows or len(np.unique(tested)) != n_rows:
            msg = (
                f"cv={show(self.cv)} tests {len(np.unique(tested))} of {n_rows} rows, "
                f"in {len(tested)} places; each must be tested once. Choose a number "
                "of folds or a splitter such as IterativeStratifiedKFold."
            )
            raise ValueError(msg)
        return folds

    def _name_results(
        self,
        result: PrivilegedLogisticResult | None,
        X: Any,
        Y: sparse.csr_array,
        weight: np.ndarray,
        varies: np.ndarray,
        constant_scores: np.ndarray,
    ) -> None:
        n_labels = len(varies)
        self._varies = np.flatnonzero(varies)
        self.coef_ = np.zeros((n_labels, X.shape[1]), dtype=X.dtype)
        # A label that nobody has is still expected of half a row.
        constant_scores = constant_scores * np.log(2.0 * weight.sum() + 1.0)
        self.intercept_ = constant_scores.astype(X.dtype)
        self.C_ = np.full(n_labels, np.nan)
        self.thresholds_ = np.zeros(n_labels)
        for name in (
            "prototypes_", "gate_coef_", "gate_intercept_", "coupling_", "_coupled",
            "oof_decision_",
        ):  # fmt: skip
            self.__dict__.pop(name, None)  # of an earlier fit
        self.n_iter_, self.guard_ = 1, {"kept": "plain"}
        if result is None:
            return
        self.coef_[varies], self.intercept_[varies] = result.coef, result.intercept
        self.C_[varies] = 1.0 / result.penalties
        self.n_iter_ = max(int(result.n_iter.max()), 1)
        scores, coupled = result.own_scores, result.coupled_scores
        if scores is not None and coupled is not None:
            self._name_gate(result, X, Y, varies)
            self.guard_ = guard(Y[:, varies].toarray(), coupled.T, scores.T, weight)
            if self.guard_["kept"] == "privileged":
                scores = coupled
        if scores is not None and (self.threshold == "f1" or self.store_oof):
            found = np.tile(constant_scores, (Y.shape[0], 1))
            found[:, varies] = scores.T
            if self.store_oof:
                self.oof_decision_ = found.ravel() if self._kind == "binary" else found
            if self.threshold == "f1":
                most = 3 * np.asarray(Y.sum(axis=0, dtype=np.int64)).ravel() + 1
                self.thresholds_[varies] = best_thresholds(Y, found, most)[varies]

    def _name_gate(self, result: Any, X: Any, Y: Any, varies: np.ndarray) -> None:
        gate = result.gate
        counts = np.asarray(Y.mean(axis=0)).ravel()
        self.prototypes_ = np.tile(counts, (len(gate.shares), 1))
        self.prototypes_[:, varies] = gate.shares
        self.gate_coef_ = gate.coef.astype(X.dtype)
        self.gate_intercept_ = gate.intercept.astype(X.dtype)
        self.coupling_ = result.coupling.penalty
        self._coupled = result.coupling


def check_costs(Cs: Any) -> np.ndarray:
    """Rising values of C."""
    costs = np.unique(np.asarray(Cs, dtype=np.float64))
    if costs.size == 0 or not (np.isfinite(costs).all() and costs[0] > 0):
        msg = (
            f"Cs={show(Cs)} must be a number of values, or finite values greater than "
            "0, such as np.geomspace(0.01, 10, 5)."
        )
        raise ValueError(msg)
    return costs
