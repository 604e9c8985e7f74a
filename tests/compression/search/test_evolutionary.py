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

from sklcomp.nn import count_macs, count_parameters
from sklcomp.training._nets import OutputKind
from tests.helpers.nets import Probabilities, Residual, Viewing, classifier, regressor
from tests.helpers.recipes import QUICK, evolutionary_pruner


@pytest.fixture(scope="module")
def pruned(digits, trained):
    return evolutionary_pruner(FrozenEstimator(trained), max_params=0.4, **QUICK).fit(
        *digits
    )


@parametrize_with_checks(
    [evolutionary_pruner(regressor(module__dtype=torch.float64, max_epochs=30),
                        max_params=0.5, population_size=4, n_generations=2,
                        n_polish_steps=2, finetune_epochs=8)],
    xfail_strict=True,
)  # fmt: skip
def test_scikit_learn_checks_of_a_regressor(estimator, check):
    check(estimator)


def test_budget_and_report_are_those_of_the_net(pruned, trained):
    full, small = trained.module_, pruned.module_
    assert count_parameters(small) <= 0.4 * count_parameters(full)
    for side, module in ((pruned.report_.before, full), (pruned.report_.after, small)):
        assert side["parameters"] == count_parameters(module)
        assert side["MACs"] == count_macs(module, (64,))
        assert side["bytes"] > 4 * side["parameters"]
        assert side["latency / ms"] > 0
    frame = pruned.report_.to_frame()
    assert frame.loc["parameters", "after / before"] == pruned.report_.ratio(
        "parameters"
    )
    assert "parameters" in repr(pruned.report_)
    assert "<table>" in pruned.report_._repr_html_()


def test_what_comes_out_is_a_plain_net(pruned, trained, digits):
    net = pruned.estimator_
    assert type(net) is NeuralNetClassifier
    assert type(pruned.module_) is Residual
    assert pruned.module_ is net.module_
    assert not any(
        m._forward_hooks or m._forward_pre_hooks for m in net.module_.modules()
    )
    X, y = digits
    np.testing.assert_array_equal(pruned.predict(X), net.predict(X))
    np.testing.assert_array_equal(pruned.predict_proba(X), net.predict_proba(X))
    assert net.score(X, y) == pruned.score(X, y)
    assert set(vars(net)) <= set(vars(trained)) | {"classes_inferred_"}


def test_kept_channels_are_those_of_the_tensors(pruned, trained):
    for layer, kept in pruned.kept_channels_.items():
        assert len(pruned.module_.get_submodule(layer).weight) == len(kept)
        assert len(trained.module_.get_submodule(layer).weight) >= len(kept) > 0
    assert len(pruned.kept_channels_["output"]) == 10
    np.testing.assert_array_equal(
        pruned.kept_channels_["stem"], pruned.kept_channels_["outer"]
    )
    together = pruned.best_individual_[pruned.graph_.genes_of("stem")]
    np.testing.assert_array_equal(
        np.flatnonzero(together), pruned.kept_channels_["stem"]
    )


def test_teacher_data_and_generators_stay_untouched(digits):
    X, y = (array.copy() for array in digits)
    net = classifier(Residual, max_epochs=2).fit(X, y)
    for array in (X, y):
        array.setflags(write=False)
    net.module_.train()
    before = copy.deepcopy(net.module_.state_dict())
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    evolutionary_pruner(FrozenEstimator(net), max_macs=0.5, n_threads=2, **QUICK).fit(
        X, y
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert all(part.training for part in net.module_.modules())
    after = net.module_.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    np.testing.assert_array_equal(X, digits[0])


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_same_seed_same_net(digits, trained, n_jobs, recipe):
    X, y = digits
    nets = [
        evolutionary_pruner(
            FrozenEstimator(trained),
            max_params=0.5,
            recipe=recipe,
            n_jobs=jobs,
            **QUICK,
        ).fit(X, y)
        for jobs in (None, n_jobs)
    ]
    np.testing.assert_array_equal(nets[0].predict_proba(X), nets[1].predict_proba(X))
    np.testing.assert_array_equal(
        nets[0].pareto_front_["genomes"], nets[1].pareto_front_["genomes"]
    )


def test_nothing_removed_is_the_net_itself(digits, trained):
    X, y = digits
    pruner = evolutionary_pruner(
        FrozenEstimator(trained),
        max_params=1.0,
        finetune=False,
        compensate=False,
        **QUICK,
    ).fit(X, y)
    assert pruner.best_individual_.all()
    assert pruner.best_fitness_ == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(
        pruner.predict_proba(X), trained.predict_proba(X), atol=1e-6
    )
    assert pruner.report_.ratio("parameters") == 1


def test_front_is_not_dominated_and_at_reads_it(pruned, digits):
    front = pruned.pareto_front_
    sizes, fitness = front["n_parameters"], front["fitness"]
    macs = front["n_macs"]
    assert len(sizes) >= 3
    for k in range(len(sizes)):
        as_good = (sizes <= sizes[k]) & (macs <= macs[k]) & (fitness >= fitness[k])
        better = (sizes < sizes[k]) | (macs < macs[k]) | (fitness > fitness[k])
        assert not (as_good & better).any()
    whole = pruned.report_.before["parameters"]
    net = pruned.at(max_params=0.6)
    assert count_parameters(net.module_) <= 0.6 * whole
    assert net.predict(digits[0]).shape == (900,)
    net = pruned.at(max_macs=int(macs[1]))
    assert count_macs(net.module_, (64,)) <= macs[1]
    with pytest.raises(ValueError, match=r"max_params=0.0001 is less than .* has seen"):
        pruned.at(max_params=0.0001)


def test_fine_tuning_never_makes_it_worse(digits, trained):
    # A learning rate that destroys the net: the cut one is kept as it was.
    X, y = digits
    wild = classifier(Residual, max_epochs=2, lr=30.0)
    wild.initialize().module_.load_state_dict(trained.module_.state_dict())
    wild.check_data(X, y)
    settings = {"max_params": 0.5, **QUICK}
    with pytest.warns(ConvergenceWarning, match="the fine-tuning made the net worse"):
        tuned = evolutionary_pruner(FrozenEstimator(wild), **settings).fit(X, y)
    plain = evolutionary_pruner(FrozenEstimator(wild), finetune=False, **settings).fit(
        X, y
    )
    np.testing.assert_array_equal(tuned.predict_proba(X), plain.predict_proba(X))


def test_fine_tuning_helps(digits, trained):
    X, y = digits
    settings = QUICK | {"max_params": 0.15, "finetune_epochs": 10}
    tuned = evolutionary_pruner(FrozenEstimator(trained), **settings).fit(X, y)
    plain = evolutionary_pruner(
        FrozenEstimator(trained), finetune=False, **settings
    ).fit(X, y)
    assert tuned.report_.after["training score"] > plain.report_.after["training score"]
    assert len(tuned.estimator_.history) == 10


def test_probabilities_and_logits_are_the_same_task():
    z = torch.randn(7, 3)
    tasks = OutputKind.of_outputs(z.softmax(-1), True), OutputKind.of_outputs(z, True)
    back = tasks[0].logits(z.softmax(-1)).softmax(-1)
    torch.testing.assert_close(back, tasks[1].logits(z).softmax(-1))
    # At temperature T the divergence is T^2 times that of softened outputs.
    teacher, student = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    p, q = (x.div(3).softmax(-1).numpy() for x in (teacher, student))
    want = 9 * (p * np.log(p / q)).sum(axis=1).mean()
    assert float(tasks[1].divergence(teacher, student, 3.0)) == pytest.approx(want)


def test_classifier_of_probabilities_and_strings(digits):
    X, y = digits
    names = np.array(["zero", "one", "two"])
    rows = y < 3
    net = classifier(Probabilities, criterion=torch.nn.NLLLoss, lr=0.01)
    pruner = evolutionary_pruner(net, max_params=0.4, **QUICK).fit(
        X[rows], names[y[rows]]
    )
    assert pruner.classes_.tolist() == ["one", "two", "zero"]
    assert pruner.score(X[rows], names[y[rows]]) > 0.95
    # The module class asked for its number of classes.
    assert pruner.predict_proba(X[:4]).shape == (4, 3)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_regression(n_outputs):
    X, y = load_diabetes(return_X_y=True)
    X, y = scale(X), scale(y)
    Y = y if n_outputs == 1 else np.column_stack([y, -2 * y])
    pruner = evolutionary_pruner(regressor(), max_params=0.3, **QUICK).fit(X, Y)
    assert pruner.predict(X).shape == Y.shape
    assert pruner.score(X, Y) > 0.4
    assert not hasattr(pruner, "predict_proba")
    assert not hasattr(pruner, "classes_")


def test_images_as_arrays(digits):
    X, y = digits
    images = X.reshape(-1, 1, 8, 8)
    pruner = evolutionary_pruner(
        classifier(Residual, max_epochs=4), max_params=0.5, **QUICK
    ).fit(images, y)
    flat = evolutionary_pruner(
        classifier(Residual, max_epochs=4), max_params=0.5, **QUICK
    ).fit(X, y)
    np.testing.assert_array_equal(pruner.predict(images), flat.predict(X))


def test_forward_with_a_view(digits):
    X, y = digits
    images = X.reshape(-1, 1, 8, 8)
    net = classifier(Viewing, max_epochs=4)
    pruner = evolutionary_pruner(net, max_params=0.5, **QUICK).fit(images, y)
    assert pruner.score(images, y) > 0.9
    for parameter in pruner.module_.parameters():
        assert parameter.is_contiguous()


def test_pipeline_grid_search_and_pickle(digits):
    X, y = digits
    model = make_pipeline(
        MinMaxScaler(), evolutionary_pruner(classifier(max_epochs=3), **QUICK)
    )
    grid = {
        "evolutionarypruner__max_params": [0.3, 0.6],
        "evolutionarypruner__estimator__lr": [0.01, 0.03],
    }

    def size(model, X, y):
        return model[-1].report_.ratio("parameters")

    scoring = {"accuracy": "accuracy", "size": size}
    search = GridSearchCV(model, grid, cv=2, scoring=scoring, refit="accuracy")
    results = search.fit(X, y).cv_results_
    budgets = results["param_evolutionarypruner__max_params"].astype(float)
    for fold in ("split0", "split1"):
        assert (results[f"{fold}_test_size"] <= budgets).all()
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    with pytest.raises(NotFittedError):
        clone(search.best_estimator_[-1]).predict(X)


def test_frozen_weights_can_be_tuned(digits, trained):
    net = copy.deepcopy(trained)
    net.module_.requires_grad_(False)
    pruner = evolutionary_pruner(FrozenEstimator(net), max_params=0.5, **QUICK)
    expected = evolutionary_pruner(FrozenEstimator(trained), max_params=0.5, **QUICK)
    X, y = digits
    np.testing.assert_array_equal(
        pruner.fit(X, y).predict_proba(X), expected.fit(X, y).predict_proba(X)
    )
    assert not any(p.requires_grad for p in net.module_.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, 'give a budget, such as max_params=0.3, or take recipe="paper"'),
        ({"max_params": 0.001}, r"max_params=.* cannot be reached.*are left"),
        ({"max_macs": 3}, "max_macs=3 cannot be reached"),
        (
            {"max_params": 0.5, "ignored_layers": ["stm"]},
            "no layer 'stm' makes channels",
        ),
        ({"max_params": 0.5, "elitism": 6}, "elitism=6 of 6 individuals"),
    ],
)
def test_bad_settings(digits, trained, settings, message):
    with pytest.raises(ValueError, match=message):
        evolutionary_pruner(FrozenEstimator(trained), **(QUICK | settings)).fit(*digits)


def test_nets_that_cannot_be_used(digits, trained):
    X, y = digits
    with pytest.raises(ValueError, match=r"is a fitted .*FrozenEstimator\(net\)"):
        evolutionary_pruner(trained, max_params=0.5).fit(X, y)
    with pytest.raises(ValueError, match="inside FrozenEstimator is not fitted"):
        evolutionary_pruner(FrozenEstimator(clone(trained)), max_params=0.5).fit(X, y)
    y = np.where(np.arange(len(y)) % 20 == 0, 10, y)
    with pytest.raises(ValueError, match="y has 11 classes, .* has 10 outputs"):
        evolutionary_pruner(FrozenEstimator(trained), max_params=0.5).fit(X, y)
    with pytest.raises(ValueError, match=r"cannot take X of shape \(n, 63\)"):
        evolutionary_pruner(FrozenEstimator(trained), max_params=0.5).fit(X[:, 1:], y)
    with pytest.raises(ValueError, match="NeuralNet.* Got LogisticRegression"):
        evolutionary_pruner(LogisticRegression(), max_params=0.5).fit(X, y)


def test_a_fold_without_a_class_keeps_the_classes_of_the_net(digits, trained):
    X, y = digits
    rows = y != 4
    pruner = evolutionary_pruner(
        FrozenEstimator(trained), max_params=0.8, finetune=False, **QUICK
    ).fit(X[rows], y[rows])
    assert pruner.classes_.tolist() == list(range(10))
    assert pruner.score(X, y) > 0.9


def test_early_stopping_of_the_net_ends_the_training(digits):
    X, y = digits
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=10.0, sink=repr)
    net = classifier(Residual, max_epochs=9).set_params(callbacks=[stop])
    pruner = evolutionary_pruner(net, max_params=0.5, finetune=False, **QUICK)
    assert len(pruner.fit(X, y).base_estimator_.history) == 3


def test_fitting_often_leaves_nothing_behind(digits, trained):
    X, y = digits
    pruner = evolutionary_pruner(
        FrozenEstimator(trained),
        max_params=0.5,
        finetune=False,
        population_size=2,
        n_generations=1,
        n_polish_steps=0,
        elitism=1,
        random_state=0,
    )
    for _ in range(3):
        pruner.fit(X[:200], y[:200])
        for module in (trained.module_, pruner.module_, pruner._problem.module):
            for part in module.modules():
                assert not part._forward_hooks
                assert not part._forward_pre_hooks


@pytest.mark.parametrize("train_split", [None, ValidSplit(5)])
def test_last_batch_of_one_with_batch_norm(digits, train_split):
    # 4 n + 1 rows for the base, and any number left for the fine-tuning.
    X, y = digits
    for n_rows in (133, 129, 162):
        net = classifier(Residual, max_epochs=1, batch_size=32, train_split=train_split)
        pruner = evolutionary_pruner(net, max_params=0.6, **QUICK)
        pruner.fit(X[:n_rows], y[:n_rows])
        assert type(pruner.estimator_) is NeuralNetClassifier


def test_missing_gpu_and_full_memory_are_named(digits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    net = classifier(Residual, device="cuda")
    with pytest.raises(RuntimeError, match="device='cuda'.*Choose device=\"cpu\""):
        evolutionary_pruner(net, max_params=0.5).fit(*digits)

    class Full(NeuralNetClassifier):
        def get_loss(self, *args, **kwargs):
            raise MemoryError

    net = Full(Residual, criterion=torch.nn.CrossEntropyLoss, batch_size=77, verbose=0)
    pruner = evolutionary_pruner(net, max_params=0.5)
    with pytest.raises(MemoryError, match="batch_size=77; choose a smaller"):
        pruner.fit(*digits)
    with pytest.raises(NotFittedError):
        pruner.predict(digits[0])
