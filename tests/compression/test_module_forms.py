"""What the compressors and the translator do with modules that are not plain."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sklcomp.compression import (
    DataFreeDistiller,
    DataFreeRecipe,
    FeatureEmbeddingDistiller,
)
from sklcomp.nn import count_parameters
from sklcomp.training._lesson import Teacher
from sklcomp.translation import CycleGANTranslator
from tests.helpers.recipes import evolutionary_pruner

rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, size=(40, 1, 8, 8)).astype(np.float32)
y = (X.mean((1, 2, 3)) > 0).astype(int)


def plain(n_filters=6):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, n_filters, 3),
        nn.BatchNorm2d(n_filters),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36 * n_filters, 2),
    ).eval()


def classifier(module):
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        verbose=0,
        max_epochs=1,
        lr=1e-3,
    )


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(plain())


def exported():
    return torch.export.export(plain(), (torch.from_numpy(X[:2]),)).module()


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))


USES = {
    "pruner": lambda module: evolutionary_pruner(classifier(module), max_params=0.5),
    "student of features": lambda module: FeatureEmbeddingDistiller(
        classifier(module), plain()
    ),
    "student without data": lambda module: DataFreeDistiller(
        classifier(module), plain(), input_shape=(1, 8, 8), input_range=(-1, 1)
    ),
    "generator": lambda module: CycleGANTranslator(generator=module, max_epochs=1),
    "discriminator": lambda module: CycleGANTranslator(
        discriminator=module, max_epochs=1
    ),
}
TEACHES = {
    "teacher of features": lambda module: FeatureEmbeddingDistiller(
        classifier(plain(3)), module
    ),
    "teacher without data": lambda module: DataFreeDistiller(
        classifier(plain(3)), module, input_shape=(1, 8, 8), input_range=(-1, 1)
    ),
}
CURES = {
    scripted: "hand over the module that was scripted",
    exported: "hand over the module that was exported",
    quantised: "hand over the network of floats",
    lazy: "run it once on an example",
}


def fit(estimator):
    if isinstance(estimator, DataFreeDistiller):
        return estimator.fit()
    return estimator.fit(X, X if isinstance(estimator, CycleGANTranslator) else y)


@pytest.mark.parametrize("make", CURES)
@pytest.mark.parametrize("use", USES)
def test_what_cannot_learn_is_refused_with_the_cure(use, make):
    with pytest.raises(ValueError, match=CURES[make]):
        fit(USES[use](make()))


@pytest.mark.parametrize("make", [exported, lazy])
@pytest.mark.parametrize("use", TEACHES)
def test_what_cannot_answer_is_refused_with_the_cure(use, make):
    with pytest.raises(ValueError, match=CURES[make]):
        fit(TEACHES[use](make()))


class Lazy(nn.Sequential):
    """What skorch makes of a class can only be run by us."""

    def __init__(self):
        super().__init__(
            nn.LazyConv2d(6, 3),
            nn.LazyBatchNorm2d(),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(2),
        )


def test_class_with_lazy_layers_is_run_before_it_learns():
    pruner = evolutionary_pruner(
        classifier(Lazy),
        max_params=0.5,
        population_size=4,
        n_generations=1,
        finetune=False,
    ).fit(X, y)
    assert 0 < len(pruner.kept_channels_["0"]) < 6
    distiller = FeatureEmbeddingDistiller(classifier(Lazy), plain()).fit(X, y)
    assert distiller.predict_proba(X).shape == (40, 2)


def compiled():
    return torch.compile(plain(), backend="eager")


def with_compiled_part():
    module = plain()
    module[0] = torch.compile(module[0], backend="eager")
    return module


@pytest.mark.filterwarnings("ignore")  # of torch, while it compiles
@pytest.mark.parametrize("make", [compiled, with_compiled_part])
@pytest.mark.parametrize("is_fitted", [False, True])
def test_compiled_net_is_pruned_as_what_it_was_made_of(make, is_fitted):
    results = []
    for module in (plain(), make()):
        net = classifier(module)
        if is_fitted:
            net = FrozenEstimator(net.fit(X, y))
        pruner = evolutionary_pruner(
            net,
            max_params=0.5,
            population_size=4,
            n_generations=1,
            finetune=False,
            random_state=0,
        ).fit(X, y)
        results.append(pruner)
    one, two = results
    assert two.kept_channels_.keys() == one.kept_channels_.keys() == {"0", "4"}
    assert count_parameters(two.module_) == count_parameters(one.module_)
    assert type(two.module_) is nn.Sequential
    assert not any("_orig_mod" in name for name in two.module_.state_dict())
    np.testing.assert_allclose(two.predict_proba(X), one.predict_proba(X), atol=1e-4)


def answers(teacher, **settings):
    distiller = DataFreeDistiller(
        classifier(plain(3)),
        teacher,
        input_shape=(1, 8, 8),
        input_range=(-1, 1),
        n_iterations=3,
        random_state=0,
        **settings,
    ).fit()
    assert distiller.n_iter_ == 3
    return distiller.predict_proba(X)


@pytest.mark.filterwarnings("ignore")
def test_compiled_teacher_teaches_like_a_plain_one():
    want = answers(plain())
    for make in (compiled, with_compiled_part):
        np.testing.assert_allclose(answers(make()), want, atol=1e-3)


def test_scripted_teacher_answers_like_a_plain_one():
    # Its norms and features are out of sight.
    x = torch.from_numpy(X)
    one, two = (
        Teacher(module, None, True, x, "cpu").answer_all(x)[1]
        for module in (plain(), scripted())
    )
    torch.testing.assert_close(one, two)
    answers(scripted(), recipe=DataFreeRecipe(feature_weight=0))
