"""Searches and trainings that are interrupted, and taken up again."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier

from sklcomp.compression import EvolutionaryPruner, SearchRecipe
from sklcomp.compression.search._fitness import Fitness
from tests.helpers.nets import Residual, Stop
from tests.helpers.recipes import QUICK, evolutionary_pruner, with_recipe


@pytest.fixture
def scored(monkeypatch):
    """Genomes of which the fitness was computed."""
    genomes, score = [], Fitness.__call__

    def spy(self, genome):
        genomes.append(genome.tobytes())
        return score(self, genome)

    monkeypatch.setattr(Fitness, "__call__", spy)
    return genomes


def test_stopped_and_resumed_is_uninterrupted(digits, trained, tmp_path, scored):
    X, y = digits
    settings = {"max_params": 0.5, **QUICK}
    whole = evolutionary_pruner(FrozenEstimator(trained), **settings).fit(X, y)
    expected = scored.copy()
    scored.clear()
    saved = evolutionary_pruner(
        FrozenEstimator(trained), checkpoint=tmp_path, warm_start=True, **settings
    )
    interrupted = clone(saved).set_callbacks(Stop(after=2))
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(X, y)
    assert not hasattr(interrupted, "estimator_")
    assert [path.name for path in tmp_path.iterdir()] == ["search.npz"]
    n_before = len(scored)
    rest = saved.fit(X, y)
    # Nothing is scored twice.
    assert 0 < n_before < len(scored)
    assert scored == expected
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))
    for name, values in whole.history_.items():
        np.testing.assert_array_equal(rest.history_[name], values)
    # A state of another fitness is not taken up.
    other, fresh = (
        clone(each).set_params(recipe__fitness="accuracy").fit(X, y)
        for each in (rest, whole)
    )
    np.testing.assert_array_equal(other.history_["mean"], fresh.history_["mean"])


def test_resume_goes_on_from_the_state(digits, trained, tmp_path, scored):
    X, y = digits
    pruner = evolutionary_pruner(
        FrozenEstimator(trained),
        max_params=0.5,
        checkpoint=tmp_path,
        warm_start=True,
        finetune=False,
        **QUICK,
    )
    first = pruner.fit(X, y).predict_proba(X)
    scored.clear()
    # A finished search is not run again but for its last generation, its polish and
    # its front.
    again = clone(pruner).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), first)
    n_known = pruner.history_["n_evaluations"][-2]
    assert len(scored) == pruner.n_evaluations_ - n_known < pruner.n_evaluations_


def test_the_trained_net_is_in_the_checkpoint(digits, tmp_path):
    X, y = digits

    class Interrupting(EvolutionaryPruner):
        def _search(self, *args):
            raise KeyboardInterrupt

    net = NeuralNetClassifier(
        Residual, criterion=torch.nn.CrossEntropyLoss, max_epochs=2, verbose=0
    )
    settings = {"max_params": 0.5, **QUICK}
    whole = evolutionary_pruner(net, **settings).fit(X, y)
    own = with_recipe(SearchRecipe, settings)
    with pytest.raises(KeyboardInterrupt):
        Interrupting(net, checkpoint=tmp_path, **own).fit(X, y)
    rest = evolutionary_pruner(net, checkpoint=tmp_path, warm_start=True, **settings)
    rest.fit(X, y)
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))
    # Epochs of the checkpoint are not done again: their times are those of then.
    times = rest.base_estimator_.history_[:, "dur"]
    again = clone(rest).fit(X, y)
    assert again.base_estimator_.history_[:, "dur"] == times
    # Another learning rate is another net.
    other = clone(rest).set_params(estimator__lr=0.02).fit(X, y)
    assert other.base_estimator_.history_[:, "dur"] != times


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_broken_checkpoint_is_named(digits, trained, tmp_path, content):
    (tmp_path / "search.npz").write_bytes(content)
    pruner = evolutionary_pruner(
        FrozenEstimator(trained),
        max_params=0.5,
        checkpoint=tmp_path,
        warm_start=True,
        **QUICK,
    )
    with pytest.raises(ValueError, match=r"search.npz is no state of a fit"):
        pruner.fit(*digits)


def test_interrupt_in_fine_tuning_is_not_swallowed(digits, trained):
    class Interrupting(NeuralNetClassifier):
        def get_loss(self, *args, **kwargs):
            raise KeyboardInterrupt

    net = Interrupting(Residual, criterion=torch.nn.CrossEntropyLoss, verbose=0)
    net.initialize().module_.load_state_dict(trained.module_.state_dict())
    with pytest.raises(KeyboardInterrupt):
        evolutionary_pruner(FrozenEstimator(net), max_params=0.5, **QUICK).fit(*digits)


def test_unwritable_checkpoint_is_found_before_the_training(digits, tmp_path):
    class Untouchable(NeuralNetClassifier):
        def initialize(self):
            raise AssertionError("trained before the folder was tried")

    (tmp_path / "file").write_text("in the way")
    net = Untouchable(Residual, criterion=torch.nn.CrossEntropyLoss)
    with pytest.raises(OSError, match="file"):
        evolutionary_pruner(net, max_params=0.5, checkpoint=tmp_path / "file").fit(
            *digits
        )
