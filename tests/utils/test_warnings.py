"""Warnings name the user's line, whatever stands between it and the library."""

import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklcomp
from sklcomp.multilabel import (
    PrivilegedMultiLabelClassifier,
    StreamingLabelClassifier,
)
from sklcomp.recovery import DCTImputer, recover_image


def slow_to_learn(model):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    return model.fit(X, (X @ rng.normal(size=(5, 3)) > rng.normal(size=3)).astype(int))


def slow_to_recover():
    image = np.random.default_rng(0).random((40, 40))
    image[image < 0.7] = np.nan
    recover_image(image, solver="pcg", max_iter=1)


def slow_to_impute():
    images = np.random.default_rng(0).random((3, 400))
    images[images < 0.7] = np.nan
    DCTImputer((20, 20), solver="pcg", max_iter=1).fit_transform(images)


PRIVILEGED = PrivilegedMultiLabelClassifier(max_iter=1, inner_max_iter=1, tol=1e-9)
CALLS = {
    "function": slow_to_recover,
    "transformer": slow_to_impute,
    "learner": lambda: slow_to_learn(PRIVILEGED),
    "low rank": lambda: slow_to_learn(PRIVILEGED.set_params(rank=2)),
    "streaming": lambda: slow_to_learn(StreamingLabelClassifier(max_iter=1, tol=1e-9)),
    "pipeline": lambda: slow_to_learn(
        make_pipeline(StandardScaler(), StreamingLabelClassifier(max_iter=1, tol=1e-9))
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_line_is_the_users(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[name]()
    found = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert found
    lines = Path(__file__).read_text().splitlines()
    for warning in found:
        assert warning.filename == __file__
        assert (
            "fit" in lines[warning.lineno - 1] or "recover" in lines[warning.lineno - 1]
        )


def test_there_is_no_other_way_to_warn():
    root = Path(inspect.getfile(sklcomp)).parent
    others = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "warnings.warn(" in path.read_text()
    ]
    assert others == [str(Path("utils", "_messages.py"))]
