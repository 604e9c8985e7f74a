"""Removing channels before an operation is removing them behind it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sklcomp.nn  # noqa: F401 (enters the rules)
from sklcomp.nn.surgery._tracing import RULES
from tests.helpers.tracing import Tensors, assert_commutes, count_free, follow

# Of tensors x and y of 4 x 6 x 8: how many of each axis of x may go.
OPERATIONS = {
    "a function of each": (lambda m: m.x.tanh().relu_(), (4, 6, 8)),
    "questions": (lambda m: m.x * (m.x.dim() + len(m.x.shape)), (4, 6, 8)),
    "other values": (lambda m: torch.zeros_like(m.x), (4, 6, 8)),
    "a sum": (lambda m: m.x + m.y, (4, 6, 8)),
    "three operands": (lambda m: torch.lerp(m.x, m.y, m.x.sigmoid()), (4, 6, 8)),
    "a choice": (lambda m: torch.where(m.x > 0, m.x, m.y), (4, 6, 8)),
    "a number": (lambda m: 3 * m.x - 1, (4, 6, 8)),
    "a row": (lambda m: m.x * m.row, (4, 6, 8)),
    "fewer axes": (lambda m: m.x * m.column, (4, 6, 8)),
    "a tensor of no network": (lambda m: m.x * torch.ones(8), (4, 6, 0)),
    "one of two": (lambda m: torch.max(m.x, m.y), (4, 6, 8)),
    "greatest along an axis": (lambda m: m.x.max(1)[0], (4, 0, 8)),
    "greatest of all": (lambda m: m.x.max(), (0, 0, 0)),
    "mean": (lambda m: m.x.mean(-1), (4, 6, 0)),
    "means": (lambda m: m.x.mean((0, 2)), (0, 6, 0)),
    "mean, its axis kept": (lambda m: m.x - m.x.mean(1, keepdim=True), (4, 0, 8)),
    "norm": (lambda m: m.x.norm(2, 1), (4, 0, 8)),
    "unit length": (lambda m: F.normalize(m.x, dim=0), (0, 6, 8)),
    "softmax": (lambda m: m.x.softmax(2), (4, 6, 0)),
    "sums so far": (lambda m: m.x.cumsum(0), (0, 6, 8)),
    "turned round": (lambda m: m.x.flip(0, 2), (0, 6, 0)),
    "rolled": (lambda m: m.x.roll(1, -2), (4, 0, 8)),
    "sorted": (lambda m: m.x.sort(1)[0], (4, 0, 8)),
    "permuted": (lambda m: m.x.permute(2, 0, 1), (4, 6, 8)),
    "transposed": (lambda m: m.x.mT + m.y.transpose(1, 2), (4, 6, 8)),
    "moved": (lambda m: m.x.movedim(0, -1).swapaxes(0, 1), (4, 6, 8)),
    "new axis": (lambda m: m.x.unsqueeze(1), (4, 6, 8)),
    "new axis by an index": (lambda m: m.x[:, None, ..., None], (4, 6, 8)),
    "flattened": (lambda m: m.x.flatten(), (0, 0, 0)),
    "joined": (lambda m: torch.cat([m.x, m.x.relu()], 1), (4, 6, 8)),
    "joined with another": (lambda m: torch.cat([m.x, m.z], -2), (4, 6, 8)),
    "joined with zeros": (lambda m: torch.cat([m.row, torch.zeros(3)]), None),
    "stacked": (lambda m: torch.stack([m.x, m.y], -1), (4, 6, 8)),
    "stacked on zeros": (lambda m: torch.stack([m.row, torch.zeros(8)]), None),
    "halves": (lambda m: m.x.chunk(2, 1)[1], (4, 3, 8)),
    "thirds": (lambda m: torch.tensor_split(m.x, 3, 1)[2], (4, 2, 8)),
    "unlike parts": (lambda m: m.x.split([1, 5], 1)[1], (4, 0, 8)),
    "a half": (lambda m: m.x[..., : m.x.shape[-1] // 2], (4, 6, 4)),
    "the other half": (lambda m: m.x[m.x.shape[0] // 2 :], (2, 6, 8)),
    "a whole slice": (lambda m: m.x[:, :, :], (4, 6, 8)),
    "every other": (lambda m: m.x[:, ::2], (4, 0, 8)),
    "an unlike part": (lambda m: m.x[:, 1:4], (4, 0, 8)),
    "one by its number": (lambda m: m.x[:, -1], (4, 0, 8)),
    "some by their numbers": (lambda m: m.x[:, torch.tensor([0, 2])], (0, 0, 0)),
    "apart": (lambda m: m.x.unbind(2), (4, 6, 0)),
    "gate": (lambda m: F.glu(m.x, 1), (4, 3, 8)),
    "zeros around": (lambda m: F.pad(m.x, (1, 2, 0, 3)), (4, 6, 8)),
    "mirrored": (lambda m: F.pad(m.x, (1, 1), "reflect"), (4, 6, 0)),
    "cropped": (lambda m: F.pad(m.x, (-1, 0)), (4, 6, 0)),
    "pooled": (lambda m: F.max_pool1d(m.x, 2), (4, 6, 0)),
    "mean of all places": (lambda m: F.adaptive_avg_pool1d(m.x, 1), (4, 6, 0)),
    "resized": (lambda m: F.interpolate(m.x, scale_factor=2), (4, 6, 0)),
    "more examples": (lambda m: m.x.expand(3, *m.x.shape), (4, 6, 8)),
    "repeated": (lambda m: m.x.repeat(1, 2, 1), (4, 0, 8)),
    "a product of matrices": (lambda m: m.x @ m.y.mT, (0, 0, 0)),
    "no rule": (lambda m: torch.fft.rfft(m.x).abs(), (0, 0, 0)),
    "written in place": (lambda m: m.x.clone().add_(m.y).mul_(m.row), (4, 6, 8)),
}  # fmt: skip


def tensors():
    return Tensors(x=(4, 6, 8), y=(4, 6, 8), z=(4, 2, 8), row=(8,), column=(6, 1))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_commutes_with_the_removal_of_channels(name, rng):
    function, free = OPERATIONS[name]
    module = tensors()
    if free is not None:
        assert count_free(follow(module, function)[0], "x") == list(free)
    for _ in range(4):
        assert_commutes(module, function, rng)


@pytest.mark.parametrize(("name", "n_free"), [
    ("joined with zeros", 8), ("stacked on zeros", 0),
])  # fmt: skip
def test_zeros_that_are_joined_fix_nothing_that_does_not_meet_them(name, n_free):
    trace, _ = follow(tensors(), OPERATIONS[name][0])
    assert count_free(trace, "row") == [n_free]


# Operation -> what it makes of an axis of channels 0 to 7, as old channels by class.
LABELS = {
    "shuffled pixels": (
        Tensors(p=(8, 1, 1)), lambda m: F.pixel_shuffle(m.p, 2), [[0, 1, 2, 3],
                                                                  [4, 5, 6, 7]],
    ),
    "channels of pixels": (
        Tensors(p=(2, 1, 1)),
        lambda m: F.pixel_unshuffle(m.p.expand(-1, 4, 4), 2), [[0], [1]],
    ),
    "groups": (
        Tensors(p=(8,)), lambda m: m.p.unflatten(0, (2, 4)).mul(2),
        [[0, 4], [1, 5], [2, 6], [3, 7]],
    ),
    "quarters": (
        Tensors(p=(8,)), lambda m: sum(m.p.chunk(4)), [[0, 2, 4, 6], [1, 3, 5, 7]],
    ),
    "shuffled channels": (
        Tensors(p=(8,)), lambda m: m.p.reshape(2, 4).T.reshape(-1),
        [[0, 4], [1, 5], [2, 6], [3, 7]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_channels_that_an_operation_ties(name):
    module, function, want = LABELS[name]
    trace, _ = follow(module, function)
    label, frozen = trace.ids.classes()
    own = label[trace.slots["p"][0]]
    assert [np.flatnonzero(own == k).tolist() for k in dict.fromkeys(own)] == want
    assert not frozen.keys() & set(own.tolist())


def test_result_of_pixel_shuffle_has_the_first_of_each_square():
    trace, result = follow(Tensors(p=(8, 1, 1)), lambda m: F.pixel_shuffle(m.p, 2))
    label = trace.ids.classes()[0]
    own = trace.slots["p"][0]
    np.testing.assert_array_equal(label[trace.axes(result)[0]], label[own[[0, 4]]])


@pytest.mark.parametrize(("function", "reason"), [
    (lambda m: m.x.sum(1), "is summed over the channels in forward"),
    (lambda m: m.x.softmax(1), "is mixed with other channels in forward"),
    (lambda m: m.x.flatten(1), "is merged with another axis of channels"),
    (lambda m: m.x[:, 1], "is indexed by number"),
    (lambda m: m.x[:, 1:4], "is sliced into unequal parts"),
    (lambda m: m.x.split([1, 5], 1), "is split into unequal parts"),
    (lambda m: m.x.unbind(1), "is taken apart"),
    (lambda m: m.x.repeat(1, 2, 1), "is repeated"),
    (lambda m: F.pad(m.x, (0, 0, 1, 1), "replicate"), "is padded or cropped along"),
    (lambda m: F.max_pool1d(m.x.mT, 2), "is pooled or resized"),
    (lambda m: m.x + torch.ones(6, 8), "meets a tensor of fixed size"),
    (lambda m: torch.cat([m.x, torch.ones(2, 6, 8)]), "is concatenated with a tensor"),
    (lambda m: torch.stack([m.x, torch.ones(4, 6, 8)]), "is stacked on a tensor of"),
    (lambda m: m.x.diff(dim=1), "enters an operation without a rule in forward"),
])  # fmt: skip
def test_what_stays_has_its_reason(function, reason):
    trace, _ = follow(tensors(), function)
    label, frozen = trace.ids.classes()
    reasons = {frozen.get(one) for one in label[trace.slots["x"][1]].tolist()}
    assert len(reasons) == 1
    assert reasons.pop().startswith(reason)


def test_operations_and_layers_have_rules_of_their_own():
    # A name that two files enter would be that of the last import.
    assert {RULES[name].__module__ for name in ("add", "cat", "view", "glu")} == {
        "sklcomp.nn.surgery._operation_rules"
    }
    assert {RULES[name].__module__ for name in ("linear", "conv2d", "prelu")} == {
        "sklcomp.nn.surgery._layer_rules"
    }
