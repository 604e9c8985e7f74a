import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from sklcomp.datasets import make_masked_images
from sklcomp.recovery import DCTImputer
from sklcomp.recovery._layout import MIN_PICTURE, hint_at_pictures
from sklcomp.utils._layout import count_axes


@pytest.mark.parametrize("missing", [0, 0.5, 0.9])
def test_one_picture_without_its_shape_gets_a_hint(missing):
    picture = np.add.outer(np.sin(np.arange(160) / 9), np.cos(np.arange(150) / 7))
    rng = np.random.default_rng(0)
    X = np.where(rng.random(picture.shape) < missing, np.nan, picture)
    X[:, 0] = picture[:, 0]
    with pytest.warns(
        UserWarning, match=r"160 rows.*X\[np.newaxis\].*\(150,\) says so"
    ):
        DCTImputer().fit_transform(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DCTImputer().fit(X[None])
        DCTImputer((150,)).fit(X)


def test_samples_in_any_order_get_no_hint(rng):
    pictures = make_masked_images(n_samples=60, missing=0.5, random_state=0)[0]
    walks = np.cumsum(rng.normal(size=(80, 90)), axis=1)
    classes = np.repeat(rng.normal(size=(3, 40)), 30, axis=0) + rng.normal(
        size=(90, 40)
    )
    phases = np.sin(np.arange(100) / 9 + rng.uniform(0, 6, (50, 1)))
    for X in (
        pictures.reshape(60, -1),
        walks,
        classes,
        phases,
        np.ones((50, 50)),
        rng.random((50, 50)),
        np.eye(30),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            DCTImputer().fit(X)


@pytest.mark.parametrize(("X", "n_axes"), [
    (np.zeros((2, 3, 4)), 3), ([[1, 2], [3, 4]], 2), ([1, 2], 1), (3.0, 0),
    (pd.DataFrame({"a": [1], "b": [2]}), 2), (pl.DataFrame({"a": [1]}), 2),
    (np.ma.zeros((2, 2)), 2),
])  # fmt: skip
def test_axes_of_any_container(X, n_axes):
    assert count_axes(X) == n_axes


def hints(X):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hint_at_pictures(X)
    return len(caught) == 1


@pytest.fixture
def picture():
    return np.add.outer(np.sin(np.arange(60) / 9), np.cos(np.arange(50) / 7))


def test_hint_is_one_of_the_order_of_the_rows(picture, rng):
    assert hints(picture)
    assert hints(picture[::-1])
    assert not hints(picture[rng.permutation(60)])
    # The columns may stand in any order.
    assert hints(picture[:, rng.permutation(50)])


def test_units_of_the_columns_and_constant_ones_do_not_matter(picture, rng):
    assert hints(picture * rng.uniform(1e-3, 1e3, 50))
    assert hints(np.column_stack([picture, np.zeros((60, 30))]))
    X = rng.random((60, 50))
    assert not hints(X)
    assert not hints(np.column_stack([X, np.zeros((60, 30))]))


def test_small_arrays_are_never_pictures(picture):
    assert hints(picture[:MIN_PICTURE, :MIN_PICTURE])
    assert not hints(picture[: MIN_PICTURE - 1])
    assert not hints(picture[:, : MIN_PICTURE - 1])


def test_too_few_pixels_say_nothing(picture):
    nothing = np.full_like(picture, np.nan)
    assert not hints(nothing)
    nothing[::2] = picture[::2]  # no pixel has a known neighbour
    before = nothing.copy()
    assert not hints(nothing)
    np.testing.assert_array_equal(nothing, before)
