"""What an estimator must bring beside its code; CONTRIBUTING.md has the list."""

from pathlib import Path

import pytest

from tests.helpers.estimators import ESTIMATORS, INIT_PARAMS

ROOT = Path(__file__).parent.parent
PLACES = {
    "a page of the API": "docs/api.rst",
    "a page of the user guide": "docs/user_guide/*.rst",
    "a line in README": "README.md",
    "an example": "examples/**/*.py",
    "tests of its own": "tests/*/*.py",
    "a line in CHANGELOG": "CHANGELOG.md",
}
TEXTS = {
    what: "\n".join(path.read_text() for path in sorted(ROOT.glob(where)))
    for what, where in PLACES.items()
}
NAMES = [estimator.__name__ for estimator in ESTIMATORS]


@pytest.mark.parametrize("name", NAMES)
def test_every_estimator_brings_all_that_belongs_to_it(name):
    missing = [what for what, text in TEXTS.items() if name not in text]
    assert not missing, f"{name} lacks {', '.join(missing)}"


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)
def test_no_constructor_has_more_than_twenty_parameters(estimator):
    names = estimator._get_param_names()
    assert len(names) <= 20, f"{len(names)}: make a recipe of those seldom touched"


def test_small_arguments_are_those_of_public_estimators():
    assert INIT_PARAMS.keys() <= set(NAMES)
