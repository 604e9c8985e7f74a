"""Checks that every public estimator passes: scikit-learn's and our own."""

import inspect
import re
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from tests.helpers.estimators import (
    ESTIMATORS,
    INIT_PARAMS,
    each_estimator,
    make_instance,
)

# {class name: {check: reason}}; meant to stay empty.
EXPECTED_FAILED_CHECKS = {}

NUMPYDOC_ORDER = (
    "Parameters",
    "Attributes",
    "Methods",
    "See Also",
    "Notes",
    "References",
    "Examples",
)


def test_estimators_are_found():
    assert ESTIMATORS


def test_tables_name_existing_estimators():
    names = {estimator_class.__name__ for estimator_class in ESTIMATORS}
    assert INIT_PARAMS.keys() | EXPECTED_FAILED_CHECKS.keys() <= names


@pytest.mark.filterwarnings("ignore:the training of the small generators made them")
@parametrize_with_checks(
    [make_instance(estimator_class) for estimator_class in ESTIMATORS],
    expected_failed_checks=lambda estimator: EXPECTED_FAILED_CHECKS.get(
        type(estimator).__name__, {}
    ),
    xfail_strict=True,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@each_estimator
def test_no_base_class_is_public(estimator_class):
    assert not estimator_class.__name__.startswith(("Base", "_"))


@each_estimator
def test_docstring_has_its_sections_in_order(estimator_class):
    headings = re.findall(r"^(\w[\w ]*)\n-+$", inspect.getdoc(estimator_class), re.M)
    assert {"Parameters", "Attributes", "References", "Examples"} <= set(headings)
    assert headings == [name for name in NUMPYDOC_ORDER if name in headings]


@each_estimator
def test_docstring_names_parameters_and_attributes(estimator_class):
    doc = inspect.getdoc(estimator_class)
    documented = set(re.findall(r"^(\w+) :", doc, re.M))
    estimator, X, y = fit_case(estimator_class)
    fit_quietly(estimator, X, y)
    fitted = {name for name in vars(estimator) if re.fullmatch(r"[a-z]\w*_", name)}
    assert documented >= fitted | estimator.get_params(deep=False).keys()


@each_estimator
def test_at_most_two_positional_arguments(estimator_class):
    parameters = inspect.signature(estimator_class).parameters.values()
    assert sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) <= 2
    assert {p.kind for p in parameters} <= {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }


@each_estimator
def test_get_params_is_the_signature(estimator_class):
    signature = inspect.signature(estimator_class).parameters
    expected = {name: p.default for name, p in signature.items()}
    expected |= INIT_PARAMS.get(estimator_class.__name__, {})
    assert make_instance(estimator_class).get_params(deep=False) == expected


class Counter:
    """Callback that counts the iterations, and asks to stop after the first."""

    def __init__(self, stop):
        self.stop = stop
        self.n_setups = self.n_teardowns = self.n_iterations = 0

    def setup(self, estimator, context):
        self.n_setups += 1

    def teardown(self, estimator, context):
        self.n_teardowns += 1

    def on_fit_task_begin(self, estimator, context, **_):
        pass

    def on_fit_task_end(self, estimator, context, **_):
        self.n_iterations += context.parent is not None
        return self.stop


def fit_case(estimator_class):
    """An instance with data that it has work to do on."""
    estimator = make_instance(estimator_class)
    rng = np.random.default_rng(0)
    X = rng.random((30, 12))
    y = (X[:, 0] + X[:, 1] > 1).astype(int)
    if get_tags(estimator).input_tags.allow_nan:
        X[rng.random(X.shape) < 0.4] = np.nan
    return estimator, X, y


def fit_quietly(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


@each_estimator
def test_callback_stops_fit_with_a_usable_model(estimator_class):
    estimator, X, y = fit_case(estimator_class)
    free, stopping = Counter(stop=False), Counter(stop=True)
    fit_quietly(clone(estimator).set_callbacks(free), X, y)
    fit_quietly(estimator.set_callbacks(stopping), X, y)

    assert free.n_iterations >= stopping.n_iterations >= 1
    for callback in (free, stopping):
        assert callback.n_setups == callback.n_teardowns == 1
    check_is_fitted(estimator)
    for method in ("transform", "predict", "decision_function", "predict_proba"):
        if hasattr(estimator, method):
            assert np.isfinite(getattr(estimator, method)(X)).all()
