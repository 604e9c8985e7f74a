"""DCTImputer: equal to recover_image row by row, and at home in scikit-learn."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklcomp.datasets import make_masked_images
from sklcomp.recovery import DCTImputer, DCTRegressor, recover_image


@pytest.fixture
def images():
    return make_masked_images(n_samples=6, image_shape=(24, 20), random_state=0)


@pytest.mark.parametrize("order", [1, 1.5, 2])
def test_equals_recover_image_row_by_row(images, order):
    X, _ = images
    expected = np.stack([recover_image(image, order=order) for image in X])
    imputer = DCTImputer(order=order).fit(X)
    np.testing.assert_allclose(imputer.transform(X), expected, atol=1e-6)
    rows = X.reshape(6, -1)
    flat = DCTImputer((24, 20), order=order).fit(rows)
    np.testing.assert_array_equal(
        flat.transform(rows), imputer.transform(X).reshape(6, -1)
    )
    single = np.concatenate([imputer.transform(X[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(single, expected, atol=1e-6)


@pytest.mark.parametrize("channel_axis", [0, 2, -1])
def test_channels_equal_recover_image(rng, channel_axis):
    X, _ = make_masked_images(rng.random((3, 10, 12, 3)), missing=0.6, random_state=0)
    expected = np.stack([recover_image(image, channel_axis=-1) for image in X])
    X = np.moveaxis(X, -1, channel_axis + 1 if channel_axis >= 0 else -1)
    found = DCTImputer(channel_axis=channel_axis).fit_transform(X)
    assert found.shape == X.shape
    found = np.moveaxis(found, channel_axis + 1 if channel_axis >= 0 else -1, -1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_fit_transform_equals_fit_and_transform_and_sees_new_images(images):
    X, _ = images
    imputer = DCTImputer()
    both = imputer.fit_transform(X)
    np.testing.assert_array_equal(imputer.transform(X), both)
    # What transform returns does not depend on what fit saw.
    other = DCTImputer().fit(X[:2])
    np.testing.assert_array_equal(other.transform(X), both)
    assert imputer.n_iter_ >= 1
    assert imputer.converged_
    assert imputer.image_shape_ == (24, 20)
    assert imputer.fill_value_ == pytest.approx(np.nanmean(X))


def test_result_does_not_depend_on_n_jobs(monkeypatch):
    monkeypatch.setattr("sklcomp.recovery._batches.BATCH_PIXELS", 2 * 40 * 40)
    X, _ = make_masked_images(
        n_samples=7, image_shape=(40, 40), missing=0.5, random_state=0
    )
    one = DCTImputer(n_jobs=1).fit_transform(X)
    for n_jobs in (2, 4, -1):
        np.testing.assert_array_equal(DCTImputer(n_jobs=n_jobs).fit_transform(X), one)
    big, _ = make_masked_images(n_samples=1, image_shape=(99, 70), random_state=0)
    np.testing.assert_array_equal(
        DCTImputer(n_jobs=2).fit_transform(big), DCTImputer().fit_transform(big)
    )


def test_pipeline_and_grid_search_on_digits(rng):
    X, y = load_digits(return_X_y=True)
    X, y = X[:600], y[:600]
    X = np.where(rng.random(X.shape) < 0.6, np.nan, X)

    model = LogisticRegression(max_iter=3000, C=0.01)
    pipeline = make_pipeline(DCTImputer((8, 8)), model)
    search = GridSearchCV(pipeline, {"dctimputer__order": [1, 1.5]}, cv=3).fit(X, y)
    assert search.best_params_.keys() == {"dctimputer__order"}
    assert search.best_score_ > 0.5
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))


def test_frames_keep_their_names(images):
    rows = images[0].reshape(6, -1)
    names = [f"pixel{i}" for i in range(rows.shape[1])]
    expected = DCTImputer((24, 20)).fit_transform(rows)
    for kind, frame in (
        ("pandas", pd.DataFrame(rows, columns=names)),
        ("polars", pl.DataFrame(rows, schema=names)),
    ):
        imputer = DCTImputer((24, 20)).set_output(transform=kind)
        found = imputer.fit_transform(frame)
        assert isinstance(found, type(frame))
        assert list(found.columns) == names
        np.testing.assert_array_equal(found.to_numpy(), expected)
        assert list(imputer.get_feature_names_out()) == names
    with pytest.raises(ValueError, match="feature names"):
        imputer.transform(pd.DataFrame(rows, columns=names[::-1]))


def test_images_and_data_frames_do_not_mix(images):
    imputer = DCTImputer().set_output(transform="pandas")
    with pytest.raises(ValueError, match=r"give flat rows .*image_shape=\(24, 20\)"):
        imputer.fit_transform(images[0])


def test_missing_values_other_than_nan(images):
    X, _ = images
    expected = DCTImputer().fit_transform(X)
    marked = np.where(np.isnan(X), -1, X)
    np.testing.assert_array_equal(
        DCTImputer(missing_values=-1).fit_transform(marked), expected
    )
    # NaN is never a pixel: both may mark at once.
    marked[0], expected = X[0], DCTImputer().fit_transform(X)
    np.testing.assert_array_equal(
        DCTImputer(missing_values=-1).fit_transform(marked), expected
    )


def test_clip_limits_what_is_filled_and_nothing_else(images):
    X, _ = images
    lost = np.isnan(X)
    free = DCTImputer(order=2).fit_transform(X)
    low, high = np.nanmin(X, axis=(1, 2)), np.nanmax(X, axis=(1, 2))
    assert (free.max(axis=(1, 2)) > high).any()
    expected = np.clip(free, low[:, None, None], high[:, None, None])
    found = DCTImputer(order=2, clip="observed").fit_transform(X)
    np.testing.assert_array_equal(found, expected)
    tight = DCTImputer(order=2, clip=(0.4, 0.6)).fit_transform(X)
    np.testing.assert_array_equal(tight[~lost], X[~lost])
    np.testing.assert_array_equal(tight[lost], np.clip(free, 0.4, 0.6)[lost])


def test_clip_observed_is_the_range_of_each_channel(images):
    X = np.stack([images[0], images[0] + 10], axis=-1)
    found = DCTImputer(channel_axis=-1, order=2, clip="observed").fit_transform(X)
    for channel in (0, 1):
        alone = DCTImputer(order=2, clip="observed").fit_transform(X[..., channel])
        np.testing.assert_array_equal(found[..., channel], alone)


def test_score_is_minus_the_error_at_hidden_pixels(images):
    X, y = make_masked_images(
        n_samples=4, image_shape=(32, 32), missing=0.5, random_state=0
    )
    imputer = DCTImputer().fit(X)
    score = imputer.score(X)
    assert score == imputer.score(X)
    assert score != DCTImputer(random_state=1).fit(X).score(X)
    assert DCTImputer(random_state=1).fit(X).score(X) == DCTImputer(random_state=1).fit(
        X
    ).score(X)
    missing_error = np.mean((imputer.transform(X) - y)[np.isnan(X)] ** 2)
    # Hiding 15 % more than what is missing already: the same error, a little larger.
    assert missing_error / 1.5 < -score < missing_error * 2.5
    constant = np.where(np.isnan(X), np.nan, 3.0)
    assert imputer.score(constant) == pytest.approx(0, abs=1e-20)
    lonely = np.full((4, 32, 32), np.nan)
    lonely[:, 3, 3] = 1.0
    with pytest.raises(ValueError, match="hides none of the 4 observed pixels"):
        imputer.score(lonely)


def test_search_over_order_by_score(images):
    """GridSearchCV without a scorer tunes on held-out pixels."""
    X, _ = images
    search = GridSearchCV(DCTImputer((24, 20)), {"order": [0.5, 1.5]}, cv=2)
    search.fit(X.reshape(6, -1))
    assert search.best_params_ == {"order": 1.5}
    assert search.best_score_ < 0


def test_image_without_observed_pixels_is_filled_with_the_mean(images):
    X, _ = images
    imputer = DCTImputer().fit(X)
    blank = X[:2].copy()
    blank[1] = np.nan
    with pytest.warns(UserWarning, match="1 of 2 images have no observed pixel"):
        found = imputer.transform(blank)
    np.testing.assert_array_equal(found[1], np.full((24, 20), imputer.fill_value_))
    np.testing.assert_allclose(found[0], imputer.transform(X[:1])[0], atol=1e-6)


def test_clone_keeps_parameters():
    imputer = DCTImputer((3, 4), order=1, clip=(0, 1))
    assert clone(imputer).get_params() == imputer.get_params()


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({"image_shape": (3, 3)}, (2, 12), r"3 x 3 = 9 values, but X has 12 features"),
        (
            {"image_shape": (0, 3)},
            (2, 12),
            r"\(0, 3\) must consist of positive integers",
        ),
        ({"image_shape": (3, 4)}, (2, 4, 3), r"shape \(4, 3\); expected \(3, 4\)"),
        ({"channel_axis": 2}, (2, 4, 3), "channel_axis=2 does not exist"),
        ({"channel_axis": 0}, (2, 12), "channel_axis=0 does not exist"),
        ({"clip": (1, 0)}, (2, 12), "low < high"),
        ({"clip": (None, 1)}, (2, 12), "two numbers"),
        ({"clip": ("a", "b")}, (2, 12), "two numbers"),
        ({"image_shape": (2.5, 4.8)}, (2, 12), "must consist of positive integers"),
        ({"clip": "tight"}, (2, 12), "'clip' parameter"),
        ({"holdout": 1.0}, (2, 12), "'holdout' parameter"),
        ({"order": -1}, (2, 12), "'order' parameter"),
        ({"dtype": np.int64}, (2, 12), "'dtype' parameter"),
        ({"solver": "stencil"}, (2, 12), "serves order 1 and 2"),
    ],
)
def test_bad_settings_are_named_in_fit(rng, settings, shape, message):
    imputer = DCTImputer(**settings)  # says nothing yet
    X = rng.random(shape)
    X.flat[1] = np.nan
    with pytest.raises(ValueError, match=message):
        imputer.fit(X)


def test_callback_that_stops_leaves_a_usable_model_without_a_warning():
    X, _ = make_masked_images(
        n_samples=2, image_shape=(64, 64), missing=0.9, random_state=0
    )

    class StopAtSecond:
        def __init__(self):
            self.n_iterations = 0

        def setup(self, estimator, context): ...

        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            if context.parent is None:
                filled = fitted_estimator.transform(X)
                self.is_usable = np.isfinite(filled).all()
                return False
            self.n_iterations += 1
            return self.n_iterations == 2

    callback = StopAtSecond()
    imputer = DCTImputer(solver="pcg").set_callbacks(callback).fit(X)
    assert callback.n_iterations == 2
    assert callback.is_usable
    assert imputer.n_iter_ == 2
    assert not imputer.converged_
    # transform is not told to stop.
    expected = DCTImputer(solver="pcg").fit_transform(X)
    np.testing.assert_array_equal(imputer.transform(X), expected)


def test_progress_bar_of_scikit_learn(images, capsys):
    pytest.importorskip("rich", reason="needs the extra progress")
    from sklearn.callback import ProgressBar

    imputer = DCTImputer().set_callbacks(ProgressBar()).fit(images[0])
    assert imputer.converged_
    assert "DCTImputer" in capsys.readouterr().out


def test_dtype(images):
    X, _ = images
    single = DCTImputer(dtype=np.float32).fit_transform(X)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, DCTImputer().fit_transform(X), atol=1e-5)
    assert DCTImputer().fit_transform(X.astype(np.float32)).dtype == np.float32
    assert DCTImputer(dtype="float64").fit_transform(single).dtype == np.float64


def test_score_leaves_every_channel_something_to_be_recovered_from(rng):
    X = rng.random((1, 8, 8, 3))
    X[0, ..., 1] = np.nan
    X[0, 4, 4, 1] = 0.5
    for seed in range(20):  # a channel without pixels would warn, which is an error
        imputer = DCTImputer(channel_axis=-1, holdout=0.9, random_state=seed).fit(X)
        assert -1 < imputer.score(X) < 0


def test_markers_are_read_in_the_precision_of_the_images(images):
    X = images[0].reshape(len(images[0]), -1)
    expected = DCTImputer(images[0].shape[1:]).fit_transform(X.astype(np.float32))
    marked = np.where(np.isnan(X), 0.1, X).astype(np.float32)
    for marker in (0.1, np.float64(0.1), np.float32(0.1)):
        imputer = DCTImputer(images[0].shape[1:], missing_values=marker)
        np.testing.assert_array_equal(imputer.fit_transform(marked), expected)


def test_masked_arrays_keep_their_mask(images):
    X = images[0]
    masked = np.ma.array(np.nan_to_num(X, nan=7), mask=np.isnan(X))
    expected = DCTImputer().fit_transform(X)
    np.testing.assert_array_equal(DCTImputer().fit_transform(masked), expected)
    imputer = DCTImputer(missing_values=-1)
    np.testing.assert_array_equal(imputer.fit_transform(masked), expected)


def test_score_scales_with_the_square_of_the_pixels_or_says_why_not(images):
    X = images[0]
    score = DCTImputer().fit(X).score(X)
    single = (X * 1e25).astype(np.float32)
    assert DCTImputer().fit(single).score(single) == pytest.approx(
        score * 1e50, rel=1e-3
    )
    with pytest.raises(ValueError, match="squared error.*rescale"):
        DCTImputer().fit(X * 1e200).score(X * 1e200)


def test_images_fit_and_score_where_frames_are_asked_for(images):
    X = images[0]
    imputer = DCTImputer().set_output(transform="pandas").fit(X)
    assert imputer.score(X) == DCTImputer().fit(X).score(X)
    with pytest.raises(ValueError, match="flat rows"):
        imputer.transform(X)


def test_foreign_byte_order_keeps_single_precision(images):
    X = images[0].astype(np.float32)
    found = DCTImputer().fit_transform(X.astype(">f4"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, DCTImputer().fit_transform(X))


@pytest.mark.filterwarnings("ignore:.*no observed pixel")
def test_clip_limits_images_without_observed_pixels(images):
    X = images[0].copy()
    X[0] = np.nan
    found = DCTImputer(clip=(-2, -1)).fit_transform(X)
    assert (found[0] == -1).all()


def test_callback_at_the_last_iteration_stops_without_a_warning(images):
    class Stop:
        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context, **_):
            pass

        def on_fit_task_end(self, estimator, context, **_):
            return True

    imputer = DCTImputer(solver="pcg", max_iter=1).set_callbacks(Stop()).fit(images[0])
    assert not imputer.converged_


@pytest.mark.parametrize(
    ("read", "shown"),
    [
        (lambda X, n: DCTImputer((n, n)).fit(X), r"image_shape=\(2, 2\) has 2 x 2 = 4"),
        (lambda X, n: DCTImputer((n, n + 0.5)).fit(X), r"image_shape=\(2, 2\.5\)"),
        (lambda X, n: DCTImputer((n, n)).fit(X[None]), r"expected \(2, 2\)"),
        (lambda X, n: DCTImputer((n, n * 3), n).fit(X), r"image_shape_=\(2, 6\)"),
        (lambda X, n: DCTImputer(clip=(n, n)).fit(X), r"clip=\(2, 2\)"),
        (lambda X, n: recover_image(X, clip=[n, n]), r"clip=\[2, 2\]"),
        (lambda X, n: DCTRegressor((n,)).fit(X, X[:, 0]), r"grid_shape=\(2,\)"),
        (
            lambda X, n: DCTRegressor(extent=[(n, n)]).fit(X, X[:, 0]),
            r"extent=\[\(2, 2\)\]",
        ),
    ],
)
def test_messages_show_plain_numbers(rng, read, shown):
    with pytest.raises(ValueError, match=shown) as caught:
        read(rng.random((3, 12)), np.int64(2))
    assert "np." not in str(caught.value)
