"""What users' nets, splits, callbacks and layers can do to a distillation."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import scale
from skorch import NeuralNetClassifier
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    LRScheduler,
    TrainEndCheckpoint,
)
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import ConcatDataset, Subset
from torch.utils.data import Dataset as TorchDataset

from sklcomp.compression import FeatureEmbeddingDistiller
from sklcomp.inspection import DistillationDisplay
from sklcomp.training._state import settings_of
from tests.helpers.nets import Stop, classifier, regressor

X, y = load_iris(return_X_y=True)
rows = np.random.default_rng(0).permutation(len(X))
X, y = scale(X)[rows].astype(np.float32), y[rows]


def net(width=6, n_outputs=3, relu=None, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(width)
        module = nn.Sequential(
            nn.Linear(4, width), relu or nn.ReLU(), nn.Linear(width, n_outputs)
        )
    settings = {"optimizer": torch.optim.SGD, "lr": 0.1, "max_epochs": 4} | settings
    return classifier(module, **settings)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return net(8, max_epochs=20).fit(X, y)


@pytest.fixture
def distil(trained):
    def distil(student=None, teacher=trained, X=X, y=y, stop=None, **settings):
        if hasattr(teacher, "module_") and not isinstance(teacher, nn.Module):
            teacher = FrozenEstimator(teacher)
        settings = {"random_state": 0} | settings
        distiller = FeatureEmbeddingDistiller(student or net(), teacher, **settings)
        if stop is not None:
            distiller.set_callbacks(stop)
        return distiller.fit(X, y)

    return distil


def assert_same(first, second):
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


def test_classes_are_those_that_the_teacher_knows(distil):
    names = np.array(["a", "b", "c"])[y]
    first = distil(net(8, max_epochs=20), y=names)
    some = names != "b"
    second = distil(net(max_epochs=20), first, X[some], names[some], kd_weight=1.0)
    np.testing.assert_array_equal(second.classes_, ["a", "b", "c"])
    assert second.report_.before["training score"] == pytest.approx(
        first.score(X[some], names[some])
    )
    with pytest.raises(ValueError, match=r"y contains 'd'; .* knows \['a', 'b', 'c'\]"):
        distil(net(), first, y=np.where(some, names, "d"))


def test_validation_on_other_data_is_not_taken_for_rows(distil):
    other = predefined_split(Dataset(X[40:], y[40:]))
    distiller = distil(net(train_split=other), X=X[:40], y=y[:40])
    assert "score" not in distiller.report_.after
    found = distiller.report_.after["training score"]
    assert found == pytest.approx(distiller.score(X[:40], y[:40]))


class Shifted(TorchDataset):
    """All examples of another data set, shifted."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        x, y = self.dataset[i]
        return x + 1, y


@pytest.mark.parametrize("split", [
    lambda dataset, y=None, **_: (Shifted(dataset), None),
    lambda dataset, y=None, **_: (ConcatDataset([dataset, Dataset(X, y)]), None),
], ids=["shifted", "longer"])  # fmt: skip
def test_answers_are_those_of_the_examples_that_are_shown(distil, split):
    settings = {"kd_weight": 1.0, "gamma": 0.0}
    cached = distil(net(train_split=split), **settings)
    asked = distil(net(train_split=split), cache_teacher=False, **settings)
    np.testing.assert_allclose(cached.history_["kd"], asked.history_["kd"], rtol=1e-5)


def test_features_are_those_before_an_operation_in_place(distil):
    plain, in_place = (
        distil(
            net(relu=relu, max_epochs=2),
            teacher_layer="0",
            student_layer="0",
            gamma=0.1,
        )
        for relu in (nn.ReLU(), nn.ReLU(inplace=True))
    )
    np.testing.assert_allclose(
        plain.history_["embedding"], in_place.history_["embedding"], rtol=1e-6
    )
    assert (in_place.embed(X)[1] < 0).any()


@pytest.mark.parametrize("change", [
    {"optimizer": torch.optim.Adam}, {"optimizer__weight_decay": 0.1},
    {"criterion__weight": torch.tensor([1.0, 1.0, 50.0])},
    {"criterion": nn.MultiMarginLoss}, {"train_split": ValidSplit(2)},
    {"callbacks": [LRScheduler(policy="StepLR", step_size=1)]},
], ids=lambda change: next(iter(change)))  # fmt: skip
def test_checkpoint_of_another_fit_is_not_taken_up(distil, tmp_path, change):
    kept = {"checkpoint": tmp_path, "warm_start": True}
    distil(net(), **kept)
    other = net().set_params(**change)
    assert_same(distil(net().set_params(**change), **kept), distil(other))


class Matrix(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.history.record("matrix", np.eye(2))


@pytest.mark.parametrize("callback", [
    LRScheduler(policy="StepLR", step_size=2), LRScheduler(policy="WarmRestartLR"),
    Matrix(),
], ids=["StepLR", "WarmRestartLR", "Matrix"])  # fmt: skip
def test_states_with_values_of_numpy_are_resumed(distil, tmp_path, callback):
    def student():
        return net(lr=np.float64(0.05), callbacks=[callback])

    kept = {"checkpoint": tmp_path, "warm_start": True}
    with pytest.raises(KeyboardInterrupt):
        distil(student(), stop=Stop(2), **kept)
    assert (tmp_path / "training.pt").exists()
    assert_same(distil(student(), **kept), distil(student()))


def test_settings_that_hold_each_other_are_described():
    class Owner:
        def __init__(self, number):
            self.number, self.other = number, self

        def get_params(self, deep):
            return vars(self)

    assert settings_of(Owner(1)) == settings_of(Owner(1)) != settings_of(Owner(2))


def test_resumed_training_knows_its_best_epoch(distil, tmp_path):
    class Explodes(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 4:
                net.optimizer_.param_groups[0]["lr"] = 1e30

    settings = {"checkpoint": tmp_path, "warm_start": True}
    student = net(max_epochs=8, callbacks=[Explodes()])
    with pytest.warns(ConvergenceWarning, match="are kept"):
        whole = distil(student)
    with pytest.raises(KeyboardInterrupt):
        distil(student, stop=Stop(3), **settings)
    with pytest.warns(ConvergenceWarning, match="are kept"):
        resumed = distil(student, **settings)
    assert_same(whole, resumed)


def test_finished_checkpoint_gives_the_same_report(distil, tmp_path):
    settings = {"checkpoint": tmp_path, "warm_start": True}
    first, second = (
        distil(net(train_split=ValidSplit(5)), **settings) for _ in range(2)
    )
    assert first.report_.after["score"] == second.report_.after["score"]


def test_fewer_epochs_than_the_checkpoint_has_begin_anew(distil, tmp_path):
    settings = {"checkpoint": tmp_path, "warm_start": True}
    distil(net(max_epochs=6), **settings)
    short = distil(net(max_epochs=3), **settings)
    assert short.n_iter_ == 3
    assert_same(short, distil(net(max_epochs=3)))


def test_warm_start_needs_a_seed(distil, tmp_path):
    with pytest.raises(ValueError, match="give a number as random_state"):
        distil(checkpoint=tmp_path, warm_start=True, random_state=None)


def test_student_that_diverges_in_its_last_step(distil):
    with pytest.raises(ValueError, match="smaller lr"):
        distil(net(lr=1e30, batch_size=150, max_epochs=1))


def test_diverged_teacher_is_named(distil):
    with pytest.raises(ValueError, match="the teacher has weights that are not finite"):
        distil(net(), net(8, lr=1e30), gamma=0.0)


@pytest.mark.parametrize("callback", [Checkpoint, TrainEndCheckpoint])
def test_callbacks_may_pickle_the_student(distil, tmp_path, callback):
    keeper = callback(f_pickle="net.pkl", dirname=tmp_path)
    distil(net(train_split=ValidSplit(5), callbacks=[keeper]))
    (file,) = tmp_path.glob("*net.pkl")
    assert type(pickle.loads(file.read_bytes())) is NeuralNetClassifier


@pytest.mark.parametrize("name", ["batch_size", "iterator_train__batch_size"])
def test_training_without_a_batch_is_named(distil, name):
    with pytest.raises(ValueError, match="no batch came to the loss"):
        distil(net(iterator_train__drop_last=True, **{name: 256}))


def test_a_batch_of_all_rows(distil, recwarn):
    distil(net(batch_size=-1))
    assert not [w for w in recwarn if "n_neighbors" in str(w.message)]


def test_last_batch_of_one_by_the_size_of_the_iterator(distil):
    module = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)
    )
    distiller = distil(classifier(module, iterator_train__batch_size=149))
    assert "iterator_train__drop_last" not in distiller.estimator_.get_params()


class Spare(nn.Module):
    """A layer that does not run, and one that is called by keyword."""

    def __init__(self):
        super().__init__()
        self.hidden, self.spare = nn.Linear(4, 8), nn.Linear(2, 2)
        self.output = nn.Linear(8, 3)

    def forward(self, x):
        return self.output(input=torch.relu(self.hidden(x)))


def test_layers_that_do_not_run_and_calls_by_keyword(distil):
    assert distil(net(), Spare()).embed(X)[0].shape == (len(X), 8)
    with pytest.raises(ValueError, match="'spare' did not run"):
        distil(net(), Spare(), teacher_layer="spare")
    with pytest.raises(ValueError, match="'spare' did not run"):
        distil(classifier(Spare()), student_layer="spare")


class Answers(nn.Linear):
    def forward(self, x):
        return {"logits": super().forward(x)}


@pytest.mark.parametrize("who", ["student", "teacher", "both"])
def test_probabilities_are_turned_into_logits(distil, trained, who):
    def probable(module):
        return nn.Sequential(*copy.deepcopy(module), nn.Softmax(-1))

    student, teacher = net(), trained.module_
    if who != "teacher":
        own = {"module": probable(student.module), "criterion": nn.NLLLoss}
        student = NeuralNetClassifier(**student.get_params(deep=False) | own)
    if who != "student":
        teacher = probable(teacher)
    found, expected = (
        distil(each, module, kd_weight=1.0)
        for each, module in ((student, teacher), (net(), trained.module_))
    )
    for name, values in expected.history_.items():
        np.testing.assert_allclose(found.history_[name], values, rtol=1e-4)
    np.testing.assert_allclose(
        found.predict_proba(X), expected.predict_proba(X), atol=1e-5
    )


def test_missing_gpu_is_named(distil, trained, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    moved = copy.copy(trained)
    vars(moved)["device"] = "cuda"
    for student, teacher in (
        (net(device="cuda"), trained),
        (net(), net(device="cuda")),
        (net(), moved),
    ):
        with pytest.raises(RuntimeError, match="device='cuda' of NeuralNetClassifier"):
            distil(student, teacher)


class Full(nn.Linear):
    """There is no memory to train it."""

    def forward(self, x):
        if self.training:
            raise torch.OutOfMemoryError
        return super().forward(x)


def test_full_memory_is_named(distil):
    for student, teacher in (
        (classifier(Full(4, 3), batch_size=77), net()),
        (net(), classifier(Full(4, 3), batch_size=77)),
    ):
        with pytest.raises(MemoryError, match="batch_size=77; choose a smaller"):
            distil(student, teacher)


def test_teacher_whose_answer_is_no_tensor(distil):
    with pytest.raises(ValueError, match="gives a dict for 2 examples"):
        distil(net(), Answers(4, 3))


def test_without_features_no_layer_is_needed(distil):
    convolutions = nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 4), nn.Flatten()
    )
    distiller = distil(net(), convolutions, gamma=0.0, kd_weight=1.0)
    assert "kd" in distiller.history_
    with pytest.raises(ValueError, match="has none"):
        distiller.embed(X)


def test_splits_at_random_repeat(distil):
    first, second = (distil(net(train_split=ValidSplit(0.2))) for _ in range(2))
    assert_same(first, second)


def test_a_fit_of_the_other_kind_forgets_the_classes(distil):
    distiller = distil()
    nets = [
        regressor(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)))
        for _ in range(2)
    ]
    distiller.set_params(student=nets[0], teacher=nets[1]).fit(X, X[:, 0])
    assert distiller.predict(X).shape == (len(X),)


def test_last_epoch_of_early_stopping_is_reported(distil, capsys):
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9)
    distiller = distil(net(max_epochs=9, callbacks=[stop]), verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == distiller.n_iter_ == len(distiller.history_["task"]) == 3


def test_epochs_are_those_of_the_history(distil, tmp_path):
    best = Checkpoint(load_best=True, monitor="valid_loss_best", dirname=tmp_path)
    student = net(max_epochs=5, train_split=ValidSplit(5), callbacks=[best], lr=0.5)
    distiller = distil(student)
    assert distiller.n_iter_ == len(distiller.history_["task"]) == 5


def test_display_needs_examples(distil):
    with pytest.raises(ValueError, match="X is needed"):
        DistillationDisplay.from_estimator(distil())


def test_rows_of_subsets_of_subsets(distil):
    def split(dataset, y=None, **_):
        inner = Subset(dataset, range(20, 140))
        return Subset(inner, range(50, 120)), Subset(inner, range(50))

    distiller = distil(net(train_split=split), kd_weight=1.0)
    asked = distil(net(train_split=split), kd_weight=1.0, cache_teacher=False)
    np.testing.assert_allclose(distiller.history_["kd"], asked.history_["kd"], 1e-5)
    held = slice(20, 70)
    expected = accuracy_score(y[held], distiller.predict(X[held]))
    assert distiller.report_.after["score"] == pytest.approx(expected)
