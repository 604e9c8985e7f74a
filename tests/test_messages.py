"""Messages show plain Python numbers, not ``np.int64(2)``."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils._param_validation import InvalidParameterError

import sklcomp
from sklcomp.compression.data_free._settings import check_inputs
from sklcomp.datasets import make_masked_images
from sklcomp.metrics import one_error, precision_at_k, psnr
from sklcomp.model_selection import IterativeStratifiedKFold
from sklcomp.multilabel import PrivilegedMultiLabelClassifier, StreamingLabelClassifier
from sklcomp.nn import DenseGenerator, keep_fraction, structured_noise, trace_channels
from sklcomp.translation import CycleGANTranslator
from tests.helpers.estimators import each_estimator, make_instance

PACKAGE = Path(sklcomp.__file__).parent
# What they show are strings from a file, or names of attributes.
EXEMPT = {
    "__init__.py",
    "compression/__init__.py",
    "datasets/_arff.py",
    "datasets/_mulan.py",
}
FILES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).as_posix() not in EXEMPT
)


def takes_a_repr(node):
    """Whether a field of an f-string is a repr, or a container, which shows some."""
    if node.conversion == ord("r"):
        return True
    name = getattr(getattr(node.value, "func", None), "id", None)
    return name in ("list", "set", "sorted") or isinstance(
        node.value, ast.List | ast.Tuple | ast.Dict | ast.Set | ast.ListComp
    )


@pytest.mark.parametrize("file", FILES)
def test_no_message_takes_the_repr_of_what_may_be_numpy(file):
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    found = [
        f"line {node.lineno}: {ast.unparse(node.value)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FormattedValue) and takes_a_repr(node)
    ]
    assert not found, "say {show(value)} instead of {value!r}"


X = np.random.default_rng(0).random((12, 4))
Y = (X[:, :3] > 0.5).astype(int)
GENERATOR = torch.Generator()
two, half = np.int64(2), np.float64(0.5)


def with_objects(values):
    """An array of numpy's scalars, as pandas makes them of mixed columns."""
    found = np.empty(np.shape(values), dtype=object)
    for place, value in np.ndenumerate(values):
        found[place] = value
    return found


def streaming(**settings):
    return StreamingLabelClassifier(random_state=0).fit(X, Y).add_labels(X, **settings)


def graph():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    return trace_channels(net, torch.zeros(2, 4))


def weighted(class_weight):
    return PrivilegedMultiLabelClassifier(class_weight=class_weight).fit(X, Y)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: PrivilegedMultiLabelClassifier().fit(X, with_objects(2 * Y)), "2"),
        (lambda: one_error(with_objects(2 * Y), X[:, :3]), "2"),
        (lambda: one_error(2 * Y, X[:, :3]), "2"),
        (lambda: next(IterativeStratifiedKFold(np.int64(1)).split(X, Y)), "n_splits=1"),
        (lambda: weighted({two: half}), "{2: 0.5}"),
        (lambda: weighted([{0: np.float64(-1)}] * 3), r"-1\.0"),
        (lambda: weighted([half]), r"holds 0\.5"),
        (lambda: streaming(y_new=Y[:, 0], label_names=two), r"label_names=2 .*\[2\]"),
        (lambda: streaming(y_new=Y[:, 0], label_names=[two]), "label 2 is there"),
        (
            lambda: (
                PrivilegedMultiLabelClassifier()
                .fit(X, Y[:, 0] + two)
                .correcting_function(np.full(12, 7))
            ),
            "holds 7; .*classes 2, 3",
        ),
        (lambda: make_masked_images(image_shape=(two, half)), r"\(2, 0\.5\)"),
        (lambda: keep_fraction(graph(), [[0], [1]], [half, two]), r"\[0\.5, 2\]"),
        (lambda: DenseGenerator(two, input_mean=[half] * 3), r"\[0\.5, 0\.5, 0\.5\]"),
        (lambda: structured_noise(2, (1, 4, 4), None, GENERATOR, (two,)), r"\(2,\)"),
        (
            lambda: CycleGANTranslator(image_shape=(two, half)).fit(X, Y[:, 0]),
            r"\(2, 0",
        ),
        (
            lambda: CycleGANTranslator(image_shape=(two, two + 1)).fit(X, Y[:, 0]),
            r"\(2, 3\)",
        ),
        (lambda: CycleGANTranslator().fit(X, np.full(12, two)), "1 class: 2"),
        (lambda: check_inputs({"input_shape": (two, two)}, None), r"=\(2, 2\)"),
    ],
)
def test_numbers_of_numpy_are_shown_plainly(call, shown):
    with pytest.raises(ValueError, match=shown) as caught:
        call()
    assert "np." not in str(caught.value)


@each_estimator
def test_parameters_are_shown_plainly(estimator_class):
    """As of searches over numpy.logspace, whose values are numpy's."""
    messages = []
    for name in make_instance(estimator_class).get_params(deep=False):
        for value in (np.float64(-7), np.int64(-7), np.str_("none such")):
            estimator = make_instance(estimator_class).set_params(**{name: value})
            try:
                estimator._validate_params()
            except InvalidParameterError as error:
                messages.append(str(error))
    assert any("Got -7.0 instead" in message for message in messages)
    assert any("Got 'none such' instead" in message for message in messages)
    assert not [message for message in messages if "np." in message]


def test_arguments_of_functions_are_shown_plainly():
    with pytest.raises(InvalidParameterError, match=r"'k' .*Got 0 instead"):
        precision_at_k(Y, X[:, :3], k=np.int64(0))
    with pytest.raises(InvalidParameterError, match=r"Got -1\.0 instead"):
        psnr(X, X, data_range=np.float64(-1))
    assert precision_at_k(Y, X[:, :3], k=np.int64(2)) == precision_at_k(
        Y, X[:, :3], k=2
    )
