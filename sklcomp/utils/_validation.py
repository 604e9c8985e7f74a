"""Checks of arrays that scikit-learn has no function for."""

from typing import Any

import numpy as np


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
