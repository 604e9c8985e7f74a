from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from skorch.callbacks import LRScheduler

from sklcomp.nn import CycleGANGenerator
from sklcomp.translation._net import MODULES, CycleGANNet
from tests.helpers.nets import Stop
from tests.helpers.translators import (
    Ask,
    Watch,
    draw_domains,
    failing,
    raising,
    same,
    translator,
)


class Interrupt(Watch):
    """A user who presses a key in a step or at the end of an epoch."""

    def __init__(self, step=None, epoch=None):
        super().__init__(self._count_steps, self._count_epochs)
        # Names that are no settings: a fit that goes on has the same callbacks.
        self._step, self._epoch, self._n_steps = step, epoch, 0

    def _count_steps(self, net, batch):
        self._n_steps += 1
        if self._n_steps == self._step:
            raise KeyboardInterrupt

    def _count_epochs(self, net):
        if len(net.history) == self._epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "stop", [Stop(after=2), Interrupt(step=8), Interrupt(epoch=3)], ids=type
)
def test_stopped_and_resumed_is_uninterrupted(tmp_path, stop):
    A, B = draw_domains()
    settings = {"max_epochs": 4, "pool_size": 4, "batch_size": 3, "lr": 1e-3}
    whole = translator(**settings).fit(A, B)
    kept = settings | {"checkpoint": tmp_path / "new", "warm_start": True}
    watch = Interrupt()
    stopped, rest, done = (
        translator(**kept, net_params={"callbacks": [watch]}) for _ in range(3)
    )
    if isinstance(stop, Stop):
        stopped.set_callbacks(stop)
    else:
        stopped.set_params(net__callbacks=[stop])
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(A, B)
    assert not hasattr(stopped, "net_")
    with pytest.raises(NotFittedError):
        stopped.transform(A)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["training.pt"]
    watch._n_steps = 0
    rest.fit(A, B)
    assert watch._n_steps == 6
    assert same(rest, whole)
    assert rest.n_iter_ == 4
    for name, values in whole.history_.items():
        np.testing.assert_array_equal(rest.history_[name], values)
    for pools in zip(rest.net_.pools_, whole.net_.pools_, strict=True):
        assert all(map(torch.equal, *(pool.images for pool in pools)))
    # All is done: nothing is trained, and the same is found.
    assert same(done.fit(A, B), whole)
    assert watch._n_steps == 6
    np.testing.assert_array_equal(done.cycle(A), whole.cycle(A))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["training.pt"]


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1e-2},
        {"max_epochs": 3},
        {"random_state": 1},
        {"adversarial": "vanilla"},
        {"net_params": {"optimizer__weight_decay": 0.1}},
        {"net_params": {"optimizer__betas": (0.6, 0.999)}},
        {"net_params": {"optimizer": torch.optim.NAdam}},
        {"warm_start": False},
        "data",
    ],
    ids=str,
)
def test_checkpoint_of_another_fit_is_not_taken_up(tmp_path, change):
    A, B = draw_domains()
    kept = {"checkpoint": tmp_path, "warm_start": True}
    translator(**kept).fit(A, B)
    if change == "data":
        B, change = B[::-1].copy(), {}
    found = translator(**kept | change).fit(A, B)
    assert same(found, translator(**change).fit(A, B))


def test_checkpoint_is_taken_up_whatever_does_not_matter(tmp_path):
    A, B = draw_domains()
    n_steps = []
    watch = Watch(after_step=lambda *_: n_steps.append(1))
    # Numbers of numpy are what a grid contains.
    settings = {"lr": np.float64(1e-3), "decay_start": np.float64(0.5)}
    settings["cycle_weight"] = np.float32(8.0)
    kept = settings | {"checkpoint": str(tmp_path), "warm_start": True}
    weight_decay = {"optimizer__weight_decay": np.float64(0.1)}
    weight_decay["callbacks"] = [watch]
    first = translator(**kept, net_params=weight_decay).fit(A, B)
    n_steps.clear()
    second = translator(**kept, net_params=weight_decay, verbose=1).fit(A, B)
    assert not n_steps
    assert same(first, second)


def test_checkpoint_of_other_callbacks_is_not_taken_up(tmp_path):
    A, B = draw_domains()

    def fit(gamma, **kept):
        falling = LRScheduler("StepLR", step_size=1, gamma=gamma)
        net_params = {"callbacks": [falling]}
        model = translator(decay_start=1, lr=1e-2, net_params=net_params, **kept)
        return model.fit(A, B)

    kept = {"checkpoint": tmp_path, "warm_start": True}
    assert not same(fit(0.001, **kept), fit(1.0))
    assert same(fit(1.0, **kept), fit(1.0))


def test_training_that_a_callback_stopped_is_not_gone_on_with(tmp_path):
    A, B = draw_domains()
    kept = {"checkpoint": tmp_path, "warm_start": True, "max_epochs": 4}
    ask = Ask(after=2)
    first = translator(**kept).set_callbacks(ask).fit(A, B)
    again = translator(**kept).set_callbacks(ask).fit(A, B)
    assert again.n_iter_ == first.n_iter_ == len(ask.seen) == 2
    assert same(first, again)


class Marker:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut", "code"])
def test_broken_checkpoint_is_named_and_no_code_is_run(tmp_path, content):
    file, marker = tmp_path / "training.pt", tmp_path / "marker"
    if content == "code":
        torch.save({"key": Marker(marker)}, file)
    else:
        file.write_bytes(content)
    model = translator(checkpoint=tmp_path, warm_start=True)
    with pytest.raises(ValueError, match="training.pt is no state of a fit"):
        model.fit(*draw_domains())
    assert not marker.exists()
    assert not hasattr(model, "net_")
    # It is written anew where it is not asked for.
    model.set_params(warm_start=False).fit(*draw_domains())
    assert model.set_params(warm_start=True).fit(*draw_domains()).n_iter_ == 2


def test_folder_that_cannot_be_written_is_noticed_before_training(
    tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr(CycleGANNet, "train_step", None)
    with pytest.raises(OSError, match="file"):
        translator(checkpoint=tmp_path / "file" / "folder").fit(*draw_domains())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["cycle_b", "identity_a", "generator_ab"])
def test_infinite_loss_in_the_first_epoch_is_an_error(monkeypatch, name, value):
    monkeypatch.setattr(CycleGANNet, "generator_terms", failing(name, 1, value))
    model = translator()
    message = f"the {name} loss became {value} in epoch 1; choose a smaller lr"
    with pytest.raises(ValueError, match=message):
        model.fit(*draw_domains())
    assert not hasattr(model, "net_")
    with pytest.raises(ValueError, match="scale X, or choose a smaller lr"):
        model.fit(*draw_domains(shape=(5,)))


def test_infinite_loss_later_keeps_the_last_good_epoch(monkeypatch):
    A, B = draw_domains()
    want = translator(max_epochs=2, decay_start=1).fit(A, B)
    monkeypatch.setattr(CycleGANNet, "generator_terms", failing("cycle_a", 3))
    model = translator(max_epochs=5, decay_start=1)
    message = "the cycle_a loss became nan in epoch 3; the weights of epoch 2 are kept"
    with pytest.warns(ConvergenceWarning, match=message) as found:
        model.fit(A, B)
    assert [warning.filename for warning in found] == [__file__]
    assert same(model, want)
    np.testing.assert_array_equal(model.transform(A), want.transform(A))
    assert model.n_iter_ == 2
    for name, values in want.history_.items():
        np.testing.assert_array_equal(model.history_[name], values)


def test_infinite_loss_of_a_resumed_training_keeps_what_was_stored(
    monkeypatch, tmp_path
):
    A, B = draw_domains()
    kept = {"checkpoint": tmp_path, "warm_start": True, "max_epochs": 4}
    stopped = translator(**kept).set_callbacks(Stop(after=2))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(A, B)
    stored = torch.load(tmp_path / "training.pt", weights_only=True)
    monkeypatch.setattr(CycleGANNet, "generator_terms", failing("cycle_a", 3))
    with pytest.warns(ConvergenceWarning, match="the weights of epoch 2 are kept"):
        model = translator(**kept).fit(A, B)
    for name, value in model.generator_ab_.state_dict().items():
        assert torch.equal(value, stored["parts"]["module"][name])


def test_discriminators_can_fail_too(monkeypatch):
    healthy = CycleGANNet.discriminator_terms

    def broken(self, *args):
        terms = healthy(self, *args)
        terms["discriminator_b"] = terms["discriminator_b"] / 0
        return terms

    monkeypatch.setattr(CycleGANNet, "discriminator_terms", broken)
    with pytest.raises(
        ValueError, match="the discriminator_b loss became inf in epoch"
    ):
        translator().fit(*draw_domains())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", MODULES)
def test_a_last_step_that_breaks_the_weights_is_noticed(name, value):
    A, B = draw_domains()
    steps = []

    def overwrite_last(net, batch):
        steps.append(1)
        if len(steps) == 3:
            # The bias of the first layer, whose effect a normalisation may hide.
            _, bias, *_ = getattr(net, f"{name}_").parameters()
            torch.nn.init.constant_(bias, value)

    net_params = {"callbacks": [Watch(overwrite_last)]}
    model = translator(max_epochs=1, batch_size=3, net_params=net_params)
    with pytest.raises(ValueError, match="not finite in epoch 1; choose a smaller lr"):
        model.fit(A, B)
    assert not hasattr(model, "net_")
    assert len(steps) == 3


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_without_memory_the_batch_size_is_named(monkeypatch, error):
    A, B = draw_domains()
    model = translator(batch_size=5).fit(A, B)
    for where in ("train_step", "forward"):
        with monkeypatch.context() as patch:
            owner = CycleGANNet if where == "train_step" else CycleGANGenerator
            patch.setattr(owner, where, raising(error))
            with pytest.raises(MemoryError, match="batch_size=5; choose a smaller"):
                model.fit(A, B)
        with pytest.raises(NotFittedError):
            model.transform(A)
    model.fit(A, B)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_device_that_is_not_there():
    for device in ("cuda", "cuda:0", torch.device("cuda")):
        with pytest.raises(RuntimeError, match='device=.*is not there.*device="cpu"'):
            translator(device=device).fit(*draw_domains())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_filters", 0), ("n_blocks", -1), ("cycle_weight", -1), ("lr", 0),
        ("identity_weight", "1"), ("adversarial", "wgan"), ("pool_size", 1.5),
        ("batch_size", 0), ("max_epochs", 0), ("decay_start", 1.1), ("n_threads", 0),
        ("net_params", [1]), ("generator", 3), ("warm_start", 2), ("device", 0),
    ],
)  # fmt: skip
def test_parameters_are_checked_by_fit(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        translator(**{name: value}).fit(*draw_domains())
