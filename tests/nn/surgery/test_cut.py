import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.nn import mask_channels, prune_channels, trace_channels
from tests.helpers.zoo import ZOO, assert_same, build, drop

each_network = pytest.mark.parametrize("name", ZOO)


@each_network
def test_cut_network_has_true_attributes(name, rng):
    # A second surgery traces the cut network anew and relies on its attributes.
    net, inputs = build(name)
    graph = trace_channels(net, inputs)
    keep = drop(graph, rng)
    pruned = prune_channels(net, graph, keep)
    again = trace_channels(pruned, inputs)
    assert again.n_genes == keep.sum()
    for path, part in pruned.named_modules():
        if isinstance(part, nn.Conv2d):
            shape = part.out_channels, part.in_channels // part.groups
            assert part.weight.shape[:2] == shape, path
        elif isinstance(part, nn.Linear):
            assert part.weight.shape == (part.out_features, part.in_features), path
        elif isinstance(part, nn.LayerNorm):
            assert part.weight.shape == part.normalized_shape


@each_network
def test_tracing_and_surgery_leave_the_network_alone(name, rng):
    net, inputs = build(name)
    net.train()
    list(net.modules())[-1].eval()
    modes = [part.training for part in net.modules()]
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    graph = trace_channels(net, inputs)
    keep = drop(graph, rng)
    pruned, masked = (f(net, graph, keep) for f in (prune_channels, mask_channels))
    with torch.no_grad():
        for parameter in [*pruned.parameters(), *masked.parameters()]:
            parameter.add_(1.0)
    assert torch.equal(state, torch.get_rng_state())
    assert [part.training for part in net.modules()] == modes
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    for part in net.modules():
        assert not part._forward_hooks
        assert part._forward_pre_hooks.keys() <= {0}  # weight_norm may have one
    for old, new in zip(net.parameters(), pruned.parameters(), strict=True):
        assert old.data_ptr() != new.data_ptr()
        assert old.requires_grad == new.requires_grad


@pytest.mark.parametrize("cut", [prune_channels, mask_channels])
@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (np.ones(35, bool), r"keep of shape \(35,\).*expected 36 values"),
        (np.full(36, 0.5), "dtype float64; expected 36 values False or True"),
        (np.arange(36) >= 6, "removes all 6 channels of layer 'conv1'"),
        (np.zeros(36, bool), "keep at least one"),
    ],
)
def test_bad_keep(cut, keep, message):
    net, inputs = build("LeNet")
    graph = trace_channels(net, inputs)
    with pytest.raises(ValueError, match=message):
        cut(net, graph, keep)


def test_graph_of_another_network_is_refused():
    net, inputs = build("LeNet")
    other, other_inputs = build("U-Net")
    graph = trace_channels(net, inputs)
    with pytest.raises(ValueError, match="trace the network that is to be pruned"):
        prune_channels(other, graph, np.ones(36, bool))


class OwnConvolution(nn.Conv2d):
    """Subclasses are cut as what they are."""


def test_subclasses_of_layers_get_their_attributes(rng):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), OwnConvolution(8, 8, 3, groups=8), OwnConvolution(8, 2, 1)
    )
    x = torch.randn(2, 3, 8, 8)
    graph = trace_channels(net, x)
    assert graph.n_genes == 8
    keep = drop(graph, rng)
    pruned = prune_channels(net, graph, keep)
    assert (pruned[1].groups, pruned[1].in_channels, pruned[2].in_channels) == (4, 4, 4)
    assert_same(pruned, mask_channels(net, graph, keep), x)


def test_pruned_network_learns(rng):
    net, inputs = build("CycleGAN, affine")
    graph = trace_channels(net, inputs)
    pruned = prune_channels(net, graph, drop(graph, rng)).train()
    pruned(*inputs).square().mean().backward()
    assert all(
        p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters()
    )
