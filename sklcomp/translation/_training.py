"""The training of the four networks of a translator, and the state that it keeps.

``CycleGANTranslator`` and the trainings of small pairs call it.
"""

import copy
import inspect
from functools import partial
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from sklcomp.nn._running import FastLayout, evaluating
from sklcomp.training._fit import Session
from sklcomp.training._loop import StopTraining, train_net
from sklcomp.training._state import (
    restore_training,
    settings_of,
    training_state,
    weights_of,
)
from sklcomp.translation._net import MODULES, CycleGANNet
from sklcomp.translation._networks import (
    check_networks,
    make_discriminator,
    make_generator,
    make_pair,
)
from sklcomp.translation._unpaired import UnpairedImages
from sklcomp.utils._messages import warn_user

# Of the moments of Adam, as published.
BETAS = (0.5, 0.999)
CRITERIA = {"lsgan": nn.MSELoss, "vanilla": nn.BCEWithLogitsLoss}
# What a checkpoint need not agree in. The net says what is in net_params.
FREE = ("verbose", "checkpoint", "warm_start", "device", "n_threads", "net_params")


def make_net(translator: Any) -> CycleGANNet:
    """The skorch net with all that is asked for, not initialised."""
    layout, more = translator.layout_, translator.net_params or {}
    settings: dict[str, Any] = {"criterion": CRITERIA[translator.adversarial]}
    for name in ("optimizer", "discriminator_optimizer"):
        takes = inspect.signature(more.get(name, torch.optim.Adam)).parameters
        # An optimizer of the user's choice need not have either.
        for key, value in (("betas", BETAS), ("fused", True)):
            if key in takes:
                settings[f"{name}__{key}"] = value
    for name in (
        "lr",
        "batch_size",
        "max_epochs",
        "device",
        "cycle_weight",
        "identity_weight",
        "pool_size",
        "decay_start",
        "verbose",
    ):
        settings[name] = getattr(translator, name)
    default = partial(make_generator, layout, translator.n_filters, translator.n_blocks)
    modules = make_pair("generator", translator.generator, default, layout.n_channels)
    default = partial(make_discriminator, layout, translator.n_filters)
    modules += make_pair(
        "discriminator", translator.discriminator, default, layout.n_channels
    )
    # The user has the last word.
    return CycleGANNet(**settings | dict(zip(MODULES, modules, strict=True)) | more)


def train(
    translator: Any, net: CycleGANNet, data: UnpairedImages, session: Session
) -> CycleGANNet:
    """Train a net that ``make_net`` has made, as the translator's settings say."""
    best: dict[str, dict] | None = None
    record: Any = None

    def describe_start() -> list:
        weights = [weights_of(getattr(net, f"{name}_")) for name in MODULES]
        examples = data.a.numpy(force=True), data.b.numpy(force=True)
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            | {"kind": type(optimizer).__name__}
            for optimizer in (net.optimizer_, net.discriminator_optimizer_)
            for group in optimizer.param_groups
        ]
        settings = settings_of(translator, net, but=FREE)
        return [examples, session.seed, weights, groups, settings]

    def begin() -> None:
        nonlocal best, record
        check_networks(net, data.a[:2])
        use_channels_last(net, data)
        net.after_epoch_ = after_epoch
        record = session.checkpoint.record("training", describe_start)
        if (state := record.load()) is not None:
            restore_training(net, state)
            for pool, images in zip(net.pools_, state["pools"], strict=True):
                pool.images = [image.to(net.device) for image in images]
            best = _copied_weights(net)
            # A callback ended that fit, so it is over.
            if state["is_stopped"]:
                raise StopTraining

    def after_epoch(net: CycleGANNet) -> None:
        nonlocal best
        best = _copied_weights(net)
        # Before the callbacks are asked: one of them may raise.
        record.save(lambda: _state_of(net, is_stopped=False))
        if session.reporter(len(net.history)):
            record.save(lambda: _state_of(net, is_stopped=True))
            raise StopTraining

    train_net(net, data, None, begin)
    net.after_epoch_ = None
    if net.fault_:
        _recover(net, best, translator.layout_.is_image)
    use_default_layout(net)
    return net


def use_channels_last(net: CycleGANNet, data: UnpairedImages) -> None:
    """Networks and images with channels last, if the networks can take it."""
    data.a, data.b = data.a.to(net.device), data.b.to(net.device)
    if data.a.ndim != 4:
        return
    modules = [getattr(net, f"{name}_") for name in MODULES]

    def forward(images: Tensor) -> None:
        for module in modules:
            with evaluating(module):
                module(images.clone())

    layout = FastLayout(forward, data.a[:2], *modules)
    data.a, data.b = layout(data.a), layout(data.b)


def use_default_layout(net: CycleGANNet) -> None:
    """Lay out networks, and what optimizers know of their weights, as torch does.

    Fused steps take for granted that both lie alike.
    """
    for name in MODULES:
        getattr(net, f"{name}_").to(memory_format=torch.contiguous_format)
    for optimizer in (net.optimizer_, net.discriminator_optimizer_):
        for state in optimizer.state.values():
            for name, value in state.items():
                if torch.is_tensor(value):
                    state[name] = value.contiguous()


def _state_of(net: CycleGANNet, is_stopped: bool) -> dict[str, Any]:
    pools = [pool.images for pool in net.pools_]
    return training_state(net) | {"pools": pools, "is_stopped": is_stopped}


def _recover(net: CycleGANNet, best: dict[str, dict] | None, is_image: bool) -> None:
    """Give a net whose losses became infinite the weights of its last epoch."""
    what = f"{net.fault_} in epoch {len(net.history)}"
    cure = "choose a smaller lr."
    if not is_image:
        cure = "scale X, or choose a smaller lr."
    if best is None:
        msg = f"{what}; {cure}"
        raise ValueError(msg)
    warn_user(
        f"{what}; the weights of epoch {len(net.history) - 1} are kept: {cure}",
        ConvergenceWarning,
    )
    # The row of an epoch that broke has no losses.
    del net.history[-1:]
    for name, weights in best.items():
        getattr(net, f"{name}_").load_state_dict(weights)


def _copied_weights(net: CycleGANNet) -> dict[str, dict]:
    # A state_dict holds the tensors that the next step changes.
    return {
        name: copy.deepcopy(getattr(net, f"{name}_").state_dict()) for name in MODULES
    }
