"""Recipes: settings as one parameter, which searches can reach and nobody changes."""

import pickle
from dataclasses import FrozenInstanceError, dataclass
from numbers import Real

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklcomp.utils._recipe import Recipe, RecipeMixin, recipe_of
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


class Cook(RecipeMixin, BaseEstimator):
    _recipe_type = Stew

    def __init__(self, recipe="quick", salt=1):
        self.recipe = recipe
        self.salt = salt


def test_a_name_stands_for_a_published_recipe():
    assert recipe_of(Cook(), Stew) == Stew(hours=0.5)
    own = Stew(herbs=["sage"])
    assert recipe_of(Cook(own), Stew) is own
    assert recipe_of(Cook("auto"), Stew, auto="quick") == Stew(hours=0.5)
    with pytest.raises(ValueError, match="no recipe 'slow'; choose one of 'quick', or"):
        recipe_of(Cook("slow"), Stew)


def test_a_setting_of_a_named_recipe_makes_it_a_recipe_of_its_own():
    cook = Cook("quick")
    other = clone(cook).set_params(recipe__herbs=("sage",), salt=2)
    assert other.recipe == Stew(hours=0.5, herbs=("sage",))
    assert other.salt == 2
    assert cook.recipe == "quick"
    assert Stew.named("quick") == Stew(hours=0.5)
    # The name may come in the same call, and from any depth.
    pipeline = make_pipeline(StandardScaler(), Cook(Stew()))
    pipeline.set_params(cook__recipe__herbs=("bay",), cook__recipe="quick")
    assert pipeline[-1].recipe == Stew(hours=0.5, herbs=("bay",))


def test_a_shared_recipe_is_not_changed_by_an_estimator():
    for shared in (Stew(), Stew.named("quick")):
        before = shared.replace()
        one, two = Cook(shared), Cook(shared)
        one.set_params(recipe__hours=7.0)
        assert one.recipe == before.replace(hours=7.0)
        assert two.recipe is shared
        assert shared == before
    Stew.named("quick").set_params(hours=9.0)
    assert Stew.named("quick") == Stew(hours=0.5)


def test_a_recipe_that_cannot_be_set_is_refused_with_the_cure():
    with pytest.raises(
        ValueError,
        match=r'"auto" is .* recipe__hours .*choose recipe=Stew\.named\(.quick.\)',
    ):
        Cook("auto").set_params(recipe__hours=1.0)
    with pytest.raises(ValueError, match="no recipe 'slow'"):
        Cook("slow").set_params(recipe__hours=1.0)
    cook = Cook(Stew())
    with pytest.raises(ValueError, match="'pepper' is no setting of Stew"):
        cook.set_params(recipe__pepper=1)
    assert cook.recipe == Stew()
    with pytest.raises(ValueError, match="Invalid parameter 'pepper'"):
        cook.set_params(pepper=1)


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
    with pytest.raises(ValueError, match=r"Got -1\.0 instead"):
        Stew(hours=np.float64(-1)).check()
