import warnings

import numpy as np
import pytest

from sklcomp.utils._messages import show, show_some, warn_user


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(2), "2"),
        (np.float32(0.5), "0.5"),
        (np.bool_(True), "True"),
        (np.str_("a"), "'a'"),
        ((np.int64(2), 3), "(2, 3)"),
        ([np.float64(2), [np.int8(1)]], "[2.0, [1]]"),
        (np.array([1, 2]), "[1, 2]"),
        (np.array([np.int64(1), "a"], dtype=object), "[1, 'a']"),
        ({np.int64(1): np.float64(2)}, "{1: 2.0}"),
        ({np.int64(1)}, "{1}"),
        (None, "None"),
    ],
)
def test_values_are_shown_as_python_shows_them(value, expected):
    assert show(value) == expected


def test_a_few_of_many_are_shown():
    assert show_some(np.arange(3)) == "0, 1, 2"
    assert show_some(np.arange(9), 2) == "0, 1, ..."


@pytest.mark.parametrize(("n", "shown"), [
    (0, ""), (2, "1, 2"), (5, "1, 2, 3, 4, 5"), (6, "1, 2, 3, 4, 5, ..."),
])  # fmt: skip
def test_dots_stand_for_what_is_left_out(n, shown):
    assert show_some(range(1, n + 1)) == shown


def test_iterators_are_shown_by_what_they_yield():
    assert show_some(iter(np.array(["a", "b", "c"])), 2) == "'a', 'b', ..."


def test_showing_leaves_containers_alone():
    inner = [np.int64(1)]
    value = {"a": (inner, {np.int64(2)})}
    assert show(value) == "{'a': ([1], {2})}"
    assert value["a"][0] is inner
    assert type(inner[0]) is np.int64


class Named(tuple):
    """A subclass, which has a repr of its own."""

    def __repr__(self):
        return "Named"


def test_subclasses_are_shown_as_they_show_themselves():
    assert show(Named((np.int64(1),))) == "Named"
    assert show([Named()]) == "[Named]"


def module_of(name, source, **values):
    """A function of a module of that name."""
    space = {"__name__": name, **values}
    exec(compile(source, f"{name}.py", "exec"), space)
    return space["call"]


@pytest.mark.parametrize("inner", ["sklcomp.deep", "sklearn.base", "torch", "joblib"])
def test_warning_is_of_the_first_line_outside_the_library(inner):
    deep = module_of("sklcomp.x", "def call():\n    warn('here')", warn=warn_user)
    between = module_of(inner, "def call():\n    deep()", deep=deep)
    user = module_of("mine", "\n\n\ndef call():\n    between()", between=between)
    with pytest.warns(UserWarning, match="here") as caught:
        user()
    assert (caught[0].filename, caught[0].lineno) == ("mine.py", 5)


def test_names_that_only_begin_like_ours_are_the_users():
    deep = module_of("sklcomp.x", "def call():\n    warn('here')", warn=warn_user)
    user = module_of("sklcompany", "def call():\n    deep()", deep=deep)
    with pytest.warns(UserWarning, match="here") as caught:
        user()
    assert caught[0].filename == "sklcompany.py"


def test_category_is_that_which_is_asked_for():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_user("a", RuntimeWarning)
        warn_user("b")
    assert [warning.category for warning in caught] == [RuntimeWarning, UserWarning]
    assert {warning.filename for warning in caught} == {__file__}
