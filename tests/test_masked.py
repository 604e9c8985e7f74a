"""No public function or method reads values below the mask of a masked array."""

import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import sklcomp
from sklcomp.datasets import make_multilabel_stream, make_unpaired_digits
from sklcomp.metrics import frechet_distance, one_error
from sklcomp.model_selection import IterativeStratifiedKFold
from sklcomp.multilabel import PrivilegedMultiLabelClassifier, StreamingLabelClassifier
from tests.helpers.estimators import ESTIMATORS, make_instance

MASKED = np.ma.array([[1.0, 0.0], [0.0, 1.0]], mask=[[False, True], [False, False]])
# These honour masks instead, which tests of their own show.
HONOUR = "DCTImputer.", "recover_image", "RecoveryDisplay.from_estimator(X)"
IS_ARRAY = re.compile("array|tuple of two values|sequence of float")
DATA = {"X", "y", "sample_weight"}


def documented(thing):
    """Types of the parameters, by the docstring."""
    doc = inspect.cleandoc(thing.__doc__ or "")
    found = re.search(
        r"^Parameters\n-+\n(.*?)(?=\n\w[\w ]*\n-+\n|\Z)", doc, re.S | re.M
    )
    entries = re.findall(r"^(\w[\w, ]*) : (.*)$", found[1], re.M) if found else []
    return {name: kind for names, kind in entries for name in names.split(", ")}


def methods_of(owner):
    for name, method in inspect.getmembers(owner, callable):
        if not name.startswith(("_", "set_", "get_")):
            if is_ours(method):
                yield name, documented(method)
            elif issubclass(owner, BaseEstimator):
                names = inspect.signature(method).parameters.keys() & DATA
                yield name, dict.fromkeys(names, "array-like")


def is_ours(thing):
    return (getattr(thing, "__module__", None) or "").startswith("sklcomp")


def public():
    for module in pkgutil.iter_modules(sklcomp.__path__, "sklcomp."):
        namespace = importlib.import_module(module.name)
        for name in getattr(namespace, "__all__", ()):
            yield name, getattr(namespace, name)


def array_arguments():
    """(path, owner or function, method or None, parameter) of all that take arrays."""
    found = {}
    for name, thing in public():
        kinds = {None: documented(thing)} if is_ours(thing) else {}
        if inspect.isclass(thing):
            kinds |= dict(methods_of(thing))
        for method, parameters in kinds.items():
            path = f"{name}.{method}" if method else name
            for parameter, kind in parameters.items():
                if IS_ARRAY.search(kind):
                    found[f"{path}({parameter})"] = thing, method, parameter
    return found


ARGUMENTS = {
    path: case
    for path, case in array_arguments().items()
    if not path.startswith(HONOUR)
}


def call(thing, method, argument):
    """Call with one argument, and None for the others that must be given."""
    if isinstance(thing, type) and issubclass(thing, BaseEstimator):
        estimator = make_instance(thing)
        if method is None:
            estimator.set_params(**argument)
            method, argument = "fit", {}
        function = getattr(estimator, method)
    elif method is None:
        function = thing
    else:
        owner = thing
        if not inspect.ismethod(getattr(thing, method)):
            owner = thing.__new__(thing)
        function = getattr(owner, method)
    required = {
        name: None
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return function(**required | argument)


def test_the_walk_finds_what_takes_arrays():
    # Three of each layer that must be among them, whatever is added.
    assert {
        "CycleGANTranslator.fit_transform(y)",
        "DataFreeDistiller(input_mean)",
        "EvolutionaryPruner.predict_proba(X)",
        "IterativeStratifiedKFold.split(y)",
        "LabelStreamDisplay(representation)",
        "StreamingLabelClassifier.add_labels(y_past)",
        "PrivilegedMultiLabelClassifier.score(sample_weight)",
        "frechet_distance(Y)",
        "mask_channels(keep)",
        "evolve(population)",
        "make_masked_images(images)",
    } <= ARGUMENTS.keys()
    assert {estimator.__name__ for estimator in ESTIMATORS} <= {
        path.split(".")[0] for path in array_arguments()
    }


@pytest.mark.parametrize("path", ARGUMENTS)
@pytest.mark.parametrize("nested", [False, True], ids=["array", "list"])
def test_masked_values_are_refused(path, nested):
    thing, method, parameter = ARGUMENTS[path]
    value = [MASKED[0], MASKED[1]] if nested else MASKED
    message = rf"{parameter} has 1 of \d values masked.*{parameter}\.filled"
    with pytest.raises(ValueError, match=message):
        call(thing, method, {parameter: value})


def test_colours_are_not_translated_below_a_mask():
    with pytest.raises(ValueError, match="X has 3 of 6 values masked"):
        make_unpaired_digits(2, random_state=0).translate(
            np.ma.array(np.zeros((2, 3)), mask=[[True] * 3, [False] * 3])
        )


def test_nothing_masked_is_a_plain_array():
    X, Y = make_multilabel_stream(60, 5, random_state=0)
    plain = np.ma.array(X), np.ma.array(Y)
    for learner in (PrivilegedMultiLabelClassifier, StreamingLabelClassifier):
        first, second = (learner(random_state=0).fit(*data) for data in ((X, Y), plain))
        np.testing.assert_array_equal(first.coef_, second.coef_)
        assert first.score(X, Y) == second.score(*plain)
    scores = first.decision_function(X)
    assert one_error(plain[1], scores) == one_error(Y, scores)
    assert frechet_distance(plain[0], X) == frechet_distance(X, X)
    folds = IterativeStratifiedKFold(2, random_state=0)
    for one, other in zip(folds.split(X, Y), folds.split(*plain), strict=True):
        np.testing.assert_array_equal(one[1], other[1])
