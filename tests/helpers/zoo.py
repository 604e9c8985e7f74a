"""Networks of all the kinds that surgery must survive, small and random."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sklcomp.nn import CifarResNet, CycleGANGenerator, LeNet, SmallVGG
from sklcomp.nn._running import call, tensors_in


class DenseConcat(nn.Module):
    """Every layer reads all outputs before it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 6 * k) for k in range(3))
        self.convs = nn.ModuleList(
            nn.Conv2d(8 + 6 * k, 6, 3, padding=1) for k in range(3)
        )
        self.head = nn.Linear(26, 5)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], dim=1)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 3, padding=1)
        self.down2 = nn.Conv2d(8, 12, 3, padding=1)
        self.bottom = nn.Conv2d(12, 16, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(16, 10, 2, stride=2)
        self.join2 = nn.Conv2d(22, 12, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.join1 = nn.Conv2d(14, 3, 3, padding=1)

    def forward(self, x):
        one = F.relu(self.down1(x))
        two = F.relu(self.down2(F.max_pool2d(one, 2)))
        x = F.relu(self.bottom(F.max_pool2d(two, 2)))
        x = F.relu(self.join2(torch.cat([self.up2(x), two], 1)))
        return self.join1(torch.cat([self.up1(x), one], 1))


class InvertedResidual(nn.Module):
    """MobileNet: expand, depthwise, project, add."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.depthwise(self.expand(x)))
        return self.head(x.mean([2, 3]))


class ConvNeXt(nn.Module):
    """LayerNorm and Linear on the last axis, layer scale, residual."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.depthwise = nn.Conv2d(12, 12, 7, padding=3, groups=12)
        self.norm = nn.LayerNorm(12)
        self.expand = nn.Linear(12, 48)
        self.project = nn.Linear(48, 12)
        self.scale = nn.Parameter(torch.rand(12))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.project(F.gelu(self.expand(y)))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean((-2, -1)))


class SqueezeExcite(nn.Module):
    """A gate from pooled channels, PReLU, GroupNorm of both kinds."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.norm1 = nn.GroupNorm(6, 12)
        self.prelu = nn.PReLU(12)
        self.squeeze = nn.Linear(12, 4)
        self.excite = nn.Linear(4, 12)
        self.conv2 = nn.Conv2d(12, 16, 3, padding=1)
        self.norm2 = nn.GroupNorm(2, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.prelu(self.norm1(self.conv1(x)))
        b, c = x.shape[:2]
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1).view(b, c))))
        x = x * torch.sigmoid(gate).view(b, c, 1, 1).expand_as(x)
        return self.head(F.relu(self.norm2(self.conv2(x))).mean((2, 3)))


class DataDependent(nn.Module):
    """A branch on the data, and a convolution that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        bright = bool(x.mean() > 0)
        x = F.relu(self.stem(x))
        x = self.twice(F.relu(self.twice(x)))
        if bright:
            x = x * 2
        return self.head(x.amax((2, 3)))


class HardCodedView(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6 * 16 * 16, 5)

    def forward(self, x):
        x = F.max_pool2d(self.conv2(F.relu(self.conv1(x))), 2)
        return self.head(x.view(-1, 6 * 16 * 16))


class Grouped(nn.Module):
    """Grouped convolutions of both kinds, and a shuffle of channels between them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.few = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.many = nn.Conv2d(16, 16, 3, padding=1, groups=8)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.few(F.relu(self.stem(x))))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)
        x = F.relu(self.many(x))
        return self.head(x.mean((2, 3)))


class Splits(nn.Module):
    """chunk, split, glu, slices, pixel_shuffle and pixel_unshuffle."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.gated = nn.Conv2d(16, 24, 1)
        self.up = nn.Conv2d(12, 32, 1)
        self.down = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, dim=1)
        c, d = torch.split(torch.cat([self.left(a), b], 1), a.size(1), dim=1)
        x = F.glu(self.gated(torch.cat([F.relu(c), torch.tanh(d)], 1)), dim=1)
        x = F.pixel_shuffle(self.up(x), 2)
        x = F.pixel_unshuffle(self.down(x), 2)
        return self.head(x).mean((2, 3))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(3, 8, 3, padding=1)
        self.table = nn.Linear(4, 8)
        self.head = nn.Linear(16, 5)

    def forward(self, image, table):
        both = [self.image(image).mean((2, 3)), F.relu(self.table(table))]
        return {"logits": self.head(torch.cat(both, dim=-1))}


class Recurrent(nn.Module):
    """A convolution, then layers that are not followed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.rnn = nn.LSTM(8, 6, batch_first=True)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.hidden = nn.Linear(6, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x):
        x, _ = self.rnn(F.relu(self.conv(x.flatten(2))).transpose(1, 2))
        x, _ = self.attention(x, x, x)
        return self.head(F.relu(self.hidden(x[:, -1])))


class Parametrized(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.conv2 = nn.Conv2d(8, 12, 3)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


class Tokens(nn.Module):
    """Embedding, LayerNorm, a transformer-like MLP, tied input and output."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.norm = nn.LayerNorm(12)
        self.up = nn.Linear(12, 24)
        self.down = nn.Linear(24, 12)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return F.linear(x, self.embed.weight)


IMAGES = (2, 3, 32, 32)
# Name -> how to build it, and the shapes of its inputs.
ZOO = {
    "LeNet": (lambda: LeNet((6, 10, 20)), [(2, 1, 28, 28)]),
    "VGG with batch norm": (lambda: SmallVGG(6), [IMAGES]),
    "ResNet, projection": (lambda: CifarResNet(2, 6), [IMAGES]),
    "ResNet, zero-pad": (lambda: CifarResNet(2, 6, "pad"), [IMAGES]),
    "DenseNet-like": (DenseConcat, [IMAGES]),
    "U-Net": (UNet, [IMAGES]),
    "MobileNet-like": (InvertedResidual, [IMAGES]),
    "ConvNeXt-like": (ConvNeXt, [IMAGES]),
    "squeeze and excite": (SqueezeExcite, [IMAGES]),
    "CycleGAN generator": (lambda: CycleGANGenerator(6, 2), [IMAGES]),
    "CycleGAN, affine": (lambda: CycleGANGenerator(6, 2, affine=True), [IMAGES]),
    "data-dependent": (DataDependent, [IMAGES]),
    "hard-coded view": (HardCodedView, [IMAGES]),
    "grouped": (Grouped, [IMAGES]),
    "chunk and shuffle": (Splits, [IMAGES]),
    "two inputs": (TwoInputs, [IMAGES, (2, 4)]),
    "recurrent": (Recurrent, [(2, 3, 4, 4)]),
    "parametrized": (Parametrized, [IMAGES]),
    "tokens": (Tokens, [(2, 7)]),
}


def build(name, seed=0):
    """A network with random normalisation, in evaluation mode, and an input."""
    make, shapes = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make().eval()
        for part in net.modules():
            for tensor in (getattr(part, "weight", None), getattr(part, "bias", None)):
                if "Norm" in type(part).__name__ and tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
            if getattr(part, "running_mean", None) is not None:
                nn.init.normal_(part.running_mean)
                nn.init.uniform_(part.running_var, 0.5, 1.5)
        inputs = tuple(torch.randn(shape) for shape in shapes)
        if name == "tokens":
            inputs = (torch.randint(20, shapes[0]),)
    return net, inputs


def drop(graph, rng, share=0.5):
    """Keep a random part of every segment, at least one gene of it."""
    keep = np.ones(graph.n_genes, bool)
    for genes in graph.segments:
        n = rng.integers(0, len(genes)) if share is None else int(share * len(genes))
        keep[rng.permutation(genes)[:n]] = False
    return keep


def run(net, inputs):
    with torch.no_grad():
        return tensors_in(call(net, inputs))


def assert_same(net, other, inputs, atol=1e-5):
    for one, two in zip(run(net, inputs), run(other, inputs), strict=True):
        scale = two.abs().max()
        torch.testing.assert_close(one / scale, two / scale, rtol=0, atol=atol)
