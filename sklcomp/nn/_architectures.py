"""Small reference networks: those of the papers, and those of the benchmarks.

Users build them; the translator takes its default networks from here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """The LeNet of Caffe for images of 28 x 28 pixels: 20-50-500 by default.

    Parameters
    ----------
    widths : tuple of int, default=(20, 50, 500)
        Channels of the two convolutions, and units of the hidden layer.
    n_classes : int, default=10
        Number of outputs.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import LeNet, count_parameters
    >>> count_parameters(LeNet())
    431080
    """

    def __init__(self, widths: Sequence[int] = (20, 50, 500), n_classes: int = 10):
        super().__init__()
        first, second, hidden = widths
        self.conv1 = nn.Conv2d(1, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(second * 16, hidden)
        self.fc2 = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) of images (n, 1, 28, 28)."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class LeNet5(nn.Module):
    """LeNet-5 with rectifiers, for images of 32 x 32 pixels: 6-16-120-84 by default.

    Parameters
    ----------
    widths : tuple of int, default=(6, 16, 120, 84)
        Channels of the three convolutions, and units of the hidden layer. The student
        of data-free learning, LeNet-5-half, has (3, 8, 60, 42).
    n_classes : int, default=10
        Number of outputs.
    n_channels : int, default=1
        Channels of the images.
    batch_norm : bool, default=False
        Whether a norm follows every convolution and the hidden layer.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import LeNet5, count_parameters
    >>> count_parameters(LeNet5())
    61706
    """

    def __init__(
        self,
        widths: Sequence[int] = (6, 16, 120, 84),
        n_classes: int = 10,
        n_channels: int = 1,
        batch_norm: bool = False,
    ):
        super().__init__()
        *channels, hidden = widths
        features: list[nn.Module] = []
        for outputs in channels:
            features += [nn.Conv2d(n_channels, outputs, 5)]
            features += [nn.BatchNorm2d(outputs)] if batch_norm else []
            features += [nn.ReLU(), nn.MaxPool2d(2)]
            n_channels = outputs
        # The third convolution leaves one pixel.
        self.features = nn.Sequential(*features[:-1])
        self.classifier = nn.Sequential(
            nn.Linear(n_channels, hidden),
            *([nn.BatchNorm1d(hidden)] if batch_norm else []),
            nn.ReLU(),
            nn.Linear(hidden, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) of images (n, n_channels, 32, 32)."""
        return self.classifier(self.features(x).flatten(1))


class HintonNet(nn.Module):
    """Two hidden layers with rectifiers: 1200-1200 by default.

    Parameters
    ----------
    widths : sequence of int, default=(1200, 1200)
        Units of the hidden layers. Its student has (800, 800).
    n_features : int, default=784
        Number of inputs.
    n_classes : int, default=10
        Number of outputs.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import HintonNet, count_parameters
    >>> count_parameters(HintonNet())
    2395210
    """

    def __init__(
        self,
        widths: Sequence[int] = (1200, 1200),
        n_features: int = 784,
        n_classes: int = 10,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for outputs in widths:
            layers += [nn.Linear(n_features, outputs), nn.ReLU()]
            n_features = outputs
        self.layers = nn.Sequential(*layers, nn.Linear(n_features, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) of images or vectors with n_features values."""
        return self.layers(x.flatten(1))


class SmallVGG(nn.Module):
    """Six convolutions with batch norm in three stages, and one linear layer.

    Parameters
    ----------
    width : int, default=32
        Channels of the first stage; the others have two and four times as many.
    n_classes : int, default=10
        Number of outputs.
    n_channels : int, default=3
        Channels of the images.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import SmallVGG
    >>> SmallVGG(4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, width: int = 32, n_classes: int = 10, n_channels: int = 3):
        super().__init__()
        layers: list[nn.Module] = []
        for factor in (1, 2, 4):
            for _ in range(2):
                outputs = factor * width
                layers += [
                    nn.Conv2d(n_channels, outputs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                ]
                n_channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(n_channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) of images (n, n_channels, h, w)."""
        return self.classifier(self.features(x).mean((2, 3)))


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.n_new = stride, outputs - inputs
        self.project = None
        if shortcut == "projection" and (stride > 1 or self.n_new):
            self.project = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.project is not None:
            return F.relu(y + self.project(x))
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.n_new // 2
        return F.relu(y + F.pad(x, (0, 0, 0, 0, before, self.n_new - before)))


class CifarResNet(nn.Module):
    """The residual network for images of 32 x 32 pixels, in three or more stages.

    Parameters
    ----------
    n_blocks : int or sequence of int, default=3
        Blocks in each of three stages, or one number for each stage: 3 is ResNet-20.
        With a width of 64, (2, 2, 2, 2) is ResNet-18 and (3, 4, 6, 3) ResNet-34.
    width : int, default=16
        Channels of the first stage; each of the others has twice as many as the one
        before.
    shortcut : {"projection", "pad"}, default="projection"
        Where the size changes: a 1 x 1 convolution, or zero channels before and behind.
    n_classes : int, default=10
        Number of outputs.
    n_channels : int, default=3
        Channels of the images.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import CifarResNet
    >>> CifarResNet(1, 4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        n_blocks: int | Sequence[int] = 3,
        width: int = 16,
        shortcut: str = "projection",
        n_classes: int = 10,
        n_channels: int = 3,
    ):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        blocks, inputs = [], width
        counts = n_blocks if isinstance(n_blocks, Sequence) else (n_blocks,) * 3
        for stage, count in enumerate(counts):
            for k in range(count):
                outputs, stride = width * 2**stage, 2 if stage and not k else 1
                blocks.append(_Block(inputs, outputs, stride, shortcut))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) of images (n, n_channels, h, w)."""
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.classifier(x.mean((2, 3)))


class _InstanceNorm2d(nn.InstanceNorm2d):
    """Faster with channels last, where torch would copy to and fro."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous() or x.ndim != 4:
            return super().forward(x)
        if len(x) == 1:
            return F.batch_norm(
                x, None, None, self.weight, self.bias, True, 0.0, self.eps
            )
        return F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


def _normalized(conv: nn.Module, outputs: int, affine: bool) -> list[nn.Module]:
    return [conv, _InstanceNorm2d(outputs, affine=affine), nn.ReLU(inplace=True)]


def _draw_small_weights(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02^2) and no shifts, as published."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(part.weight, 0.0, 0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class _ResidualBlock(nn.Module):
    """Two padded convolutions with instance norm, added to their input."""

    def __init__(self, width: int, affine: bool):
        super().__init__()
        first = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")
        second = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")
        norm = _InstanceNorm2d(width, affine=affine)
        self.body = nn.Sequential(*_normalized(first, width, affine), second, norm)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class CycleGANGenerator(nn.Module):
    """The generator of CycleGAN: down twice, residual blocks, up twice.

    Parameters
    ----------
    n_filters : int, default=64
        Channels of the first layer.
    n_blocks : int, default=9
        Residual blocks.
    affine : bool, default=False
        Whether the instance norms have weights.
    n_channels : int, default=3
        Channels of the images.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import CycleGANGenerator
    >>> CycleGANGenerator(4, 1)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 3, 32, 32])
    """

    def __init__(
        self,
        n_filters: int = 64,
        n_blocks: int = 9,
        affine: bool = False,
        n_channels: int = 3,
    ):
        super().__init__()
        n = n_filters
        layers = _normalized(
            nn.Conv2d(n_channels, n, 7, padding=3, padding_mode="reflect"), n, affine
        )
        for k in (n, 2 * n):
            layers += _normalized(nn.Conv2d(k, 2 * k, 3, 2, 1), 2 * k, affine)
        layers += [_ResidualBlock(4 * n, affine) for _ in range(n_blocks)]
        for k in (4 * n, 2 * n):
            up = nn.ConvTranspose2d(k, k // 2, 3, 2, 1, output_padding=1)
            layers += _normalized(up, k // 2, affine)
        layers.append(nn.Conv2d(n, n_channels, 7, padding=3, padding_mode="reflect"))
        self.layers = nn.Sequential(*layers)
        _draw_small_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translated images, in [-1, 1], of the shape of the input."""
        return torch.tanh(self.layers(x))


class PatchDiscriminator(nn.Module):
    """The discriminator of CycleGAN: a score for every patch of an image.

    Parameters
    ----------
    n_filters : int, default=64
        Channels of the first layer; each further one has twice as many, up to eight
        times.
    n_layers : int, default=3
        Convolutions that halve the image: 3 sees patches of 70 pixels. An image must
        have at least ``4 * 2 ** n_layers`` pixels a side.
    n_channels : int, default=3
        Channels of the images.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import PatchDiscriminator
    >>> PatchDiscriminator(4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1, 2, 2])
    """

    def __init__(self, n_filters: int = 64, n_layers: int = 3, n_channels: int = 3):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(n_channels, n_filters, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        inputs = n_filters
        for k in range(1, n_layers + 1):
            outputs, stride = n_filters * min(2**k, 8), 2 if k < n_layers else 1
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride, 1),
                _InstanceNorm2d(outputs),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            inputs = outputs
        layers.append(nn.Conv2d(inputs, 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)
        _draw_small_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (n, 1, h', w') of images (n, n_channels, h, w)."""
        return self.layers(x)
