import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sklcomp.nn import (
    CifarResNet,
    CycleGANGenerator,
    HintonNet,
    LeNet,
    LeNet5,
    count_macs,
    count_parameters,
    measure_latency,
    prune_channels,
    trace_channels,
)
from sklcomp.nn.surgery._cost import ChannelCost
from tests.helpers.zoo import ZOO, build


def test_closed_forms():
    lenet = LeNet()
    assert count_parameters(lenet) == (25 + 1) * 20 + (500 + 1) * 50 + 801 * 500 + 5010
    conv = 24 * 24 * 20 * 25 + 8 * 8 * 50 * 500
    assert count_macs(lenet, (1, 28, 28)) == conv + 800 * 500 + 500 * 10
    assert count_macs(nn.ReLU(), (3,)) == 0


@pytest.mark.parametrize("name", sorted(ZOO.keys() - {"tokens"}))
def test_macs_are_half_of_torchs_count(name):
    net, inputs = build(name)
    one = tuple(value[:1] for value in inputs)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(*one)
    shapes = tuple(tuple(value.shape[1:]) for value in inputs)
    shapes = shapes[0] if len(shapes) == 1 else shapes
    assert 2 * count_macs(net, shapes) == counter.get_total_flops()


@pytest.mark.parametrize("name", ZOO)
def test_cost_of_a_cut_is_known_before_it(name, rng):
    net, inputs = build(name)
    graph = trace_channels(net, inputs)
    one = tuple(value[:1] for value in inputs)
    cost = ChannelCost(net, graph, one)
    for share in (1.0, 0.6, 0.3):
        keep = np.ones(graph.n_genes, bool)
        for genes in graph.segments:
            keep[rng.permutation(genes)[int(np.ceil(share * len(genes))) :]] = False
        pruned = prune_channels(net, graph, keep)
        n_parameters, n_macs = cost(keep)
        assert n_parameters == count_parameters(pruned)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            pruned(*one)
        assert 2 * n_macs == counter.get_total_flops()


def test_counting_leaves_the_network_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(net.state_dict())
    count_macs(net, (3, 8, 8))
    measure_latency(net, torch.ones(2, 3, 8, 8), n_repeats=2)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_the_papers_generator():
    # 9 blocks, 64 filters: 11.4 million parameters, 43.4 MB as float32.
    assert count_parameters(CycleGANGenerator()) * 4 / 2**20 == pytest.approx(
        43.4, abs=0.1
    )


def test_the_networks_of_data_free_learning():
    assert count_parameters(LeNet5()) == 156 + 2416 + 48120 + 10164 + 850
    assert count_parameters(LeNet5((3, 8, 60, 42))) == 78 + 608 + 12060 + 2562 + 430
    # Two parameters for each channel of the norms.
    more = count_parameters(LeNet5(batch_norm=True)) - count_parameters(LeNet5())
    assert more == 2 * (6 + 16 + 120 + 84)
    assert count_macs(LeNet5(), (1, 32, 32)) == 117600 + 240000 + 48000 + 10080 + 840
    assert count_parameters(HintonNet()) == 785 * 1200 + 1201 * 1200 + 12010
    assert count_parameters(HintonNet((800, 800))) == 785 * 800 + 801 * 800 + 8010


def test_residual_networks_of_four_stages():
    # ResNet-34 and ResNet-18 of the papers: 21 and 11 million, 1.16 G and 557 M.
    large, small = (CifarResNet(n, 64) for n in ((3, 4, 6, 3), (2, 2, 2, 2)))
    assert count_parameters(large) == 21_282_122
    assert count_parameters(small) == 11_173_962
    assert count_macs(large, (3, 32, 32)) == pytest.approx(1.16e9, rel=0.005)
    assert count_macs(small, (3, 32, 32)) == pytest.approx(557e6, rel=0.005)


def test_latency_restores_the_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        latency = measure_latency(nn.Linear(3, 2), torch.zeros(1, 3), n_repeats=5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert 0 < latency.lower <= latency.median <= latency.upper
    with pytest.raises(ValueError, match="n_repeats=0"):
        measure_latency(nn.Linear(3, 2), torch.zeros(1, 3), n_repeats=0)
