"""What a training needs to go on as if it had not been interrupted."""

import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklcomp.nn._running import torch_session
from sklcomp.training._checkpoint import Checkpoint
from sklcomp.training._fit import draw_seed
from sklcomp.training._loop import train_net
from sklcomp.training._state import (
    _plain,
    _revived,
    generator_states,
    restore_generators,
    restore_training,
    settings_of,
    training_state,
    weights_of,
)
from sklcomp.translation import CycleGANTranslator
from tests.helpers.nets import classifier


def by(factor):
    return lambda epoch: factor


KEY = """
import joblib
from torch import nn
from sklcomp.training._state import settings_of, weights_of
from sklcomp.training._loop import train_net

class Shown(nn.ReLU):
    def extra_repr(self):
        return repr(object())

class Owner:
    def get_params(self, deep):
        return {"f": lambda e, *, k=("a",): (e in {"ab", "cd", "ef"}, (lambda: k)())}

print(joblib.hash([settings_of(Owner()), weights_of(Shown())]))
"""


def test_keys_are_the_same_in_another_process():
    keys = {
        subprocess.run(
            [sys.executable, "-c", KEY],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in "12"
    }
    assert len(keys) == 1


def test_functions_are_described_by_what_they_do():
    class Owner:
        def __init__(self, value):
            self.value = value

        def get_params(self, deep):
            return vars(self)

    def recursive(n):
        return recursive(n - 1) if n else 0

    for value in (recursive, np.sin, torch.relu, str.upper, by, lambda: {1, 2j}):
        assert settings_of(Owner(value)) == settings_of(Owner(value))


class Owner:
    """Something with parameters."""

    def __init__(self, **params):
        self.params = params

    def get_params(self, deep):
        return self.params


class Opinion:
    """Settings of a callback or a split."""

    def __init__(self, value, learned=None):
        self.value, self.learned_, self._hidden = value, learned, learned


def same(first, second):
    return settings_of(Owner(x=first)) == settings_of(Owner(x=second))


def looping(value):
    """A list that contains itself."""
    found = [value]
    found.append(found)
    return found


@pytest.mark.parametrize(("first", "second"), [
    (np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({3, 1, 2}, {1, 2, 3}),
    (np.arange(3.0), np.arange(3.0)), (torch.arange(3.0), torch.arange(3.0)),
    (Path("a/b"), Path("a") / "b"), (torch.float32, torch.ones(1).dtype),
    (torch.device("cpu"), torch.ones(1).device),
    (partial(int, base=2), partial(int, base=2)),
    (Opinion(1, "first"), Opinion(1, "second")),  # what came of it is no setting
    (nn.Linear(2, 3), nn.Linear(4, 5)),  # what they are, weights_of says
    (looping(1), looping(1)), (by(1.0), by(1.0)),
    (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
])  # fmt: skip
def test_settings_that_say_the_same_are_the_same(first, second):
    assert same(first, second)


@pytest.mark.parametrize(("first", "second"), [
    (0.5, 0.25), ("a", "b"), (None, "None"), ([1, 2], [2, 1]), ([1, 2], (1, 2)),
    ({"a": 1}, {"a": 2}), ({1}, {2}), (np.arange(3.0), np.arange(3)),
    (torch.zeros(3), torch.zeros(4)), (Path("a"), Path("b")),
    (partial(int, base=2), partial(int, base=3)), (partial(int), partial(float)),
    (Opinion(1), Opinion(2)), (nn.Linear(2, 3), nn.ReLU()),
    (by(1.0), by(0.5)), (np.sin, np.cos), (torch.relu, torch.tanh),
    (EarlyStopping(patience=2), EarlyStopping(patience=3)),
    (lambda x: x + 1, lambda x: x - 1), (str.upper, str.lower),
    (looping(1), looping(2)),
])  # fmt: skip
def test_settings_that_say_something_else_are_others(first, second):
    assert not same(first, second)


def test_settings_are_of_all_owners_in_any_order_but_those_left_out():
    one = settings_of(Owner(a=1, b=2), Owner(c=3))
    assert one == settings_of(Owner(c=3), Owner(b=2, a=1))
    assert one != settings_of(Owner(a=1, b=2), Owner(c=4))
    assert settings_of(Owner(a=1, b=2), but=("b",)) == settings_of(Owner(a=1))


def test_weights_are_what_a_module_is_and_all_that_it_has_learned():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    other.load_state_dict(net.state_dict())
    assert weights_of(net) == weights_of(other)
    with torch.no_grad():
        other[1].running_var[2] += 1e-6
    assert weights_of(net) != weights_of(other)
    relu, tanh = (nn.Sequential(net[0], f) for f in (nn.ReLU(), nn.Tanh()))
    assert weights_of(relu) != weights_of(tanh)


def test_values_come_back_from_what_a_file_can_hold():
    array = np.arange(6.0).reshape(2, 3)[:, ::2]
    value = {"a": [array, (1, "b")], "c": {"d": torch.ones(2), "e": None}}
    plain = _plain(value)
    array_before = array.copy()
    found = _revived(plain)
    np.testing.assert_array_equal(found["a"][0], array_before)
    assert found["a"][0].dtype == array.dtype
    assert found["a"][1] == (1, "b")
    assert torch.equal(found["c"]["d"], torch.ones(2))
    found["a"][0][:] = -1  # of its own
    np.testing.assert_array_equal(array, array_before)
    assert type(_plain(np.float32(0.5))) is float
    assert type(_plain({"n": np.int64(2)})["n"]) is int


def draws():
    return torch.rand(3).tolist(), np.random.random(3).tolist(), random.random()  # noqa: NPY002


def test_generators_draw_again_what_they_drew(tmp_path):
    with torch_session(5, 1):
        draws()
        np.random.normal()  # noqa: NPY002 (one of a pair that is kept)
        random.gauss(0, 1)
        record = Checkpoint(tmp_path, True).record("training", list)
        record.save(generator_states)
        first = draws(), np.random.normal(), random.gauss(0, 1)  # noqa: NPY002
        draws()
        restore_generators(record.load())
        assert (draws(), np.random.normal(), random.gauss(0, 1)) == first  # noqa: NPY002


@pytest.mark.parametrize("state", [3, np.int64(3)])
def test_a_number_is_the_same_seed_in_every_fit(state):
    translator = CycleGANTranslator(random_state=state)
    seed = draw_seed(translator)
    assert type(seed) is int
    assert 0 <= seed < 2**31
    assert draw_seed(translator) == seed
    assert draw_seed(CycleGANTranslator(random_state=4)) != seed


def test_a_generator_gives_one_seed_after_the_other():
    translator = CycleGANTranslator(random_state=np.random.RandomState(0))
    assert len({draw_seed(translator) for _ in range(5)}) == 5


def test_going_on_needs_a_seed_that_is_known(tmp_path):
    settings = {"checkpoint": tmp_path, "warm_start": True, "random_state": None}
    with pytest.raises(ValueError, match="random_state=None is another seed in every"):
        draw_seed(CycleGANTranslator(**settings))
    for change in ({"checkpoint": None}, {"warm_start": False}, {"random_state": 0}):
        draw_seed(CycleGANTranslator(**settings | change))


X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int64)


class Counting(Callback):
    """Attributes of every kind that a file can hold, and one that it cannot."""

    def on_train_begin(self, net, **kwargs):
        self.n_, self.rate_, self.name_ = 0, np.float32(0.5), "a"
        self.seen_, self.best_, self.lock_ = [], {"w": torch.zeros(2)}, object()

    def on_epoch_end(self, net, **kwargs):
        self.n_ += 1
        self.seen_.append(float(net.history[-1]["train_loss"]))
        self.best_ = {"w": torch.full((2,), float(self.n_))}
        self.lr_ = 0.1 / self.n_


def make_net(n_epochs, optimizer=torch.optim.Adam):
    module = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)
    )
    return classifier(
        module,
        max_epochs=n_epochs,
        optimizer=optimizer,
        batch_size=16,
        iterator_train__shuffle=True,
        callbacks=[("counting", Counting())],
    )


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_resumed_is_uninterrupted(optimizer, tmp_path):
    with torch_session(1, 1):
        whole = train_net(make_net(6, optimizer), X, y)
    with torch_session(1, 1):
        half = train_net(make_net(3, optimizer), X, y)
        record = Checkpoint(tmp_path, True).record("training", list)
        record.save(lambda: training_state(half))
    with torch_session(2, 1):  # other weights and other draws
        rest = make_net(6, optimizer)
        state = record.load()
        train_net(rest, X, y, before=lambda: restore_training(rest, state))
    for name, value in whole.module_.state_dict().items():
        assert torch.equal(rest.module_.state_dict()[name], value)
    losses = whole.history[:, "train_loss"]
    assert rest.history[:, "train_loss"] == losses
    found, want = (dict(net.callbacks_)["counting"] for net in (rest, whole))
    assert found.n_ == want.n_ == 6
    assert found.seen_ == want.seen_ == losses
    assert torch.equal(found.best_["w"], want.best_["w"])
    assert (found.name_, found.rate_, found.lr_) == (want.name_, want.rate_, want.lr_)


def test_state_is_not_that_of_the_net_any_longer_when_it_trains_on():
    net = train_net(make_net(2), X, y)
    state = training_state(net)
    history = state["history"]
    net.history.record("train_loss", -1.0)
    assert state["history"] == history
    assert state["callbacks"]["counting"].keys() == {
        "n_",
        "rate_",
        "name_",
        "seen_",
        "best_",
        "lr_",
    }
    assert not any("lock_" in kept for kept in state["callbacks"].values())


def test_key_of_a_fit_does_not_depend_on_what_was_learned_elsewhere():
    net = make_net(2)
    before = joblib.hash(settings_of(net))
    train_net(net, X, y)
    assert joblib.hash(settings_of(net)) == before
    net.set_params(lr=0.5)
    assert joblib.hash(settings_of(net)) != before
