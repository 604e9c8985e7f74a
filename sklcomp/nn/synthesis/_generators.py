"""Generators of examples, and what is done with these: penalty and augmentation.

Users and the sources of ``DataFreeDistiller`` build them.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked

Values = float | Sequence[float]

# A batch is what the losses judge, so no norm looks beyond it.
_BatchNorm1d = partial(nn.BatchNorm1d, track_running_stats=False)
_BatchNorm2d = partial(nn.BatchNorm2d, track_running_stats=False)
# The authors' code passes a momentum as eps; their weights belong to it.
_EPS = 0.8


class _StandardHead(nn.Module):
    """Values with a given mean and standard deviation over every batch."""

    mean: Tensor
    std: Tensor

    def __init__(self, norm: nn.Module, mean: Tensor, std: Tensor):
        super().__init__()
        self.norm = norm
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, u: Tensor) -> Tensor:
        return self.mean + self.std * self.norm(torch.tanh(u))


class _RangeHead(nn.Module):
    """Values between two limits."""

    low: Tensor
    high: Tensor

    def __init__(self, norm: nn.Module, low: Tensor, high: Tensor, mean: Tensor):
        super().__init__()
        self.norm = norm
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.slope = nn.Parameter(torch.ones_like(low))
        level = (mean - low) / (high - low)
        level = torch.where((level > 0) & (level < 1), level, 0.5)
        # The mean of sigmoids of normal values is then about right. Learning it comes
        # too late: what is made until then is in the bank.
        self.offset = nn.Parameter(math.sqrt(1 + math.pi / 8) * torch.logit(level))

    def forward(self, u: Tensor) -> Tensor:
        level = torch.sigmoid(self.slope * self.norm(u) + self.offset)
        # Unlike low + (high - low) * level, lerp does not round beyond high.
        return torch.lerp(self.low, self.high, level)


class _Generator(nn.Module):
    """From noise, and perhaps a class, to whatever the body and the head make of it."""

    def __init__(self, body: nn.Module, head: nn.Module, n_classes: int | None):
        super().__init__()
        self.n_classes = n_classes
        self.body = body
        self.head = head

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """A batch of at least two examples, as the norms need more than one.

        Parameters
        ----------
        z : Tensor of shape (n, latent_dim)
            Standard normal noise.
        labels : Tensor of int64 of shape (n,), optional
            Classes, if and only if the generator has them.

        Returns
        -------
        examples : Tensor of shape (n, ...)
            In the units that the teacher sees.

        Raises
        ------
        ValueError
            If labels are missing, or come to a generator without classes.
        """
        if (labels is None) != (self.n_classes is None):
            msg = f"n_classes={self.n_classes}, but labels={labels}: give both or none."
            raise ValueError(msg)
        if labels is not None and self.n_classes is not None:
            z = torch.cat([z, F.one_hot(labels, self.n_classes).to(z)], 1)
        return self.head(self.body(z))


class DAFLGenerator(_Generator):
    """The generator of images of data-free learning.

    A linear layer makes a small map, which grows twice by repetition of pixels and
    passes three convolutions. Norms use the statistics of the batch, in evaluation mode
    too: an image depends on those that are made with it.

    Parameters
    ----------
    image_shape : tuple of int, default=(1, 32, 32)
        Channels, height and width; any size.
    latent_dim : int, default=100
        Length of the noise.
    width : int, default=128
        Channels of the first two stages; the third has half of them.
    n_classes : int, default=None
        Makes it conditional: the forward then takes classes besides noise.
    input_range : tuple of two values, default=None
        Least and greatest value of pixels, in the units that the teacher sees, each a
        number or one for each channel. The head "range" keeps pixels between them.
    input_mean, input_std : float or sequence of float, default=0.0 and 1.0
        Mean and standard deviation of pixels, in the same units, as numbers or one for
        each channel. The head "batchnorm" gives them to every batch; the head "range"
        begins with about this mean, or in the middle if it is outside the range.
    head : {"batchnorm", "range"}, default=None
        Last layer. "batchnorm", the published one, is tanh and a norm without weights;
        "range" is a norm and a sigmoid with a slope and an offset to learn, scaled to
        ``input_range``. None is "range" if there is an ``input_range``.

    References
    ----------
    .. [1] H. Chen, Y. Wang, C. Xu et al., "Data-Free Learning of Student Networks",
       arXiv:1904.01186.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import DAFLGenerator
    >>> generator = DAFLGenerator((3, 30, 21), 8, 4, n_classes=2, input_range=(0, 1))
    >>> images = generator(torch.randn(5, 8), torch.tensor([0, 1, 0, 1, 0]))
    >>> images.shape, bool(((images >= 0) & (images <= 1)).all())
    (torch.Size([5, 3, 30, 21]), True)
    """

    @refuse_masked
    def __init__(
        self,
        image_shape: Sequence[int] = (1, 32, 32),
        latent_dim: int = 100,
        width: int = 128,
        *,
        n_classes: int | None = None,
        input_range: tuple[Values, Values] | None = None,
        input_mean: Values = 0.0,
        input_std: Values = 1.0,
        head: str | None = None,
    ):
        n_channels, *size = image_shape
        half, seed = (tuple(math.ceil(side / k) for side in size) for k in (2, 4))
        narrow = max(width // 2, 1)
        body = nn.Sequential(
            nn.Linear(latent_dim + (n_classes or 0), width * math.prod(seed)),
            nn.Unflatten(1, (width, *seed)),
            _BatchNorm2d(width),
            nn.Upsample(half),
            nn.Conv2d(width, width, 3, padding=1),
            _BatchNorm2d(width, eps=_EPS),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(tuple(size)),
            nn.Conv2d(width, narrow, 3, padding=1),
            _BatchNorm2d(narrow, eps=_EPS),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(narrow, n_channels, 3, padding=1),
        )
        norm = _BatchNorm2d(n_channels, affine=False)
        last = _build_head(
            head, norm, (n_channels, 1, 1), input_range, input_mean, input_std
        )
        # Takes little more than half of the time on a CPU.
        convert_conv2d_weight_memory_format(body, torch.channels_last)
        super().__init__(body, last, n_classes)


class DenseGenerator(_Generator):
    """A generator of vectors: two hidden layers, with the heads of the images.

    Norms use the statistics of the batch, in evaluation mode too: a vector depends on
    those that are made with it.

    Parameters
    ----------
    n_features : int
        Length of the vectors.
    latent_dim : int, default=100
        Length of the noise.
    width : int, default=128
        Units of the hidden layers.
    n_classes : int, default=None
        Makes it conditional: the forward then takes classes besides noise.
    input_range : tuple of two values, default=None
        Least and greatest value, in the units that the teacher sees, each a number or
        one for each feature. The head "range" keeps features between them.
    input_mean, input_std : float or sequence of float, default=0.0 and 1.0
        Mean and standard deviation, in the same units, as numbers or one for each
        feature. The head "batchnorm" gives them to every batch; the head "range" begins
        with about this mean, or in the middle if it is outside the range.
    head : {"batchnorm", "range"}, default=None
        As of :class:`DAFLGenerator`. None is "range" if there is an ``input_range``.

    Examples
    --------
    >>> import torch
    >>> from sklcomp.nn import DenseGenerator
    >>> generator = DenseGenerator(3, 8, 16, input_mean=[0.0, 5.0, -5.0])
    >>> generator(torch.randn(4, 8)).mean(0).round(decimals=4) + 0.0
    tensor([ 0.,  5., -5.], grad_fn=<AddBackward0>)
    """

    @refuse_masked
    def __init__(
        self,
        n_features: int,
        latent_dim: int = 100,
        width: int = 128,
        *,
        n_classes: int | None = None,
        input_range: tuple[Values, Values] | None = None,
        input_mean: Values = 0.0,
        input_std: Values = 1.0,
        head: str | None = None,
    ):
        body = nn.Sequential(
            nn.Linear(latent_dim + (n_classes or 0), width),
            _BatchNorm1d(width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(width, width),
            _BatchNorm1d(width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(width, n_features),
        )
        norm = _BatchNorm1d(n_features, affine=False)
        last = _build_head(
            head, norm, (n_features,), input_range, input_mean, input_std
        )
        super().__init__(body, last, n_classes)


def _build_head(
    head: str | None,
    norm: nn.Module,
    shape: Sequence[int],
    input_range: tuple[Values, Values] | None,
    input_mean: Values,
    input_std: Values,
) -> nn.Module:
    name = head or ("range" if input_range is not None else "batchnorm")
    mean = _spread(input_mean, shape, "input_mean")
    if name == "batchnorm":
        return _StandardHead(norm, mean, _spread(input_std, shape, "input_std"))
    if name != "range":
        msg = f'head={show(head)} is unknown; choose "batchnorm" or "range".'
        raise ValueError(msg)
    if input_range is None:
        msg = (
            'head="range" keeps values in input_range, which is None: give (low, high).'
        )
        raise ValueError(msg)
    low, high = (_spread(values, shape, "input_range") for values in input_range)
    if not (low < high).all():
        msg = (
            f"input_range={show(input_range)}: the first value must be the smaller one."
        )
        raise ValueError(msg)
    return _RangeHead(norm, low, high, mean)


def _spread(values: Values, shape: Sequence[int], parameter: str) -> Tensor:
    """A number, or one for each channel, in the shape of one example."""
    tensor = torch.as_tensor(values, dtype=torch.get_default_dtype()).flatten()
    if len(tensor) not in (1, shape[0]):
        msg = (
            f"{parameter}={show(values)} has {len(tensor)} entries; give one, or one "
            f"for each of the {shape[0]} channels or features."
        )
        raise ValueError(msg)
    return tensor.expand(shape[0]).reshape(shape).clone()


def moment_penalty(images: Tensor, mean: Values = 0.0, std: Values = 1.0) -> Tensor:
    r"""How far the pixels of a batch are from a mean and a standard deviation.

    .. math:: \bar x^2 + (\operatorname{sd}(x) - 1)^2

    of pixels x standardised by ``mean`` and ``std``: over all of them, or as the mean
    over channels where one of both has a value for each.

    Parameters
    ----------
    images : Tensor of shape (m, c, ...)
        A batch.
    mean, std : float or sequence of float, default=0.0 and 1.0
        Numbers, or one for each of the c channels.

    Returns
    -------
    penalty : Tensor, a scalar
        Zero for a batch with these moments.
    """
    shape = (-1,) + (1,) * (images.ndim - 2)
    shift, scale = (torch.as_tensor(v).to(images).reshape(shape) for v in (mean, std))
    x = (images - shift) / scale
    is_per_channel = max(shift.numel(), scale.numel()) > 1
    rows = x.transpose(0, 1).flatten(1) if is_per_channel else x.flatten()
    return (rows.mean(-1).square() + (rows.std(-1, correction=0) - 1).square()).mean()


def random_affine(
    images: Tensor, strength: float, generator: torch.Generator
) -> Tensor:
    """Images turned, sheared, scaled and moved, each in its own way.

    Pixels from outside are those of the border.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w)
        A batch.
    strength : float
        1 is up to 20 degrees, a shear of up to 0.3, a factor between 0.8 and 1.25, and
        a move of up to an eighth of the side; 0 gives back the images themselves.
    generator : torch.Generator
        Source of the changes.

    Returns
    -------
    images : Tensor of shape (n, c, h, w)
        With gradients to the images given.
    """
    if not strength:
        return images
    n, _, h, w = images.shape
    draws = torch.rand(5, n, generator=generator, device=generator.device)
    turn, shear, zoom, *moves = (2 * draws - 1).mul_(strength).to(images)
    cos, sin = torch.cos(math.radians(20) * turn), torch.sin(math.radians(20) * turn)
    shear, scale = 0.3 * shear, 1.25**-zoom
    # Coordinates run from -1 to 1 along both sides, however long.
    theta = torch.stack(
        [
            scale * cos,
            scale * (shear * cos - sin) * h / w,
            moves[0] / 4,
            scale * sin * w / h,
            scale * (shear * sin + cos),
            moves[1] / 4,
        ],
        1,
    ).reshape(n, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
