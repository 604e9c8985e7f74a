"""A plugin of pytest for `make test SHIFT=3`: the tests with other random numbers.

What a test asserts has to hold for any seed, not for the one that it was written with.
This adds to every integer seed of numpy and torch, in the tests and in the library. The
doctests print the numbers of their own seeds and keep them, scikit-learn's checks ask
for scores on the data of theirs, and torch.Generator cannot be changed.
"""

import os

import numpy as np
import pytest

_default_rng, _RandomState = np.random.default_rng, np.random.RandomState
_shift = 0


def _shifted(seed):
    is_number = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    return (int(seed) + _shift) % 2**32 if is_number else seed


class _Kind(type):
    """The global generator of numpy was made before, and is one as well."""

    def __instancecheck__(cls, instance):
        return isinstance(instance, _RandomState)


class _ShiftedRandomState(_RandomState, metaclass=_Kind):
    def __init__(self, seed=None):
        super().__init__(_shifted(seed))


def _shift_of_all():
    return 1009 * int(os.environ["SHIFT"])


def pytest_configure():
    import torch  # not before conftest.py has said how many threads it may have

    global _shift
    _shift = _shift_of_all()
    manual_seed = torch.manual_seed
    np.random.RandomState = _ShiftedRandomState
    np.random.default_rng = lambda seed=None: _default_rng(_shifted(seed))
    torch.manual_seed = lambda seed: manual_seed(_shifted(seed))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):  # before conftest.py seeds torch
    global _shift
    is_kept = isinstance(item, pytest.DoctestItem) or "scikit_learn_checks" in item.name
    _shift = 0 if is_kept else _shift_of_all()


def pytest_report_header():
    return f"seeds shifted by {_shift_of_all():,}"
