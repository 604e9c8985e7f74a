"""What marks a missing entry, at every door: taken as missing, or refused by name."""

import datetime
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklcomp.inspection import RecoveryDisplay
from sklcomp.recovery import DCTImputer, DCTRegressor, recover_image

MARKERS = {
    "nan": np.nan,
    "None": None,
    "NA": pd.NA,
    "NaT": pd.NaT,
    "NaT of a date": np.datetime64("NaT"),
    "NaT of a duration": np.timedelta64("NaT"),
    "masked": np.ma.masked,
}
COUNT = np.arange(12.0)
GAPS = np.where(COUNT == 3, np.nan, COUNT)


def containers(marker):
    objects = COUNT.astype(object)[np.newaxis]
    objects[0, 3] = marker
    yield objects
    yield objects.tolist()
    if marker is pd.NA:
        columns = {f"pixel{i}": pd.array([v]) for i, v in enumerate(objects[0])}
        yield pd.DataFrame(columns)
        yield pd.DataFrame(objects)
    if marker is None:
        yield pl.DataFrame({f"pixel{i}": [v] for i, v in enumerate(objects[0])})


def masked_arrays():
    for dtype in (float, np.float32, int, object):
        values = COUNT.astype(dtype)
        values[3] = 10**6
        yield np.ma.array(values[np.newaxis], mask=COUNT[np.newaxis] == 3)
    junk = COUNT.astype(object)
    junk[3] = "junk"
    yield np.ma.array(junk[np.newaxis], mask=COUNT[np.newaxis] == 3)
    yield [np.ma.array(COUNT, mask=COUNT == 3)]
    yield [[np.ma.masked if v == 3 else v for v in COUNT]]


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
def test_markers_are_missing_for_the_imputer_and_the_function(marker):
    expected = recover_image(GAPS)[np.newaxis]
    for X in containers(marker):
        for missing_values in (np.nan, -9999.0, np.inf):
            imputer = DCTImputer(missing_values=missing_values)
            np.testing.assert_array_equal(imputer.fit_transform(X), expected)
        np.testing.assert_array_equal(imputer.transform(X), expected)
        # An array of two axes for the function: one row.
        np.testing.assert_allclose(recover_image(X), expected, atol=1e-9)


def test_masked_entries_are_missing_whatever_lies_below():
    expected = recover_image(GAPS)[np.newaxis]
    for X in masked_arrays():
        for missing_values in (np.nan, -9999.0):
            found = DCTImputer(missing_values=missing_values).fit_transform(X)
            np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(recover_image(X), expected, atol=1e-6)


@pytest.mark.parametrize("marker", [-9999.0, 0, 1e300, np.inf, -np.inf])
def test_a_number_and_nan_may_mark_at_once(marker):
    X = np.array([1.0, 2, np.nan, 4, marker, 6])[np.newaxis]
    expected = recover_image(np.where(marker == X, np.nan, X))
    found = DCTImputer(missing_values=marker).fit_transform(X)
    np.testing.assert_array_equal(found, expected)
    single = (
        DCTImputer(missing_values=marker).fit_transform(X.astype(np.float32))
        if (abs(marker) < 1e300 or np.isinf(marker))
        else expected
    )
    np.testing.assert_allclose(single, expected, atol=1e-5)


@pytest.mark.parametrize("unit", ["timedelta64[s]", "datetime64[s]"])
@pytest.mark.parametrize("with_gap", [False, True])
def test_dates_and_durations_are_refused_with_the_cure(unit, with_gap):
    times = COUNT.astype(unit)
    if with_gap:
        times[3] = "NaT"
    message = r"has dtype .*(\[.*s\]|Duration|Datetime).*np.timedelta64\(1, 's'\)"
    frame = pd.DataFrame(times[np.newaxis]).add_prefix("pixel")
    mixed = pd.DataFrame({"a": [1.0], "b": [times[1]]})
    fine = times.astype(unit.replace("s]", "ms]"))  # polars knows no seconds
    for X in (
        times[np.newaxis],
        list(times),
        frame,
        mixed,
        frame.iloc[0],
        pl.DataFrame({"a": fine}),
        np.ma.array(times[np.newaxis]),
    ):
        with pytest.raises(ValueError, match=message):
            recover_image(X)
        with pytest.raises(ValueError, match=message):
            DCTImputer().fit(X)
    places = np.arange(12)[:, np.newaxis]
    for X, y in (
        (places, times),
        (times[:, np.newaxis], COUNT),
        (frame.T, COUNT),
        (places, pd.Series(times)),
        (places, pl.Series(fine)),
    ):
        with pytest.raises(ValueError, match=message):
            DCTRegressor().fit(X, y)
    with pytest.raises(ValueError, match=message):
        DCTRegressor().fit(places, COUNT).predict(times[:, np.newaxis])
    # The cure cures.
    if unit.startswith("t") and with_gap:
        seconds = times / np.timedelta64(1, "s")
        np.testing.assert_array_equal(recover_image(seconds), recover_image(GAPS))


@pytest.mark.parametrize(
    "entry", [datetime.timedelta(1), datetime.date(2020, 1, 1), np.datetime64("2020")]
)
def test_times_among_objects_are_refused_by_type(entry):
    X = np.array([[1.0, entry, 3.0]], dtype=object)
    message = f"has entries of type {type(entry).__name__}, but numbers are needed"
    for read in (recover_image, DCTImputer().fit):
        with pytest.raises(ValueError, match=message):
            read(X)


@pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)
def test_measurements_without_place_or_value_are_refused_with_the_cure(marker):
    places = np.arange(12.0)[:, np.newaxis]
    broken = COUNT.astype(object)
    broken[3] = marker
    message = "NaN, or another marker.*in 1 of its 12 entries; leave those measurements"
    model = DCTRegressor((12,)).fit(places, COUNT)
    for y in (broken, pd.Series(broken, dtype=object)):
        with pytest.raises(ValueError, match="y contains " + message):
            DCTRegressor().fit(places, y)
        with pytest.raises(ValueError, match="y contains " + message):
            model.score(places, y)
    for X in (broken[:, np.newaxis], pd.DataFrame(broken[:, np.newaxis])):
        for read in (lambda X: DCTRegressor().fit(X, COUNT), model.predict):
            with pytest.raises(ValueError, match="X contains " + message):
                read(X)


def test_masked_measurements_are_refused():
    places = np.arange(12.0)[:, np.newaxis]
    masked = np.ma.array(COUNT, mask=COUNT == 3)
    model = DCTRegressor((12,)).fit(places, COUNT)
    for read in (
        lambda: DCTRegressor().fit(places, masked),
        lambda: DCTRegressor().fit(masked[:, np.newaxis], COUNT),
        lambda: DCTRegressor().fit(places, [masked]),
        lambda: DCTRegressor(extent=np.ma.array([[0, 9]], mask=[[0, 1]])).fit(
            places, COUNT
        ),
        lambda: model.predict(masked[:, np.newaxis]),
        lambda: model.score(places, masked),
        lambda: model.score(places, COUNT, sample_weight=masked),
    ):
        with pytest.raises(ValueError, match="has 1 of .* values masked"):
            read()


@pytest.mark.parametrize("name", ["mask", "weights", "axis_scale"])
def test_masked_settings_are_refused(name):
    shape = (2,) if name == "axis_scale" else (3, 3)
    setting = np.ma.array(np.ones(shape), mask=np.arange(np.prod(shape)) == 1)
    with pytest.raises(ValueError, match=f"{name} has 1 of . values masked"):
        recover_image(np.eye(3), **{name: setting})
    if name != "mask":
        with pytest.raises(ValueError, match=f"{name} has 1 of . values masked"):
            DCTImputer(**{name: setting}).fit(np.eye(3)[np.newaxis])


@pytest.mark.parametrize("marker", [pd.NA, None, np.nan])
def test_masks_know_no_third_value(marker):
    mask = np.array([True, marker, False], dtype=object)
    with pytest.raises(ValueError, match="mask holds the value nan"):
        recover_image([1, 2, 3], mask)
    frame = pd.DataFrame({"a": pd.array([True, None], dtype="boolean")})
    with pytest.raises(ValueError, match="mask holds the value nan"):
        recover_image([[1], [2]], frame)


def test_pictures_are_shown_with_the_same_gaps():
    plain = np.arange(12.0).reshape(1, 3, 4)
    plain[0, 1, 1] = np.nan
    shown = RecoveryDisplay.from_estimator(DCTImputer().fit(plain), plain).observed
    objects = plain.astype(object)
    objects[0, 1, 1] = pd.NA
    masked = np.ma.array(np.nan_to_num(plain, nan=9), mask=np.isnan(plain))
    for X in (objects, masked, objects.tolist()):
        display = RecoveryDisplay.from_estimator(DCTImputer().fit(X), X)
        np.testing.assert_array_equal(display.observed, shown)


def test_frames_with_na_keep_their_names():
    frame = pd.DataFrame({f"pixel{i}": [v, v] for i, v in enumerate(COUNT)})
    frame = frame.astype(object)
    frame.iloc[0, 3] = pd.NA
    before = frame.copy()
    imputer = DCTImputer().set_output(transform="pandas")
    found = imputer.fit_transform(frame)
    assert list(found.columns) == list(frame.columns)
    assert list(imputer.feature_names_in_) == list(frame.columns)
    pd.testing.assert_frame_equal(frame, before)
    np.testing.assert_array_equal(found.iloc[0], recover_image(GAPS))


def test_pandas_is_not_needed():
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import numpy as np\n"
        "from sklcomp.recovery import DCTImputer\n"
        "found = DCTImputer().fit_transform(np.array([[1, None, 1]], dtype=object))\n"
        "assert found.tolist() == [[1, 1, 1]]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
