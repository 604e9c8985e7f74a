"""Teachers of any kind, and what their classes are."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklcomp.compression import DataFreeDistiller
from tests.helpers.data_free import distiller, early, student
from tests.helpers.nets import Probabilities, Residual, SlimDense, classifier


@early
def test_an_unfitted_teacher_is_trained_first(digits):
    X, y = digits
    names = np.array(["zero", "one", "two"])
    rows = y < 3
    fitted = DataFreeDistiller(
        student(SlimDense),
        classifier(max_epochs=10),
        n_iterations=40,
        random_state=0,
        input_mean=X.mean(axis=0),
        input_std=X.std(axis=0) + 0.01,
    ).fit(X[rows], names[y[rows]])
    assert fitted.classes_.tolist() == ["one", "two", "zero"]
    assert fitted.score(X[rows], names[y[rows]]) > 0.9
    assert fitted.agreement_score(X[rows]) > 0.9
    assert fitted.teacher_.output.weight.shape == (3, 24)
    with pytest.raises(ValueError, match="the teacher is not trained, so X and y"):
        DataFreeDistiller(student(), classifier()).fit()
    with pytest.raises(ValueError, match="requires y to be passed"):
        DataFreeDistiller(student(), classifier()).fit(X)


def test_classes_of_a_trained_teacher(digits, trained):
    X, _ = digits
    letters = np.array(list("abcdefghij"))
    fitted = distiller(trained, classes=letters).fit()
    same = distiller(trained).fit()
    np.testing.assert_array_equal(fitted.predict(X), letters[same.predict(X)])
    with pytest.raises(ValueError, match="classes has 3 entries, the teacher 10"):
        distiller(trained, classes=[0, 1, 2]).fit()


def test_some_classes_of_y_are_enough(digits):
    X, y = digits
    names = np.array([f"class {k}" for k in range(10)])[y]
    torch.manual_seed(0)
    net = classifier(Residual, max_epochs=1).fit(X, y)
    net.classes = np.unique(names)
    rows = y != 3
    fitted = distiller(net).fit(X[rows], names[rows])
    assert fitted.classes_.tolist() == np.unique(names).tolist()
    with pytest.raises(ValueError, match=r"y has 2 classes, .* has 10 outputs"):
        distiller(net.module_).fit(X, np.where(y > 4, "large", "small"))


class Scripted(nn.Module):
    """Answers without any layer that can be seen."""

    def __init__(self, module):
        super().__init__()
        example = torch.zeros(2, 1, 8, 8)
        self.inner = torch.jit.trace(module.eval(), example, check_trace=False)

    def forward(self, x):
        return self.inner(x)


class Detached(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.inner = module

    def forward(self, x):
        return self.inner(x).detach()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_teachers_that_show_less(trained):
    module = Scripted(trained.module_)
    with pytest.warns(UserWarning, match=r"teacher shows no features.*feature_weight"):
        fitted = distiller(module, feature_weight=0.3).fit()
    assert fitted.recipe_.feature_weight == 0
    with pytest.raises(ValueError, match=r"no gradients .*structured_noise"):
        distiller(Detached(trained.module_)).fit()
    fitted = distiller(Detached(trained.module_), synthesis="structured_noise").fit()
    assert fitted.history_.keys() == {"kd", "classes"}


def test_teachers_that_cannot_be_used(digits, trained):
    X, y = digits
    with pytest.raises(ValueError, match="the teacher has 1 output; give one with"):
        distiller(nn.Sequential(nn.Flatten(), nn.Linear(64, 1))).fit()
    with pytest.raises(ValueError, match="and classes=None"):
        DataFreeDistiller(
            student(SlimDense), classifier(max_epochs=1), classes=np.arange(10)
        ).fit(X, y)
    with pytest.raises(ValueError, match="10 outputs for 3 classes of y"):
        DataFreeDistiller(
            student(SlimDense), classifier(max_epochs=1, module__n_classes=10)
        ).fit(X[y < 3], y[y < 3])
    detached = distiller(Detached(trained.module_), synthesis="structured_noise").fit()
    with pytest.raises(ValueError, match="no gradients"):
        detached.data_free_score()
    with pytest.raises(ValueError, match="n=0: ask for at least one"):
        detached.sample(0)


def test_probabilities_are_seen_as_such(digits, plain):
    X, _ = digits
    plain = copy.deepcopy(plain)
    with torch.no_grad():  # no probability is so small that it is cut
        plain.output.weight /= 4
        plain.output.bias /= 4
    probable = Probabilities(n_features=64, n_classes=10)
    probable.load_state_dict(plain.state_dict())
    settings = {"input_shape": (64,), "student": student(SlimDense)}
    fits = [
        distiller(module, from_logits=logits, temperature=1.0, **settings).fit()
        for module, logits in ((plain, "auto"), (probable, "auto"), (probable, False))
    ]
    for other in fits[1:]:
        for name in ("kd", "adversarial"):
            np.testing.assert_allclose(
                other.history_[name], fits[0].history_[name], rtol=0.03
            )
    misled = distiller(probable, from_logits=True, temperature=1.0, **settings).fit()
    assert misled.history_["kd"][0] < 0.5 * fits[0].history_["kd"][0]


class Answering(nn.Module):
    """No weights of its own, and features beside the scores."""

    def __init__(self, net):
        super().__init__()
        self.ask = [net.module_.eval()]

    def forward(self, x):
        scores = self.ask[0](x)
        return scores, x.flatten(1)


class Reading(nn.Module):
    """The forward reads an attribute of a layer."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.hidden = nn.Linear(64, 6)
        self.output = nn.Linear(6, n_classes)

    def forward(self, x):
        return self.output(self.hidden(x.reshape(-1, self.hidden.in_features)).relu())


def test_nets_that_are_written_otherwise(digits, trained):
    X, y = digits
    with pytest.warns(UserWarning, match="hardly any|shows no features"):
        fitted = distiller(
            Answering(trained),
            student=classifier(Reading),
            activation_weight=0.1,
            n_iterations=10,
        ).fit()
    assert fitted.report_.before["parameters"] == 0
    assert type(fitted.module_.hidden) is nn.Linear
    assert fitted.agreement_score(X) == (fitted.predict(X) == trained.predict(X)).mean()
