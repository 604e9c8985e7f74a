"""Networks, translators and settings of users, made small together."""

import copy

import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import (
    Callback,
    Checkpoint,
    LoadInitState,
    TrainEndCheckpoint,
)
from torch import nn

from sklcomp.compression.search import _pair_fitness
from sklcomp.compression.search._finetuning import Figures
from sklcomp.compression.search._pair_fitness import Direction
from sklcomp.datasets import make_unpaired_digits
from sklcomp.nn import (
    CycleGANGenerator,
    PatchDiscriminator,
    count_parameters,
)
from sklcomp.translation import CycleGANTranslator
from tests.helpers.pairs import (
    QUICK,
    SMALL,
    fingerprint,
    fit_translator,
    problem,
    prune,
)
from tests.helpers.recipes import coevolutionary_pruner


@pytest.fixture(scope="module")
def digits():
    return make_unpaired_digits(40, image_size=8, random_state=0)


@pytest.fixture(scope="module")
def trained(digits):
    translator = CycleGANTranslator(digits.image_shape, random_state=0, **SMALL)
    return translator.fit(digits.data, digits.target)


class ViewingDiscriminator(nn.Module):
    """Takes no images with channels last."""

    def __init__(self, n_channels):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, 4, 3, padding=1)
        self.score = nn.Linear(256, 1)

    def forward(self, x):
        return self.score(self.conv(x).view(len(x), -1))


class FlatDiscriminator(ViewingDiscriminator):
    """Gives a number for each image, without an axis for it."""

    def forward(self, x):
        return self.score(self.conv(x).flatten(1)).squeeze(1)


class NormedDiscriminator(nn.Sequential):
    def __init__(self, n_channels):
        super().__init__(
            nn.Conv2d(n_channels, 4, 3),
            nn.BatchNorm2d(4),
            nn.Dropout(),
            nn.Conv2d(4, 1, 3),
        )


class NormedGenerator(nn.Sequential):
    def __init__(self, n_channels=3):
        super().__init__(
            nn.Conv2d(n_channels, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, n_channels, 3, padding=1),
            nn.Tanh(),
        )


class CountEpochs(Callback):
    n_seen = 0

    def on_epoch_end(self, net, **kwargs):
        self.n_seen += 1


@pytest.mark.parametrize("kind", [ViewingDiscriminator, FlatDiscriminator])
def test_discriminators_of_users(digits, kind):
    pruner = prune(digits, fit_translator(digits, discriminator=kind))
    assert pruner.report_.ratio("parameters") <= 0.4


def test_fitness_is_that_of_the_finished_network(rng):
    torch.manual_seed(0)
    X = torch.rand(6, 3, 8, 8) * 2 - 1
    problems = [
        problem(NormedGenerator().eval(), X, compensate=True, importance="group")
        for _ in range(2)
    ]
    fitness = Direction(
        *problems, PatchDiscriminator(4, 1), X, gamma=None, cycle_weight=1.0, train=None
    )
    half = problems[0].uniform(0.5)
    torch.testing.assert_close(
        fitness._decode(problems[0], half)(X), problems[0].finish(half)(X)
    )


def test_discriminators_in_training_are_left_alone(digits):
    translator = fit_translator(digits, discriminator=NormedDiscriminator)
    expected = prune(digits, translator, finetune_epochs=0).history_
    translator.discriminator_a_.train()
    translator.generator_ba_.train()
    before = fingerprint(translator.discriminator_a_)
    threads = prune(digits, translator, n_jobs=8, population_size=12, finetune_epochs=0)
    assert fingerprint(translator.discriminator_a_) == before
    assert all(part.training for part in translator.discriminator_a_.modules())
    assert all(part.training for part in translator.generator_ba_.modules())
    again = prune(digits, translator, finetune_epochs=0)
    np.testing.assert_array_equal(again.history_["best_b"], expected["best_b"])
    assert np.isfinite(threads.history_["best_b"]).all()


def test_settings_of_modules_do_not_make_them_anew(digits):
    # skorch makes a network again if it has arguments for it.
    settings = {"module__n_filters": 6, "module__n_blocks": 1}
    translator = fit_translator(digits, net_params=settings)
    small = prune(digits, translator).estimator_
    sizes = [count_parameters(t.generator_ab_) for t in (small, translator)]
    assert sizes[0] <= 0.4 * sizes[1]


def test_epochs_of_the_tuning_are_not_those_of_the_net(digits):
    translator = fit_translator(digits, max_epochs=9, net_params={"max_epochs": 2})
    assert translator.n_iter_ == 2
    small = prune(digits, translator, finetune_epochs=0).estimator_
    assert small.n_iter_ == 0
    assert small.fit(digits.data, digits.target).n_iter_ == 2


@pytest.mark.parametrize("settings", [{}, {"fitness_epochs": 1, "n_generations": 1}])
def test_callbacks_of_the_translator_are_its_own(digits, settings):
    counter = CountEpochs()
    translator = fit_translator(digits, net_params={"callbacks": [("n", counter)]})
    assert counter.n_seen == 2
    prune(digits, translator, **settings)
    assert counter.n_seen == 2


@pytest.mark.parametrize("settings", [{}, {"fitness_epochs": 1, "n_generations": 1}])
def test_files_of_the_user_are_left_alone(digits, tmp_path, settings):
    kept = Checkpoint(dirname=tmp_path / "best", monitor=None)
    callbacks = [kept, LoadInitState(kept), TrainEndCheckpoint(dirname=tmp_path)]
    translator = fit_translator(digits, net_params={"callbacks": callbacks})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = [path.read_bytes() for path in files]
    small = prune(digits, translator, **settings).estimator_
    small.fit(digits.data, digits.target)
    assert [path.read_bytes() for path in files] == before
    assert len(files) == 8
    assert len(translator.net_params["callbacks"]) == 3


class Halving(nn.Module):
    """A network that may begin by overwriting what it is given."""

    def __init__(self, network, overwrites):
        super().__init__()
        self.network, self.overwrites = network, overwrites

    def forward(self, x):
        return self.network(x.mul_(0.5) if self.overwrites else x * 0.5)


@pytest.mark.parametrize("where", ["generator", "discriminator"])
def test_networks_may_overwrite_what_they_are_given(where):
    # Of images with one channel, those with channels last share the memory.
    digits = make_unpaired_digits(20, image_size=8, random_state=0)
    digits.data, digits.image_shape = digits.data[:, :64], (8, 8)
    torch.manual_seed(0)
    network = {
        "generator": CycleGANGenerator(4, 1, n_channels=1),
        "discriminator": PatchDiscriminator(4, 1, 1),
    }[where]
    found, want = (
        prune(digits, fit_translator(digits, **{where: Halving(network, overwrites)}))
        for overwrites in (True, False)
    )
    for name in ("best_a", "best_b"):
        np.testing.assert_array_equal(found.history_[name], want.history_[name])
    X = digits.data
    np.testing.assert_array_equal(found.transform(X), want.transform(X))
    for side in ("before", "after"):
        scores = [getattr(one.report_, side)["training score"] for one in (found, want)]
        assert scores[0] == scores[1]


def test_frozen_weights_can_be_trained_on(digits, trained):
    frozen = copy.deepcopy(trained)
    for side in ("ab", "ba"):
        getattr(frozen, f"generator_{side}_").requires_grad_(False)
    np.testing.assert_array_equal(
        prune(digits, frozen).transform(digits.data_a),
        prune(digits, trained).transform(digits.data_a),
    )
    assert not any(p.requires_grad for p in frozen.generator_ab_.parameters())


def test_parameters_of_the_result_are_copies(digits, trained):
    small = prune(digits, trained).estimator_
    with torch.no_grad():
        small.generator_ab_.layers[0].weight.zero_()
        small.discriminator_b_.layers[0].weight.zero_()
    assert small.generator[0].layers[0].weight.all()
    assert small.discriminator[1].layers[0].weight.all()


def test_training_that_breaks_leaves_the_pair(digits, trained):
    wild = copy.deepcopy(trained).set_params(lr=1e30)
    with pytest.warns(ConvergenceWarning, match=r"became nan.*choose a smaller lr"):
        pruner = prune(digits, wild)
    assert pruner.report_.note == "kept as they were cut: the training has diverged"
    plain = prune(digits, trained, finetune_epochs=0)
    np.testing.assert_array_equal(
        pruner.transform(digits.data_a), plain.transform(digits.data_a)
    )
    # An individual is scored as it was cut.
    tuned = prune(digits, wild, fitness_epochs=1, finetune_epochs=0)
    np.testing.assert_array_equal(tuned.history_["best_a"], plain.history_["best_a"])


def test_unknown_closeness_is_not_kept(digits, trained, monkeypatch):
    plain = prune(digits, trained, finetune_epochs=0)
    unknown = Figures(np.nan, np.nan)
    monkeypatch.setattr(_pair_fitness, "closeness", lambda *_: unknown)
    with pytest.warns(ConvergenceWarning, match="left as they were cut"):
        pruner = prune(digits, trained)
    np.testing.assert_array_equal(
        pruner.transform(digits.data_a), plain.transform(digits.data_a)
    )


@pytest.mark.parametrize("after", [Figures(2.0, -0.4), Figures(0.9, -0.6)])
def test_pair_that_is_better_in_one_way_is_kept(digits, trained, monkeypatch, after):
    figures = iter([Figures(1.0, -0.5), after])
    monkeypatch.setattr(_pair_fitness, "closeness", lambda *_: next(figures))
    pruner = prune(digits, trained)
    assert pruner.estimator_.n_iter_ == 1
    assert pruner.report_.note.startswith("fine-tuned: error of cycles")


def test_trained_candidates_in_a_parallel_context(digits, trained):
    settings = {"fitness_epochs": 1, "n_generations": 1, "finetune_epochs": 0}
    with joblib.parallel_config("threading", n_jobs=4):
        first = prune(digits, trained, **settings).history_
    second = prune(digits, trained, **settings).history_
    np.testing.assert_array_equal(first["best_a"], second["best_a"])


def test_report_has_the_score_of_images_without_padding():
    # Three images are too few to hold any out.
    digits = make_unpaired_digits(3, image_size=9, random_state=0)
    translator = fit_translator(digits)
    pruner = prune(digits, translator)
    for row, one in (
        (pruner.report_.before, translator),
        (pruner.report_.after, pruner),
    ):
        score = one.score(digits.data, digits.target)
        assert row["training score"] == pytest.approx(score, rel=1e-5)
        assert "score" not in row


def test_names_of_features_are_those_of_the_last_fit(digits):
    pd = pytest.importorskip("pandas")
    translator = CycleGANTranslator(digits.image_shape, random_state=0, **SMALL)
    pruner = coevolutionary_pruner(translator, max_params=0.5, **QUICK)
    names = [f"pixel{k}" for k in range(digits.data.shape[1])]
    pruner.fit(pd.DataFrame(digits.data, columns=names), digits.target)
    assert list(pruner.feature_names_in_) == names
    pruner.fit(digits.data, digits.target)
    assert not hasattr(pruner, "feature_names_in_")


def test_failed_fit_leaves_nothing_to_use(digits, trained):
    pruner = prune(digits, trained, finetune_epochs=0)
    with pytest.raises(ValueError, match="cannot be reached"):
        pruner.set_params(max_params=1e-6).fit(digits.data, digits.target)
    assert not hasattr(pruner, "estimator_")
    assert not hasattr(pruner, "translator_")


def test_translators_that_cannot_be_used(digits, trained):
    X, y = digits.data, digits.target
    with pytest.raises(ValueError, match=r"is a fitted .*FrozenEstimator\(translator"):
        coevolutionary_pruner(trained, max_params=0.5).fit(X, y)
    if not torch.cuda.is_available():
        moved = copy.deepcopy(trained).set_params(device="cuda")
        with pytest.raises(RuntimeError, match="device='cuda'.*Choose device=\"cpu\""):
            coevolutionary_pruner(FrozenEstimator(moved), max_params=0.5).fit(X, y)
    with pytest.raises(ValueError, match=r"2 classes: .*Domain A is "):
        prune(digits, trained, max_params=0.5).fit(X, np.where(y == y[0], "p", "q"))
