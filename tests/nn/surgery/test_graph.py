import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.nn import (
    ChannelGraph,
    CifarResNet,
    CycleGANGenerator,
    count_parameters,
    mask_channels,
    prune_channels,
    trace_channels,
)
from sklcomp.nn.surgery._graph import freeze_genes, tie_inner_widths
from tests.helpers.zoo import assert_same, build, drop, run


def test_graph_is_plain_data():
    net, inputs = build("squeeze and excite")
    graph = trace_channels(net, inputs)
    other = pickle.loads(pickle.dumps(graph))
    assert repr(other) == repr(graph)
    keep = np.arange(graph.n_genes) % 2 == 0
    assert_same(
        prune_channels(net, graph, keep), prune_channels(net, other, keep), inputs
    )


def test_segments_partition_the_genes():
    net, inputs = build("ResNet, zero-pad")
    graph = trace_channels(net, inputs)
    together = np.concatenate(graph.segments)
    assert sorted(together) == list(range(graph.n_genes))
    trunk = graph.genes_of("conv")
    assert any(np.array_equal(trunk, genes) for genes in graph.segments)
    # The zeros that are padded stay, what they are padded to can go.
    assert np.array_equal(graph.genes_of("blocks.5.conv2"), trunk)
    assert "18 of 24 channels" in graph.frozen["blocks.5.conv2"]


def test_order_of_genes_is_that_of_the_channels():
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2))
    graph = trace_channels(net, torch.zeros(1, 3))
    assert graph.genes_of("0").tolist() == [0, 1, 2, 3, 4]
    assert graph.genes_of("1").tolist() == [5, 6, 7, 8]
    keep = np.array([1, 0, 0, 1, 1, 0, 1, 1, 1])
    pruned = prune_channels(net, graph, keep)
    assert torch.equal(pruned[1].weight, net[1].weight[[1, 2, 3]][:, [0, 3, 4]])


def test_paper_has_five_segments_and_640_bits():
    graph = trace_channels(CycleGANGenerator(), torch.zeros(1, 3, 32, 32))
    tied = tie_inner_widths(graph)
    assert [len(genes) for genes in tied.segments] == [64, 128, 256, 128, 64]
    assert tied.n_genes == 640
    assert graph.n_genes == 640 + 9 * 256


def test_tied_masked_is_pruned(rng):
    torch.manual_seed(0)
    net, X = CycleGANGenerator(4, 2).eval(), torch.rand(2, 3, 16, 16)
    graph = tie_inner_widths(trace_channels(net, X))
    keep = rng.random(graph.n_genes) < 0.6
    for layer in graph.layers:  # one channel of each at least
        keep[graph.genes_of(layer)[:1]] = True
    small = prune_channels(net, graph, keep)
    torch.testing.assert_close(small(X), mask_channels(net, graph, keep)(X))
    # Each convolution of the trunk and its branches keeps the same channels.
    layers = [name for name in graph.layers if "body" in name]
    assert len({int(keep[graph.genes_of(layer)].sum()) for layer in layers}) == 1


def test_what_is_no_branch_is_not_tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    graph = trace_channels(net, torch.zeros(1, 4))
    assert tie_inner_widths(graph).n_genes == graph.n_genes == 8


def chain():
    """Layers of five and four channels, then of two that stay."""
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2))
    return net, trace_channels(net, torch.zeros(1, 3))


def test_pickled_graph_has_every_field():
    net, inputs = build("ResNet, zero-pad")
    graph = trace_channels(net, inputs)
    other = pickle.loads(pickle.dumps(graph))
    for name in (field.name for field in fields(graph)):
        old, new = getattr(graph, name), getattr(other, name)
        if isinstance(old, dict):
            assert old.keys() == new.keys()
            old, new = list(old.values()), list(new.values())
        assert repr(old) == repr(new)


def test_unknown_layer_is_named_with_those_that_there_are():
    _, graph = chain()
    with pytest.raises(ValueError, match=r"no layer 'conv9'.*from \['0', '2', '3'\]"):
        graph.genes_of("conv9")


def test_genes_of_a_layer_are_each_once_and_without_those_that_stay():
    net, inputs = build("ResNet, zero-pad")
    graph = trace_channels(net, inputs)
    for layer, genes in graph.layers.items():
        found = graph.genes_of(layer)
        assert found.tolist() == list(dict.fromkeys(genes[genes >= 0].tolist()))


@pytest.mark.parametrize("kind", [list, np.array, lambda a: np.array(a, float)])
def test_what_is_kept_may_be_any_zeros_and_ones(kind):
    _, graph = chain()
    keep = kind([1, 0, 0, 1, 1, 0, 1, 1, 1])
    found = graph.check_keep(keep)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, keep)
    found[:] = False  # a copy
    assert list(keep) == [1, 0, 0, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize(("keep", "message"), [
    ([True] * 8, r"keep of shape \(8,\) and dtype bool; expected 9 values"),
    ([2] * 9, "dtype int64; expected 9 values False or True, one for every gene"),
    ([np.nan] * 9, "dtype float64; expected 9 values"),
    ([0] * 5 + [1] * 4, "removes all 5 channels of layer '0'; keep at least one"),
    (np.ma.masked_equal([1] * 8 + [0], 0), "keep has 1 of 9 values masked"),
])  # fmt: skip
def test_what_is_no_choice_of_genes_is_refused(keep, message):
    _, graph = chain()
    with pytest.raises(ValueError, match=message):
        graph.check_keep(keep)


def test_a_layer_may_lose_all_but_what_stays():
    layers = {"all": np.array([0, 1]), "some": np.array([2, 3, -1])}
    graph = ChannelGraph(n_genes=4, layers=layers, frozen={})
    assert graph.check_keep([1, 1, 0, 0]).tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match="all 2 channels of layer 'all'"):
        graph.check_keep([0, 0, 1, 1])


def test_repr_names_every_layer_and_why_it_stays():
    _, graph = chain()
    first, *rest = repr(graph).split("\n")
    assert first == "ChannelGraph: 9 genes in 3 layers"
    counts = ["5 of 5 can go", "4 of 4 can go", "0 of 2 can go"]
    for line, layer, count in zip(rest, graph.layers, counts, strict=True):
        assert line.startswith(f"  {layer}  {count}")
    assert rest[2].endswith(graph.frozen["3"])


@pytest.mark.parametrize("name", ["LeNet", "ResNet, zero-pad", "MobileNet-like"])
def test_frozen_genes_are_genes_that_are_always_kept(name, rng):
    net, inputs = build(name)
    graph = trace_channels(net, inputs)
    stays = rng.random(graph.n_genes) < 0.3
    reasons = {int(gene): f"gene {gene}" for gene in np.flatnonzero(stays)}
    frozen = freeze_genes(graph, reasons)
    assert frozen.n_genes == graph.n_genes - stays.sum()
    keep = drop(graph, rng) | stays
    small = prune_channels(net, frozen, keep[~stays])
    want = prune_channels(net, graph, keep)
    assert count_parameters(small) == count_parameters(want)
    assert_same(small, want, inputs)
    for layer, genes in graph.layers.items():
        mine = [gene for gene in genes if gene >= 0 and stays[gene]]
        if mine and layer not in graph.frozen:
            assert frozen.frozen[layer] == f"gene {mine[0]}"


def test_freezing_nothing_changes_nothing_and_the_graph_is_left_alone(rng):
    net, graph = chain()
    before = repr(graph), {k: v.copy() for k, v in graph.layers.items()}
    assert repr(freeze_genes(graph, {})) == before[0]
    freeze_genes(graph, {0: "why", 7: "not"})
    assert repr(graph) == before[0]
    for layer, genes in graph.layers.items():
        np.testing.assert_array_equal(genes, before[1][layer])


def test_reasons_that_there_are_come_first():
    _, graph = chain()
    some = freeze_genes(freeze_genes(graph, {0: "first"}), {0: "second"})
    assert some.frozen == {"0": "first"} | graph.frozen
    assert len(some.genes_of("0")) == 3
    genes = {int(gene): "is wanted" for gene in graph.genes_of("0")}
    frozen = freeze_genes(graph, genes)
    assert frozen.frozen == {"0": "is wanted"} | graph.frozen
    assert not len(frozen.genes_of("0"))
    again = freeze_genes(frozen, {0: "is wanted too"})
    assert again.frozen["0"] == "is wanted"
    assert again.frozen["2"] == "is wanted too"


@pytest.mark.parametrize("make", [
    lambda: (CycleGANGenerator(3, 2).eval(), (torch.rand(2, 3, 16, 16),)),
    lambda: (CifarResNet(2, 3).eval(), (torch.rand(2, 3, 16, 16),)),
])  # fmt: skip
def test_tied_branches_are_those_that_keep_what_the_trunk_keeps(make, rng):
    net, inputs = make()
    graph = trace_channels(net, inputs)
    tied = tie_inner_widths(graph)
    assert tied.n_genes < graph.n_genes
    keep = drop(tied, rng)
    # The same choice in the genes of the full graph, layer by layer.
    full = np.ones(graph.n_genes + 1, bool)
    for layer, genes in graph.layers.items():
        full[genes] = np.append(keep, True)[tied.layers[layer]]
    full = full[:-1]
    assert_same(
        prune_channels(net, tied, keep), prune_channels(net, graph, full), inputs
    )
    # Tied once, there is nothing left to tie.
    assert tie_inner_widths(tied).n_genes == tied.n_genes


def test_uses_count_multiplications_of_one_example():
    # A weight of a convolution is used once for every pixel of its output.
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    for n in (1, 3):
        graph = trace_channels(net, torch.zeros(n, 1, 8, 8))
        assert graph.uses == {"0.weight": 36.0, "2.weight": 1.0}


def test_bias_and_shift_are_those_of_one_layer_only():
    norm = nn.BatchNorm1d(4)
    net = nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 4), norm, nn.Linear(4, 2))
    graph = trace_channels(net.eval(), torch.zeros(2, 3))
    assert graph.biases == {f"{k}.weight": f"{k}.bias" for k in "024"}
    assert not graph.shifts  # two layers, of one running mean
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    graph = trace_channels(net.eval(), torch.zeros(2, 3))
    assert graph.shifts == {"0.weight": "1.running_mean"}


def test_numbers_of_genes_do_not_say_what_is_removed(rng):
    # Networks whose channels are permuted give the same when cut alike.
    net, graph = chain()
    X = torch.randn(6, 3)
    places = torch.from_numpy(rng.permutation(5))
    moved = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), net[3])
    with torch.no_grad():
        moved[0].weight.copy_(net[0].weight[places])
        moved[0].bias.copy_(net[0].bias[places])
        moved[2].weight.copy_(net[2].weight[:, places])
        moved[2].bias.copy_(net[2].bias)
    keep = drop(graph, rng)
    other = keep.copy()
    other[:5] = keep[:5][places]
    small = prune_channels(net, graph, keep)
    same = prune_channels(moved, trace_channels(moved, X), other)
    for one, two in zip(run(small, (X,)), run(same, (X,)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
