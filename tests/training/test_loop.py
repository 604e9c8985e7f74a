import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn

from sklcomp.nn._running import torch_session
from sklcomp.training._loop import (
    StopTraining,
    is_stopped_early,
    naming_memory,
    train_batch_size,
    train_net,
)
from sklcomp.training._nets import check_device
from tests.helpers.nets import classifier

X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int64)


@pytest.mark.parametrize(("batch_size", "n"), [(1, 40), (32, 1)])
def test_batch_norm_of_a_single_example_is_named(batch_size, n):
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    net = classifier(module, batch_size=batch_size)
    with pytest.raises(ValueError, match=f"has 1 of {n} with batch_size={batch_size}"):
        train_net(net, np.zeros((n, 4), np.float32), np.zeros(n, np.int64))


def draws():
    return torch.rand(3).tolist(), np.random.random(3).tolist(), random.random()  # noqa: NPY002


def test_a_session_draws_the_same_and_leaves_no_trace():
    threads = torch.get_num_threads()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = []
    for seed in (3, 3, 4):
        with torch_session(seed, 2):
            assert torch.get_num_threads() == 2
            found.append(draws())
        assert torch.get_num_threads() == threads
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


def test_a_session_that_fails_restores_all_too():
    threads, state = torch.get_num_threads(), random.getstate()
    with pytest.raises(ZeroDivisionError), torch_session(3, threads + 1):
        raise ZeroDivisionError(draws())
    assert torch.get_num_threads() == threads
    assert random.getstate() == state


def test_sessions_within_each_other_do_not_disturb():
    with torch_session(3, 1):
        draws()
        second = draws()
    with torch_session(3, 1):
        draws()
        with torch_session(7, 1):
            draws()
        assert draws() == second


@pytest.mark.parametrize("error", [
    MemoryError(), torch.OutOfMemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
])  # fmt: skip
def test_full_memory_is_named_with_its_cure(error):
    with (
        pytest.raises(
            MemoryError, match="^fits with n=3; choose a smaller n.$"
        ) as caught,
        naming_memory("fits with n=3", "n"),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("DefaultCPU")])
def test_other_errors_are_left_as_they_are(error):
    with pytest.raises(type(error)) as caught, naming_memory("fits", "n"):
        raise error
    assert caught.value is error


def mlp(norm=False):
    return nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Linear(6, 2),
    )


def make_net(norm=False, **settings):
    return classifier(mlp(norm), **{"max_epochs": 3, "batch_size": 8} | settings)


def weights(net):
    return torch.nn.utils.parameters_to_vector(net.module_.parameters()).detach()


@pytest.mark.parametrize("settings", [
    {}, {"train_split": ValidSplit(4), "iterator_train__shuffle": True},
    {"batch_size": -1}, {"max_epochs": 0},
], ids=["plain", "split", "whole", "none"])  # fmt: skip
def test_training_is_that_of_fit(settings):
    found = []
    for train in (train_net, lambda net, X, y: net.fit(X, y)):
        with torch_session(0, 1):
            net = make_net(norm=True, **settings)
            assert train(net, X, y) is net
            found.append(net)
    assert torch.equal(*map(weights, found))
    assert len(found[0].history) == len(found[1].history) == found[0].max_epochs
    if found[0].max_epochs:
        losses = [net.history[:, "train_loss"] for net in found]
        assert losses[0] == losses[1]


class At(Callback):
    """Raises an error at an event."""

    def __init__(self, event, error, epoch=2):
        self.event, self.error, self.epoch = event, error, epoch

    def _raise(self, event, net):
        if event == self.event and len(net.history) == self.epoch:
            raise self.error

    def on_epoch_end(self, net, **kwargs):
        self._raise("epoch", net)

    def on_batch_end(self, net, training=True, **kwargs):
        self._raise("batch", net)


def test_an_interrupt_is_heard():
    # fit of skorch would return as if nothing had been.
    with pytest.raises(KeyboardInterrupt):
        train_net(make_net(callbacks=[At("batch", KeyboardInterrupt)]), X, y)


@pytest.mark.parametrize("event", ["epoch", "batch"])
def test_training_that_is_stopped_keeps_what_was_learned(event):
    net = make_net(callbacks=[At(event, StopTraining)], max_epochs=9)
    train_net(net, X, y)
    assert len(net.history) == 2
    assert not hasattr(net, "get_split_datasets_")
    assert "get_split_datasets" not in vars(net)


def test_early_stopping_is_no_interrupt():
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9)
    net = make_net(callbacks=[stop], max_epochs=9)
    assert not is_stopped_early(make_net(callbacks=[stop]).initialize())
    train_net(net, X, y)
    assert is_stopped_early(net)
    assert len(net.history) == 3


def test_what_was_done_before_is_not_done_again():
    with torch_session(0, 1):
        whole = train_net(make_net(), X, y)
    net = make_net()

    def before():
        assert hasattr(net, "module_")
        net.module_.load_state_dict(whole.module_.state_dict())
        for epoch in whole.history:
            net.history.new_epoch()
            net.history.record("train_loss", epoch["train_loss"])

    train_net(net, X, y, before)
    assert len(net.history) == 3
    assert torch.equal(weights(net), weights(whole))


def test_before_may_stop_at_once():
    net = make_net()

    def before():
        raise StopTraining

    train_net(net, X, y, before)
    assert net.history == []


class Split:
    """Counts how often it is asked."""

    def __init__(self):
        self.n = 0

    def __call__(self, dataset, y=None, **kwargs):
        self.n += 1
        return dataset, None


def test_data_are_split_once():
    split = Split()
    train_net(make_net(train_split=split), X, y)
    assert split.n == 1


class Sizes(Callback):
    """Examples in every batch."""

    def on_train_begin(self, net, **kwargs):
        self.sizes_ = []

    def on_batch_end(self, net, batch=None, training=True, **kwargs):
        self.sizes_.append(len(batch[0]))


@pytest.mark.parametrize(("norm", "n", "settings", "sizes"), [
    (True, 17, {}, [8, 8]), (False, 17, {}, [8, 8, 1]), (True, 18, {}, [8, 8, 2]),
    (True, 17, {"iterator_train__drop_last": True}, [8, 8]),
    (True, 19, {"iterator_train__batch_size": 9}, [9, 9]),
    (True, 9, {"batch_size": -1}, [9]),
])  # fmt: skip
def test_a_last_example_alone_is_left_out_where_a_norm_needs_two(
    norm, n, settings, sizes
):
    net = make_net(norm, max_epochs=2, callbacks=[("sizes", Sizes())], **settings)
    before = net.get_params(deep=False).get("iterator_train__drop_last")
    train_net(net, X[:n], y[:n])
    assert dict(net.callbacks_)["sizes"].sizes_ == 2 * sizes
    assert net.get_params(deep=False).get("iterator_train__drop_last") == before
    assert ("iterator_train__drop_last" in vars(net)) == (before is not None)


@pytest.mark.parametrize(("settings", "n", "size"), [
    ({}, 40, 8), ({}, 3, 8), ({"iterator_train__batch_size": 5}, 40, 5),
    ({"batch_size": -1}, 40, 40), ({"iterator_train__batch_size": -1}, 40, 40),
    ({"batch_size": -1}, 0, 1),
])  # fmt: skip
def test_examples_in_a_step(settings, n, size):
    assert train_batch_size(make_net(**settings), n) == size


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "device='cuda:1' of SimpleNamespace is not there.*Choose device=\"cpu\""
    with pytest.raises(RuntimeError, match=message):
        check_device(SimpleNamespace(device="cuda:1"))
    for fine in (SimpleNamespace(device="cpu"), SimpleNamespace()):
        check_device(fine)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device(SimpleNamespace(device="cuda:1"))
