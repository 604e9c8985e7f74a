"""Whether a function, and the removal of channels that a trace allows, commute."""

import copy

import numpy as np
import torch
from torch import nn

from sklcomp.nn._running import tensors_in
from sklcomp.nn.surgery._tracing import ChannelTracer


class Tensors(nn.Module):
    """Parameters by name, whose axes all have identities."""

    def __init__(self, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape, dtype=torch.float64)))


def follow(module, function):
    """The trace of a function of a module, and what it returned."""
    trace = ChannelTracer(module)
    with torch.no_grad(), trace:
        result = function(module)
    return trace, result


def count_free(trace, name):
    """Classes along every axis of a parameter that may go; None where it is fixed."""
    label, frozen = trace.ids.classes()
    return [
        None if ids is None else len(set(label[ids].tolist()) - frozen.keys())
        for ids in trace.slots[name]
    ]


def _cut(tensor, axes, alive):
    for k, ids in enumerate(axes):
        if ids is not None:
            tensor = tensor.index_select(
                k, torch.from_numpy(np.flatnonzero(alive[ids]))
            )
    return tensor


def _masked(tensor, axes, alive):
    tensor = tensor.clone()
    for k, ids in enumerate(axes):
        if ids is not None:
            tensor.movedim(k, 0)[torch.from_numpy(~alive[ids])] = 0
    return tensor


def assert_commutes(module, function, rng, kernels=()):
    """Of smaller tensors it is the smaller result, with zeros for what is gone.

    Of kernels the axes behind the channels stay: no layer makes them.
    """
    trace, result = follow(module, function)
    label, frozen = trace.ids.classes()
    alive = rng.random(label.max(initial=-1) + 1) < 0.6
    alive[list(frozen)] = True
    for name in kernels:
        for ids in trace.slots[name][2:]:
            alive[label[ids]] = True
    for axes in trace.slots.values():
        for ids in axes:
            if ids is not None and not alive[label[ids]].any():
                alive[label[ids[0]]] = True
    alive = alive[label]
    small, masked = copy.deepcopy(module), copy.deepcopy(module)
    for name, axes in trace.slots.items():
        old = module.get_parameter(name).detach()
        small.get_parameter(name).data = _cut(old, axes, alive)
        masked.get_parameter(name).data = _masked(old, axes, alive)
    with torch.no_grad():
        found, want = tensors_in(function(small)), tensors_in(function(masked))
    for one, two, left in zip(found, want, tensors_in(result), strict=True):
        torch.testing.assert_close(one, _cut(two, trace.axes(left), alive))
