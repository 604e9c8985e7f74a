"""The four networks of a CycleGANTranslator: the user's, or small defaults."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sklcomp.nn import CycleGANGenerator, PatchDiscriminator
from sklcomp.nn._forms import check_form, plain_copy
from sklcomp.nn._running import evaluating
from sklcomp.translation._images import ImageLayout
from sklcomp.translation._net import MODULES, CycleGANNet
from sklcomp.translation._vectors import VectorDiscriminator, VectorGenerator


def make_generator(layout: ImageLayout, n_filters: int, n_blocks: int) -> nn.Module:
    """The default generator."""
    if not layout.is_image:
        return VectorGenerator(layout.shape[0], n_filters)
    return CycleGANGenerator(n_filters, n_blocks, n_channels=layout.n_channels)


def make_discriminator(layout: ImageLayout, n_filters: int) -> nn.Module:
    """The default discriminator, with as many layers as the images allow."""
    if not layout.is_image:
        return VectorDiscriminator(layout.shape[0], n_filters)
    # Every layer halves the images. The published three need 32 pixels; 8 allow one.
    n_layers = min(3, min(layout.padded_size).bit_length() - 3)
    return PatchDiscriminator(n_filters, n_layers, layout.n_channels)


def make_pair(
    name: str, given: Any, make_default: Callable[[], nn.Module], n_channels: int
) -> list[nn.Module]:
    """Two modules, which share nothing with what the user gave."""
    pair = given if isinstance(given, (tuple, list)) else (given, given)
    if len(pair) != 2:
        msg = f"{name} is a sequence of {len(pair)}; a pair holds 2 networks."
        raise ValueError(msg)
    return [
        make_default() if one is None else _make_module(name, one, n_channels)
        for one in pair
    ]


def _make_module(name: str, given: Any, n_channels: int) -> nn.Module:
    made = given
    if not isinstance(given, nn.Module) and callable(given):
        takes_channels = "n_channels" in inspect.signature(given).parameters
        made = given(n_channels=n_channels) if takes_channels else given()
    if not isinstance(made, nn.Module):
        msg = (
            f"{name} gives a {type(made).__name__}; expected an nn.Module or a "
            "callable that makes one."
        )
        raise ValueError(msg)
    check_form(made, name, "train")
    # A callable may return the same module twice.
    return plain_copy(made)


def check_networks(net: CycleGANNet, example: Tensor) -> None:
    """Raise ValueError if the networks do not fit a batch of examples."""
    example = example.to(net.device)
    for name in MODULES:
        module = getattr(net, f"{name}_")
        what = f"the network {type(module).__name__}"
        try:
            with evaluating(module):
                output = module(example.clone())
        except (MemoryError, torch.OutOfMemoryError):
            raise
        # Anything: nobody knows what a network of the user raises.
        except Exception as error:
            shape = tuple(example.shape)
            msg = f"{what} cannot take examples of shape {shape}: {error}"
            raise ValueError(msg) from error
        if not torch.is_tensor(output):
            msg = f"{what} returns a {type(output).__name__}; expected a tensor."
            raise ValueError(msg)
        n_axes, wanted = None, "generator keeps the shape"
        if name.startswith("discriminator"):
            n_axes, wanted = 1, "discriminator scores every example"
        if output.shape[:n_axes] != example.shape[:n_axes]:
            shapes = tuple(output.shape), tuple(example.shape)
            msg = f"{what} makes {shapes[0]} of {shapes[1]}; a {wanted}."
            raise ValueError(msg)
