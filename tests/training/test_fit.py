"""The skeleton of a fit: its order, what it owns, and what it leaves alone."""

import random

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from sklcomp.training._fit import TORCH_CONSTRAINTS, TorchFitMixin, draw_seed
from sklcomp.utils._sklearn import fit_context, with_callbacks


class Drawing(TorchFitMixin, BaseEstimator):
    """Learns what the generators give, and at which step it is."""

    _parameter_constraints = dict(TORCH_CONSTRAINTS)
    _fitted_names = ("drawn_",)

    def __init__(
        self,
        fails_in="",
        device="cpu",
        checkpoint=None,
        warm_start=False,
        n_threads=1,
        random_state=None,
        verbose=0,
    ):
        self.fails_in = fails_in
        self.device = device
        self.checkpoint = checkpoint
        self.warm_start = warm_start
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        self.steps = []
        return self._fit(X, y)

    def _pass(self, step):
        self.steps.append(step)
        if step == self.fails_in:
            raise ZeroDivisionError

    def _check(self, X, y):
        self._pass("check")
        return X, y

    def _prepare(self, data, session):
        self._pass("prepare")
        assert torch.get_num_threads() == self.n_threads
        return data

    def _run(self, work, session):
        self._pass("run")
        for n_iter in range(1, 6):
            if session.reporter(n_iter):
                break
        drawn = [float(torch.rand(())), np.random.rand(), random.random()]  # noqa: NPY002
        return n_iter, [*drawn, session.seed]

    def _name_results(self, result):
        self._pass("name")
        self.n_iter_, self.drawn_ = result


STEPS = ["check", "prepare", "run", "name"]


def states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
        torch.get_num_threads(),
    )


def test_steps_come_in_their_order_and_randomness_from_the_seed():
    first, again = (Drawing(random_state=3).fit([[0.0]]) for _ in range(2))
    assert first.steps == STEPS
    assert first.drawn_ == again.drawn_
    assert first.drawn_ != Drawing(random_state=4).fit([[0.0]]).drawn_


@pytest.mark.parametrize("step", STEPS)
def test_a_fit_that_fails_is_no_fit_and_leaves_the_generators_alone(step):
    estimator = Drawing(random_state=0, n_threads=2).fit([[0.0]])
    before = states()
    estimator.set_params(fails_in=step)
    with pytest.raises(ZeroDivisionError):
        estimator.fit([[0.0]])
    assert states() == before
    assert not hasattr(estimator, "drawn_")
    assert estimator.steps == STEPS[: STEPS.index(step) + 1]


def test_a_fit_leaves_the_generators_alone():
    before = states()
    Drawing(n_threads=2, random_state=0).fit([[0.0]])
    assert states() == before


def test_callbacks_hear_of_iterations_and_may_stop_them():
    heard = []

    class Stop:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context, **_): ...

        def on_fit_task_end(self, estimator, context, **_):
            heard.append(context.task_name)
            return heard.count("iteration") == 2

    estimator = Drawing().set_callbacks(Stop()).fit([[0.0]])
    assert estimator.n_iter_ == 2
    assert heard.count("iteration") == 2


def test_an_unwritable_folder_is_said_before_anything_is_prepared(tmp_path):
    (tmp_path / "file").write_text("")
    estimator = Drawing(checkpoint=tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        estimator.fit([[0.0]])
    assert estimator.steps == ["check"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_said_first():
    estimator = Drawing(device="cuda")
    with pytest.raises(RuntimeError, match="device='cuda' of Drawing is not there"):
        estimator.fit([[0.0]])
    assert estimator.steps == []


def test_going_on_without_a_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give a number as random_state"):
        draw_seed(Drawing(checkpoint=tmp_path, warm_start=True))
