"""When the teacher is asked, and that it makes no difference."""

import numpy as np
import pytest
import torch
from skorch.dataset import ValidSplit
from torch.utils.data import default_collate

from sklcomp.compression import FeatureEmbeddingDistiller
from sklcomp.training import _lesson
from sklcomp.training._lesson import may_augment
from tests.helpers.embedding import distiller, smooth_student, student


def test_same_seed_same_student_whatever_the_cache(digits, trained):
    X, y = digits
    answers = [
        distiller(trained, student=smooth_student(), kd_weight=0.5, cache_teacher=cache)
        .fit(X, y)
        .predict_proba(X)
        for cache in ("auto", True, False)
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_allclose(answers[0], answers[2], atol=1e-5)
    other = distiller(
        trained, student=smooth_student(), kd_weight=0.5, random_state=1
    ).fit(X, y)
    assert np.abs(other.predict_proba(X) - answers[0]).max() > 0.01


def test_cache_knows_the_rows_of_a_split(digits, trained):
    # Shuffled, and a fifth held out: answers must be those of the examples shown.
    X, y = digits
    net = smooth_student(
        train_split=ValidSplit(5, stratified=True), iterator_train__shuffle=True
    )
    answers = [
        distiller(trained, student=net, kd_weight=0.5, cache_teacher=cache)
        .fit(X, y)
        .predict_proba(X)
        for cache in (True, False)
    ]
    np.testing.assert_allclose(*answers, atol=1e-5)


@pytest.fixture
def count_asked(digits, trained):
    """How many examples a teacher is shown while a student is trained."""

    class Counting(torch.nn.Module):
        rows = 0

        def __init__(self):
            super().__init__()
            self.inner = trained.module_

        def forward(self, x):
            Counting.rows += len(x)
            return self.inner(x)

    def count(net):
        Counting.rows = 0
        FeatureEmbeddingDistiller(net, Counting(), kd_weight=1.0).fit(*digits)
        return Counting.rows

    return count


def test_teacher_is_asked_once_unless_examples_change(digits, count_asked):
    n = len(digits[0])
    assert count_asked(student()) < 2.5 * n
    assert count_asked(student(iterator_train__collate_fn=mirrored)) > 3 * n


def test_answers_that_take_too_much_room_are_asked_in_every_step(
    digits, count_asked, monkeypatch
):
    # 32 features and 10 scores of 4 bytes.
    n = len(digits[0])
    for limit, is_kept in ((4 * 42 * n, True), (4 * 42 * n - 1, False)):
        monkeypatch.setattr(_lesson, "CACHE_LIMIT", limit)
        assert (count_asked(student()) < 3 * n) == is_kept


def mirrored(batch):
    """Images mirrored, in memory as flat rows."""
    X, y = default_collate(batch)
    return X.reshape(-1, 8, 8).flip(-1).flatten(1), y


def test_augmented_examples_are_shown_to_the_teacher_too(digits, trained):
    # All mirrored by the collate function, or beforehand: the same student.
    X, y = digits
    net = smooth_student(iterator_train__collate_fn=mirrored)
    assert may_augment(net)
    turned = np.ascontiguousarray(X.reshape(-1, 8, 8)[:, :, ::-1]).reshape(X.shape)
    found = distiller(trained, student=net, kd_weight=1.0).fit(X, y)
    want = distiller(trained, student=smooth_student(), kd_weight=1.0).fit(turned, y)
    np.testing.assert_allclose(found.predict_proba(X), want.predict_proba(X), atol=1e-5)
