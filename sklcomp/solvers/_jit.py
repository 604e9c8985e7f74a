"""The two ways in which the solvers compile: as kernels, and inlined into them."""

import os
from collections.abc import Callable
from typing import Any

import numba


def njit(function: Callable) -> Callable:
    """Compile ``function`` lazily, without the GIL, and cache it on disk if possible.

    Numba raises at decoration time where no cache folder is writable (a container
    without a home, a read-only installation); the import must survive that, so the
    kernel is then compiled anew in every process. ``SKLCOMP_NUMBA_CACHE=0`` asks for
    the same, and so do checked indices (``NUMBA_BOUNDSCHECK``), of which the cache
    knows nothing. Divisions follow IEEE rules as in numpy; ``reassoc`` and ``contract``
    let sums vectorise and keep NaN intact, which plain ``fastmath=True`` does not.
    """
    options = _options(reassociate=True)
    wanted = os.environ.get("SKLCOMP_NUMBA_CACHE", "1") != "0"
    if wanted and not numba.config.BOUNDSCHECK:  # type: ignore[attr-defined]
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
    return numba.njit(**options)(function)


def inlined(*, reassociate: bool = True) -> Callable[[Callable], Callable]:
    """Decorator of what LLVM copies into the kernels that call it.

    Not cached by itself, since what comes from the cache cannot be inlined any more:
    then each array costs seven words to hand over, which is half of a short loop.
    Without ``reassociate`` sums keep their order: gathers of single numbers are faster
    when they are not vectorised.
    """
    return numba.njit(forceinline=True, **_options(reassociate))


def _options(reassociate: bool) -> dict[str, Any]:
    fastmath = {"reassoc", "contract"} if reassociate else {"contract"}
    return {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
