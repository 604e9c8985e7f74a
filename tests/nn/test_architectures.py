import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import (
    CifarResNet,
    CycleGANGenerator,
    HintonNet,
    LeNet,
    LeNet5,
    PatchDiscriminator,
    SmallVGG,
    count_parameters,
)
from sklcomp.nn._architectures import _Block, _InstanceNorm2d, _ResidualBlock


def test_a_number_of_blocks_stands_for_three_stages():
    one, three = CifarResNet(2, 4), CifarResNet((2, 2, 2), 4)
    three.load_state_dict(one.state_dict())
    x = torch.ones(2, 3, 8, 8)
    torch.testing.assert_close(one.eval()(x), three.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("form", ["channels last", "strided", "contiguous"])
def test_instance_norm_is_that_of_torch(affine, form):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 5, dtype=torch.float64) * 3 + 1
    if form == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif form == "strided":
        x = torch.randn(3, 4, 5, 12, dtype=torch.float64)[..., ::2].transpose(2, 3)
    ours, theirs = (
        _InstanceNorm2d(4, affine=affine),
        nn.InstanceNorm2d(4, affine=affine),
    )
    results = []
    for norm in (ours, theirs):
        if affine:
            norm.weight.data = torch.linspace(-1, 2, 4, dtype=torch.float64)
            norm.bias.data = torch.linspace(0, 1, 4, dtype=torch.float64)
        for mode in (norm.train(), norm.eval()):
            leaf = x.clone().requires_grad_()
            output = mode(leaf)
            parameters = [leaf, *norm.parameters()]
            gradients = torch.autograd.grad(output.sin().sum(), parameters)
            results.append([output, *gradients])
    for found, want in zip(results[:2], results[2:], strict=True):
        torch.testing.assert_close(found, want)


@pytest.mark.parametrize(("n_layers", "n_pixels"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_sees_a_patch(n_layers, n_pixels):
    judge = PatchDiscriminator(1, n_layers, 1)
    for k, layer in enumerate(judge.layers):
        # Norms see everything, and signs could cancel.
        if isinstance(layer, nn.InstanceNorm2d):
            judge.layers[k] = nn.Identity()
        for parameter in layer.parameters():
            nn.init.ones_(parameter)
    x = torch.ones(1, 1, 160, 160, requires_grad=True)
    scores = judge(x)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = x.grad[0, 0] != 0
    assert seen.sum() == n_pixels**2
    assert seen.any(0).sum() == seen.any(1).sum() == n_pixels


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_smallest_images_of_a_discriminator(n_channels, n_layers):
    size = 4 * 2**n_layers
    judge = PatchDiscriminator(2, n_layers, n_channels)
    assert judge(torch.rand(2, n_channels, size, size + 8)).shape == (
        2,
        1,
        2,
        2 + 8 // 2**n_layers,
    )


# Small networks, and the shape of an example.
NETWORKS = {
    "LeNet": (lambda: LeNet((3, 4, 6)), (1, 28, 28)),
    "LeNet5": (lambda: LeNet5((2, 3, 5, 4)), (1, 32, 32)),
    "LeNet5, norms": (lambda: LeNet5((2, 3, 5, 4), 7, 3, batch_norm=True), (3, 32, 32)),
    "HintonNet": (lambda: HintonNet((5, 4), 12, 3), (3, 2, 2)),
    "SmallVGG": (lambda: SmallVGG(2, 3, 1), (1, 9, 11)),
    "ResNet": (lambda: CifarResNet(1, 3), (3, 12, 12)),
    "ResNet, zero-pad": (lambda: CifarResNet((1, 2), 3, "pad"), (3, 12, 12)),
    "generator": (lambda: CycleGANGenerator(2, 1), (3, 12, 16)),
    "discriminator": (lambda: PatchDiscriminator(2, 2), (3, 16, 20)),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def build(name):
    make, shape = NETWORKS[name]
    net = make().double().eval()
    for part in net.modules():
        if getattr(part, "running_mean", None) is not None:
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return net, torch.randn(4, *shape, dtype=torch.float64)


@each_network
@torch.no_grad()
def test_examples_are_answered_one_by_one(name):
    # In evaluation the answer to one is not that of its neighbours.
    net, X = build(name)
    whole = net(X)
    torch.testing.assert_close(torch.cat([net(x[None]) for x in X]), whole)
    torch.testing.assert_close(net(X.flip(0)), whole.flip(0))


@each_network
@torch.no_grad()
def test_examples_and_weights_are_left_alone(name):
    net, X = build(name)
    before, weights = X.clone(), copy.deepcopy(net.state_dict())
    net(X)
    assert torch.equal(X, before)
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())


@each_network
def test_every_weight_learns(name):
    net, X = build(name)
    net.train()(X).square().sum().backward()
    unused = {
        key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()
    }
    # What is added before a norm of the instance is taken away by it.
    norms = [k for k, part in net.named_modules() if isinstance(part, _InstanceNorm2d)]
    assert all(key.endswith("bias") for key in unused)
    assert bool(unused) <= bool(norms)


@each_network
@torch.no_grad()
def test_memory_in_another_order_makes_no_difference(name):
    net, X = build(name)
    want = net(X)
    last = net.to(memory_format=torch.channels_last)
    found = last(X.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, want)


@torch.no_grad()
def test_lenet_is_what_it_says():
    net, X = build("LeNet")
    x = X
    for conv in (net.conv1, net.conv2):
        x = F.conv2d(x, conv.weight, conv.bias).unfold(2, 2, 2).unfold(3, 2, 2)
        x = x.amax((-1, -2))
    x = (x.flatten(1) @ net.fc1.weight.T + net.fc1.bias).clamp_min(0)
    torch.testing.assert_close(net(X), x @ net.fc2.weight.T + net.fc2.bias)


@torch.no_grad()
def test_hinton_net_is_what_it_says():
    net, X = build("HintonNet")
    first, second, last = (p for p in net.layers if isinstance(p, nn.Linear))
    x = X.reshape(4, 12)
    for layer in (first, second):
        x = (x @ layer.weight.T + layer.bias).clamp_min(0)
    torch.testing.assert_close(net(X), x @ last.weight.T + last.bias)
    torch.testing.assert_close(net(X.reshape(4, 12)), net(X))


@torch.no_grad()
def test_norms_that_have_learned_nothing_change_nothing():
    # But for the small number under the root.
    plain, normed = LeNet5((2, 3, 5, 4)), LeNet5((2, 3, 5, 4), batch_norm=True)
    weights = (p for p in plain.modules() if isinstance(p, (nn.Conv2d, nn.Linear)))
    for part in normed.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.load_state_dict(next(weights).state_dict())
    X = torch.randn(5, 1, 32, 32)
    torch.testing.assert_close(normed.eval()(X), plain(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width", [1, 5])
def test_small_vgg_has_two_convolutions_of_each_width(width):
    widths = [3, width, width, 2 * width, 2 * width, 4 * width, 4 * width]
    want = sum(9 * a * b + 2 * b for a, b in zip(widths, widths[1:], strict=False))
    assert count_parameters(SmallVGG(width, 7)) == want + (4 * width + 1) * 7


def test_resnet_20_is_that_of_the_paper():
    # 0.27 million; a projection is a convolution of 1 x 1 with its norm.
    assert count_parameters(CifarResNet(shortcut="pad")) == 269_722
    more = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert count_parameters(CifarResNet()) == 269_722 + more


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
@pytest.mark.parametrize(("outputs", "stride"), [(4, 1), (7, 2), (8, 1)])
@torch.no_grad()
def test_a_block_without_its_branch_is_its_shortcut(shortcut, outputs, stride):
    block = _Block(4, outputs, stride, shortcut).eval()
    nn.init.zeros_(block.bn2.weight)
    X = torch.randn(2, 4, 6, 6)
    found = block(X)
    if (outputs, stride) == (4, 1):
        want = X
    elif shortcut == "projection":
        want = block.project(X)
    else:
        before = (outputs - 4) // 2
        want = torch.zeros(2, outputs, *found.shape[2:])
        want[:, before : before + 4] = X[:, :, ::stride, ::stride]
    torch.testing.assert_close(found, want.relu())


@torch.no_grad()
def test_a_residual_block_without_weights_passes_its_input_on():
    block = _ResidualBlock(3, affine=True)
    nn.init.zeros_(block.body[-1].weight)
    X = torch.randn(2, 3, 5, 5)
    assert torch.equal(block(X), X)


@pytest.mark.parametrize("make", [
    lambda: CycleGANGenerator(3, 1), lambda: PatchDiscriminator(3, 2),
])  # fmt: skip
@torch.no_grad()
def test_shifts_before_an_instance_norm_have_no_effect(make):
    net, X = make().double(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    want = net(X)
    layers = [*net.layers]
    shifted = 0
    for layer, behind in zip(layers, layers[1:], strict=False):
        if isinstance(behind, _InstanceNorm2d):
            nn.init.normal_(layer.bias)
            shifted += 1
    assert shifted
    torch.testing.assert_close(net(X), want)


@torch.no_grad()
def test_a_generator_translates_into_images_of_its_size():
    net = CycleGANGenerator(2, 1, n_channels=2)
    X = torch.randn(2, 2, 8, 20)
    for parameter in net.parameters():
        parameter.mul_(1e3)  # to its limits
    found = net(X)
    assert found.shape == X.shape
    assert found.abs().max() <= 1
    nn.init.zeros_(net.layers[-1].weight)
    nn.init.constant_(net.layers[-1].bias, 0.5)
    torch.testing.assert_close(net(X), torch.full_like(X, 0.5).tanh())


@pytest.mark.parametrize("make", [
    lambda: CycleGANGenerator(8, 1), lambda: PatchDiscriminator(8),
])  # fmt: skip
def test_weights_are_drawn_small_as_published(make):
    parts = [
        p for p in make().modules() if isinstance(p, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    weights = torch.cat([part.weight.detach().flatten() for part in parts])
    n = len(weights)
    # Six standard errors of a mean, and of a deviation.
    assert abs(float(weights.mean())) < 6 * 0.02 / n**0.5
    assert float(weights.std()) == pytest.approx(0.02, rel=6 / (2 * n) ** 0.5)
    assert not any(part.bias.any() for part in parts)


def test_affine_norms_begin_as_those_without_weights():
    plain, affine = CycleGANGenerator(2, 1), CycleGANGenerator(2, 1, affine=True)
    assert count_parameters(affine) > count_parameters(plain)
    affine.load_state_dict(plain.state_dict(), strict=False)
    X = torch.randn(1, 3, 12, 12)
    torch.testing.assert_close(affine(X), plain(X))
