"""Trainings without data that are interrupted, taken up again, or are others."""

import numpy as np
import pytest

from sklcomp.compression.data_free._sources import ReplayBank
from tests.helpers.data_free import distiller
from tests.helpers.nets import Stop


def counted(function, calls):
    """The function, with a note of every call."""

    def call(*args):
        calls.append(None)
        return function(*args)

    return call


@pytest.mark.parametrize("recipe", ["fast", "paper-mnist"])
def test_stopped_and_resumed_is_uninterrupted(
    digits, trained, tmp_path, recipe, monkeypatch
):
    X, _ = digits
    settings = {
        "recipe": recipe,
        "n_iterations": 7,
        "reinit_every": 3,
        "replay_size": 200,
        "generator_batch_size": 64,
        "batch_size": 32,
        "generator_width": 8,
    }
    whole = distiller(trained, **settings).fit()
    kept = {"checkpoint": tmp_path, "warm_start": True}
    stopped = distiller(trained, **settings, **kept).set_callbacks(Stop(after=5))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    assert not hasattr(stopped, "estimator_")
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]
    steps = []
    monkeypatch.setattr(ReplayBank, "add", counted(ReplayBank.add, steps))
    rest = distiller(trained, **settings, **kept).fit()
    assert 0 < len(steps) < 7
    np.testing.assert_array_equal(rest.predict_proba(X), whole.predict_proba(X))
    for name, values in whole.history_.items():
        np.testing.assert_array_equal(rest.history_[name], values)
    other = distiller(trained, **settings | {"temperature": 7.0}, **kept).fit()
    assert other.n_iter_ == 7
    assert not np.array_equal(other.history_["kd"], whole.history_["kd"])


def test_broken_checkpoint_is_named(trained, tmp_path):
    (tmp_path / "training.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"training.pt is no state of a fit"):
        distiller(trained, checkpoint=tmp_path, warm_start=True).fit()


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({}, {"from_logits": False}),
        ({}, {"feature_layer": "outer"}),
        ({}, {"temperature": 2.0}),
        ({}, {"random_state": 1}),
        ({}, {"synthesis": "structured_noise"}),
        ({"synthesis": "structured_noise"}, {"input_range": (0, 0.9)}),
    ],
    ids=lambda value: next(iter(value), ""),
)
def test_another_fit_is_not_resumed(trained, tmp_path, base, change):
    base = {"feature_weight": 0.5} | base
    kept = {"checkpoint": tmp_path, "warm_start": True}
    first = distiller(trained, **base, **kept).fit()
    found = distiller(trained, **base | change, **kept).fit()
    fresh = distiller(trained, **base | change).fit()
    assert found.history_.keys() == fresh.history_.keys()
    for name, values in fresh.history_.items():
        np.testing.assert_array_equal(found.history_[name], values)
    # Else this could not fail.
    assert not all(
        np.array_equal(values, fresh.history_.get(name))
        for name, values in first.history_.items()
    )
