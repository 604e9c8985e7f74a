"""Trainings for ``CoEvolutionaryPruner``: of its full translator, and of pairs."""

import copy
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn

from sklcomp.compression.search._pair_fitness import judge_pair
from sklcomp.nn._running import torch_session
from sklcomp.training._checkpoint import NOWHERE, Checkpoint
from sklcomp.training._fit import Session
from sklcomp.training._loop import acting_as
from sklcomp.training._nets import FILES, check_device, without_callbacks
from sklcomp.training._state import weights_of
from sklcomp.translation import CycleGANTranslator
from sklcomp.translation._net import MODULES, CycleGANNet, run
from sklcomp.translation._training import make_net
from sklcomp.translation._training import train as train_translator
from sklcomp.translation._unpaired import UnpairedImages
from sklcomp.utils._messages import warn_user

# What is known of the data when a translator is fitted.
KNOWN = ("layout_", "image_shape_", "classes_", "n_features_in_", "feature_names_in_")


def fitted_translator(
    owner: Any, X: Any, y: Any, session: Session
) -> CycleGANTranslator:
    """The translator to compress, trained now if it is not frozen."""
    given = owner.translator
    if isinstance(given, FrozenEstimator):
        base = given.estimator
        if not isinstance(base, CycleGANTranslator) or not hasattr(base, "net_"):
            msg = (
                f"the {type(base).__name__} inside FrozenEstimator is no fitted "
                "CycleGANTranslator (clone takes the weights of a bare one): fit "
                "it before freezing."
            )
            raise ValueError(msg)
        check_device(base)
        return base
    if hasattr(given, "net_"):
        msg = (
            f"translator is a fitted {type(given).__name__}; {type(owner).__name__} "
            "would train it anew. Pass sklearn.base.clone(translator) for that, or "
            "FrozenEstimator(translator) to use it as it is."
        )
        raise ValueError(msg)
    base = clone(given)
    if base.random_state is None:
        # So that the pruner's number decides on the translator too.
        base.set_params(random_state=session.seed)
    if base.checkpoint is None:
        # An interrupted fit need not train the full translator again.
        own = session.checkpoint.inside("base")
        base.set_params(checkpoint=own.folder, warm_start=own.warm_start)
    base.fit(X, y)
    # The folder is the pruner's: what is returned must not write there later.
    return base.set_params(checkpoint=given.checkpoint, warm_start=given.warm_start)


def domains_of(owner: Any, base: CycleGANTranslator, X: Any, y: Any) -> list[Tensor]:
    """Images of A and of B, as the translator knows them."""
    domains = [base.layout_.to_tensor(rows) for rows in base.split_domains(X, y)]
    if not all(map(len, domains)):
        labels = np.unique(y)
        classes = "1 class" if len(labels) == 1 else f"{len(labels)} classes"
        msg = (
            f"{type(owner).__name__} needs both domains; y has {classes}: {labels}. "
            f"Domain A is {base.classes_[0]}, all else is B. Shuffle the rows, or "
            "let StratifiedKFold split them."
        )
        raise ValueError(msg)
    return domains


def hold_out_images(
    images: Tensor, n: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Images to train on, and n for the fitness; of few, all for both."""
    n = min(n, len(images) // 4)
    # Drawn even if none is held out, so that the draws after it stay where they are.
    order = torch.from_numpy(rng.permutation(len(images)))
    return (images[order[n:]], images[order[:n]]) if n else (images, images)


def weights_of_all(base: CycleGANTranslator) -> list:
    """Weights of all four networks, in the form that identifies a checkpoint."""
    modules = (
        base.generator_ab_,
        base.generator_ba_,
        base.discriminator_a_,
        base.discriminator_b_,
    )
    return [weights_of(module) for module in modules]


def train_pair(
    base: CycleGANTranslator,
    pair: Any,
    train: Any,
    n_epochs: int,
    seed: int,
    *,
    weight: float = 0.0,
    n_threads: int = 1,
    checkpoint: Checkpoint = NOWHERE,
) -> CycleGANTranslator:
    """A fitted translator of two small generators.

    Parameters
    ----------
    base : CycleGANTranslator
        The full one, whose discriminators and settings are taken.
    pair : tuple of two nn.Module
        Small generators from A to B and back.
    train : tuple of two Tensor
        Images of A and of B.
    n_epochs : int
        0 trains nothing.
    seed : int
        Of the order of the images.
    weight : float
        Of the difference to what the full generators make.
    n_threads : int
        Threads of torch, later on.
    checkpoint : Checkpoint
        Where the state of the training is kept.
    """
    tuned = start_from(base, pair, n_epochs, seed, n_threads)
    net, key = trainable_net(tuned), seed
    net_class: type = CycleGANNet
    if weight and n_epochs:
        generators = base.generator_ab_, base.generator_ba_
        made = [run(g, images) for g, images in zip(generators, train, strict=True)]
        net_class = distilling(made[0], made[1], weight)
        # The translator's own key knows nothing of what is distilled.
        key = int(joblib.hash([seed, float(weight), *map(Tensor.numpy, made)]), 16)
    with acting_as(net, net_class):
        has_worked = is_trained(tuned, net, train, key, checkpoint)
    if not has_worked:
        warn_user(
            f"{net.fault_} in the training of the small generators, which are left "
            "as they were cut; choose a smaller lr of the translator.",
            ConvergenceWarning,
        )
        return train_pair(base, pair, train, 0, seed, n_threads=n_threads)
    # A fit goes on from here.
    return tuned.set_params(
        generator=_copied(tuned.generator_ab_, tuned.generator_ba_),
        discriminator=_copied(tuned.discriminator_a_, tuned.discriminator_b_),
        max_epochs=max_epochs(base),
    )


def distilling(made_of_a: Tensor, made_of_b: Tensor, weight: float) -> type:
    """A net class that also wants the images that full generators make."""

    class Distilling(CycleGANNet):
        def generator_terms(
            self, a: Tensor, b: Tensor, rows_a: Tensor, rows_b: Tensor
        ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
            terms, (fake_a, fake_b) = super().generator_terms(a, b, rows_a, rows_b)
            for name, made, rows, fake in (
                ("distill_ab", made_of_a, rows_a, fake_b),
                ("distill_ba", made_of_b, rows_b, fake_a),
            ):
                terms[name] = weight * F.l1_loss(fake, made[rows].to(fake.device))
            return terms, (fake_a, fake_b)

    return Distilling


def tune_pair(
    base: CycleGANTranslator,
    cut: Any,
    train: Any,
    n_epochs: int,
    seed: int,
    directions: Any,
    settings: dict[str, Any],
) -> tuple[CycleGANTranslator, str]:
    """Train a pair that was cut; the better of before and after, and why."""
    tuned = train_pair(base, cut, train, n_epochs, seed, **settings)
    if not tuned.n_iter_:
        diverged = "kept as they were cut: the training has diverged"
        return tuned, diverged if n_epochs else ""
    after = tuned.generator_ab_, tuned.generator_ba_
    is_kept, note = judge_pair(cut, after, directions)
    if not is_kept:
        n_threads = settings["n_threads"]
        tuned = train_pair(base, cut, train, 0, seed, n_threads=n_threads)
    return tuned, note


def start_from(
    base: CycleGANTranslator, pair: Any, n_epochs: int, seed: int, n_threads: int
) -> CycleGANTranslator:
    """A translator that starts from these generators and trained discriminators."""
    # They have the last word; a net makes modules anew of arguments for them.
    net_params = {
        name: copy.deepcopy(value)
        for name, value in (base.net_params or {}).items()
        if name.partition("__")[0] not in (*MODULES, "max_epochs")
    }
    # Files of the user's hold the full networks.
    if "callbacks" in net_params:
        net_params["callbacks"] = without_callbacks(net_params["callbacks"], FILES)
    settings = base.get_params(deep=False) | {
        "net_params": net_params or None,
        "generator": pair,
        "discriminator": (base.discriminator_a_, base.discriminator_b_),
        "max_epochs": n_epochs,
        "random_state": seed,
        "checkpoint": None,
        "warm_start": False,
        "n_threads": n_threads,
    }
    tuned = type(base)(**settings)
    for name in KNOWN:
        if hasattr(base, name):
            setattr(tuned, name, copy.copy(getattr(base, name)))
    return tuned


def max_epochs(translator: CycleGANTranslator) -> int:
    """Epochs for which a translator trains."""
    return (translator.net_params or {}).get("max_epochs", translator.max_epochs)


def trainable_net(translator: CycleGANTranslator) -> CycleGANNet:
    """Its net, in which generators learn even if all weights of the full are frozen."""
    net = make_net(translator)
    for module in (net.module, net.generator_ba):
        if not any(parameter.requires_grad for parameter in module.parameters()):
            module.requires_grad_()
    return net


def is_trained(
    translator: CycleGANTranslator,
    net: CycleGANNet,
    train: Any,
    key: int,
    checkpoint: Checkpoint = NOWHERE,
) -> bool:
    """Train; False if that failed before a first epoch with finite losses."""
    session = Session(key, lambda n_iter: False, checkpoint)
    try:
        train_translator(translator, net, UnpairedImages(*train), session)
    except ValueError:
        # A fault is a loss that became infinite. Any other error has to be heard.
        if not getattr(net, "fault_", ""):
            raise
        return False
    translator._name_results(net)
    return True


def both_ways(
    base: CycleGANTranslator, train: Any, n_epochs: int, seed: int, n_threads: int
) -> tuple[Callable, Callable]:
    """Trainings of a generator and its way back, for a while, in either order."""

    def learn(ab: nn.Module, ba: nn.Module) -> tuple[nn.Module, nn.Module]:
        # The same seed for all: fitness must be a function of the two genomes, as it is
        # computed once for each pair.
        with torch_session(seed, n_threads):
            tuned = start_from(base, (ab, ba), n_epochs, seed, n_threads)
            if not is_trained(tuned, trainable_net(tuned), train, seed):
                # What cannot be trained is scored as it was cut.
                return ab, ba
        return tuned.generator_ab_, tuned.generator_ba_

    def learn_back(ba: nn.Module, ab: nn.Module) -> tuple[nn.Module, nn.Module]:
        return learn(ab, ba)[::-1]

    return learn, learn_back


def _copied(*modules: nn.Module) -> tuple[nn.Module, ...]:
    """Copies for a parameter, which no training changes and that load without a GPU."""
    return tuple(copy.deepcopy(module).cpu() for module in modules)
