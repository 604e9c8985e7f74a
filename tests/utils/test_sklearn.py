"""What goes through the door to scikit-learn's private names."""

import threading
from numbers import Integral

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import InvalidParameterError

from sklcomp.utils._sklearn import (
    CallbackSupportMixin,
    Interval,
    IterationReporter,
    StrOptions,
    fit_context,
    transform_output,
    validate_params,
    with_callbacks,
)


class Model(CallbackSupportMixin, TransformerMixin, BaseEstimator):
    """Reports as many iterations as it is told, or until it is asked to stop."""

    _parameter_constraints = {
        "n": [Interval(Integral, 0, None, closed="left")],
        "how": [StrOptions({"a", "b"})],
    }

    def __init__(self, n=3, how="a"):
        self.n, self.how = n, how

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        reporter = IterationReporter(self, X=X)
        self.n_iter_ = 0
        for k in range(self.n):
            self.n_iter_ += 1
            if reporter(k):
                break
        self.stopped_, self.again_ = reporter.stopped, reporter(99)
        reporter.finish()
        return self

    def get_feature_names_out(self, names=None):
        return names


class Watch:
    """Sees the tasks of a fit, and asks to stop at an iteration."""

    def __init__(self, stop_at=None):
        self.stop_at, self.seen = stop_at, []

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context, **_):
        self.seen.append(("begin", context.parent is None))

    def on_fit_task_end(self, estimator, context, **_):
        self.seen.append(("end", context.parent is None))
        n_ended = sum(event == ("end", False) for event in self.seen)
        return context.parent is not None and n_ended == self.stop_at


def test_every_iteration_begins_and_ends_within_the_fit():
    watch = Watch()
    model = Model(3).set_callbacks(watch).fit(np.ones((2, 2)))
    inner = [("begin", False), ("end", False)]
    assert watch.seen == [("begin", True), *4 * inner, ("end", True)]
    assert (model.n_iter_, model.stopped_, model.again_) == (3, False, False)


def test_one_callback_is_enough_to_stop_and_then_all_is_over():
    watch, other = Watch(stop_at=2), Watch()
    model = Model(9).set_callbacks(other, watch).fit(np.ones((2, 2)))
    assert model.n_iter_ == 2
    assert model.stopped_
    assert model.again_  # and nobody is told of that
    assert watch.seen.count(("end", False)) == other.seen.count(("end", False)) == 2


def test_without_callbacks_nothing_stops():
    model = Model(5).fit(np.ones((2, 2)))
    assert (model.n_iter_, model.stopped_) == (5, False)


def test_iterations_of_threads_are_reported_one_by_one():
    active, most = [], []

    class Busy(Watch):
        def on_fit_task_begin(self, estimator, context, **_):
            active.append(1)
            most.append(len(active))

        def on_fit_task_end(self, estimator, context, **_):
            active.pop()

    class Threaded(Model):
        @with_callbacks
        def fit(self, X, y=None):
            reporter = IterationReporter(self)
            threads = [threading.Thread(target=reporter, args=(k,)) for k in range(9)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            reporter.finish()
            return self

    Threaded().set_callbacks(Busy()).fit(None)
    # The fit itself, and one iteration at a time.
    assert len(most) == 10
    assert max(most) == 2


@pytest.mark.parametrize(("settings", "message"), [
    ({"n": np.int64(-1)}, "'n' parameter of Model .* Got -1 instead"),
    ({"n": np.float64(0.5)}, r"Got 0\.5 instead"),
    ({"how": np.str_("c")}, "Got 'c' instead"),
])  # fmt: skip
def test_parameters_of_numpy_are_checked_and_shown_as_plain_ones(settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        Model(**settings).fit(None)
    fine = {"n": np.int64(2), "how": np.str_("b")}
    model = Model(**fine).fit(None)
    assert model.n is fine["n"]  # as it was given


@validate_params(
    {"k": [Interval(Integral, 1, None, closed="left")], "x": [Integral, str]},
    prefer_skip_nested_validation=True,
)
def function(x, k=1):
    """Its first argument, so many times."""
    return [x] * k


def test_arguments_of_functions_become_plain():
    assert function("a", k=np.int64(2)) == ["a", "a"]
    assert type(function(np.int64(3))[0]) is int
    assert function.__doc__ == "Its first argument, so many times."
    for args, kwargs in ((("a", np.int64(0)), {}), (("a",), {"k": np.int64(0)})):
        with pytest.raises(InvalidParameterError, match="Got 0 instead"):
            function(*args, **kwargs)


@pytest.mark.parametrize("container", ["default", "pandas", "polars"])
def test_container_is_that_of_set_output(container):
    model = Model()
    assert transform_output(model) == "default"
    assert transform_output(model.set_output(transform=container)) == container
