"""Translators of digits, and pruners of them, that fit in moments."""

import hashlib

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from sklcomp.compression.search._problem import PruningProblem
from sklcomp.nn import CycleGANGenerator, PatchDiscriminator
from sklcomp.translation import CycleGANTranslator
from tests.helpers.recipes import coevolutionary_pruner

QUICK = {"population_size": 4, "n_generations": 2, "finetune_epochs": 1,
         "random_state": 0}  # fmt: skip
SMALL = {"n_filters": 4, "n_blocks": 1, "batch_size": 8, "max_epochs": 2}


def fingerprint(module):
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest(), module.training


def problem(module, X, **settings):
    settings = {
        "max_params": None,
        "max_macs": None,
        "importance": "l1",
        "compensate": False,
        "ignored_layers": (),
        "min_channels": 1,
        "rng": np.random.default_rng(0),
    } | settings
    return PruningProblem(module, X, **settings)


def make_pair(seed=0):
    torch.manual_seed(seed)
    modules = CycleGANGenerator(4, 1), CycleGANGenerator(4, 1), PatchDiscriminator(4, 1)
    return *(module.eval() for module in modules), torch.rand(6, 3, 8, 8) * 2 - 1


def fit_translator(digits, **settings):
    translator = CycleGANTranslator(digits.image_shape, random_state=0, **SMALL)
    return translator.set_params(**settings).fit(digits.data, digits.target)


def prune(digits, translator, **settings):
    """A pruner that is fitted to a frozen translator."""
    settings = {"max_params": 0.4, **QUICK} | settings
    pruner = coevolutionary_pruner(FrozenEstimator(translator), **settings)
    return pruner.fit(digits.data, digits.target)
