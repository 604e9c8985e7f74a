"""The one way to compile a kernel."""

import os
from collections.abc import Callable
from typing import Any

import numba


def njit(function: Callable) -> Callable:
    """Compile ``function`` lazily, without the GIL, and cache it on disk if possible.

    Numba raises at decoration time where no cache folder is writable (a container
    without a home, a read-only installation); the import must survive that, so the
    kernel is then compiled anew in every process. ``SKLCOMP_NUMBA_CACHE=0`` asks for
    the same. Divisions follow IEEE rules as in numpy; ``reassoc`` and ``contract`` let
    sums vectorise and keep NaN intact, which plain ``fastmath=True`` does not.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract"},
    }
    if os.environ.get("SKLCOMP_NUMBA_CACHE", "1") != "0":
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
    return numba.njit(**options)(function)
