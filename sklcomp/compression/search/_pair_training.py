"""Small generators trained on, with the full ones' images in view."""

import copy
from typing import Any

import joblib
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from sklcomp.training._checkpoint import NOWHERE, Checkpoint
from sklcomp.training._fit import Session
from sklcomp.training._loop import acting_as
from sklcomp.training._nets import FILES, without_callbacks
from sklcomp.translation import CycleGANTranslator
from sklcomp.translation._cyclegan import fit_networks
from sklcomp.translation._net import (
    MODULES,
    CycleGANNet,
    UnpairedImages,
    distilling,
    run,
)
from sklcomp.translation._training import make_net
from sklcomp.utils._messages import warn_user

# What is known of the data when a translator is fitted.
KNOWN = ("layout_", "image_shape_", "classes_", "n_features_in_", "feature_names_in_")


def train_pair(
    base: CycleGANTranslator, pair: Any, train: Any, n_epochs: int, seed: int, *,
    weight: float = 0.0, n_threads: int = 1, checkpoint: Checkpoint = NOWHERE,
) -> CycleGANTranslator:  # fmt: skip
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
        place = checkpoint if n_epochs else NOWHERE
        has_worked = is_trained(tuned, net, train, key, place)
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
    )  # fmt: skip


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
        "max_epochs": n_epochs, "random_state": seed, "checkpoint": None,
        "warm_start": False, "n_threads": n_threads,
    }  # fmt: skip
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
    translator: CycleGANTranslator, net: CycleGANNet, train: Any, key: int,
    checkpoint: Checkpoint = NOWHERE,
) -> bool:  # fmt: skip
    """Train; False if that failed before a first epoch with finite losses."""
    session = Session(key, lambda n_iter: False, checkpoint)
    try:
        fit_networks(translator, net, UnpairedImages(*train), session)
    except ValueError:
        if not getattr(net, "fault_", ""):
            raise
        return False
    return True


def _copied(*modules: nn.Module) -> tuple[nn.Module, ...]:
    """Copies for a parameter, which no training changes and that load without a GPU."""
    return tuple(copy.deepcopy(module).cpu() for module in modules)
