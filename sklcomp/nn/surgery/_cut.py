"""``prune_channels``: a network without the channels that are cut.

Users and the pruners call it; these let it remember the repairs of layers.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklcomp.nn.surgery._compensation import (
    InputCovariances,
    Repairs,
    collect_covariances,
    compensate_layers,
)
from sklcomp.nn.surgery._graph import ChannelGraph
from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked


@refuse_masked
def prune_channels(
    module: nn.Module,
    graph: ChannelGraph,
    keep: Any,
    compensate: InputCovariances | Any = None,
) -> nn.Module:
    r"""A really smaller network of the same class.

    Parameters
    ----------
    module : nn.Module
        The network that was traced; it is not changed.
    graph : ChannelGraph
        Its graph.
    keep : array-like of bool, shape (n_genes,)
        Genes that stay.
    compensate : InputCovariances, Tensor or tuple, default=None
        Repair the layers that read removed channels in closed form: they predict from
        the channels that stay what the removed ones gave. Needs the covariances of
        their inputs, from :func:`collect_covariances`, or examples to collect them on
        (a batch without labels; some hundreds). None cuts only.

    Returns
    -------
    pruned : nn.Module
        A copy with smaller parameters and buffers; parameters that the cut does not
        touch are copied too.

    Raises
    ------
    ValueError
        If keep has another length than the graph has genes, removes all channels of
        a layer, or the graph was made of another network.

    See Also
    --------
    mask_channels : The same function in a network of the old size.

    Notes
    -----
    With inputs of covariance C and mean :math:`\mu` in the unpruned network, W the
    weights of a layer that reads them, S the kept and R the removed inputs, the repair
    is

    .. math::
        W' = W_S + W_R C_{RS} (C_{SS} + \lambda I)^{-1}, \quad
        b' = b + W \mu - W' \mu_S,

    the least-squares prediction of the old output; removing nothing changes nothing.
    A layer without bias moves the running mean of the batch norm behind it instead;
    without either, moments about zero take the place of the covariance. The ridge
    :math:`\lambda` is a thousandth of the mean variance.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklcomp.nn import prune_channels, trace_channels
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    ... )
    >>> X = torch.randn(100, 3)
    >>> graph = trace_channels(net, X)
    >>> prune_channels(net, graph, np.arange(8) < 5, compensate=X)
    Sequential(
      (0): Linear(in_features=3, out_features=5, bias=True)
      (1): ReLU()
      (2): Linear(in_features=5, out_features=2, bias=True)
    )
    """
    return prune_remembering(module, graph, keep, compensate, Repairs())


def prune_remembering(
    module: nn.Module, graph: ChannelGraph, keep: Any, compensate: Any, repairs: Repairs
) -> nn.Module:
    """``prune_channels`` for many cuts, which remembers the repairs of layers."""
    keep = graph.check_keep(keep)
    alive = np.append(keep, True)
    memo: dict[int, Any] = {}
    for name, axes in graph.slots.items():
        old = tensor_of(module, name, axes)
        new = old.detach()
        for axis, genes in enumerate(axes):
            if genes is not None and not alive[genes].all():
                left = torch.from_numpy(np.flatnonzero(alive[genes])).to(new.device)
                new = new.index_select(axis, left)
        if new.shape != old.shape:
            # deepcopy takes what it finds in its memo, so nothing is copied twice.
            memo[id(old)] = _like(old, new)
    # A scripted part copies its weights by operations that would be recorded.
    with torch.no_grad():
        pruned = copy.deepcopy(module, memo)
    for (path, name), genes in graph.sizes.items():
        part, number = pruned.get_submodule(path), int(alive[genes].sum())
        old = getattr(part, name)
        setattr(part, name, number if isinstance(old, int) else type(old)([number]))
    if compensate is not None:
        if not isinstance(compensate, InputCovariances):
            compensate = collect_covariances(module, graph, compensate)
        compensate_layers(pruned, module, graph, keep, compensate, repairs)
    return pruned


def tensor_of(module: nn.Module, name: str, axes: tuple) -> Tensor:
    """A parameter or buffer whose sizes are those of the graph."""
    path, _, leaf = name.rpartition(".")
    try:
        tensor = getattr(module.get_submodule(path), leaf)
    except AttributeError:
        tensor = torch.empty(0)
    sizes = [None if genes is None else len(genes) for genes in axes]
    fits = len(sizes) == tensor.ndim and all(
        size in (None, n) for size, n in zip(sizes, tensor.shape, strict=True)
    )
    if not fits:
        msg = (
            f"the graph knows {show(name)} with axes of length {sizes}, the network "
            f"has {tuple(tensor.shape)}; trace the network that is to be pruned."
        )
        raise ValueError(msg)
    return tensor


def _like(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new
