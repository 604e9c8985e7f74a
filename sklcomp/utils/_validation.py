"""Checks of arrays that scikit-learn has no function for."""

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable)


def check_unmasked(values: Any, name: str) -> None:
    """Refuse masked values, also in lists: numpy reads on below the mask."""
    if isinstance(values, np.ma.MaskedArray):
        n_masked = int(np.ma.count_masked(values))
        if n_masked:
            msg = (
                f"{name} has {n_masked} of {values.size} values masked, and masks are "
                f"not followed here; fill them, such as with {name}.filled(...), or "
                "leave those rows out."
            )
            raise ValueError(msg)
    elif isinstance(values, Mapping):
        check_unmasked(list(values.values()), name)
    elif isinstance(values, list | tuple):
        # The types first, as a list may hold millions of numbers.
        kinds = tuple(
            kind
            for kind in set(map(type, values))
            if issubclass(kind, np.ma.MaskedArray | Mapping | list | tuple)
        )
        for value in values if kinds else ():
            if isinstance(value, kinds):
                check_unmasked(value, name)


def refuse_masked(function: Function) -> Function:
    """Decorator: no argument, nor in ``fit`` a parameter, has masked values.

    Every public function and method that takes arrays has it.
    """
    parameters = signature(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = dict(parameters.bind_partial(*args, **kwargs).arguments)
        if function.__name__ == "fit":
            given |= given["self"].get_params(deep=False)
        for name, value in given.items():
            check_unmasked(value, name)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def unmask(values: Any, missing_values: float) -> Any:
    """Masked arrays as plain ones, which numpy would do without their mask."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    kind = values.dtype if values.dtype.kind in "fc" else np.float64
    return np.ma.filled(values.astype(kind), missing_values)


def as_float_array(values: Any, name: str) -> np.ndarray:
    """Native float32 or float64 array of any dimension; others become float64.

    Masked entries become NaN. The input is never written to.
    """
    array = np.asarray(unmask(values, np.nan))
    if array.dtype.kind == "c":
        msg = f"Complex data not supported: {name} has dtype {array.dtype}."
        raise ValueError(msg)
    if array.dtype.kind == "f" and array.dtype.itemsize == 4:
        return array.astype(np.float32, copy=False)
    try:
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        msg = f"{name} of dtype {array.dtype} cannot be read as numbers: {error}"
        raise ValueError(msg) from error


def check_mask(mask: Any, shape: tuple[int, ...], name: str = "mask") -> np.ndarray:
    """Boolean copy of a mask of 0/1 or False/True with the given shape."""
    array = np.asarray(mask)
    if array.shape != shape:
        msg = f"{name} has shape {array.shape}; expected {shape}, one entry per pixel."
        raise ValueError(msg)
    if array.dtype != bool:
        odd = array[(array != 0) & (array != 1)]
        if odd.size:
            msg = (
                f"{name} holds the value {odd.flat[0]}; expected only 0/1 or "
                "False/True (True = observed). For an image mask of 0/255 pass "
                f"{name} > 127."
            )
            raise ValueError(msg)
    return array.astype(bool)
