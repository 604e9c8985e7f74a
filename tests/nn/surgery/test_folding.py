import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations

from sklcomp.nn import CifarResNet, LeNet, LeNet5, SmallVGG, fold_batchnorm
from sklcomp.nn.surgery._folding import absorb_batch_norms, insert_batch_norms


def experienced(net, x):
    """The same network, with norms that have seen something."""
    generator = torch.Generator().manual_seed(1)
    for part in net.modules():
        if isinstance(part, _BatchNorm):
            for tensor in (*part.parameters(), *part.buffers()):
                if tensor.is_floating_point():
                    noise = torch.rand(tensor.shape, generator=generator)
                    tensor.data.copy_(0.5 + noise)
    return net.eval()


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def count_norms(net):
    return sum(isinstance(part, _BatchNorm) for part in net.modules())


def pair(layer, norm):
    return nn.Sequential(layer, norm, nn.ReLU())


NETS = {
    "LeNet-5": (lambda: LeNet5(batch_norm=True), (4, 1, 32, 32)),
    "VGG": (lambda: SmallVGG(4), (2, 3, 16, 16)),
    "ResNet, projection": (lambda: CifarResNet(2, 4), (2, 3, 16, 16)),
    "ResNet, four stages": (lambda: CifarResNet((1, 1, 1, 1), 4), (2, 3, 16, 16)),
    "linear": (lambda: pair(nn.Linear(5, 4), nn.BatchNorm1d(4)), (3, 5)),
    "no bias": (
        lambda: pair(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4)), (3, 5),
    ),
    "no weights": (
        lambda: pair(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)), (2, 2, 5, 5),
    ),
    "1d": (lambda: pair(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)), (2, 2, 5)),
    "3d": (lambda: pair(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4)), (2, 2, 3, 3, 3)),
    "grouped": (
        lambda: pair(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (2, 4, 5, 5),
    ),
    "depthwise": (
        lambda: pair(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)), (2, 4, 5, 5),
    ),
    "transposed": (
        lambda: pair(nn.ConvTranspose2d(4, 6, 3, 2), nn.BatchNorm2d(6)), (2, 4, 5, 5),
    ),
    "transposed and grouped": (
        lambda: pair(nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6)),
        (2, 4, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_folded_network_is_the_same_function(name):
    build, shape = NETS[name]
    x = images(*shape)
    net = experienced(build(), x).train()
    before = copy.deepcopy(net.state_dict())
    folded = fold_batchnorm(net, x)
    assert count_norms(folded) == 0
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(part.training for part in net.modules())
    assert not any(part.training for part in folded.modules())
    # On another batch than the one that it was checked by.
    other = 2 * x.flip(0) - 1
    torch.testing.assert_close(folded(other), net.eval()(other), rtol=1e-5, atol=1e-5)
    net, folded = net.double(), fold_batchnorm(net.double(), x.double())
    torch.testing.assert_close(
        folded(other.double()), net(other.double()), rtol=1e-12, atol=1e-12
    )


def test_result_is_independent_of_the_original():
    x = images(3, 5)
    net = experienced(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), x)
    folded = fold_batchnorm(net, x)
    want = folded(x)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.zero_()
    torch.testing.assert_close(folded(x), want, rtol=0, atol=0)


@pytest.mark.parametrize("frozen", [False, True])
def test_new_parameters_can_be_trained_if_the_old_could(frozen):
    x = images(3, 5)
    net = nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4))
    folded = fold_batchnorm(net.requires_grad_(not frozen), x)
    assert [p.requires_grad for p in folded.parameters()] == 2 * [not frozen]
    assert all(p.is_leaf for p in folded.parameters())


class Wired(nn.Module):
    """Two convolutions and two norms, connected as a function says."""

    def __init__(self, wire):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.relu, self.identity = nn.ReLU(), nn.Identity()
        self.wire = wire

    def forward(self, x):
        return self.wire(self, x)


def sees_conv_twice(net, x):
    y = net.conv1(x)
    return net.norm1(y) + net.relu(y)


# Wiring -> norms that stay.
WIRINGS = {
    "names crossed": (
        lambda net, x: net.norm1(net.conv2(net.norm2(net.conv1(x)))), 0,
    ),
    "through an identity": (
        lambda net, x: net.norm1(net.identity(net.conv1(x))), 1,
    ),
    "norm after the activation": (lambda net, x: net.norm1(net.relu(net.conv1(x))), 2),
    "norm before the layer": (lambda net, x: net.conv1(net.norm1(x)), 2),
    "layer called twice": (
        lambda net, x: net.norm2(net.conv1(net.norm1(net.conv1(x)))), 2,
    ),
    "norm called twice": (
        lambda net, x: net.norm1(net.conv2(net.norm1(net.conv1(x)))), 2,
    ),
    "two norms of one layer": (
        lambda net, x: (lambda y: net.norm1(y) + net.norm2(y))(net.conv1(x)), 2,
    ),
    "another module looks on": (sees_conv_twice, 2),
    "a norm after a norm": (lambda net, x: net.norm2(net.norm1(net.conv1(x))), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", WIRINGS)
def test_what_runs_decides(name):
    wire, n_left = WIRINGS[name]
    x = images(3, 2, 4, 4)
    net = experienced(Wired(wire), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folded = fold_batchnorm(net, x)
    # Norms that do not run stay too.
    assert count_norms(folded) == n_left
    torch.testing.assert_close(folded(x), net(x), rtol=1e-5, atol=1e-5)


def test_use_that_no_hook_sees_is_undone_alone():
    def wire(net, x):
        y = net.conv1(x)
        return net.norm2(net.conv2(net.norm1(y) + y.square()))

    x = images(3, 2, 4, 4)
    net = experienced(Wired(wire), x)
    with pytest.warns(UserWarning, match="after conv1 changed the answers"):
        folded = fold_batchnorm(net, x)
    assert isinstance(folded.norm1, nn.BatchNorm2d)
    assert isinstance(folded.norm2, nn.Identity)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-5, atol=1e-5)


def test_norm_with_two_names_is_replaced_under_both():
    def wire(net, x):
        return net.alias(net.conv1(x))

    x = images(3, 2, 4, 4)
    net = Wired(wire)
    net.alias = net.norm1
    folded = fold_batchnorm(experienced(net, x), x)
    assert isinstance(folded.alias, nn.Identity)
    assert folded.alias is folded.norm1


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        nn.Sequential(
            parametrizations.weight_norm(nn.Conv2d(2, 3, 1)), nn.BatchNorm2d(3)
        ),
    ],
    ids=["no memory", "weights computed"],
)
def test_what_cannot_be_folded_stays(net):
    x = images(3, 2, 4, 4)
    folded = fold_batchnorm(experienced(net, x), x)
    assert count_norms(folded) == 1
    torch.testing.assert_close(folded(x), net(x), rtol=0, atol=0)


@pytest.mark.parametrize("length", [4, 5])
def test_linear_layers_of_sequences_stay(length):
    # The features of the layer are on the last axis, those of the norm on the second.
    x = images(3, length, 2)
    net = experienced(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(length)), x)
    folded = fold_batchnorm(net, x)
    assert count_norms(folded) == 1
    torch.testing.assert_close(folded(x), net(x), rtol=0, atol=0)


def test_example_may_be_arguments():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x, scale):
            return {"answer": self.norm(self.conv(x)) * scale}

    x = images(3, 2, 4, 4)
    net = experienced(Scaled(), x)
    for example in ((x, 2.0), {"x": x, "scale": 2.0}):
        folded = fold_batchnorm(net, example)
        assert count_norms(folded) == 0
        torch.testing.assert_close(folded(x, 3.0), net(x, 3.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [LeNet(), LeNet5(), SmallVGG(4), CifarResNet(1, 4)])
def test_inserted_norms_can_be_absorbed(module):
    shape = {LeNet: (1, 28, 28), LeNet5: (1, 32, 32)}.get(type(module), (3, 32, 32))
    X = torch.randn(40, *shape)
    normed = insert_batch_norms(module, X[:2])
    with_bias = [
        part
        for part in module.modules()
        if isinstance(part, (nn.Conv2d, nn.Linear)) and part.bias is not None
    ]
    # All that have a bias, but the last.
    n_inserted = count_norms(normed) - count_norms(module)
    assert n_inserted == len(with_bias) - 1
    normed.train()(X)
    absorbed = absorb_batch_norms(normed.eval())
    with torch.no_grad():
        torch.testing.assert_close(absorbed(X), normed(X), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(absorbed(X), module.eval()(X))
    assert absorbed.state_dict().keys() == module.state_dict().keys()


class Shared(nn.Module):
    """The output of a layer is used besides its norm, where no hook sees it."""

    def __init__(self, offset, scale=1.0):
        super().__init__()
        self.layer, self.norm = nn.Linear(5, 4), nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)
        self.offset, self.scale = offset, scale

    def forward(self, x):
        x = self.layer(x)
        x = self.head(self.norm(x) + 0.01 * x.neg())
        return x * torch.tensor([1.0, self.scale]).to(x) + self.offset


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1e6, 1), (0, 1e6), (1e6, 1e6)])
def test_offsets_and_units_hide_no_change(offset, scale):
    torch.manual_seed(0)
    x = images(8, 5)
    net = experienced(Shared(offset, scale), x)
    with pytest.warns(UserWarning, match="after layer changed the answers"):
        folded = fold_batchnorm(net, x)
    assert count_norms(folded) == 1
    net = nn.Sequential(net.layer, net.norm, net.head, Plus(offset))
    assert count_norms(fold_batchnorm(net, x)) == 0


class Plus(nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.offset = offset

    def forward(self, x):
        return x + self.offset
