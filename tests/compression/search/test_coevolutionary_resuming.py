"""Checkpoints of two generators made small together."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklcomp.compression.search._pair_fitness import Direction
from sklcomp.datasets import make_unpaired_digits
from sklcomp.translation import CycleGANTranslator
from tests.helpers.pairs import (
    QUICK,
    SMALL,
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


def resumed_and_fresh(digits, tmp_path, before, after, settings):
    """Fit with a first translator and settings, then another on its checkpoint."""
    saved = {"checkpoint": tmp_path, "warm_start": True}
    prune(digits, before[0], **settings, **before[1], **saved)
    return (
        prune(digits, after[0], **settings, **after[1], **kwargs)
        for kwargs in (saved, {})
    )


def test_checkpoint_of_another_distillation(digits, trained, tmp_path):
    first, second = resumed_and_fresh(
        digits,
        tmp_path,
        (trained, {"distill_weight": 10.0}),
        (trained, {"distill_weight": 0.0}),
        {"finetune_epochs": 3},
    )
    assert first.estimator_.history_.keys() == second.estimator_.history_.keys()


def test_checkpoint_of_other_discriminators(digits, trained, tmp_path):
    other = copy.deepcopy(trained)
    with torch.no_grad():
        for parameter in other.discriminator_b_.parameters():
            parameter.mul_(3)
    first, second = resumed_and_fresh(
        digits, tmp_path, (trained, {}), (other, {}), {"finetune_epochs": 0}
    )
    np.testing.assert_array_equal(first.history_["best_a"], second.history_["best_a"])


def test_checkpoint_of_other_trainings_of_individuals(digits, trained, tmp_path):
    other = copy.deepcopy(trained).set_params(lr=5e-3)
    settings = {"finetune_epochs": 0, "fitness_epochs": 1}
    first, second = resumed_and_fresh(
        digits, tmp_path, (trained, {}), (other, {}), settings
    )
    np.testing.assert_array_equal(first.history_["best_a"], second.history_["best_a"])


def test_checkpoint_of_the_pruner_is_no_setting_of_its_translators(digits, tmp_path):
    translator = CycleGANTranslator(digits.image_shape, **SMALL)
    pruner = coevolutionary_pruner(
        translator, max_params=0.5, checkpoint=tmp_path, warm_start=True, **QUICK
    ).fit(digits.data, digits.target)
    for one in (pruner.base_translator_, pruner.estimator_):
        assert one.checkpoint is None
        assert not one.warm_start


@pytest.mark.parametrize("phase", ["base", "search", "tuning"])
def test_interrupted_and_resumed_is_uninterrupted(digits, tmp_path, phase, monkeypatch):
    X, y = digits.data, digits.target
    translator = CycleGANTranslator(digits.image_shape, random_state=1, **SMALL)
    settings = {"max_params": 0.5, **QUICK, "finetune_epochs": 2}
    whole = coevolutionary_pruner(translator, **settings).fit(X, y)
    saved = coevolutionary_pruner(
        translator, checkpoint=tmp_path, warm_start=True, **settings
    )
    with monkeypatch.context() as patch:
        calls = []
        target, at = {
            "base": ((CycleGANTranslator, "_name_results"), 1),
            "search": ((Direction, "__call__"), 14),
            "tuning": ((CycleGANTranslator, "_name_results"), 2),
        }[phase]
        original = getattr(*target)

        def interrupting(*args, **kwargs):
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        patch.setattr(*target, interrupting)
        with pytest.raises(KeyboardInterrupt):
            saved.fit(X, y)
        assert not hasattr(saved, "estimator_")
    rest = clone(saved).fit(X, y)
    np.testing.assert_array_equal(
        rest.transform(digits.data_a), whole.transform(digits.data_a)
    )
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "search.npz",
        "training.pt",
        "training.pt",
    ]


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_broken_checkpoint_is_named(digits, trained, tmp_path, content):
    (tmp_path / "search.npz").write_bytes(content)
    pruner = coevolutionary_pruner(
        FrozenEstimator(trained),
        max_params=0.5,
        checkpoint=tmp_path,
        warm_start=True,
        **QUICK,
    )
    with pytest.raises(ValueError, match=r"search.npz is no state of a fit"):
        pruner.fit(digits.data, digits.target)


def test_unwritable_checkpoint_is_found_before_the_training(digits, trained, tmp_path):
    (tmp_path / "file").write_text("")
    pruner = coevolutionary_pruner(
        FrozenEstimator(trained), max_params=0.5, checkpoint=tmp_path / "file", **QUICK
    )
    with pytest.raises(OSError, match="file"):
        pruner.fit(digits.data, digits.target)
