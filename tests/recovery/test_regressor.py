"""DCTRegressor: recover_image on pixels, and invariant as a field should be."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklcomp.recovery import DCTRegressor, recover_image


def waves(X):
    return np.sin(5 * X[:, 0]) + np.cos(4 * X[:, 1])


@pytest.fixture
def scattered(rng):
    X = rng.random((250, 2))
    return X, waves(X)


@pytest.mark.parametrize(
    "settings", [{"order": 1}, {"order": 1.5}, {"noise": 0.5}, {"nuclear": 0.3}]
)
def test_on_pixels_it_is_recover_image(rng, settings):
    image = rng.random((20, 30, 2))
    mask = rng.random((20, 30)) > 0.6
    X, y = np.argwhere(mask), image[mask]
    expected = recover_image(image, mask, channel_axis=-1, **settings)
    model = DCTRegressor((20, 30), extent="pixels", **settings).fit(X, y)
    np.testing.assert_allclose(model.grid_, np.moveaxis(expected, -1, 0), atol=1e-6)
    everywhere = np.argwhere(np.ones((20, 30), dtype=bool))
    np.testing.assert_allclose(
        model.predict(everywhere), expected.reshape(-1, 2), atol=1e-6
    )
    if "noise" not in settings:
        np.testing.assert_allclose(model.predict(X), y, atol=1e-9)
    single = DCTRegressor((20, 30), extent="pixels", **settings).fit(X, y[:, 0])
    np.testing.assert_allclose(single.grid_, expected[..., 0], atol=1e-6)
    assert single.predict(X).shape == (len(X),)


def test_pixels_give_the_grid_when_none_is_given():
    X = np.array([[0, 0], [4, 7], [2, 3]])
    model = DCTRegressor(extent="pixels").fit(X, [1.0, 2.0, 3.0])
    assert model.grid_shape_ == (5, 8)
    np.testing.assert_allclose(model.predict(X), [1, 2, 3], atol=1e-12)


def test_two_points_on_a_line_are_joined_by_it():
    model = DCTRegressor((11,), order=1).fit([[2.0], [7.0]], [10.0, 20.0])
    found = model.predict([[2], [3.25], [7], [-5], [99]])
    np.testing.assert_allclose(found, [10, 12.5, 20, 10, 20], atol=1e-9)


def test_outside_is_the_nearest_place_of_the_boundary(scattered, rng):
    model = DCTRegressor((16, 16), extent=((0, 1), (0, 1))).fit(*scattered)
    far = rng.uniform(-3, 4, (50, 2))
    np.testing.assert_allclose(
        model.predict(far), model.predict(np.clip(far, 0, 1)), atol=1e-12
    )


def test_units_of_places_and_values_do_not_matter(scattered, rng):
    X, y = scattered
    places = rng.random((40, 2))
    expected = DCTRegressor((20, 24)).fit(X, y).predict(places)
    moved = DCTRegressor((20, 24)).fit(X * [1e3, 1e-3] + 7, 5 * y - 2)
    found = moved.predict(places * [1e3, 1e-3] + 7)
    np.testing.assert_allclose(found, 5 * expected - 2, atol=1e-4)
    back = DCTRegressor((20, 24)).fit(X[::-1], y[::-1]).predict(places)
    np.testing.assert_allclose(back, expected, atol=1e-12)


def test_measurements_at_one_place_are_averaged():
    X = [[0.0], [0.0], [0.0], [10.0]]
    model = DCTRegressor((5,), order=1).fit(X, [1.0, 2.0, 6.0, 5.0])
    np.testing.assert_allclose(model.grid_, [3, 3.5, 4, 4.5, 5], atol=1e-9)


def test_outputs_mix_linearly(scattered, rng):
    X, y = scattered
    both = np.stack([y, y**2], axis=1)
    mixing = rng.random((2, 3))
    exact = {"grid_shape": (16, 16), "tol": 1e-9}
    np.testing.assert_allclose(
        DCTRegressor(**exact).fit(X, both @ mixing).predict(X),
        DCTRegressor(**exact).fit(X, both).predict(X) @ mixing,
        atol=1e-6,
    )


def test_constant_field_constant_coordinate_and_many_axes(rng):
    X = rng.random((30, 15))
    X[:, 3] = 2.0
    model = DCTRegressor().fit(X, np.full(30, 4.0))
    np.testing.assert_allclose(model.predict(rng.random((9, 15))), 4, atol=1e-9)
    assert np.prod(model.grid_shape_) == 4096


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_huge_and_tiny_coordinates_and_values(scattered, scale):
    X, y = scattered
    expected = DCTRegressor((16, 16)).fit(X - 0.5, y).predict(X - 0.5)
    X = (X - 0.5) * scale
    found = DCTRegressor((16, 16)).fit(X, y * scale).predict(X)
    np.testing.assert_allclose(found / scale, expected, atol=1e-5)


def test_smooth_field_is_found_better_than_by_neighbours(scattered):
    X, y = scattered
    folds = KFold(5, shuffle=True, random_state=0)
    scores = {
        name: cross_val_score(model, X, y, cv=folds).mean()
        for name, model in (
            ("ours", DCTRegressor(order=2)),
            ("neighbours", KNeighborsRegressor(3, weights="distance")),
        )
    }
    assert scores["ours"] > scores["neighbours"] > 0.9
    assert 1 - scores["ours"] < (1 - scores["neighbours"]) / 3


def test_grid_search_tunes_order_and_noise_over_measurements(scattered, rng):
    X, y = scattered
    y = y + 0.3 * rng.normal(size=len(y))
    pipeline = make_pipeline(StandardScaler(), DCTRegressor((32, 32)))
    search = GridSearchCV(
        pipeline,
        {"dctregressor__order": [1, 2], "dctregressor__noise": [0, 1, 30]},
        cv=KFold(4, shuffle=True, random_state=0),
    ).fit(X, y)
    assert search.best_params_["dctregressor__noise"] > 0
    places = rng.uniform(0.05, 0.95, (200, 2))
    exact = clone(pipeline).fit(X, y).score(places, waves(places))
    assert search.score(places, waves(places)) > max(exact, 0.9)
    mean = DummyRegressor().fit(X, y).score(places, waves(places))
    assert exact > mean


def test_order_of_a_photograph_is_tuned_over_its_pixels(rng):
    i, j = np.indices((40, 40))
    mask = rng.random((40, 40)) > 0.7
    X, y = np.argwhere(mask), np.sin(i / 9)[mask] + np.cos(j / 12)[mask]
    search = GridSearchCV(
        DCTRegressor((40, 40), extent="pixels"),
        {"order": [1, 1.5, 2]},
        cv=KFold(4, shuffle=True, random_state=0),
    ).fit(X, y)
    assert search.best_params_ == {"order": 2}


def test_pickle_and_clone(scattered):
    model = DCTRegressor((9, 9), extent=((0, 1), (0, 1)), order=1).fit(*scattered)
    assert clone(model).get_params() == model.get_params()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.predict(scattered[0]), model.predict(scattered[0])
    )


def test_input_is_untouched_and_may_be_read_only(scattered):
    X, y = (array.copy() for array in scattered)
    X.setflags(write=False)
    y.setflags(write=False)
    DCTRegressor((9, 9)).fit(X, y).predict(X)
    np.testing.assert_array_equal(X, scattered[0])


def test_max_iter_warns_once(scattered):
    model = DCTRegressor((64, 64), solver="pcg", max_iter=2)
    with pytest.warns(ConvergenceWarning, match="within 2 iterations") as record:
        model.fit(*scattered)
    assert len(record) == 1
    assert not model.converged_
    assert np.isfinite(model.predict(scattered[0])).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid_shape": (4,)}, "one integer >= 1 for each of the 2"),
        ({"grid_shape": (4, 0)}, "one integer >= 1"),
        ({"grid_shape": (4.5, 4)}, "one integer >= 1"),
        ({"grid_shape": (True, 4)}, "one integer >= 1"),
        ({"grid_shape": (2**40,) * 2}, "more than 2147483648 nodes.*smaller grid_sh"),
        ({"grid_shape": np.full(2, 2**32)}, r"shape \(4294967296, 4294967296\) has"),
        ({"extent": [(1,), (0, 1)]}, "one pair"),
        ({"extent": [("a", "b"), (0, 1)]}, "one pair"),
        ({"extent": ((0, 1),)}, "one pair"),
        ({"extent": ((0, 1), (2, 2))}, "low < high"),
        ({"extent": "map"}, "'extent' parameter"),
        ({"extent": "pixels"}, "integers from 0 to n - 1"),
        ({"grid_shape": (1, 2), "extent": "pixels"}, "integers from 0 to n - 1"),
        ({"order": "auto"}, "'order' parameter"),
        ({"noise": -1}, "'noise' parameter"),
        ({"axis_scale": (1, 2, 3)}, "axis_scale has shape"),
        ({"nuclear": 1, "solver": "pcg"}, "serves neither"),
    ],
)
def test_bad_settings_are_named(scattered, settings, message):
    with pytest.raises(ValueError, match=message):
        DCTRegressor(**settings).fit(*scattered)


def test_far_pixels_are_refused_before_memory_is_taken():
    with pytest.raises(ValueError, match=r"\(1000001, 1000001\).*extent='data'"):
        DCTRegressor(extent="pixels").fit([[0, 0], [10**6, 10**6]], [1, 2])


def test_one_measurement_is_a_constant_field():
    model = DCTRegressor().fit([[3.0, 4.0]], [7.0])
    np.testing.assert_array_equal(model.predict([[0, 0], [9, 9]]), [7, 7])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_places_and_values_must_be_finite(scattered, bad):
    for k in range(2):
        arrays = [array.copy() for array in scattered]
        arrays[k].flat[3] = bad
        with pytest.raises(ValueError, match="contains (NaN|infinity)|NaN or infinity"):
            DCTRegressor().fit(*arrays)


def test_frames_layouts_and_types_give_the_same(scattered):
    X, y = scattered
    expected = DCTRegressor((16, 16)).fit(X, y).predict(X)
    frame = pd.DataFrame(X, columns=["east", "north"])
    model = DCTRegressor((16, 16)).fit(frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == ["east", "north"]
    np.testing.assert_array_equal(model.predict(frame), expected)
    for same in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X.tolist()):
        np.testing.assert_array_equal(
            DCTRegressor((16, 16)).fit(same, y).predict(same), expected
        )
    single = X.astype(np.float32)
    found = DCTRegressor((16, 16)).fit(single, y.astype(np.float32)).predict(single)
    np.testing.assert_allclose(found, expected, atol=1e-3)
