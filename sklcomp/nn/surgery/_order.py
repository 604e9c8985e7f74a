"""``elimination_order``: in which order the channels of a network should go.

By a structured optimal brain surgeon, or by norms. Users and the pruners call it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklcomp.nn.surgery._compensation import (
    RIDGE,
    InputCovariances,
    as_rows,
    find_readers,
    input_genes,
    wide_rows,
)
from sklcomp.nn.surgery._graph import ChannelGraph
from sklcomp.nn.surgery._moments import InputMoments, at_positions
from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked


def elimination_order(
    module: nn.Module,
    graph: ChannelGraph,
    covariances: InputCovariances | None = None,
    *,
    norm: str = "l1",
) -> list[np.ndarray]:
    r"""Genes of every segment in the order in which they are best removed.

    Parameters
    ----------
    module : nn.Module
        The network that was traced.
    graph : ChannelGraph
        Its graph.
    covariances : InputCovariances, default=None
        From :func:`collect_covariances`: the order then is that of a structured
        optimal brain surgeon. Without them, and for segments whose readers they do
        not cover, it is that of ``norm``.
    norm : {"l1", "group"}, default="l1"
        The mean absolute weight of the filters that make a gene, or the Euclidean norm
        of all weights that are cut with it, each parameter in units of its own.

    Returns
    -------
    order : list of ndarray of int
        For each of ``graph.segments``, its genes; the first is the least missed.

    Notes
    -----
    Let W be the weights of a layer that reads the channels, C the covariance of its
    inputs and :math:`\Pi = (C + \lambda I)^{-1}`. Removing the inputs c, the others
    repaired by least squares, adds the error

    .. math::
        \operatorname{tr}(W_c \Pi_{cc}^{-1} W_c^\top),

    here divided by the variance of the layer's output and summed over all layers that
    read the gene. The gene of least error goes; W and :math:`\Pi` are updated by the
    Schur complement, and the next is chosen. The orders are nested: the best n channels
    contain the best n - 1.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import collect_covariances, elimination_order, trace_channels
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.eye(3))
    ...     _ = net[1].weight.copy_(torch.tensor([[2.0, 1.0, 3.0]]))
    >>> X = torch.randn(1000, 3)
    >>> graph = trace_channels(net, X)
    >>> elimination_order(net, graph, collect_covariances(net, graph, X))
    [array([1, 0, 2])]
    """
    norms = NORMS[norm](module, graph)
    found = []
    for genes in graph.segments:
        readers = _readers_of(module, graph, genes, covariances)
        # Stable, so that equal norms have the same order on every machine.
        order = (
            _surgeon(readers) if readers else np.argsort(norms[genes], kind="stable")
        )
        found.append(genes[order])
    return found


@refuse_masked
def keep_fraction(
    graph: ChannelGraph, order: list[np.ndarray], fraction: Any
) -> np.ndarray:
    """Keep this share of every segment, the last of its elimination order.

    Parameters
    ----------
    graph : ChannelGraph
        Graph of the network.
    order : list of ndarray of int
        From :func:`elimination_order`.
    fraction : float in (0, 1], or array-like of shape (n_segments,)
        Share of the genes of every segment that stays; at least one does.

    Returns
    -------
    keep : ndarray of bool, shape (n_genes,)
        For :func:`prune_channels`.

    Raises
    ------
    ValueError
        If a fraction is not in (0, 1].

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import elimination_order, keep_fraction, trace_channels
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    >>> graph = trace_channels(net, torch.zeros(2, 3))
    >>> int(keep_fraction(graph, elimination_order(net, graph), 0.5).sum())
    2
    """
    shares = np.broadcast_to(np.asarray(fraction, float), (len(order),))
    if not ((shares > 0) & (shares <= 1)).all():
        msg = (
            f"fraction={show(fraction)} must lie in (0, 1]: a share of channels that "
            "stays."
        )
        raise ValueError(msg)
    keep = np.ones(graph.n_genes, bool)
    for genes, share in zip(order, shares, strict=True):
        keep[genes[: len(genes) - max(1, round(share * len(genes)))]] = False
    return keep


def _norms(module: nn.Module, graph: ChannelGraph) -> np.ndarray:
    """Mean absolute weight of the filters that make each gene, mean over layers."""
    total, count = np.zeros(graph.n_genes), np.zeros(graph.n_genes)
    for layer, genes in graph.layers.items():
        name = layer if layer in graph.slots else f"{layer}.weight".lstrip(".")
        axes = graph.slots.get(name)
        if axes is None or (genes < 0).all():
            continue
        axis = [np.array_equal(a, genes) for a in map(np.asarray, axes)].index(True)
        path, _, leaf = name.rpartition(".")
        weight = getattr(module.get_submodule(path), leaf).detach().abs()
        size = weight.movedim(axis, 0).flatten(1).mean(1).double().cpu().numpy()
        made = genes >= 0
        np.add.at(total, genes[made], (size / size.mean())[made])
        np.add.at(count, genes[made], 1)
    return total / np.maximum(count, 1)


def _group_norms(module: nn.Module, graph: ChannelGraph) -> np.ndarray:
    """Norm of all that is cut with a gene, each parameter in units of its own."""
    total = np.zeros(graph.n_genes)
    for name, parameter in module.named_parameters():
        for axis, genes in enumerate(graph.slots.get(name, ())):
            if genes is not None:
                square = parameter.detach().square().movedim(axis, 0)
                square = square.reshape(len(genes), -1)
                size = square.mean(1).double().cpu().numpy()
                made = genes >= 0
                # Biases may all be 0.
                np.add.at(total, genes[made], (size / max(size.mean(), 1e-30))[made])
    return np.sqrt(total)


NORMS = {"l1": _norms, "group": _group_norms}


class _Reader:
    """A layer that reads genes, as the surgeon cuts them from it one by one.

    Rows and columns of removed genes are moved behind those that live, so that the
    work shrinks with them.
    """

    def __init__(self, rows: Tensor, moments: InputMoments, columns: np.ndarray):
        second = moments.covariance
        ridge = RIDGE * second.diagonal().mean().clamp_min(1e-300)
        eye = torch.eye(len(second), dtype=torch.float64)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(second + ridge * eye))
        at = torch.from_numpy(columns.ravel())
        self.block = columns.shape[1]
        self.variance = float(((rows @ second) * rows).sum()) or 1.0
        self.inverse = inverse[at][:, at]
        rows = rows[:, at]
        if len(rows) > rows.shape[1]:
            # The errors depend on the products of the columns only.
            rows = torch.linalg.qr(rows, mode="r").R
        self.rows = rows.contiguous()

    def errors(self, n: int) -> Tensor:
        """Error that removing each of the n living genes adds."""
        b = self.block
        living = self.inverse[: n * b, : n * b].reshape(n, b, n, b)
        own = living.diagonal(dim1=0, dim2=2).movedim(-1, 0)
        # The cut that follows, of one of these n, uses it again.
        self.factor = torch.linalg.cholesky(own)
        rows = self.rows[:, : n * b].reshape(-1, n, b).permute(1, 2, 0)
        half = torch.linalg.solve_triangular(self.factor, rows, upper=False)
        return half.square().sum((1, 2)) / self.variance

    def remove(self, k: int, n: int) -> None:
        """Cut the k-th of n living genes; the last takes its place."""
        b = self.block
        last, place = slice((n - 1) * b, n * b), slice(k * b, (k + 1) * b)
        factor = self.factor[k]
        cross = self.inverse[place, : n * b]
        half = torch.linalg.solve_triangular(factor, cross, upper=False)
        own = torch.linalg.solve_triangular(factor, self.rows[:, place].T, upper=False)
        self.rows[:, : n * b].addmm_(own.T, half, alpha=-1)
        self.inverse[: n * b, : n * b].addmm_(half.T, half, alpha=-1)
        self.rows[:, place] = self.rows[:, last]
        self.inverse[place, : n * b] = self.inverse[last, : n * b].clone()
        self.inverse[: n * b, place] = self.inverse[: n * b, last].clone()


def _readers_of(
    module: nn.Module,
    graph: ChannelGraph,
    genes: np.ndarray,
    covariances: InputCovariances | None,
) -> list[_Reader]:
    """Layers that read a segment, with an equal number of columns for every gene."""
    found = []
    axes = dict(graph.consumers.keys())
    for weight, path in find_readers(module, graph).items():
        moments = covariances.moments.get(weight) if covariances else None
        if moments is None:
            continue
        read = np.asarray(input_genes(graph, weight, axes[weight]))
        each = moments.by_dimension(read)
        columns = [np.flatnonzero(each == gene) for gene in genes]
        if len({len(c) for c in columns}) != 1 or not len(columns[0]):
            continue
        layer: Any = module.get_submodule(path)
        if moments.columns is None:
            rows = as_rows(layer, layer.weight, moments.is_pooled)
        else:
            rows = _channel_rows(layer.weight, moments)
        found.append(_Reader(rows, moments, np.array(columns)))
    return found


def _channel_rows(weight: Tensor, moments: InputMoments) -> Tensor:
    """Columns with the products that the channels' weights have over all positions."""
    products = torch.zeros_like(moments.covariance)
    for _, rows in wide_rows(weight):
        rows = at_positions(rows, np.asarray(moments.columns)).flatten(0, 1)
        products += (rows.T @ rows).double()
    # Negative by rounding only.
    values, vectors = torch.linalg.eigh(products)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def _surgeon(readers: list[_Reader]) -> np.ndarray:
    """Order of elimination by the summed errors of all readers."""
    n_genes = len(readers[0].inverse) // readers[0].block
    living, order = np.arange(n_genes), []
    for n in range(n_genes, 1, -1):
        errors = torch.stack([reader.errors(n) for reader in readers]).sum(0)
        k = int(errors.argmin())
        for reader in readers:
            reader.remove(k, n)
        order.append(living[k])
        # As in the readers: the last takes the place.
        living[k] = living[n - 1]
    return np.array([*order, living[0]])
