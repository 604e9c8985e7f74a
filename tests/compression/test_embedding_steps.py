"""Students with data sets, batches and training steps of their own."""

import numpy as np
import pytest
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from torch.utils.data import Subset, default_collate

from tests.helpers.iris import net


class Flipped(Subset):
    def __getitem__(self, i):
        x, y = self.dataset[self.indices[i]]
        return -x, y

    def __getitems__(self, indices):
        return [self[i] for i in indices]


class FlippedAll(Dataset):
    def transform(self, X, y):
        return super().transform(-X, y)


@pytest.mark.parametrize("split", [
    lambda dataset, y=None, **_: (Flipped(dataset, range(100)), None),
    lambda dataset, y=None, **_: (FlippedAll(dataset.X, dataset.y), None),
], ids=["Subset", "Dataset"])  # fmt: skip
def test_answers_are_of_the_examples_that_a_subclass_shows(distil, split):
    student = net(train_split=split)
    settings = {"kd_weight": 1.0, "gamma": 0.0}
    cached = distil(student, **settings)
    asked = distil(student, cache_teacher=False, **settings)
    np.testing.assert_allclose(cached.history_["kd"], asked.history_["kd"], rtol=1e-5)


def test_a_collate_function_and_a_cache_are_refused(distil):
    student = net(iterator_train__collate_fn=default_collate)
    with pytest.raises(ValueError, match='take cache_teacher="auto" or False'):
        distil(student, cache_teacher=True)
    assert distil(student).n_iter_ == 4


class OwnStep(NeuralNetClassifier):
    def train_step_single(self, batch, **fit_params):
        X, y = batch
        self._set_training(True)
        output = self.infer(X) if self.infers else self.module_(X)
        loss = self.get_loss(output, y, **self.named(X))
        loss.backward()
        return {"loss": loss, "y_pred": output}


@pytest.mark.parametrize("named", [
    lambda self, X: {"training": True}, lambda self, X: {"X": X},
], ids=["without X", "without training"])  # fmt: skip
@pytest.mark.parametrize("infers", [True, False])
def test_a_step_that_leaves_something_out_is_told(distil, named, infers):
    kind = type("Own", (OwnStep,), {"named": named, "infers": infers})
    student = kind(**net().get_params(deep=False))
    with pytest.raises(ValueError, match=r"get_loss\(y_pred, y, X=X, training=True\)"):
        distil(student, kd_weight=1.0)


def test_a_step_without_infer_is_told(distil):
    named = {"named": lambda self, X: {"X": X, "training": True}, "infers": False}
    student = type("Own", (OwnStep,), named)(**net().get_params(deep=False))
    with pytest.raises(ValueError, match=r"must call infer\(X\)"):
        distil(student)
