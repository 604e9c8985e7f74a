"""Features and answers of the examples, whatever a network makes of them."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from torch import nn

from sklcomp.compression import _embedding
from tests.helpers.iris import X, mlp, net, seeded, y


class Parts(nn.Module):
    """Layers whose first axis is not the examples, and others without features."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Linear(1, 2)
        self.times = nn.LSTM(2, 3)
        self.mean = nn.Flatten(0)
        self.words = Words()
        self.output = nn.Linear(12, 3)

    def forward(self, x):
        patches = self.patches(x.reshape(-1, 1))
        times, _ = self.times(patches.reshape(len(x), 4, 2).transpose(0, 1))
        self.mean(x.mean(1))
        self.words(x)
        return self.output(times.transpose(0, 1).flatten(1))


class Words(nn.Module):
    def forward(self, x):
        return "no tensor"


@pytest.mark.parametrize("whose", ["teacher", "student"])
@pytest.mark.parametrize(("layer", "found"), [
    ("patches", r"features of shape \(128, 2\)"),
    ("times", r"features of shape \(4, 32, 3\)"),
    ("mean", r"features of shape \(32,\)"), ("words", "no tensor"),
])  # fmt: skip
def test_features_must_be_of_the_examples(distil, whose, layer, found):
    module = seeded(Parts)
    given = {"teacher": module, "student": net(module)}[whose]
    message = rf"layer '{layer}' of Parts gives {found}. Expected \(32 examples, n_fea"
    with pytest.raises(ValueError, match=message):
        distil(**{whose: given, f"{whose}_layer": layer})


def test_layers_before_the_last_may_work_on_patches(distil):
    distiller = distil(net(seeded(Parts)), seeded(Parts))
    assert distiller.embed(X)[0].shape == (len(X), 12)


def test_training_score_is_of_rows_from_everywhere(distil, monkeypatch):
    monkeypatch.setattr(_embedding, "N_SCORED", 50)
    order = np.argsort(y)
    distiller = distil(X=X[order], y=y[order])
    some = order[np.linspace(0, len(X) - 1, 50, dtype=int)]
    assert len(np.unique(some)) == 50
    want = accuracy_score(y[some], distiller.predict(X[some]))
    assert distiller.report_.after["training score"] == pytest.approx(want)


class Half(nn.Sequential):
    def forward(self, x):
        return super().forward(x.bfloat16())


def test_teacher_of_bfloat16(distil, trained_on_iris, tmp_path):
    teacher = Half(*seeded(lambda: mlp(8))).bfloat16()
    teacher.load_state_dict(trained_on_iris.module_.state_dict())
    kept = {"checkpoint": tmp_path, "warm_start": True}
    half = distil(teacher=teacher, kd_weight=1.0, **kept)
    whole = distil(kd_weight=1.0)
    for name in ("embedding", "kd"):
        np.testing.assert_allclose(half.history_[name], whole.history_[name], rtol=0.05)
    np.testing.assert_allclose(half.embed(X)[0], whole.embed(X)[0], atol=0.05)
    before, after = (one.report_.before["training score"] for one in (half, whole))
    assert before == pytest.approx(after, abs=0.1)


def test_answers_do_not_change_the_examples(distil):
    copy = X.copy()
    teacher = nn.Sequential(nn.ReLU(inplace=True), seeded(lambda: nn.Linear(4, 3)))
    distiller = distil(teacher=teacher, X=copy, kd_weight=1.0)
    distiller.embed(copy)
    np.testing.assert_array_equal(copy, X)
