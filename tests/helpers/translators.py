"""Small translators and domains; a module of its own, so that they can be pickled."""

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from sklcomp.translation import CycleGANTranslator
from sklcomp.translation._net import CycleGANNet


def translator(image_shape=None, **settings):
    settings = {
        "n_filters": 2,
        "n_blocks": 0,
        "batch_size": 4,
        "max_epochs": 2,
        "random_state": 0,
    } | settings
    return CycleGANTranslator(image_shape, **settings)


def draw(n, shape=(8, 8, 3), seed=0, dtype=np.float32):
    """Images of uniform noise."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, *shape)).astype(dtype)


def draw_domains(n_a=9, n_b=7, shape=(8, 8, 3)):
    return draw(n_a, shape, seed=1), draw(n_b, shape, seed=2)


def weights_in(fitted):
    """All numbers that a translator has learned."""
    net = fitted.net_
    modules = net.module_, net.generator_ba_, net.discriminator_a_, net.discriminator_b_
    return torch.cat([value.flatten() for m in modules for value in m.parameters()])


def same(first, second):
    """Whether two fits ended with the same bits."""
    return torch.equal(weights_in(first), weights_in(second))


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def failing(name, epoch, value=np.nan):
    """Terms of the generators of which one is not finite from an epoch on."""
    healthy = CycleGANNet.generator_terms

    def generator_terms(self, *args):
        terms, fakes = healthy(self, *args)
        if len(self.history) >= epoch:
            terms[name] = terms[name] * value
        return terms, fakes

    return generator_terms


class Keep(nn.Module):
    """Gives its input back, though it has a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + 0 * self.weight


class Scale(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor=0.5):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * x


class InPlace(nn.Module):
    """A network that may begin by overwriting what it is given."""

    def __init__(self, network, overwrites):
        super().__init__()
        self.network, self.overwrites = network, overwrites

    def forward(self, x):
        return self.network(x.mul_(0.5) if self.overwrites else x * 0.5)


class Convolve(nn.Module):
    """One convolution, with the channels that it is told."""

    def __init__(self, n_channels):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, n_channels, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.conv(x))


class Normalize(nn.Module):
    """Batch norm, for images or vectors."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return torch.tanh(self.norm(x))


class View(nn.Module):
    """A view, which images with channels last do not allow."""

    def __init__(self, n_channels=3):
        super().__init__()
        self.conv = nn.Conv2d(n_channels, n_channels, 1)

    def forward(self, x):
        return self.conv(x).view(len(x), -1).view(x.shape)


class Judge(nn.Module):
    """A score for every image, of layers of which the first is not to be trained."""

    def __init__(self):
        super().__init__()
        self.fixed = nn.Conv2d(3, 4, 3).requires_grad_(False)
        self.score = nn.Conv2d(4, 1, 6)

    def forward(self, x):
        return self.score(self.fixed(x).relu()).flatten()


class Watch(Callback):
    """Calls a function with the net after every step or epoch."""

    def __init__(self, after_step=None, after_epoch=None):
        self.after_step, self.after_epoch = after_step, after_epoch

    def on_batch_end(self, net, batch=None, **kwargs):
        if self.after_step:
            self.after_step(net, batch)

    def on_epoch_end(self, net, **kwargs):
        if self.after_epoch:
            self.after_epoch(net)


class Ask:
    """A callback of scikit-learn that asks to stop after some epochs."""

    def __init__(self, after):
        self.after, self.seen = after, []

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context, **_): ...

    def on_fit_task_end(self, estimator, context, **_):
        if context.parent is None:
            return False
        self.seen.append(context.task_name)
        return len(self.seen) >= self.after
