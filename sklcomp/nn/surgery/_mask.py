"""``mask_channels``: the twin of a cut network in its old size.

A real cut is checked against it.
"""

import copy
import inspect
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sklcomp.nn.surgery._cut import tensor_of
from sklcomp.nn.surgery._graph import ChannelGraph
from sklcomp.utils._validation import refuse_masked

# Those of torch may be told not to use cuDNN.
NORMS = {
    F.layer_norm: F.layer_norm,
    F.rms_norm: F.rms_norm,
    F.group_norm: F.group_norm,
    torch.layer_norm: F.layer_norm,
    torch.rms_norm: F.rms_norm,
    torch.group_norm: F.group_norm,
}


class _KeptOnly(TorchFunctionMode):
    """Normalise the channels that live by their own statistics, as after surgery.

    At the function, not at the module, which may turn what it is given.
    """

    def __init__(self, kept: list[tuple[Tensor | None, Tensor]]):
        super().__init__()
        self.kept = kept

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in NORMS:
            return func(*args, **kwargs)
        func, args = NORMS[func], args[:5]
        kwargs = {name: v for name, v in kwargs.items() if "cudnn" not in name}
        given = inspect.signature(func).bind(*args, **kwargs).arguments
        weight = given.get("weight")
        left = next((left for one, left in self.kept if one is weight), None)
        return func(*args, **kwargs) if left is None else _normalized(func, given, left)


def _normalized(func: Any, given: dict[str, Any], left: Tensor) -> Tensor:
    """What a norm makes of the channels that are left, among zeros."""
    x = given["input"]
    left = left.to(x.device)
    axis = 1 if func is F.group_norm else x.ndim - 1
    given["input"] = x.index_select(axis, left)
    for name in ("weight", "bias"):
        if given.get(name) is not None:
            given[name] = given[name].index_select(0, left)
    if func is not F.group_norm:
        given["normalized_shape"] = (len(left),)
    living = func(**given)
    return torch.zeros_like(x, dtype=living.dtype).index_copy(axis, left, living)


def _forward_masked(
    forward: Any, kept: list[tuple[Tensor | None, Tensor]], *args: Any, **kwargs: Any
) -> Any:
    with _KeptOnly(kept):
        return forward(*args, **kwargs)


@refuse_masked
def mask_channels(module: nn.Module, graph: ChannelGraph, keep: Any) -> nn.Module:
    """The exact twin of the pruned network, in its old size.

    The columns by which layers read removed channels are zero. (Zeroed filters would
    not do: a bias or a normalisation behind them makes something of nothing.)
    Normalisations over several channels, such as LayerNorm, are replaced by ones that
    count the kept channels only.

    Parameters
    ----------
    module : nn.Module
        The network that was traced; it is not changed.
    graph : ChannelGraph
        Its graph.
    keep : array-like of bool, shape (n_genes,)
        Genes that stay.

    Returns
    -------
    masked : nn.Module
        A copy that computes what ``prune_channels(module, graph, keep)`` computes.

    Raises
    ------
    ValueError
        As :func:`prune_channels` does.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import mask_channels, prune_channels, trace_channels
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 2, 1))
    >>> x = torch.randn(5, 1, 8, 8)
    >>> graph = trace_channels(net, x)
    >>> keep = [True, False, True, False]
    >>> small, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
    >>> torch.allclose(small(x), masked(x), atol=1e-6)
    True
    """
    keep = graph.check_keep(keep)
    alive = np.append(keep, True)
    with torch.no_grad():
        masked = copy.deepcopy(module)
        for weight, axis in graph.consumers:
            genes = graph.slots.get(weight, (None, None))[axis]
            if genes is not None:
                dead = torch.from_numpy(np.flatnonzero(~alive[genes]))
                tensor = tensor_of(masked, weight, graph.slots[weight])
                tensor.index_fill_(axis, dead.to(tensor.device), 0)
    kept: dict[str, list[tuple[Tensor | None, Tensor]]] = {}
    for (path, weight), genes in graph.mixing.items():
        if not alive[genes].all():
            left = torch.from_numpy(np.flatnonzero(alive[genes]))
            norm = attrgetter(weight)(masked) if weight else None
            kept.setdefault(path, []).append((norm, left))
    for path, pairs in kept.items():
        part: Any = masked.get_submodule(path)
        part.forward = partial(_forward_masked, part.forward, pairs)
    return masked
