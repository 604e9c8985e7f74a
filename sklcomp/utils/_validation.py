"""Checks of arrays that scikit-learn has no function for, called by all estimators."""

from collections.abc import Callable, Mapping
from datetime import date, time, timedelta
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import numpy as np

from sklcomp.utils._messages import show

Function = TypeVar("Function", bound=Callable)
# pandas' Timestamp and Timedelta are among them.
TIMES = (np.datetime64, np.timedelta64, date, time, timedelta)
_NO_NUMBERS = (
    "{name} has {kind}, but numbers are needed. Divide by a unit, as in x / "
    "np.timedelta64(1, 's') for durations and (x - x.min()) / np.timedelta64(1, 's') "
    "for dates, which makes a NaN of NaT."
)


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


def fill_markers(values: Any, name: str) -> Any:
    """NaN in place of all that marks a missing entry: None, NA, NaT and masks.

    Frames stay frames, and what has nothing to replace is given back as it is.

    Raises
    ------
    ValueError
        For dates and durations: as numbers their NaT would be -9.2e18.
    """
    if hasattr(values, "columns") and hasattr(values, "dtypes"):
        for column, dtype in zip(values.columns, values.dtypes, strict=True):
            _refuse_times(dtype, f"{name}[{show(column)}]")
        if any(str(dtype) == "object" for dtype in values.dtypes):  # of pandas
            return values.map(lambda entry: _fill_marker(entry, name))
        return values
    values = _unmask(values)
    if values is None or hasattr(values, "toarray"):
        return values
    _refuse_times(getattr(values, "dtype", None), name)
    array = np.asarray(values)
    _refuse_times(array.dtype, name)
    if array.dtype != object:
        return values
    filled = np.empty(array.size, dtype=object)
    for i, entry in enumerate(array.flat):
        filled[i] = _fill_marker(entry, name)
    return filled.reshape(array.shape)


def _unmask(values: Any) -> Any:
    """NaN where an array is masked, also in lists, as numpy reads on below the mask."""
    if isinstance(values, np.ma.MaskedArray):
        _refuse_times(values.dtype, "a masked array")
        kind = values.dtype if values.dtype.kind in "fcO" else np.float64
        return np.ma.filled(values.astype(kind), np.nan)
    if isinstance(values, list | tuple) and any(
        issubclass(kind, np.ma.MaskedArray | list | tuple)
        for kind in set(map(type, values))
    ):
        return [_unmask(value) for value in values]
    return values


def _refuse_times(dtype: Any, name: str) -> None:
    is_time = getattr(dtype, "kind", None) in ("m", "M")
    if is_time or getattr(dtype, "is_temporal", bool)():
        raise ValueError(_NO_NUMBERS.format(name=name, kind=f"dtype {dtype}"))


def _fill_marker(entry: Any, name: str) -> Any:
    """NaN for a marker of an array of objects; by name, as pandas stays unimported."""
    is_marker = type(entry).__name__ in ("NAType", "NaTType")
    if entry is None or entry is np.ma.masked or is_marker:
        return np.nan
    if isinstance(entry, TIMES):
        if isinstance(entry, np.datetime64 | np.timedelta64) and np.isnat(entry):
            return np.nan
        kind = f"entries of type {type(entry).__name__}"
        raise ValueError(_NO_NUMBERS.format(name=name, kind=kind))
    return entry


def as_float_array(values: Any, name: str) -> np.ndarray:
    """Native float32 or float64 array of any dimension; others become float64.

    Missing entries of any kind become NaN. The input is never written to.
    """
    array = np.asarray(fill_markers(values, name))
    if array.dtype == object:  # a frame of columns that hold NA
        array = fill_markers(array, name)
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
    check_unmasked(mask, name)
    array = np.asarray(mask)
    if array.dtype.kind not in "biuf":
        array = as_float_array(mask, name)
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
