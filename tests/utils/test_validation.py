from datetime import date, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator

from sklcomp.utils._validation import (
    as_float_array,
    check_mask,
    check_unmasked,
    fill_markers,
    refuse_masked,
)

MASKED = np.ma.array([[1.0, 0.0], [0.0, 1.0]], mask=[[False, True], [False, False]])
NAN = np.nan


@pytest.mark.parametrize(
    ("values", "is_masked"),
    [
        (MASKED, True),
        ([[1.0, np.ma.masked]], True),
        ({"a": (MASKED,)}, True),
        (MASKED.filled(0), False),
        (np.ma.array([1.0, 2.0]), False),
        (np.ma.array([1.0, 2.0], mask=[False, False]), False),
        (["ab", 3, None, [1.5]], False),
        (None, False),
    ],
)
def test_what_counts_as_masked(values, is_masked):
    if is_masked:
        with pytest.raises(ValueError, match="X has 1 of"):
            check_unmasked(values, "X")
    else:
        check_unmasked(values, "X")


def test_masked_values_are_counted_with_the_cure():
    message = r"weights has 1 of 4 values masked.*such as with weights.filled\(...\)"
    with pytest.raises(ValueError, match=message):
        check_unmasked({"a": [1, (MASKED,)]}, "weights")


@refuse_masked
def function(a, b=2, *more, c=3, **rest):
    """A function of all kinds of arguments."""
    return a, b, more, c, rest


def test_decorated_function_is_as_before():
    assert function(1) == (1, 2, (), 3, {})
    assert function(1, 4, 5, c=6, d=7) == (1, 4, (5,), 6, {"d": 7})
    assert function.__doc__ == "A function of all kinds of arguments."
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        function()


@pytest.mark.parametrize(("args", "kwargs", "name"), [
    ((MASKED,), {}, "a"), ((1,), {"b": MASKED}, "b"), ((1, 2, 3, MASKED), {}, "more"),
    ((1,), {"c": [MASKED]}, "c"), ((1,), {"d": MASKED}, "rest"),
])  # fmt: skip
def test_masked_arguments_are_named(args, kwargs, name):
    with pytest.raises(ValueError, match=f"{name} has 1 of 4 values masked"):
        function(*args, **kwargs)


class Model(BaseEstimator):
    """Parameters are looked at when it is fitted."""

    def __init__(self, weights=None):
        self.weights = weights

    @refuse_masked
    def fit(self, X, y=None):
        return self

    @refuse_masked
    def predict(self, X):
        return X


def test_masked_parameters_are_named_in_fit():
    model = Model(MASKED)
    with pytest.raises(ValueError, match="weights has 1 of 4 values masked"):
        model.fit(np.ones(2))
    assert model.predict(3) == 3
    with pytest.raises(ValueError, match="X has 1 of 4 values masked"):
        model.set_params(weights=None).fit(MASKED)


@pytest.mark.parametrize(("values", "want"), [
    ([1, None, 2], [1, NAN, 2]), ([[1, 2], [None, 4]], [[1, 2], [NAN, 4]]),
    (np.array([1, pd.NA, 3], object), [1, NAN, 3]), ([1, np.ma.masked], [1, NAN]),
    (MASKED, [[1, NAN], [0, 1]]), ([MASKED[0], [5, None]], [[1, NAN], [5, NAN]]),
    (np.array([pd.NaT, 1.0], object), [NAN, 1]),
    (np.array([np.timedelta64("NaT"), 1.0], object), [NAN, 1]),
    (np.ma.masked_equal([1, 2], 2), [1, NAN]), (None, NAN), (3, 3), ("2.5", 2.5),
    (pd.DataFrame({"a": [1, None], "b": [None, 2]}), [[1, NAN], [NAN, 2]]),
    (pd.DataFrame({"a": [1, pd.NA]}, dtype="Int64"), [[1], [NAN]]),
    (pd.DataFrame({"a": ["1", None]}, dtype=object), [[1], [NAN]]),
    (pl.DataFrame({"a": [1.5, None]}), [[1.5], [NAN]]),
    (pd.Series([True, False]), [1, 0]),
])  # fmt: skip
def test_missing_entries_of_any_kind_are_nan(values, want):
    found = as_float_array(values, "X")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("dtype", [
    "f4", ">f4", "f8", ">f8", "f2", "i8", ">i4", "u1", "?", "g",
])  # fmt: skip
def test_floats_of_four_bytes_stay_and_others_become_of_eight(dtype):
    values = np.array([0, 1, 1], dtype)
    found = as_float_array(values, "X")
    assert found.dtype.newbyteorder("=") == (
        np.float32 if "f4" in dtype else np.float64
    )
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("values", [
    np.array([1, None], object), np.ma.array([1.0, 2], mask=[0, 1]), [1.0, None],
    np.array([1, 2]),
])  # fmt: skip
def test_input_is_never_written_to(values):
    before = repr(values)
    as_float_array(values, "X")[...] = 7
    assert repr(values) == before


def test_what_has_nothing_to_fill_is_given_back():
    array, frame = np.array([1.0, np.nan]), pd.DataFrame({"a": [1.0]})
    for values in (array, frame, [1, 2], None):
        assert fill_markers(values, "X") is values


TIMES = {
    "dates": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "durations": np.array([1, 2], "m8[s]"),
    "objects": np.array([date(2020, 1, 1), 1.0], object),
    "list": [timedelta(1), 2.0], "nested": [[np.datetime64("2020-01-01")]],
    "masked": np.ma.array(np.array([1, 2], "m8[s]"), mask=[0, 1]),
    "stamps": np.array([pd.Timestamp("2020-01-01")], object),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMES)
def test_times_are_refused_with_the_cure(name):
    with pytest.raises(ValueError, match=r"but numbers are needed. Divide by a unit"):
        as_float_array(TIMES[name], "X")


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_columns_of_times_are_named(frame):
    values = frame({"a": [1.0, 2.0], "when": [date(2020, 1, 1), date(2020, 1, 2)]})
    if frame is pd.DataFrame:
        values["when"] = pd.to_datetime(values["when"])
    with pytest.raises(ValueError, match=r"X\['when'\] has dtype"):
        as_float_array(values, "X")


@pytest.mark.parametrize(("values", "message"), [
    ([1 + 2j], "Complex data not supported: X has dtype complex128"),
    (["a", "b"], "X of dtype <U1 cannot be read as numbers: could not convert string"),
    (np.array([{}], object), "X of dtype object cannot be read as numbers"),
])  # fmt: skip
def test_what_are_no_numbers_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        as_float_array(values, "X")


@pytest.mark.parametrize("values", [
    [[1, 0], [0, 1]], [[True, False], [False, True]], [["1", "0"], ["0", "1"]],
    np.array([[1, 0], [0, 1]], object), np.eye(2, dtype=np.uint8), np.eye(2),
    pd.DataFrame({"a": [1, 0], "b": [0, 1]}),
])  # fmt: skip
def test_masks_of_any_zeros_and_ones(values):
    found = check_mask(values, (2, 2))
    np.testing.assert_array_equal(found, np.eye(2, dtype=bool))
    assert found.dtype == bool
    if isinstance(values, np.ndarray):
        assert not np.shares_memory(found, values)


@pytest.mark.parametrize(("mask", "message"), [
    (np.ones(3), r"mask has shape \(3,\); expected \(2, 2\), one entry per pixel"),
    (255 * np.eye(2, dtype=np.uint8), "holds the value 255.*pass mask > 127"),
    ([[0.5, 1], [0, 1]], "mask holds the value 0.5; expected only 0/1 or False/True"),
    ([[NAN, 1], [0, 1]], "mask holds the value nan"),
    ([[None, 1], [0, 1]], "mask holds the value nan"),
    (MASKED, "mask has 1 of 4 values masked"), ([["a"] * 2] * 2, "cannot be read"),
])  # fmt: skip
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        check_mask(mask, (2, 2))
