"""What can go wrong when a student learns without data."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklcomp.compression import DataFreeDistiller, DataFreeRecipe
from sklcomp.compression.data_free import _distiller
from sklcomp.compression.data_free._loop import DataFreeTraining
from sklcomp.compression.data_free._sources import ReplayBank
from sklcomp.nn import BatchNormStatistics
from tests.helpers.nets import Stop
from tests.helpers.recipes import with_data_free_recipe

X = np.random.RandomState(0).randn(50, 4).astype(np.float32)


def mlp(*first, width=8, n_classes=3, n_features=4, activation=nn.ReLU):
    return nn.Sequential(
        *first, nn.Linear(n_features, width), activation(), nn.Linear(width, n_classes)
    )


@pytest.fixture(autouse=True)
def _same_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def distiller(student, teacher, **settings):
    if isinstance(student, nn.Module):
        student = NeuralNetClassifier(student, criterion=nn.CrossEntropyLoss)
    settings = {
        "input_shape": (4,),
        "n_iterations": 3,
        "replay_size": 200,
        "student_steps": 2,
        "batch_size": 32,
        "random_state": 0,
    } | settings
    settings = with_data_free_recipe(teacher, settings)
    return DataFreeDistiller(student, teacher, **settings)


def with_weights_of(module, other):
    module.load_state_dict(other.state_dict())
    return module


class Masking(nn.Module):
    """Buffers of which there is no average."""

    def __init__(self):
        super().__init__()
        self.net = mlp()
        self.register_buffer("places", torch.arange(1000))
        self.register_buffer("mask", torch.full((3,), float("-inf")))
        self.register_buffer("n_steps", torch.tensor(0), persistent=False)

    def forward(self, x):
        self.n_steps += self.training
        return self.net(x[:, self.places[:4]]) + self.mask.exp()


def test_masks_and_places_are_not_averaged():
    fitted = distiller(Masking(), mlp(), n_iterations=9, student_steps=30).fit()
    assert fitted.recipe_.averaging
    assert torch.equal(fitted.module_.places, torch.arange(1000))
    assert torch.equal(fitted.module_.mask, torch.full((3,), float("-inf")))
    assert fitted.module_.n_steps == 270
    assert np.isfinite(fitted.predict_proba(X)).all()


def test_a_failure_after_a_resumption_is_that_without_an_interrupt(
    tmp_path, monkeypatch
):
    learn = DataFreeTraining._learn

    def fails_late(self, step):
        return learn(self, step) if self.n_iter < 8 else {"kd": float("nan")}

    monkeypatch.setattr(DataFreeTraining, "_learn", fails_late)
    student, teacher, settings = mlp(), mlp(), {"n_iterations": 20}
    with pytest.warns(UserWarning, match="the kd loss became nan in iteration 9"):
        whole = distiller(student, teacher, **settings).fit()
    settings |= {"checkpoint": tmp_path, "warm_start": True}
    with pytest.raises(KeyboardInterrupt):
        distiller(student, teacher, **settings).set_callbacks(Stop(after=8)).fit()
    with pytest.warns(UserWarning, match="the kd loss became nan in iteration") as seen:
        rest = distiller(student, teacher, **settings).fit()
    assert seen[0].filename == __file__
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))


def test_nets_that_do_otherwise_with_the_same_weights_are_not_resumed(tmp_path):
    nets = {
        "student": mlp(),
        "teacher": mlp(),
        "generator": nn.Sequential(nn.Linear(64, 4), nn.Tanh()),
    }
    others = {
        "student": mlp(activation=nn.Tanh),
        "teacher": mlp(activation=nn.Tanh),
        "generator": nn.Sequential(nn.Linear(64, 4), nn.Sigmoid()),
    }
    for name, other in others.items():
        kept = {"checkpoint": tmp_path / name, "warm_start": True}
        first = distiller(**nets, **kept).fit()
        changed = nets | {name: with_weights_of(other, nets[name])}
        found = distiller(**changed, **kept).fit()
        fresh = distiller(**changed).fit()
        np.testing.assert_array_equal(found.history_["kd"], fresh.history_["kd"])
        assert not np.array_equal(first.history_["kd"], fresh.history_["kd"])


class Narrow(nn.Module):
    """Weights that numpy does not know."""

    def __init__(self):
        super().__init__()
        self.net = mlp().bfloat16()

    def forward(self, x):
        return self.net(x.bfloat16()).float()


class Named(nn.Module):
    """Shows a function, with its address."""

    def __init__(self):
        super().__init__()
        self.net, self.act = mlp(), lambda x: x * 2

    def extra_repr(self):
        return repr(self.act)

    def forward(self, x):
        return self.act(self.net(x))


def test_any_weights_and_names_are_resumed(tmp_path, monkeypatch):
    kept = {"checkpoint": tmp_path, "warm_start": True}
    teacher, student, again = Narrow(), Named(), Named()
    whole = distiller(student, teacher, **kept).fit()
    monkeypatch.delattr(DataFreeTraining, "step")
    with_weights_of(again, student)
    assert repr(again) != repr(student)
    found = distiller(again, teacher, **kept).fit()
    np.testing.assert_array_equal(found.predict_proba(X), whole.predict_proba(X))


class Pooling(nn.Module):
    """Takes images of 3 channels, of any size."""

    def __init__(self):
        super().__init__()
        self.conv, self.output = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        return self.output(self.conv(x).relu().mean((2, 3)))


def test_shapes_of_examples():
    fitted = distiller(mlp(), mlp()).fit()
    with pytest.raises(ValueError, match=r"X has shape \(n, 7\); .* on \(n, 4\)"):
        fitted.predict(np.zeros((2, 7)))
    np.testing.assert_array_equal(
        fitted.predict_proba(X.reshape(-1, 1, 2, 2)), fitted.predict_proba(X)
    )
    images = np.random.RandomState(0).rand(5, 3, 4, 4).astype(np.float32)
    fitted = distiller(Pooling(), Pooling(), input_shape=(3, 4, 4)).fit()
    flat = images.reshape(5, 48)
    np.testing.assert_array_equal(
        fitted.predict_proba(flat), fitted.predict_proba(images)
    )
    assert fitted.agreement_score(flat) == fitted.agreement_score(images)
    # Channels are not told from rows of pixels by their number alone.
    with pytest.raises(ValueError, match=r"X has shape \(n, 4, 4, 3\)"):
        fitted.predict(images.transpose(0, 2, 3, 1))


def test_a_fit_without_data_forgets_the_columns_of_earlier_data():
    pd = pytest.importorskip("pandas")
    model = distiller(mlp(), mlp()).fit(pd.DataFrame(X, columns=list("abcd")))
    assert model.n_features_in_ == 4
    student, teacher = mlp(n_features=6), mlp(n_features=6)
    other = distiller(student, teacher, input_shape=(6,))
    model.set_params(**other.get_params(deep=False)).fit()
    assert not hasattr(model, "n_features_in_")
    assert not hasattr(model, "feature_names_in_")
    assert len(model.predict(np.zeros((2, 6)))) == 2


class Shift(nn.Module):
    """Takes one from its input, maybe in place."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place

    def forward(self, x):
        if not self.in_place:
            return x - 1
        x -= 1
        return x


@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize(
    "settings",
    [
        {"noise_share": 0.0},
        {"recipe": "paper-mnist", "replay_size": 0, "generator_batch_size": 32,
         "student_steps": 3, "generator_width": 8, "latent_dim": 64},
        {"generator": nn.Sequential(nn.Linear(64, 4), nn.Sigmoid())},
        {"synthesis": "structured_noise"},
    ],
    ids=["fast", "paper", "own generator", "noise"],
)  # fmt: skip
def test_what_works_in_place_learns_the_same(who, settings):
    nets = {"student": mlp(), "teacher": mlp()}
    if "generator" in settings:
        settings = settings | {"adversarial_weight": 1.0}
    fits = []
    for in_place in (True, False):
        shifted = nn.Sequential(Shift(in_place), *copy.deepcopy(nets[who]))
        fits.append(distiller(**nets | {who: shifted}, **settings).fit())
    for name, values in fits[0].history_.items():
        np.testing.assert_array_equal(values, fits[1].history_[name])
    for fitted in fits:
        before = X.copy()
        assert fitted.agreement_score(X) == fits[0].agreement_score(X)
        np.testing.assert_array_equal(X, before)
    if settings.get("synthesis") is None:
        assert fits[0].data_free_score(9) == fits[1].data_free_score(9)


def test_a_teacher_that_begins_with_an_activation_in_place():
    fitted = distiller(mlp(), mlp(nn.ReLU(inplace=True))).fit()
    assert fitted.n_iter_ == 3


def test_answers_draw_from_no_global_generator():
    fitted = distiller(mlp(), mlp()).fit()
    before = torch.get_rng_state()
    fitted.predict(X)
    fitted.predict_proba(X)
    fitted.score(X, np.arange(50) % 3)
    fitted.agreement_score(X)
    assert torch.equal(before, torch.get_rng_state())


class Jittery(nn.Module):
    """Draws from the generators of Python and numpy while it learns."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        if self.training:
            x = x * random.random() + np.random.rand()  # noqa: NPY002
        return self.net(x)


def test_a_student_that_draws_is_resumed(tmp_path):
    student, teacher, settings = Jittery(), mlp(), {"n_iterations": 6}
    whole = distiller(student, teacher, **settings).fit()
    settings |= {"checkpoint": tmp_path, "warm_start": True}
    with pytest.raises(KeyboardInterrupt):
        distiller(student, teacher, **settings).set_callbacks(Stop(after=3)).fit()
    rest = distiller(student, teacher, **settings).fit()
    np.testing.assert_array_equal(rest.history_["kd"], whole.history_["kd"])
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))


class Movable(nn.Sequential):
    """Notes where it was put at last."""

    where = None

    def cpu(self):
        self.where = "cpu"
        return super().cpu()


@pytest.mark.parametrize("synthesis", ["generator", "structured_noise"])
def test_what_is_kept_is_on_the_cpu(synthesis, monkeypatch):
    used = []
    bank = ReplayBank.__init__

    def init(self, size, rng):
        used.append(rng)
        bank(self, size, rng)

    monkeypatch.setattr(ReplayBank, "__init__", init)
    teacher = Movable(*mlp())
    generator = Movable(nn.Linear(64, 4), nn.Tanh())
    fitted = distiller(mlp(), teacher, generator=generator, synthesis=synthesis).fit()
    assert teacher.where is None
    assert fitted.teacher_ is fitted._teacher.module
    assert fitted.teacher_.where == fitted._teacher.device == "cpu"
    source = vars(fitted._source)
    assert source["rng"] is not used[0]
    assert source["teacher"] is fitted._teacher
    assert not source.keys() & {"images", "scores", "optimizer"}
    if synthesis == "generator":
        assert fitted.generator_.where == "cpu"
    # The net's pickle can be read without a GPU; the bare module's could not.
    assert "module_" not in vars(fitted)


def test_nets_of_the_wrong_kind():
    binary = NeuralNetBinaryClassifier(mlp(n_classes=2))
    with pytest.raises(ValueError, match="NeuralNetBinaryClassifier is not supported"):
        distiller(binary, mlp(n_classes=2)).fit()
    numbers = NeuralNetRegressor(mlp(), max_epochs=1, verbose=0, train_split=None)
    teacher = FrozenEstimator(numbers.fit(X, X[:, :3]))
    with pytest.raises(ValueError, match="the teacher is a NeuralNetRegressor"):
        distiller(mlp(), teacher).fit()


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), MemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), MemoryError),
        (torch.OutOfMemoryError("CUDA out of memory"), MemoryError),
        (RuntimeError("another"), RuntimeError),
    ],
)
@pytest.mark.parametrize("where", ["NoiseSource", "GeneratorSource"])
def test_memory_that_runs_out_before_the_first_step(error, found, where, monkeypatch):
    def fails(*args):
        raise error

    monkeypatch.setattr(_distiller, where, fails)
    wanted = "another" if found is RuntimeError else "smaller .* or replay_size"
    with pytest.raises(found, match=wanted):
        distiller(mlp(), mlp()).fit()


class Spare(nn.Module):
    """A batch norm that runs if it is asked to, and gets its input by name."""

    def __init__(self, runs):
        super().__init__()
        self.net, self.norm, self.runs = mlp(), nn.BatchNorm1d(4), runs

    def forward(self, x):
        return self.net(self.norm(input=x) if self.runs else x)


def test_norms_that_do_not_run_do_not_count():
    for runs, name in ((True, "fast-bn"), (False, "fast")):
        model = distiller(mlp(), Spare(runs)).set_params(recipe="auto").fit()
        recipe = DataFreeRecipe.named(name)
        assert model.recipe_.student_steps == recipe.student_steps
        assert model.recipe_.bn_weight == recipe.bn_weight == runs
    with pytest.warns(UserWarning, match="the Spare has none that runs"):
        distiller(mlp(), Spare(runs=False), recipe="fast-bn").fit()
    net, values = Spare(runs=True).eval(), torch.from_numpy(X)
    with BatchNormStatistics(net) as named, BatchNormStatistics(net.norm) as plain:
        net(values)
        assert named.loss() == plain.loss() > 0
        assert named.n_passed == 1


class Patches(nn.Module):
    """The Linear that runs last takes two rows for each example."""

    def __init__(self):
        super().__init__()
        self.inner, self.output = nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, x):
        scores = self.output(self.inner(x.reshape(-1, 2)).relu())
        return scores.reshape(len(x), -1, 3).mean(1)


def test_features_are_asked_for_if_they_are_needed():
    with pytest.raises(ValueError, match="name a layer that keeps the examples"):
        distiller(mlp(), Patches()).fit()
    fitted = distiller(mlp(), Patches(), feature_weight=0.0).fit()
    assert fitted.data_free_score(9) <= 0
    with pytest.warns(UserWarning, match="the student shows no features"):
        fitted = distiller(Patches(), mlp()).fit()
    assert fitted.recipe_.feature_weight == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_mean": np.nan}, "input_mean holds nan: all must be finite"),
        ({"input_std": [1, 1, np.inf, 1]}, "input_std holds inf: all must be finite"),
        ({"input_range": (0, np.inf)}, "input_range holds inf: all must be finite"),
        ({"input_range": ([0, 0], [1, 1, 1])}, "input_range has 2 values: give one"),
        ({"input_range": (0, 1, 2)}, "give two values, the smaller one first"),
        ({"input_shape": (4.9,)}, r"input_shape=\(4.9,\) must consist of pos"),
        ({"input_shape": ("4",)}, r"input_shape=\('4',\) must consist of pos"),
    ],
)
def test_values_that_are_none(settings, message):
    with pytest.raises(ValueError, match=message):
        distiller(mlp(), mlp(), **settings).fit()


def test_scores_need_examples():
    fitted = distiller(mlp(), mlp()).fit()
    with pytest.raises(ValueError, match="n=0: ask for at least one example"):
        fitted.data_free_score(0)


def test_a_range_may_have_one_end_for_all():
    fitted = distiller(mlp(), mlp(), input_range=(-2, [1, 2, 3, 4])).fit()
    made, _ = fitted.sample(200, random_state=0)
    assert made.min() >= -2
    assert (made.max(0) <= [1, 2, 3, 4]).all()
    assert made.max() > 1


def test_warnings_name_the_line_that_calls_fit():
    silent = nn.Sequential(nn.Linear(64, 4), nn.Sigmoid())
    nn.init.zeros_(silent[0].weight)
    calls = [
        distiller(mlp(), mlp(), bn_weight=1.0),
        distiller(mlp(), mlp(), entropy_weight=1.0, generator_batch_size=8),
        distiller(Patches(), mlp()),
        distiller(mlp(), mlp(), input_range=(0, 1), input_mean=3.0),
        distiller(mlp(), mlp(), generator=silent, n_iterations=12, generator_lr=1e-9),
    ]
    for model in calls:
        with pytest.warns(UserWarning, match=".") as caught:
            model.fit()
        assert [warning.filename for warning in caught] == [__file__]
    many = {"n_classes": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distiller(
            mlp(**many),
            nn.Sequential(nn.BatchNorm1d(4), *mlp(**many)),
            synthesis="structured_noise",
        ).fit()
