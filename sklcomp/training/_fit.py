"""The one skeleton of every fit by torch.

An estimator's ``fit`` calls :meth:`TorchFitMixin._fit`, which opens its checkpoint,
draws its seed, keeps torch's and the user's generators apart and tells its callbacks;
the estimator gives the four steps in between.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from sklearn.utils import check_random_state

from sklcomp.nn._running import torch_session
from sklcomp.training._checkpoint import Checkpoint
from sklcomp.training._nets import check_device
from sklcomp.utils._sklearn import CallbackSupportMixin, Interval, IterationReporter

# Rows of every estimator's constraints.
TORCH_CONSTRAINTS: dict[str, list] = {
    "checkpoint": [str, Path, None],
    "warm_start": ["boolean"],
    "n_threads": [Interval(Integral, 1, None, closed="left")],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


@dataclass(frozen=True)
class Session:
    """What one fit has beside its data.

    Attributes
    ----------
    seed : int
        All random numbers of the fit come from it.
    reporter : callable
        Called with the number of each iteration; True asks to stop.
    checkpoint : Checkpoint
        Where states are kept.
    """

    seed: int
    reporter: Callable[[int], bool]
    checkpoint: Checkpoint


class TorchFitMixin(CallbackSupportMixin):
    """Template of ``fit`` for estimators that train by torch.

    ``_check(X, y, **more) -> data``
        Raise for all that cannot be met, and check the data; ``data`` begins with X
        and y as callbacks are to see them. Nothing is trained, nothing is random.
    ``_prepare(data, session) -> work``
        Make the networks, and all else that the long part needs.
    ``_run(work, session) -> result``
        The long part: tells ``session.reporter`` of each iteration and keeps states.
    ``_name_results(result)``
        Set the attributes that end in an underscore.
    """

    def _fit(self: Any, X: Any, y: Any, **more: Any) -> Any:
        # A fit that fails leaves no estimator that looks fitted.
        for name in self._fitted_names:
            self.__dict__.pop(name, None)
        check_device(self)
        data = self._check(X, y, **more)
        # After the check: a fit that is refused draws nothing from the user's
        # generator.
        seed = draw_seed(self)
        checkpoint = Checkpoint(self.checkpoint, self.warm_start)
        reporter = IterationReporter(self, X=data[0], y=data[1])
        session = Session(seed, reporter, checkpoint)
        with torch_session(seed, self.n_threads):
            work = self._prepare(data, session)
            self._name_results(self._run(work, session))
        reporter.finish()
        return self


def draw_seed(estimator: Any) -> int:
    """The seed of a fit, from ``random_state``, to be found again by a later one."""
    state = estimator.random_state
    if estimator.warm_start and estimator.checkpoint is not None and state is None:
        msg = (
            "random_state=None is another seed in every fit, and warm_start=True goes "
            "on with a fit of the same seed: give a number as random_state."
        )
        raise ValueError(msg)
    return int(check_random_state(state).randint(2**31 - 1))
