"""ChannelGraph: which channels of a network belong together, and which cannot go.

``trace_channels`` returns one, and all surgery works by it.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked


@dataclass(frozen=True, repr=False)
class ChannelGraph:
    """Which channels of a network belong together, and which cannot be removed.

    A *gene* is a class of channels that live or die together: the output of a filter,
    the same channel of every layer whose output is added to it, its normalisation, and
    the columns of all layers that read it. Made by :func:`trace_channels`; plain data
    that can be pickled.

    Attributes
    ----------
    n_genes : int
        Number of genes.
    layers : dict of str to ndarray of int
        Layer -> gene of each of its output channels; -1 is a channel that stays.
    frozen : dict of str to str
        Layer -> why some or all of its channels stay.
    segments : list of ndarray of int
        Genes that are made by the same layers, such as the trunk of a residual
        network: what a width can be chosen for.
    """

    n_genes: int
    layers: dict[str, np.ndarray]
    frozen: dict[str, str]
    # Parameter or buffer -> gene of each entry along every axis (None: fixed).
    slots: dict[str, tuple[np.ndarray | None, ...]] = field(default_factory=dict)
    # (weight, axis of its inputs) -> modules that use it so.
    consumers: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)
    # (module, attribute) -> genes that the attribute counts.
    sizes: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    # (module that runs, weight or "") -> genes that are normalised together.
    mixing: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    # Weight -> how often it is applied to one example.
    uses: dict[str, float] = field(default_factory=dict)
    # Weight -> the bias that is always added to what it makes, and to nothing else.
    biases: dict[str, str] = field(default_factory=dict)
    # Weight -> running mean of the batch norm that follows it, and only it, directly.
    shifts: dict[str, str] = field(default_factory=dict)

    @property
    def segments(self) -> list[np.ndarray]:
        makers: list[tuple[str, ...]] = [()] * self.n_genes
        for layer in self.layers:
            for gene in self.genes_of(layer):
                makers[gene] += (layer,)
        found: dict[tuple[str, ...], list[int]] = {}
        for gene, layers in enumerate(makers):
            found.setdefault(layers, []).append(gene)
        return [np.array(genes) for genes in found.values()]

    def genes_of(self, layer: str) -> np.ndarray:
        """Genes of a layer's output channels, without channels that stay.

        Parameters
        ----------
        layer : str
            A key of ``layers``.

        Returns
        -------
        genes : ndarray of int
            Indices into ``keep``, in the order of the channels.

        Raises
        ------
        ValueError
            If the network has no such layer.
        """
        if layer not in self.layers:
            msg = (
                f"no layer {show(layer)} makes channels; choose from "
                f"{show(list(self.layers))}."
            )
            raise ValueError(msg)
        genes = self.layers[layer]
        genes = genes[genes >= 0]
        return genes[np.sort(np.unique(genes, return_index=True)[1])]

    @refuse_masked
    def check_keep(self, keep: Any) -> np.ndarray:
        """The boolean array that keep stands for.

        Parameters
        ----------
        keep : array-like of bool, shape (n_genes,)
            Genes that stay.

        Returns
        -------
        keep : ndarray of bool, shape (n_genes,)
            Its copy.

        Raises
        ------
        ValueError
            If keep is no such array, or a layer would lose all of its channels.
        """
        array = np.array(keep)
        if array.shape != (self.n_genes,) or not np.isin(array, (0, 1)).all():
            msg = (
                f"keep of shape {array.shape} and dtype {array.dtype}; expected "
                f"{self.n_genes} values False or True, one for every gene."
            )
            raise ValueError(msg)
        array = array.astype(bool)
        # The gene -1, of channels that stay, reads the last entry.
        alive = np.append(array, True)
        for layer, genes in self.layers.items():
            if not alive[genes].any():
                msg = (
                    f"keep removes all {len(genes)} channels of layer {show(layer)}; "
                    "keep at least one of graph.genes_of(layer)."
                )
                raise ValueError(msg)
        return array

    def __repr__(self) -> str:
        lines = [f"ChannelGraph: {self.n_genes} genes in {len(self.layers)} layers"]
        names = dict.fromkeys([*self.layers, *self.frozen])
        width = max(map(len, names), default=0)
        for name in names:
            count = ""
            if name in self.layers:
                free = int((self.layers[name] >= 0).sum())
                count = f"{free} of {len(self.layers[name])} can go"
            note = self.frozen.get(name, "")
            lines.append(f"  {name:<{width}}  {count:<16}{note}".rstrip())
        return "\n".join(lines)


def freeze_genes(graph: ChannelGraph, reasons: dict[int, str]) -> ChannelGraph:
    """The graph without these genes, whose channels stay for the reasons given."""
    left = np.setdiff1d(np.arange(graph.n_genes), list(reasons))
    number = np.full(graph.n_genes + 1, -1)
    number[left] = np.arange(len(left))
    frozen = {
        layer: next(reasons[gene] for gene in old if gene in reasons)
        for layer, old in graph.layers.items()
        if not reasons.keys().isdisjoint(old.tolist())
    }
    return replace(_renumbered(graph, number), frozen=frozen | graph.frozen)


def tie_inner_widths(graph: ChannelGraph) -> ChannelGraph:
    """The graph in which residual branches keep the channels that their trunk keeps.

    Inner are channels that are made of those of one segment, and from which only
    channels of that segment are made, as many as there are of them.
    """
    segments = graph.segments
    segment_of = np.full(graph.n_genes + 1, -1)
    for k, genes in enumerate(segments):
        segment_of[genes] = k
    made_of: list[set[int]] = [set() for _ in segments]
    read_by: list[set[int]] = [set() for _ in segments]
    for weight, axis in graph.consumers:
        axes = graph.slots.get(weight, (None, None))
        inputs, outputs = (
            {-1} if genes is None else set(segment_of[genes].tolist())
            for genes in (axes[axis], axes[1 - axis])
        )
        for k in outputs - {-1}:
            made_of[k] |= inputs
        for k in inputs - {-1}:
            read_by[k] |= outputs
    number = np.arange(graph.n_genes + 1)
    number[-1] = -1
    for k, genes in enumerate(segments):
        trunk = next(iter(made_of[k]), -1)
        is_inner = made_of[k] == read_by[k] == {trunk} and trunk not in (k, -1)
        if is_inner and len(segments[trunk]) == len(genes):
            number[genes] = segments[trunk]
    left = np.unique(number[:-1])
    number[:-1] = np.searchsorted(left, number[:-1])
    return _renumbered(graph, number)


def _renumbered(graph: ChannelGraph, number: np.ndarray) -> ChannelGraph:
    """The graph with new numbers of its genes; the last entry is that of none."""

    def renumber(table: dict[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        return {key: number[old] for key, old in table.items()}

    return replace(
        graph,
        n_genes=int(number.max()) + 1,
        layers=renumber(graph.layers),
        slots={
            name: tuple(None if a is None else number[a] for a in axes)
            for name, axes in graph.slots.items()
        },
        sizes=renumber(graph.sizes),
        mixing=renumber(graph.mixing),
    )


def build_graph(trace: Any, skipped: dict[str, str], n_examples: int) -> ChannelGraph:
    """Number the classes of identities that a layer makes and nothing freezes."""
    label, frozen = trace.ids.classes()
    outputs = [label[ids] for ids in trace.outputs.values()]
    made = np.concatenate([np.empty(0, int), *outputs])
    # Numbers in the order of the layers, whatever the labels are.
    order = made[np.sort(np.unique(made, return_index=True)[1])]
    free = [one for one in order if one not in frozen]
    gene = np.full(len(label), -1)
    gene[free] = np.arange(len(free))
    layers = {layer: gene[label[ids]] for layer, ids in trace.outputs.items()}
    slots = {
        name: tuple(None if ids is None else gene[label[ids]] for ids in axes)
        for name, axes in trace.slots.items()
    }
    return ChannelGraph(
        n_genes=len(free),
        layers=layers,
        frozen=_reasons(trace, label, frozen) | skipped,
        slots={
            name: axes
            for name, axes in slots.items()
            if any(axis is not None and (axis >= 0).any() for axis in axes)
        },
        consumers={key: tuple(sorted(use)) for key, use in trace.consumers.items()},
        sizes={key: gene[label[ids]] for key, ids in trace.sizes.items()},
        mixing={key: gene[label[ids]] for key, ids in trace.mixing.items()},
        uses={name: n / n_examples for name, n in trace.uses.items()},
        biases=_one_to_one(trace.biases),
        shifts=_one_to_one(trace.shifts),
    )


def _one_to_one(pairs: set[tuple[str, str]]) -> dict[str, str]:
    """The pairs of names that have no other partner."""
    counts = Counter(name for pair in pairs for name in pair)
    return {a: b for a, b in pairs if b and counts[a] == counts[b] == 1}


def _reasons(trace: Any, label: np.ndarray, frozen: dict[int, str]) -> dict[str, str]:
    found = {}
    for layer, ids in trace.outputs.items():
        reasons = [frozen[int(one)] for one in label[ids] if int(one) in frozen]
        if reasons:
            some = len(reasons) < len(ids)
            number = f"{len(reasons)} of {len(ids)} channels: " if some else ""
            found[layer] = number + reasons[0]
    return found
