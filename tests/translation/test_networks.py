import copy
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklcomp.nn import CycleGANGenerator, PatchDiscriminator
from sklcomp.translation._net import CycleGANNet
from sklcomp.translation._vectors import VectorGenerator
from tests.helpers.translators import (
    Convolve,
    InPlace,
    Normalize,
    Scale,
    View,
    draw_domains,
    failing,
    same,
    translator,
)


def test_module_of_the_user_is_copied():
    A, B = draw_domains()
    given = Convolve(3).train()
    given.conv.eval()
    before = copy.deepcopy(given.state_dict())
    fitted = translator(generator=given, discriminator=given).fit(A, B)
    assert given.training
    assert not given.conv.training
    assert all(torch.equal(given.state_dict()[key], before[key]) for key in before)
    assert all(parameter.grad is None for parameter in given.parameters())
    assert given.conv.weight.is_contiguous()
    modules = [fitted.generator_ab_, fitted.generator_ba_, fitted.discriminator_a_]
    weights = [given.conv.weight, *(module.conv.weight for module in modules)]
    for k, weight in enumerate(weights):
        assert all(not torch.equal(weight, other) for other in weights[:k])
    # A translator that starts from what was learned goes on.
    pair = fitted.generator_ab_, fitted.generator_ba_
    judges = [fitted.discriminator_a_, fitted.discriminator_b_]
    more = translator(generator=pair, discriminator=judges, lr=1e-12).fit(A, B)
    np.testing.assert_allclose(more.transform(A), fitted.transform(A), atol=1e-6)
    assert more.discriminator_a_ is not judges[0]


def test_networks_that_are_made():
    A, B = draw_domains()
    by_class = translator(generator=Convolve).fit(A, B)
    by_call = translator(generator=partial(Convolve, n_channels=7)).fit(A, B)
    assert same(by_class, by_call)
    gray = translator(generator=Convolve).fit(A[..., 0], B[..., 0])
    assert gray.generator_ba_.conv.in_channels == 1
    half = translator(generator=(None, Scale)).fit(A, B)
    assert isinstance(half.generator_ab_, CycleGANGenerator)
    assert isinstance(half.generator_ba_, Scale)
    assert half.generator_ba_.factor != 0.5
    plain = translator().fit(*draw_domains(shape=(5,)))
    assert isinstance(plain.generator_ab_, VectorGenerator)


def test_callable_that_gives_the_same_module_twice():
    given = Convolve(3)
    fitted = translator(generator=lambda: given).fit(*draw_domains())
    weights = [
        module.conv.weight
        for module in (given, fitted.generator_ab_, fitted.generator_ba_)
    ]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize("where", ["generator", "discriminator"])
@pytest.mark.parametrize("shape", [(8, 8, 3), (3, 8, 8)])
def test_networks_that_cannot_take_channels_last(where, shape):
    A, B = draw_domains(shape=shape)
    fitted = translator(**{where: View}).fit(A, B)
    made = fitted.cycle(A)
    assert made.shape == A.shape
    assert np.isfinite(made).all()


@pytest.mark.parametrize("identity_weight", [0.0, 5.0])
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("where", ["generator", "discriminator"])
def test_networks_may_overwrite_what_they_are_given(where, n_channels, identity_weight):
    A, B = draw_domains(shape=(8, 8, n_channels))
    copies = A.copy(), B.copy()
    torch.manual_seed(0)
    network = {
        "generator": CycleGANGenerator(2, 0, n_channels=n_channels),
        "discriminator": PatchDiscriminator(2, 1, n_channels),
    }[where]
    settings = {"identity_weight": identity_weight, "pool_size": 0}
    found, want = (
        translator(**settings, **{where: InPlace(network, overwrites)}).fit(A, B)
        for overwrites in (True, False)
    )
    assert same(found, want)
    assert found.score(A, B) == want.score(A, B)
    np.testing.assert_array_equal(found.cycle(A), want.cycle(A))
    for images, before in zip((A, B), copies, strict=True):
        np.testing.assert_array_equal(images, before)


def test_frozen_generators_are_named():
    A, B = draw_domains()
    frozen = CycleGANGenerator(2, 0).requires_grad_(False)
    message = r"no weights that learn; call requires_grad_\(\) on the CycleGANGenerator"
    with pytest.raises(ValueError, match=message):
        translator(generator=frozen).fit(A, B)
    # The way back can be learned alone.
    half = translator(generator=(frozen, None)).fit(A, B)
    weights = half.generator_ab_.parameters(), frozen.parameters()
    assert all(map(torch.equal, *weights))


class Several(nn.Module):
    """Takes or gives what a network of a translator does not."""

    def __init__(self, n_outputs):
        super().__init__()
        self.conv, self.n_outputs = nn.Conv2d(3, 3, 1), n_outputs

    def forward(self, x, *, scale=None):
        output = self.conv(x)
        if self.n_outputs == 0:
            return output.mean()
        if self.n_outputs == 1:
            return output * len(scale)
        return (output,) * self.n_outputs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"generator": nn.Conv2d(3, 3, 2)},
            r"Conv2d makes \(2, 3, 7, 7\) of \(2, 3, 8, 8\); a generator keeps the",
        ),
        ({"generator": nn.Conv2d(3, 1, 1)}, "a generator keeps the shape"),
        ({"generator": [None] * 3}, "generator is a sequence of 3; a pair holds 2"),
        ({"discriminator": (None,)}, "discriminator is a sequence of 1; a pair"),
        (
            {"generator": nn.Linear(5, 5)},
            r"Linear cannot take examples of shape \(2, 3,",
        ),
        ({"discriminator": nn.Conv2d(1, 1, 1)}, "Conv2d cannot take examples of shape"),
        ({"generator": lambda: 3}, "generator gives a int; expected an nn.Module or a"),
        (
            {"discriminator": ("a", "b")},
            "discriminator gives a str; expected an nn.Mod",
        ),
        ({"generator": Several(2)}, "Several returns a tuple; expected a tensor"),
        ({"generator": Several(1)}, "Several cannot take examples .*has no len"),
        ({"discriminator": Several(0)}, r"a discriminator scores every example"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_networks_that_cannot_be_used(settings, message):
    with pytest.raises(ValueError, match=message):
        translator(**settings).fit(*draw_domains())


def test_batch_norms_are_kept_with_the_weights(monkeypatch):
    A, B = draw_domains()
    norm = Normalize(nn.BatchNorm2d(3))
    want = translator(generator=norm, max_epochs=1, decay_start=1).fit(A, B)
    monkeypatch.setattr(CycleGANNet, "generator_terms", failing("cycle_a", 2))
    with pytest.warns(ConvergenceWarning):
        found = translator(generator=norm, decay_start=1).fit(A, B)
    np.testing.assert_array_equal(found.transform(A), want.transform(A))
