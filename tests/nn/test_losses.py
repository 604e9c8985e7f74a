import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklcomp.nn import LocalityPreservingLoss, kd_loss


def features(m=12, d=(3, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(m, width, generator=generator, dtype=torch.float64) for width in d
    )


def by_double_loop(student, teacher, k, s2=None):
    """The published sum, entry by entry."""
    student, teacher = student.flatten(1).numpy(), teacher.flatten(1).numpy()
    m = len(teacher)
    D = np.array([[np.sum((a - b) ** 2) for b in teacher] for a in teacher])
    np.fill_diagonal(D, np.inf)
    k = min(k, m - 1)
    nearest = np.argsort(D, axis=1, kind="stable")[:, :k]
    if s2 is None:
        s2 = np.take_along_axis(D, nearest, 1).mean()
    total = 0.0
    for i in range(m):
        for j in nearest[i]:
            total += np.exp(-D[i, j] / s2) * np.sum((student[i] - student[j]) ** 2)
    return total / (2 * m * student.shape[1])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    m=st.integers(2, 20), k=st.integers(1, 8), d=st.tuples(*[st.integers(1, 6)] * 2),
    sigma=st.sampled_from(["auto", 0.5, 3.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_locality_is_the_double_loop(m, k, d, sigma, seed):
    student, teacher = features(m, d, seed)
    want = by_double_loop(student, teacher, k, None if sigma == "auto" else sigma**2)
    found = LocalityPreservingLoss(k, sigma)(student, teacher)
    assert float(found) == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_locality_is_that_of_locality_preserving_projections():
    # tr(F' (Deg - W) F) / m / d with the symmetric part W of the weights.
    student, teacher = features()
    loss = LocalityPreservingLoss(4)
    neighbors, weights = loss.weigh_neighbors(teacher)
    A = torch.zeros(12, 12, dtype=torch.float64).scatter(1, neighbors, weights)
    W = (A + A.T) / 2
    laplacian = torch.diag(W.sum(1)) - W
    want = torch.trace(student.T @ laplacian @ student) / 36
    torch.testing.assert_close(loss(student, teacher), want)
    # So this is its gradient: there is one, and it is the Laplacian's.
    student.requires_grad_()
    loss(student, teacher).backward()
    torch.testing.assert_close(student.grad, 2 / 36 * laplacian @ student.detach())
    assert student.grad.abs().max() > 0


def test_gradients_by_finite_differences():
    student, teacher = features()
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: LocalityPreservingLoss(3)(s, teacher), [student]
    )
    assert torch.autograd.gradcheck(
        lambda s: kd_loss(s, teacher[:, :3], 3.0), [student]
    )


def test_teacher_gets_no_gradient():
    student, teacher = (x.requires_grad_() for x in features())
    LocalityPreservingLoss()(student, teacher).backward()
    assert teacher.grad is None


def test_locality_of_constant_features_is_zero():
    _, teacher = features()
    student = torch.full((12, 5), 3.7)
    assert float(LocalityPreservingLoss()(student, teacher)) == 0.0


@pytest.mark.parametrize("scale", [1e-6, 100.0, 1e6])
def test_automatic_sigma_knows_no_scale(scale):
    student, teacher = features()
    loss = LocalityPreservingLoss()
    torch.testing.assert_close(
        loss(student, scale * teacher), loss(student, teacher), rtol=1e-6, atol=0
    )
    # Nor does a common offset of float32 features cost digits.
    moved = (teacher + 1000).float()
    torch.testing.assert_close(
        loss(student, moved), loss(student, teacher), rtol=1e-3, atol=0
    )


def test_fixed_sigma_vanishes_on_large_features():
    student, teacher = features()
    assert float(LocalityPreservingLoss(sigma=2**0.5)(student, 100 * teacher)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sigma", "weight"), [
    (10**10, 1.0), (1e200, 1.0), (1e-25, 0.0), (np.float32(1e-30), 0.0),
])  # fmt: skip
def test_sigma_of_any_size(sigma, weight, dtype):
    _, teacher = features()
    _, weights = LocalityPreservingLoss(sigma=sigma).weigh_neighbors(teacher.to(dtype))
    torch.testing.assert_close(weights, torch.full_like(weights, weight))
    _, weights = LocalityPreservingLoss(sigma=sigma).weigh_neighbors(
        torch.ones(12, 4, dtype=dtype)
    )
    assert (weights == 1).all()


def test_order_of_the_batch_does_not_matter():
    student, teacher = features()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    loss = LocalityPreservingLoss(4)
    torch.testing.assert_close(
        loss(student[order], teacher[order]), loss(student, teacher)
    )


@pytest.mark.parametrize("m", [1, 2, 3])
def test_batches_smaller_than_the_neighborhood(m):
    student, teacher = features(m)
    student.requires_grad_()
    found = LocalityPreservingLoss(5)(student, teacher)
    found.backward()
    assert found.item() == pytest.approx(
        by_double_loop(student.detach(), teacher, 5) if m > 1 else 0.0
    )
    assert torch.isfinite(student.grad).all()


def test_equal_teacher_features_weigh_fully():
    student, _ = features()
    _, weights = LocalityPreservingLoss(5).weigh_neighbors(torch.ones(12, 4))
    assert (weights == 1).all()
    assert torch.isfinite(LocalityPreservingLoss(5)(student, torch.ones(12, 4)))


def test_images_are_flattened():
    student, teacher = features(d=(12, 8))
    loss = LocalityPreservingLoss()
    torch.testing.assert_close(
        loss(student.reshape(12, 3, 2, 2), teacher.reshape(12, 2, 4)),
        loss(student, teacher),
    )


@pytest.mark.parametrize("settings", [
    {"n_neighbors": 0}, {"n_neighbors": 2.5}, {"sigma": 0}, {"sigma": -1.0},
    {"sigma": "median"},
])  # fmt: skip
def test_settings_that_mean_nothing(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name}={settings[name]!r}"):
        LocalityPreservingLoss(**settings)


def test_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature=0"):
        kd_loss(*features(d=(3, 3)), temperature=0)


def test_half_precision_does_not_overflow():
    student, teacher = (300 * part for part in features())
    found = LocalityPreservingLoss()(student.half(), teacher.half())
    assert float(found) == pytest.approx(
        float(LocalityPreservingLoss()(student, teacher)), rel=0.01
    )


def test_batches_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="12 rows of student features and 7"):
        LocalityPreservingLoss()(features()[0], features(7)[1])


def test_kd_is_the_double_loop():
    s, t = features(5, (3, 3))
    total = 0.0
    for a, b in zip(s.numpy() / 2.5, t.numpy() / 2.5, strict=True):
        q, p = (np.exp(x) / np.exp(x).sum() for x in (a, b))
        for c in range(3):
            total += p[c] * np.log(p[c] / q[c])
    assert float(kd_loss(s, t, 2.5)) == pytest.approx(2.5**2 * total / 5)


def test_kd_at_high_temperature_compares_centred_logits():
    # T^2 KL tends to the mean squared difference over 2 k.
    s, t = (x - x.mean(1, keepdim=True) for x in features(6, (4, 4)))
    want = (s - t).square().sum(1).mean() / (2 * 4)
    torch.testing.assert_close(kd_loss(s, t, 1e4), want, rtol=1e-3, atol=0)


def test_kd_knows_no_offset_of_logits():
    s, t = features(6, (4, 4))
    torch.testing.assert_close(kd_loss(s + 3, t - 2), kd_loss(s, t))
