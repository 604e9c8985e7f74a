import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit

from sklcomp.compression import FeatureEmbeddingDistiller
from sklcomp.nn import LocalityPreservingLoss, count_parameters, kd_loss
from tests.helpers.embedding import distiller, student
from tests.helpers.nets import (
    DenseRegression,
    Probabilities,
    Residual,
    SlimDense,
    Stop,
    Viewing,
    classifier,
    regressor,
)
from tests.helpers.recipes import evolutionary_pruner


@parametrize_with_checks(
    [
        FeatureEmbeddingDistiller(
            regressor(module__dtype=torch.float64),
            regressor(module__dtype=torch.float64),
            kd_weight=0.5,
            random_state=0,
        )
    ],
    xfail_strict=True,
)
def test_scikit_learn_checks_of_a_regressor(estimator, check):
    check(estimator)


def penultimate(module, X):
    seen = []
    handle = module.output.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    output = module(X)
    handle.remove()
    return seen[0], output


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_fit_is_the_loop_that_the_equation_says(digits, trained, is_cached, clip):
    # The last batch is half as large.
    X, y = (torch.from_numpy(array[:80]) for array in digits)
    module = Residual(width=4)
    module.drop.p = 0.0
    net = classifier(
        copy.deepcopy(module), optimizer=torch.optim.SGD, lr=0.1, max_epochs=3
    )
    fitted = distiller(
        trained,
        student=net,
        gamma=0.3,
        kd_weight=0.7,
        temperature=2.0,
        clip_grad_norm=clip,
        cache_teacher=is_cached,
        n_neighbors=3,
    ).fit(X.numpy(), y.numpy())

    teacher = copy.deepcopy(trained.module_).eval()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    locality = LocalityPreservingLoss(3)
    losses = []
    for _ in range(3):
        for rows in torch.arange(80).split(32):
            with torch.no_grad():
                features, scores = penultimate(teacher, X[rows])
            own, output = penultimate(module.train(), X[rows])
            terms = [
                torch.nn.functional.cross_entropy(output, y[rows]),
                locality(own, features),
                kd_loss(output, scores, 2.0),
            ]
            optimizer.zero_grad()
            (terms[0] + 0.3 * terms[1] + 0.7 * terms[2]).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            losses.append([term.item() for term in terms])
    for found, want in zip(
        fitted.module_.parameters(), module.parameters(), strict=True
    ):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    means = np.average(np.reshape(losses, (3, 3, 3)), axis=1, weights=[32, 32, 16]).T
    for name, want in zip(("task", "embedding", "kd"), means, strict=True):
        np.testing.assert_allclose(fitted.history_[name], want, rtol=1e-3)


def test_without_weights_it_is_plain_training(digits, trained):
    X, y = digits
    fitted = distiller(trained, gamma=0.0, clip_grad_norm=None).fit(X, y)
    torch.manual_seed(np.random.RandomState(0).randint(2**31 - 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = student().set_params(module__n_classes=10).fit(X, y)
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(fitted.predict_proba(X), plain.predict_proba(X))
    assert list(fitted.history_) == ["task"]


def test_embedding_draws_neighbors_together(digits, trained):
    X, y = digits
    teacher = penultimate(trained.module_.eval(), torch.from_numpy(X))[0].detach()
    losses = []
    for gamma in (0.0, 0.1):
        module = distiller(trained, gamma=gamma, student=student(max_epochs=10))
        module = module.fit(X, y).module_
        own = penultimate(module, torch.from_numpy(X))[0].detach()
        losses.append(float(LocalityPreservingLoss()(own, teacher)))
    assert 0 < losses[1] < 0.8 * losses[0]


def test_what_comes_out_is_a_plain_net(digits, trained):
    X, y = digits
    fitted = distiller(trained, kd_weight=1.0).fit(X, y)
    net = fitted.estimator_
    assert type(net) is NeuralNetClassifier
    assert fitted.student_ is net
    assert fitted.module_ is net.module_
    assert not fitted.module_.training
    for module in (net.module_, trained.module_):
        for part in module.modules():
            assert not part._forward_hooks
            assert not part._forward_pre_hooks
    np.testing.assert_array_equal(fitted.predict(X), net.predict(X))
    # Nothing of this library, and none of the teacher's weights, in what is saved.
    saved = pickle.dumps(net)
    assert b"sklcomp" not in saved
    plain = student().set_params(module__n_classes=10).fit(X, y)
    assert len(saved) < 1.1 * len(pickle.dumps(plain))
    # It can be trained on, as any net.
    assert len(net.partial_fit(X, y).history) == 6


def test_report_is_teacher_before_student_after(digits, trained):
    X, y = digits
    fitted = distiller(trained, student=student(max_epochs=10)).fit(X, y)
    before, after = fitted.report_.before, fitted.report_.after
    assert before["parameters"] == count_parameters(trained.module_)
    assert after["parameters"] == count_parameters(fitted.module_)
    assert before["training score"] == pytest.approx(trained.score(X, y))
    assert after["training score"] == pytest.approx(fitted.score(X, y))
    net = student(train_split=ValidSplit(5))
    fitted = distiller(trained, student=net).fit(X, y)
    assert fitted.report_.after["score"] == pytest.approx(
        fitted.estimator_.history[-1, "valid_acc"]
    )


@pytest.mark.parametrize("kind", ["frozen", "module"])
def test_teacher_data_and_generators_stay_untouched(digits, kind):
    X, y = (array.copy() for array in digits)
    net = classifier(Residual, max_epochs=1).fit(X, y)
    for array in (X, y):
        array.setflags(write=False)
    module = net.module_.train()
    module.zero_grad()
    next(module.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in module.parameters()]
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    FeatureEmbeddingDistiller(
        student(),
        module if kind == "module" else FrozenEstimator(net),
        kd_weight=1.0,
        random_state=0,
    ).fit(X, y)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(
        numpy_state,
        np.random.get_state()[1],  # noqa: NPY002
    )
    assert all(part.training for part in module.modules())
    assert flags == [p.requires_grad for p in module.parameters()]
    assert all(p.grad is None for p in module.parameters())
    after = module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    np.testing.assert_array_equal(X, digits[0])


def test_layers_by_name(digits, trained):
    X, y = (array[:200] for array in digits)

    def answer(teacher_layer="penultimate", student_layer="penultimate"):
        fitted = distiller(
            trained, teacher_layer=teacher_layer, student_layer=student_layer
        )
        return fitted.fit(X, y).predict_proba(X)

    # What the dropout gives is what the last Linear takes.
    default = answer()
    np.testing.assert_array_equal(answer("drop", "drop"), default)
    others = [
        answer("stem"),
        answer(student_layer="stem"),
        answer(student_layer="outer"),
    ]
    for k, other in enumerate(others):
        assert all(np.abs(other - each).max() > 1e-4 for each in [default, *others[:k]])


def test_networks_of_other_kinds(digits, trained):
    X, y = digits
    # Probabilities on either side, flat rows against images, a pruned net as teacher.
    probable = classifier(Probabilities, criterion=torch.nn.NLLLoss, lr=0.01)
    fitted = FeatureEmbeddingDistiller(
        probable, FrozenEstimator(trained), kd_weight=0.5, random_state=0
    ).fit(X, y)
    assert fitted.score(X, y) > 0.9
    pruner = evolutionary_pruner(
        FrozenEstimator(trained),
        max_params=0.9,
        finetune=False,
        population_size=2,
        n_generations=0,
        n_polish_steps=0,
        elitism=1,
        random_state=0,
    ).fit(X, y)
    for teacher in (pruner, fitted):
        taught = distiller(teacher, kd_weight=1.0, student=student(max_epochs=6))
        assert taught.fit(X, y).score(X, y) > 0.3
    images = X.reshape(-1, 1, 8, 8)
    view = FeatureEmbeddingDistiller(
        classifier(Viewing, max_epochs=3), FrozenEstimator(trained)
    ).fit(images, y)
    assert view.score(images, y) > 0.8


def test_strings_and_an_unfitted_teacher(digits):
    X, y = digits
    names = np.array(["zero", "one", "two"])
    rows = y < 3
    fitted = FeatureEmbeddingDistiller(
        classifier(SlimDense), classifier(), random_state=0
    ).fit(X[rows], names[y[rows]])
    assert fitted.classes_.tolist() == ["one", "two", "zero"]
    assert fitted.score(X[rows], names[y[rows]]) > 0.95
    assert fitted.teacher_.output.weight.shape == (3, 24)


def test_a_class_that_is_not_in_y(digits, trained):
    X, y = digits
    rows = y != 4
    net = student(max_epochs=12, module__width=6)
    fitted = distiller(trained, kd_weight=2.0, student=net)
    fitted.fit(X[rows], y[rows])
    assert fitted.predict_proba(X).shape == (len(X), 10)
    assert fitted.score(X, y) > 0.7


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_regression(n_outputs):
    X, y = load_diabetes(return_X_y=True)
    X, y = scale(X), scale(y)
    Y = y if n_outputs == 1 else np.column_stack([y, -2 * y])
    fitted = FeatureEmbeddingDistiller(
        regressor(module__width=6), regressor(), kd_weight=0.5, random_state=0
    ).fit(X, Y)
    assert fitted.predict(X).shape == Y.shape
    assert fitted.score(X, Y) > 0.4
    assert not hasattr(fitted, "predict_proba")


def test_distillation_of_a_regression_is_the_mean_squared_difference():
    X, y = load_diabetes(return_X_y=True)
    X, Y = scale(X).astype(np.float32), np.column_stack([y, -y])
    first, teacher = (DenseRegression(10, 2, width) for width in (6, 24))
    # In the first step the student is what it was.
    net = regressor(first, batch_size=-1, max_epochs=1, callbacks=None)
    fitted = FeatureEmbeddingDistiller(net, teacher, kd_weight=0.5).fit(X, Y)
    with torch.no_grad():
        gap = first(torch.from_numpy(X)) - teacher(torch.from_numpy(X))
    expected = float(gap.square().mean())
    assert fitted.history_["kd"].tolist() == pytest.approx([expected])


def test_pipeline_grid_search_and_pickle(digits):
    X, y = digits
    model = make_pipeline(
        MinMaxScaler(),
        FeatureEmbeddingDistiller(
            classifier(SlimDense, max_epochs=2),
            classifier(max_epochs=2),
            random_state=0,
        ),
    )
    grid = {
        "featureembeddingdistiller__gamma": [0.0, 0.1],
        "featureembeddingdistiller__student__lr": [0.01, 0.03],
    }
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    with pytest.raises(NotFittedError):
        clone(search.best_estimator_[-1]).predict(X)


class Ask(Stop):
    """Asks to stop, and does not interrupt."""

    def on_fit_task_end(self, estimator, context, **_):
        self.after -= 1
        return not self.after


def test_callbacks_of_scikit_learn_and_of_skorch_stop(digits, trained):
    X, y = digits
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=10.0, sink=repr)
    net = student(max_epochs=9).set_params(callbacks=[stop])
    assert distiller(trained, student=net).fit(X, y).n_iter_ == 3
    asked = distiller(trained, student=student(max_epochs=9)).set_callbacks(Ask(2))
    fitted = distiller(trained, student=student(max_epochs=2)).fit(X, y)
    assert asked.fit(X, y).n_iter_ == 2
    np.testing.assert_array_equal(asked.predict_proba(X), fitted.predict_proba(X))


class Exploding(NeuralNetClassifier):
    """The loss is infinite from the fourth epoch on."""

    def get_loss(self, *args, **kwargs):
        loss = super().get_loss(*args, **kwargs)
        return loss / 0 if len(self.history) > self.after else loss

    after = 3


def test_late_infinite_loss_keeps_the_best_epoch(digits, trained):
    X, y = digits
    settings = student(max_epochs=6).get_params(deep=False)
    with pytest.warns(ConvergenceWarning, match="the task loss became inf in epoch 4"):
        fitted = distiller(trained, student=Exploding(**settings)).fit(X, y)
    best = 1 + int(
        np.argmin(fitted.history_["task"] + 0.03 * fitted.history_["embedding"])
    )
    net = student(max_epochs=best)
    want = distiller(trained, student=net).fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), want.predict_proba(X))
    assert fitted.n_iter_ == 3


def test_early_infinite_loss_is_an_error(digits, trained):
    wild = classifier(SlimDense, module__n_classes=10, lr=1e30)
    distilled = distiller(trained, student=wild, clip_grad_norm=None)
    with pytest.raises(ValueError, match=r"in epoch 1; choose a smaller lr"):
        distilled.fit(*digits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_layer": "stm"}, "teacher_layer='stm' is no layer of Residual; it"),
        ({"student_layer": "stm"}, "student_layer='stm' is no layer of Residual; it"),
        ({"student": LogisticRegression()}, "'student' parameter"),
        ({"gamma": -1.0}, "'gamma' parameter"),
        ({"sigma": 0.0}, "'sigma' parameter"),
        ({"student": classifier(Viewing)}, r"student Viewing cannot take X of shape"),
        (
            {"student": student(module__n_classes=9)},
            "student has 9 outputs for 10 classes",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_bad_settings(digits, trained, settings, message):
    with pytest.raises(ValueError, match=message):
        distiller(trained, **settings).fit(*digits)


def test_nets_that_cannot_be_used(digits, trained):
    X, y = digits
    with pytest.raises(ValueError, match=r"teacher is a fitted .*FrozenEstimator"):
        FeatureEmbeddingDistiller(student(), trained).fit(X, y)
    with pytest.raises(
        ValueError, match=r"student is a fitted .*clone\(net\) for that"
    ):
        distiller(trained, student=trained).fit(X, y)
    with pytest.raises(ValueError, match="inside FrozenEstimator is not fitted"):
        distiller(clone(trained)).fit(X, y)
    with pytest.raises(ValueError, match="y has 11 classes, .* has 10 outputs"):
        distiller(trained).fit(X, np.arange(len(y)) % 11)
    with pytest.raises(ValueError, match="is the input of the last Linear"):
        FeatureEmbeddingDistiller(
            student(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
        ).fit(X[:, :10], y)


def test_graphs_that_say_nothing_are_warned_of(digits, trained):
    X, y = digits
    net = student(batch_size=4, max_epochs=1)
    with pytest.warns(UserWarning, match="batch_size=4 .* n_neighbors=5"):
        distiller(trained, student=net).fit(X[:50], y[:50])
    with pytest.warns(UserWarning, match=r"sigma=0.01 is so small"):
        distiller(trained, sigma=0.01).fit(X[:100], y[:100])


def test_last_batch_of_one(digits, trained):
    X, y = digits
    for n_rows in (33, 65):
        fitted = distiller(trained, kd_weight=1.0).fit(X[:n_rows], y[:n_rows])
        assert np.isfinite(fitted.predict_proba(X)).all()


def test_regression_module_named_outputs():
    X, y = load_diabetes(return_X_y=True)
    fitted = FeatureEmbeddingDistiller(
        regressor(DenseRegression, module__width=4, max_epochs=1),
        regressor(max_epochs=1),
    ).fit(scale(X), np.column_stack([y, y]))
    assert fitted.teacher_.output.out_features == 2


def test_fitting_often_leaves_nothing_behind(digits, trained):
    X, y = digits
    for layer in ("penultimate", "outer"):
        model = distiller(
            trained,
            student=student(max_epochs=1),
            kd_weight=1.0,
            teacher_layer=layer,
            student_layer=layer,
        )
        for _ in range(3):
            model.fit(X[:64], y[:64]).embed(X[:2])
            for module in (model.module_, model.teacher_, trained.module_):
                for part in module.modules():
                    assert not part._forward_hooks
                    assert not part._forward_pre_hooks
