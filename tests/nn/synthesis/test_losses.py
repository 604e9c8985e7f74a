import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.nn import (
    BatchNormStatistics,
    CifarResNet,
    activation_loss,
    adversarial_loss,
    entropy_loss,
    feature_loss,
    onehot_loss,
)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def softmax(logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.parametrize("k", [2, 10, 100])
def test_undecided_answers(k):
    logits = torch.full((7, k), 3.0, dtype=torch.float64)
    assert float(onehot_loss(logits)) == pytest.approx(np.log(k))
    assert float(entropy_loss(logits)) == pytest.approx(-np.log10(k))


def test_certain_answers():
    logits = 1e5 * torch.eye(4).repeat(3, 1)
    assert float(onehot_loss(logits)) == 0.0
    # All classes equally frequent, then one class alone.
    assert float(entropy_loss(logits)) == pytest.approx(-np.log10(4))
    assert float(entropy_loss(logits[[0, 4, 8]])) == pytest.approx(0.0, abs=1e-6)


def test_certain_answers_have_finite_gradients():
    # The probability of the last class is zero in floating point.
    logits = (1e5 * torch.eye(4)[[0, 1, 2]]).requires_grad_()
    (onehot_loss(logits) + entropy_loss(logits)).backward()
    assert torch.isfinite(logits.grad).all()


def test_formulas_entry_by_entry():
    logits = draw(6, 4)
    p = softmax(logits.numpy())
    want = -np.log(p.max(1)).mean()
    assert float(onehot_loss(logits)) == pytest.approx(want)
    mean = p.mean(0)
    want = sum(q * np.log10(q) for q in mean)
    assert float(entropy_loss(logits)) == pytest.approx(want)


def test_no_label_suits_better_than_the_first_choice():
    logits = draw(6, 4)
    others = [
        nn.functional.cross_entropy(logits, torch.full((6,), c)) for c in range(4)
    ]
    assert onehot_loss(logits) < min(others)


def test_activation_grows_with_the_scale_and_knows_no_sign():
    features = draw(5, 3, 2, 2)
    loss = activation_loss(features)
    torch.testing.assert_close(activation_loss(-3 * features), 3 * loss)
    torch.testing.assert_close(loss, -features.abs().sum() / 60)


def test_adversarial_is_the_double_loop():
    s, t = draw(5, 3), draw(5, 3, seed=1)
    total = sum(
        abs((s[i, j] - s[i].mean()) - (t[i, j] - t[i].mean()))
        for i in range(5)
        for j in range(3)
    )
    assert float(adversarial_loss(s, t)) == pytest.approx(-float(total) / 15)


def test_adversarial_knows_no_offset_of_rows():
    s, t = draw(5, 3), draw(5, 3, seed=1)
    moved = adversarial_loss(s + draw(5, 1, seed=2), t + draw(5, 1, seed=3))
    torch.testing.assert_close(moved, adversarial_loss(s, t))
    assert float(adversarial_loss(t + 4, t)) == pytest.approx(0, abs=1e-12)


def test_adversarial_stops_at_the_limit():
    s, t = draw(5, 3).requires_grad_(), draw(5, 3, seed=1)
    distance = -adversarial_loss(s, t).item()
    loss = adversarial_loss(s, t, limit=0.9 * distance)
    loss.backward()
    assert loss.item() == pytest.approx(-0.9 * distance)
    assert (s.grad == 0).all()
    adversarial_loss(s, t, limit=1.1 * distance).backward()
    assert s.grad.abs().max() > 0


def test_feature_loss_is_the_papers_times_the_batch():
    s, t = draw(5, 3), draw(5, 4, seed=1)
    gram_s, gram_t = ((f @ f.T).numpy() for f in (s, t))
    total = 0.0
    for i in range(5):
        for j in range(5):
            entries = [g[i, j] / np.sqrt(sum(g[i] ** 2)) for g in (gram_s, gram_t)]
            total += (entries[0] - entries[1]) ** 2
    assert float(feature_loss(s, t)) == pytest.approx(5 * total / 5**2)


def test_feature_loss_knows_neither_scale_nor_rotation():
    s, t = draw(8, 4), draw(8, 6, seed=1)
    rotation = torch.linalg.qr(draw(4, 4, seed=2)).Q
    torch.testing.assert_close(feature_loss(3 * s @ rotation, t), feature_loss(s, t))
    assert float(feature_loss(3 * s @ rotation, s)) == pytest.approx(0, abs=1e-12)
    order = torch.arange(8).flip(0)
    torch.testing.assert_close(feature_loss(s[order], t[order]), feature_loss(s, t))


def test_feature_loss_means_the_same_for_all_sizes_of_batches():
    s, t = draw(8, 4), draw(8, 6, seed=1)
    doubled = feature_loss(s.repeat(2, 1), t.repeat(2, 1))
    torch.testing.assert_close(doubled, feature_loss(s, t))


def test_feature_loss_of_opposite_pairs_is_the_greatest():
    teacher = torch.ones(2, 1, dtype=torch.float64)
    apart = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    # Rows (1, 1) and (1, -1) over the root of 2: two of four entries differ by root 2.
    assert float(feature_loss(apart, teacher)) == pytest.approx(2.0)


def test_features_of_zeros_do_no_harm():
    student = torch.zeros(3, 2, requires_grad=True)
    loss = feature_loss(student.relu(), torch.ones(3, 2))
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert (student.grad == 0).all()


def test_gradients_go_to_the_student_alone():
    s, t = draw(6, 3).requires_grad_(), draw(6, 4, seed=1).requires_grad_()
    feature_loss(s, t).backward()
    assert s.grad.abs().max() > 0
    assert t.grad is None


def test_batches_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="12 rows of student features and 1 of"):
        feature_loss(draw(12, 3), draw(1, 3))


@pytest.mark.parametrize(
    "loss",
    [
        onehot_loss,
        activation_loss,
        entropy_loss,
        lambda x: adversarial_loss(x, draw(6, 4, seed=1)),
        lambda x: adversarial_loss(draw(6, 4, seed=1), x),
        lambda x: feature_loss(x, draw(6, 5, seed=1)),
    ],
)
def test_gradients_by_finite_differences(loss):
    assert torch.autograd.gradcheck(loss, [draw(6, 4).requires_grad_()])


NORMS = {
    "1d": (nn.BatchNorm1d, (9, 3)),
    "sequences": (nn.BatchNorm1d, (5, 3, 4)),
    "2d": (nn.BatchNorm2d, (5, 3, 2, 4)),
    "3d": (nn.BatchNorm3d, (3, 3, 2, 2, 3)),
}


def measure(net, x):
    with BatchNormStatistics(net) as statistics:
        net(x)
        return statistics.loss()


@pytest.mark.parametrize(("norm", "shape"), NORMS.values(), ids=NORMS)
def test_a_batch_that_was_learned_by_heart_has_no_loss(norm, shape):
    norm = norm(3, momentum=1.0).double()
    x = draw(*shape)
    norm(x)
    norm.eval()
    assert float(measure(norm, x)) == pytest.approx(0, abs=1e-12)
    # All means move by 2, and no variance.
    assert float(measure(norm, x + 2)) == pytest.approx(2 * 3**0.5)


@pytest.mark.parametrize(("norm", "shape"), NORMS.values(), ids=NORMS)
def test_statistics_are_those_of_numpy(norm, shape):
    norm, x = norm(3).double().eval(), draw(*shape)
    values = np.moveaxis(x.numpy(), 1, 0).reshape(3, -1)
    want = np.linalg.norm(values.mean(1)) + np.linalg.norm(values.var(1, ddof=1) - 1)
    assert float(measure(norm, x)) == pytest.approx(want)


def test_layers_add_up():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Tanh(), nn.BatchNorm1d(3)).double().eval()
    x = draw(9, 3)
    parts = measure(net[0], x) + measure(net[2], net[1](net[0](x)))
    torch.testing.assert_close(measure(net, x), parts)


def test_statistics_have_gradients_to_the_images():
    net = (
        nn.Sequential(
            nn.Conv2d(1, 2, 2),
            nn.BatchNorm2d(2),
            nn.Tanh(),
            nn.Conv2d(2, 2, 2),
            nn.BatchNorm2d(2),
        )
        .double()
        .eval()
    )
    images = draw(2, 1, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: measure(net, x), [images])


def test_the_latest_forward_counts():
    net, (first, second) = nn.BatchNorm1d(3).double().eval(), draw(2, 9, 3)
    with BatchNormStatistics(net) as statistics:
        net(first)
        before = statistics.loss()
        net(second)
        after = statistics.loss()
    assert before != after
    assert after == measure(net, second)


def test_a_layer_that_was_skipped_is_forgotten():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x, both):
            x = self.first(x)
            return self.second(x) if both else x

    net, x = Sometimes().double().eval(), draw(9, 3)
    with BatchNormStatistics(net) as statistics:
        net(x, both=True)
        net(x, both=False)
        assert statistics.loss() == measure(net.first, x)


def test_only_norms_that_remember_count():
    net = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.GroupNorm(1, 3),
    )
    assert BatchNormStatistics(net).n_layers == 1
    assert BatchNormStatistics(CifarResNet(1, 4)).n_layers == 1 + 2 * 3 + 2


def count_hooks(net):
    return sum(
        len(part._forward_pre_hooks) + len(part._forward_hooks)
        for part in net.modules()
    )


def test_hooks_are_gone_afterwards():
    net = CifarResNet(1, 4).eval()
    before = copy.deepcopy(net.state_dict())
    statistics = BatchNormStatistics(net)
    assert count_hooks(net) == 0
    with statistics:
        assert count_hooks(net) == 9 + 1
        net(torch.ones(2, 3, 8, 8))
    assert count_hooks(net) == 0
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(RuntimeError, match="channels"), statistics:
        net(torch.ones(2, 5, 8, 8))
    assert count_hooks(net) == 0


def test_loss_before_any_forward():
    with (
        BatchNormStatistics(nn.BatchNorm1d(3)) as statistics,
        pytest.raises(RuntimeError, match="inside the with block"),
    ):
        statistics.loss()


def test_without_norms_the_loss_is_zero():
    assert float(measure(nn.Linear(3, 2), torch.ones(2, 3))) == 0.0


def test_one_value_has_no_variance():
    norm = nn.BatchNorm1d(2).eval()
    x = torch.tensor([[3.0, 4.0]])
    assert float(measure(norm, x)) == pytest.approx(5 + 2**0.5)
