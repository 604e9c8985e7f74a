"""Values and warnings as users see them, for all that raises or warns."""

import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

# Packages between a line of the user's and ours, and the decorators of the library.
INNER = ("sklcomp", "sklearn", "skorch", "torch", "joblib", "contextlib", "functools")


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of the line by which the user came here, however deep that is."""
    level, frame = 1, sys._getframe()
    while frame.f_back and _package(frame) in INNER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package(frame: Any) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def show(value: Any) -> str:
    """The repr with plain Python numbers, where numpy's says ``np.int64(2)``."""
    return repr(_plain(value))


def show_some(values: Iterable, n: int = 5) -> str:
    """The first few of them, as many as a message can take."""
    shown = [show(value) for value in values]
    return ", ".join(shown[:n]) + ", ..." * (len(shown) > n)


def _plain(value: Any) -> Any:
    """Numpy's scalars and arrays as Python's, at any depth."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value
