"""Recipes: settings as one parameter, which searches can reach and nobody changes."""

import pickle
from dataclasses import FrozenInstanceError, dataclass
from numbers import Real

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid

from sklcomp.utils._recipe import Recipe, recipe_of
from sklcomp.utils._sklearn import Interval


@dataclass(frozen=True, kw_only=True, repr=False)
class Stew(Recipe):
    hours: float = 2.0
    herbs: tuple = ("thyme", "bay")

    _constraints = {
        "hours": [Interval(Real, 0, None, closed="left")],
        "herbs": ["array-like"],
    }


Stew._published = {"quick": Stew(hours=0.5)}


class Cook(BaseEstimator):
    def __init__(self, recipe="quick"):
        self.recipe = recipe


def test_a_name_stands_for_a_published_recipe():
    assert recipe_of(Cook(), Stew) == Stew(hours=0.5)
    own = Stew(herbs=["sage"])
    assert recipe_of(Cook(own), Stew) is own


def test_settings_are_searched_through_the_estimator():
    cook = Cook(Stew())
    assert cook.get_params()["recipe__hours"] == 2.0
    for found in ParameterGrid({"recipe__hours": [1.0, 3.0]}):
        other = clone(cook).set_params(**found)
        assert other.recipe == Stew(hours=found["recipe__hours"])
    assert cook.recipe == Stew()


def test_nothing_else_changes_a_recipe():
    stew = Stew()
    with pytest.raises(FrozenInstanceError):
        stew.hours = 3.0
    assert stew.replace(hours=3.0) == Stew(hours=3.0)
    assert stew == Stew()
    assert pickle.loads(pickle.dumps(stew)) == stew


def test_what_differs_is_shown():
    assert repr(Stew()) == "Stew()"
    assert repr(Cook(Stew(hours=1.0))) == "Cook(recipe=Stew(hours=1.0))"
    assert eval(repr(Stew(hours=1.0, herbs=("sage",)))) == Stew(
        hours=1.0, herbs=("sage",)
    )


def test_unknown_settings_and_values_out_of_range_are_refused():
    with pytest.raises(TypeError, match="salt"):
        Stew(salt=1)
    stew = Stew()
    with pytest.raises(
        ValueError, match=r"'salt' is no setting of Stew; .*hours, herbs"
    ):
        stew.set_params(salt=1)
    with pytest.raises(
        ValueError, match=r"'hours' parameter of Stew .* Got -1 instead"
    ):
        recipe_of(Cook(Stew(hours=-1)), Stew)
