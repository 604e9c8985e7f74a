"""The recipes of learning without data: what is published, searched and settled."""

import inspect

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from sklcomp.compression import DataFreeDistiller, DataFreeRecipe
from sklcomp.compression.data_free._loop import DataFreeTraining

NAMES = sorted(DataFreeRecipe._published)
# Of the five recipes those that learn in a moment.
SMALL = {
    "generator_width": 4, "latent_dim": 8, "generator_batch_size": 16, "batch_size": 16,
    "student_steps": 2, "n_iterations": 3,
}  # fmt: skip
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 4)).astype(np.float32)
y = (X[:, 0] > 0).astype(int)


def mlp(*first, width=8):
    """The same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)
    return nn.Sequential(*first, *layers)


def distiller(*first, **settings):
    student = NeuralNetClassifier(mlp(width=3), criterion=nn.CrossEntropyLoss)
    settings = {"input_shape": (4,), "random_state": 0} | settings
    return DataFreeDistiller(student, mlp(*first), **settings)


def test_published_recipes_are_the_numbers_of_the_authors():
    """Their code: the paper names the weights and leaves the rest open."""
    assert DataFreeRecipe.named("fast") == DataFreeRecipe()
    weights = "onehot_weight", "entropy_weight", "activation_weight"
    sizes = "latent_dim", "generator_batch_size", "batch_size", "generator_width"
    rates = "generator_lr", "student_lr", "student_optimizer", "schedule"
    for name, of_losses, of_sizes, of_rates, n_iterations in (
        (
            "paper-mnist",
            (1, 5, 0.1),
            (100, 512, 512, 128),
            (0.2, 0.002, "adam", "constant"),
            200 * 120,
        ),
        (
            "paper-cifar10",
            (0.05, 5, 0.01),
            (1000, 1024, 1024, 128),
            (0.02, 0.1, "sgd", "steps"),
            2000 * 120,
        ),
        (
            "paper-cifar100",
            (0.5, 20, 0.1),
            (1000, 1024, 1024, 128),
            (0.02, 0.1, "sgd", "steps"),
            2000 * 120,
        ),
    ):
        recipe = DataFreeRecipe.named(name)
        recipe.check()
        assert tuple(getattr(recipe, one) for one in weights) == of_losses
        assert tuple(getattr(recipe, one) for one in sizes) == of_sizes
        assert tuple(getattr(recipe, one) for one in rates) == of_rates
        assert recipe.n_iterations == n_iterations
        assert recipe.head == "batchnorm"
        assert recipe.student_steps == recipe.temperature == 1
        # What is ours is left out.
        assert not recipe.conditional
        for ours in (
            "bn_weight",
            "adversarial_weight",
            "feature_weight",
            "noise_share",
            "replay_size",
            "reinit_every",
            "augmentation",
            "averaging",
            "student_batchnorm",
        ):
            assert not getattr(recipe, ours)


@pytest.mark.filterwarnings("ignore:bn_weight=1.0 compares")
@pytest.mark.parametrize("name", NAMES)
def test_published_recipes_train(name):
    small = {key: value for key, value in SMALL.items() if key != "n_iterations"}
    recipe = DataFreeRecipe.named(name).replace(replay_size=50, **small)
    fitted = distiller(nn.BatchNorm1d(4), recipe=recipe, n_iterations=3).fit()
    settled = {
        "n_iterations": 3,
        "head": "batchnorm",
        "conditional": name == "fast",
        "entropy_weight": 0 if name == "fast" else recipe.entropy_weight,
    }
    assert fitted.recipe_ == recipe.replace(**settled)
    assert fitted.n_iter_ == 3
    assert np.isfinite(fitted.history_["kd"]).all()


def test_auto_is_the_recipe_that_the_teacher_asks_for():
    for first, name in (((nn.BatchNorm1d(4),), "fast-bn"), ((), "fast")):
        found = distiller(*first, n_iterations=2).fit()
        same = distiller(*first, recipe=name, n_iterations=2).fit()
        assert found.recipe_ == same.recipe_
        np.testing.assert_array_equal(found.history_["kd"], same.history_["kd"])
        # What is given is all that differs.
        recipe = DataFreeRecipe.named(name).replace(temperature=2.0)
        other = distiller(*first, recipe=recipe, n_iterations=2).fit()
        assert other.recipe_ == found.recipe_.replace(temperature=2.0)


class Telling(nn.Module):
    """A generator of the user's that is told the class."""

    def __init__(self):
        super().__init__()
        self.classes, self.output = nn.Embedding(2, 8), nn.Linear(8, 4)

    def forward(self, z, labels):
        return self.output(z + self.classes(labels))


UNTOLD = nn.Linear(8, 4)
RANGE = {"input_range": (-3, 3)}


@pytest.mark.parametrize(
    ("settings", "changes", "expected"),
    [
        # (conditional, entropy_weight, head)
        ({}, {}, (True, 0.0, "batchnorm")),
        (RANGE, {}, (True, 0.0, "range")),
        (RANGE, {"head": "batchnorm"}, (True, 0.0, "batchnorm")),
        ({}, {"conditional": False}, (False, 5.0, "batchnorm")),
        ({}, {"conditional": False, "entropy_weight": 2.0}, (False, 2.0, "batchnorm")),
        ({}, {"entropy_weight": 2.0}, (True, 2.0, "batchnorm")),
        ({"generator": UNTOLD}, {}, (False, 5.0, "batchnorm")),
        ({"generator": UNTOLD}, {"entropy_weight": 0.0}, (False, 0.0, "batchnorm")),
        ({"generator": Telling()}, {"conditional": True}, (True, 5.0, "batchnorm")),
    ],
)
def test_what_auto_becomes(settings, changes, expected):
    recipe = DataFreeRecipe(**SMALL | {"replay_size": 50} | changes)
    used = distiller(recipe=recipe, **settings).fit().recipe_
    assert (used.conditional, used.entropy_weight, used.head) == expected


def test_moments_that_cannot_be_choose_the_head_that_keeps_the_range():
    recipe = DataFreeRecipe(head="batchnorm", replay_size=50, **SMALL)
    model = distiller(recipe=recipe, input_range=(0, 1))
    with pytest.warns(UserWarning, match="cannot have input_mean=0.0"):
        model.fit()
    assert model.recipe_.head == "range"
    made, _ = model.sample(50)
    assert 0 <= made.min() <= made.max() <= 1


def test_a_range_to_keep_must_be_told():
    with pytest.raises(ValueError, match='head="range" keeps values in input_range'):
        distiller(recipe=DataFreeRecipe(head="range", **SMALL)).fit()


def test_the_distillers_number_of_iterations_goes_first():
    recipe = DataFreeRecipe(**SMALL)
    assert distiller(recipe=recipe).fit().n_iter_ == recipe.n_iterations == 3
    fitted = distiller(recipe=recipe, n_iterations=2).fit()
    assert fitted.n_iter_ == fitted.recipe_.n_iterations == 2
    assert len(inspect.signature(DataFreeDistiller).parameters) <= 20


@pytest.mark.filterwarnings("ignore:bn_weight=1.0 compares")
def test_a_fit_changes_no_recipe():
    given = DataFreeRecipe(bn_weight=1.0, **SMALL)
    before, published = given.replace(), DataFreeRecipe.named("fast")
    settings = {"synthesis": "structured_noise", "n_iterations": 2}
    fitted = distiller(recipe=given, **settings).fit()
    assert fitted.recipe is given
    assert given == before
    assert (fitted.recipe_.bn_weight, fitted.recipe_.noise_share) == (0, 1)
    distiller(recipe="fast", **settings).fit()
    assert DataFreeRecipe.named("fast") == published == DataFreeRecipe()


def test_a_search_reaches_the_settings_of_the_recipe():
    student = NeuralNetClassifier(mlp(width=3), criterion=nn.CrossEntropyLoss)
    base = DataFreeRecipe.named("fast-bn").replace(replay_size=50, **SMALL)
    model = DataFreeDistiller(student, clone(student), recipe=base, random_state=0)
    model.teacher.set_params(max_epochs=1, verbose=0, train_split=None)
    grid = {"recipe__entropy_weight": [0.0, 5.0], "recipe__bn_weight": [0.0]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    for weight in (0.0, 5.0):
        one = clone(model).set_params(recipe__entropy_weight=weight)
        assert one.recipe == base.replace(entropy_weight=weight)
    best = search.best_params_["recipe__entropy_weight"]
    assert search.best_estimator_.recipe_.entropy_weight == best
    assert ("entropy" in search.best_estimator_.history_) == (best > 0)
    assert model.recipe == base
    # A name is enough; "auto" is not, since nobody knows it before the fit.
    named = clone(model).set_params(recipe="fast", recipe__entropy_weight=0.5)
    assert named.recipe == DataFreeRecipe(entropy_weight=0.5)
    assert DataFreeRecipe.named("fast") == DataFreeRecipe()
    with pytest.raises(ValueError, match=r"recipe=DataFreeRecipe.named\('fast'\)"):
        clone(model).set_params(recipe="auto", recipe__entropy_weight=0.5)


def test_a_fit_goes_on_by_the_same_recipe_however_it_is_given(tmp_path, monkeypatch):
    kept = {"checkpoint": tmp_path, "warm_start": True, "n_iterations": 2}
    first = distiller(recipe="auto", **kept).fit()
    monkeypatch.delattr(DataFreeTraining, "step")
    for recipe in ("fast", DataFreeRecipe(), DataFreeRecipe(n_iterations=9)):
        again = distiller(recipe=recipe, **kept).fit()
        np.testing.assert_array_equal(again.history_["kd"], first.history_["kd"])
    with pytest.raises(AttributeError, match="step"):
        distiller(recipe=DataFreeRecipe(temperature=2.0), **kept).fit()


def test_clones_have_a_recipe_of_their_own():
    model = distiller(recipe=DataFreeRecipe(temperature=3.0))
    other = clone(model)
    assert other.recipe == model.recipe
    assert other.recipe is not model.recipe
    other.set_params(recipe__temperature=1.0)
    assert model.recipe == DataFreeRecipe(temperature=3.0)
    assert model.get_params()["recipe__temperature"] == 3.0


@pytest.mark.parametrize("name", NAMES)
def test_recipes_can_be_read_back(name):
    recipe = DataFreeRecipe.named(name)
    assert eval(repr(recipe)) == recipe
    assert ("noise_kinds" in repr(recipe)) is False


def test_settings_names_and_values_that_are_none():
    with pytest.raises(TypeError, match="entropy_wait"):
        DataFreeRecipe(entropy_wait=1.0)
    with pytest.raises(ValueError, match="'entropy_wait' is no setting of DataFreeRec"):
        distiller(recipe="fast").set_params(recipe__entropy_wait=1.0)
    with pytest.raises(ValueError, match="no recipe 'slow'; choose one of 'fast', 'fa"):
        DataFreeRecipe.named("slow")
    with pytest.raises(ValueError, match="'recipe' parameter .*Got 'slow' instead"):
        distiller(recipe="slow").fit()
    with pytest.raises(ValueError, match="'recipe' parameter .*DataFreeRecipe"):
        distiller(recipe={"temperature": 1.0}).fit()


@pytest.mark.parametrize("name", sorted(DataFreeRecipe().get_params()))
def test_every_setting_has_its_range(name):
    message = rf"'{name}' parameter of DataFreeRecipe must be .*Got -7.0 instead"
    with pytest.raises(ValueError, match=message):
        distiller(recipe=DataFreeRecipe(**{name: np.float64(-7)})).fit()


def test_every_setting_is_documented_with_its_default():
    doc = inspect.getdoc(DataFreeRecipe)
    for name, value in DataFreeRecipe().get_params().items():
        (line,) = [line for line in doc.splitlines() if line.startswith(f"{name} : ")]
        shown = line.partition("default=")[2].replace('"', "'")
        assert name == "noise_kinds" or eval(shown) == value
