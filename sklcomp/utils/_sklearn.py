"""The only door to private or experimental names of scikit-learn.

When scikit-learn changes one of them, this file is the one that changes with it.
"""

from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any

import numpy as np
from sklearn.base import _fit_context as fit_context
from sklearn.callback import CallbackSupportMixin as _CallbackSupportMixin
from sklearn.callback import with_callbacks
from sklearn.datasets._openml import _get_data_features as get_openml_columns
from sklearn.externals import _arff as arff
from sklearn.utils._param_validation import (
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils._param_validation import validate_params as _validate_params
from sklearn.utils._set_output import _get_output_config
from sklearn.utils._sparse import _align_api_if_sparse as align_sparse
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "CallbackSupportMixin",
    "IterationReporter",
    "Interval",
    "Options",
    "StrOptions",
    "align_sparse",
    "arff",
    "check_parameters",
    "check_sample_weight",
    "fit_context",
    "get_openml_columns",
    "transform_output",
    "validate_params",
    "with_callbacks",
]


def transform_output(estimator: Any) -> str:
    """Container that ``transform`` is asked for: "default", "pandas" or "polars"."""
    return _get_output_config("transform", estimator)["dense"]


def _plain(value: Any) -> Any:
    """A scalar of numpy as one of Python, whose repr is ``2``, not ``np.int64(2)``."""
    return value.item() if isinstance(value, np.generic) else value


def check_parameters(
    constraints: dict[str, list], values: dict[str, Any], owner: str
) -> None:
    """Raise ValueError for a value that its constraints do not allow."""
    # What numpy.logspace gives to a search is a parameter of numpy's.
    plain = {name: _plain(value) for name, value in values.items()}
    validate_parameter_constraints(constraints, plain, caller_name=owner)


class CallbackSupportMixin(_CallbackSupportMixin):
    """Scikit-learn's, for an estimator whose messages show plain numbers."""

    def _validate_params(self) -> None:
        values = self.get_params(deep=False)
        check_parameters(self._parameter_constraints, values, type(self).__name__)


def validate_params(constraints: dict, **settings: Any) -> Callable:
    """Scikit-learn's, with messages that show plain numbers."""

    def decorate(function: Callable) -> Callable:
        checked = _validate_params(constraints, **settings)(function)

        @wraps(checked)
        def plainly(*args: Any, **kwargs: Any) -> Any:
            return checked(
                *map(_plain, args), **{k: _plain(v) for k, v in kwargs.items()}
            )

        return plainly

    return decorate


class IterationReporter:
    """Tells an estimator's callbacks of each iteration, from any thread.

    Made at the start of ``fit``, within :func:`with_callbacks`; called once per
    iteration, it returns True as soon as one callback has asked to stop, and from then
    on always.
    """

    def __init__(self, estimator: Any, *, X: Any = None, y: Any = None) -> None:
        self._estimator = estimator
        self._root = estimator._init_callback_context(max_subtasks=None)
        self._root.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
        self._silent = not getattr(estimator, "_skl_callbacks", [])
        self._lock = Lock()
        self._stopped = False

    def __call__(self, iteration: int) -> bool:
        """Report one iteration; True asks the solver to stop."""
        if self._silent or self._stopped:
            return self._stopped
        with self._lock:
            task = self._root.subcontext(task_name="iteration")
            task.call_on_fit_task_begin(estimator=self._estimator)
            self._stopped |= task.call_on_fit_task_end(estimator=self._estimator)
        return self._stopped

    @property
    def stopped(self) -> bool:
        """Whether a callback has asked to stop."""
        return self._stopped

    def finish(self) -> None:
        """Report the end of the fit with the attributes of the fitted estimator."""
        self._root.call_on_fit_task_end(
            estimator=self._estimator,
            reconstruction_attributes=lambda: vars(self._estimator).copy(),
        )
