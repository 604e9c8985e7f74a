"""order, noise and nuclear = "auto": what it picks, and when it keeps the default."""

import warnings

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.data import camera
from sklearn.exceptions import ConvergenceWarning

from sklcomp.recovery import DCTImputer, recover_image
from sklcomp.recovery._selection import GRIDS, hide_pixels


def smooth(shape=(48, 40)):
    """Two long waves: the higher the order, the better."""
    i, j = np.indices(shape)
    return np.sin(i / 15) + np.cos(j / 11)


def checkerboard():
    return (np.indices((64, 64)) // 8).sum(axis=0) % 2.0


def hide(rng, image, missing):
    return np.where(rng.random(image.shape) < missing, np.nan, image)


def used(image, **settings):
    return recover_image(image, return_info=True, **settings)[1]


def test_smooth_pictures_get_a_high_order_and_the_error_falls(rng):
    image = hide(rng, smooth(), 0.7)
    assert used(image, order="auto")["order"] == 2
    error = [
        np.abs(recover_image(image, order=order) - smooth()).mean()
        for order in (1.5, "auto")
    ]
    assert error[1] < 0.8 * error[0]


def test_rough_pictures_get_a_low_order(rng):
    rough = rng.normal(size=(60, 60)) + 3 * (np.indices((60, 60)).sum(axis=0) > 60)
    assert used(hide(rng, rough, 0.3), order="auto")["order"] < 1


def test_without_evidence_the_defaults_stay(rng):
    """A constant picture is recovered by every candidate."""
    flat = hide(rng, np.full((20, 20), 3.0), 0.8)
    info = used(flat, order="auto", nuclear="auto", noise="auto")
    assert (info["order"], info["nuclear"], info["noise"]) == (1.5, 0, 0)


@pytest.mark.parametrize("missing", [0.0, 0.5, 0.9])
def test_noise_is_found_where_there_is_noise(rng, missing):
    image = camera()[::4, ::4] / 255
    noisy = image + rng.normal(size=image.shape) * 0.15
    info = used(hide(rng, noisy, missing), noise="auto")
    assert info["noise"] > 0
    assert used(hide(rng, smooth(), missing), noise="auto")["noise"] == 0


def test_nuclear_norm_is_found_where_the_rank_is_low(rng):
    board = checkerboard()
    image = hide(rng, board, 0.7)
    found, info = recover_image(image, nuclear="auto", return_info=True)
    assert info["nuclear"] >= 1
    assert (
        np.abs(found - board).mean() < np.abs(recover_image(image) - board).mean() / 3
    )


def test_imputer_and_function_choose_alike_and_keep_the_record(rng):
    image = hide(rng, smooth(), 0.7)
    expected, info = recover_image(image, order="auto", noise="auto", return_info=True)
    imputer = DCTImputer(order="auto", noise="auto").fit(image[None])
    np.testing.assert_array_equal(imputer.transform(image[None])[0], expected)
    assert (imputer.order_, imputer.noise_) == (info["order"], info["noise"])
    results = imputer.cv_results_
    for order in GRIDS["order"]:
        tried = results["param_noise"][results["param_order"] == order]
        assert len(tried) >= 5
        assert tried[0] == 0
        assert (np.diff(tried) > 0).all()
    chosen = results["params"].index(
        {"order": imputer.order_, "noise": imputer.noise_, "nuclear": 0.0}
    )
    best = results["mean_test_score"].argmax()
    assert results["rank_test_score"][best] == 1
    worst = results["mean_test_score"].min()
    assert results["mean_test_score"][chosen] > worst
    assert not hasattr(
        imputer.set_params(order=1, noise=0).fit(image[None]), "cv_results_"
    )


def test_weights_leave_no_order_to_search(rng):
    image, weights = hide(rng, smooth(), 0.7), np.ones((48, 40))
    for order in (2, "auto"):
        assert used(image, weights=weights, order=order)["order"] is None
    imputer = DCTImputer(weights=weights, order="auto").fit(image[None])
    assert imputer.order_ is None
    assert not hasattr(imputer, "cv_results_")
    imputer.set_params(noise="auto").fit(image[None])
    candidates = imputer.cv_results_["params"]
    assert len({candidate["noise"] for candidate in candidates}) >= 5
    assert {candidate["order"] for candidate in candidates} == {None}


def test_choice_is_shared_by_the_images_and_independent_of_n_jobs(rng):
    X = np.stack([hide(rng, smooth() * k, 0.7) for k in (1, 2, 3)])
    one, two = (
        DCTImputer(order="auto", n_jobs=n, random_state=3).fit(X) for n in (1, 2)
    )
    assert one.order_ == two.order_ == 2
    np.testing.assert_array_equal(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]
    )
    # New images are recovered with the order that was learnt.
    single = one.transform(X[:1])
    np.testing.assert_allclose(single[0], recover_image(X[0], order=2), atol=1e-6)


def test_scores_are_those_of_hand_made_draws(rng):
    image = hide(rng, smooth(), 0.5)[None]
    known = ~np.isnan(image)
    imputer = DCTImputer(order="auto", n_repeats=1, random_state=5).fit(image)
    draws = np.random.RandomState(5)
    scores = []
    for _ in range(-(-2000 // np.count_nonzero(known))):  # few pixels: more draws
        hidden, scored = hide_pixels(known, 0.15, draws)
        found = recover_image(np.where(hidden, np.nan, image)[0], order=2)
        scores.append(-np.mean((found - image[0])[scored[0]] ** 2))
    at = imputer.cv_results_["param_order"].tolist().index(2.0)
    assert imputer.cv_results_["mean_test_score"][at] == pytest.approx(np.mean(scores))


@pytest.mark.parametrize("shape", [(30,), (40, 30), (9, 10, 11)])
@pytest.mark.parametrize("missing", [0, 0.3, 0.9, 0.99])
def test_some_are_hidden_but_never_all(rng, shape, missing):
    observed = rng.random((5, *shape)) >= missing
    observed[:, 0] = observed[:, -1] = True
    generator = np.random.RandomState(0)
    hidden, scored = hide_pixels(observed, 0.15, generator)
    axes = tuple(range(1, observed.ndim))
    assert scored.any(axis=axes).all()
    assert (observed & ~hidden).any(axis=axes).all()
    assert not (hidden & ~observed).any()
    assert not (scored & ~hidden).any()
    assert hidden.sum() < 0.3 * observed.sum() + len(observed)


def test_gaps_are_imitated(rng):
    """Hidden pixels lie as far from the remaining ones as the missing ones did."""
    scattered = rng.random((1, 120, 120)) > 0.1
    holes = np.ones((1, 120, 120), dtype=bool)
    holes[0, 20:44, 20:44] = holes[0, 70:94, 60:84] = False
    for observed in (scattered, holes):
        hidden, scored = hide_pixels(observed, 0.15, np.random.RandomState(0))
        depth = distance_transform_edt(~(observed & ~hidden)[0])[scored[0]]
        wanted = distance_transform_edt(~observed[0])[~observed[0]]
        assert 0.6 < np.mean(depth) / np.mean(wanted) < 1.7


def test_auto_needs_pixels_to_hide():
    lonely = np.full((5, 5), np.nan)
    lonely[2, 2] = 1
    with pytest.raises(ValueError, match="hides none of the 1 observed"):
        recover_image(lonely, order="auto")


def test_noisy_images_without_gaps_are_smoothed(rng):
    X = rng.random((2, 12, 12))
    found = DCTImputer(noise=1.0).fit_transform(X)
    for image, smoothed in zip(X, found, strict=True):
        np.testing.assert_allclose(smoothed, recover_image(image, noise=1.0), atol=1e-6)
        assert smoothed.std() < image.std()


def test_nuclear_norm_does_not_depend_on_n_jobs(rng):
    X = np.stack([hide(rng, checkerboard(), 0.5) for _ in range(40)])
    one, two = (DCTImputer(nuclear=1.0, n_jobs=n).fit_transform(X) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_films_are_recovered_with_all_terms(rng):
    """A still film: what is lost in one frame is seen in another."""
    film = np.repeat(checkerboard()[None, :32, :32], 6, axis=0)
    mask = rng.random(film.shape) > 0.6
    for settings in ({"noise": 0.01}, {"nuclear": 1.0}, {"axis_scale": (100, 1, 1)}):
        whole = recover_image(film, mask, max_iter=1000, **settings)
        single = np.stack(
            [
                recover_image(frame, known)
                for frame, known in zip(film, mask, strict=True)
            ]
        )
        assert np.abs(whole - film).mean() < np.abs(single - film).mean()


@pytest.mark.filterwarnings("ignore:.*no observed pixel")
def test_fit_data_without_any_observed_pixel_keep_the_defaults():
    imputer = DCTImputer(order="auto", noise="auto").fit(np.full((2, 4, 4), np.nan))
    assert (imputer.order_, imputer.noise_) == (1.5, 0)


@pytest.mark.parametrize("noise", [1e-9, 1e10])
def test_extreme_noise_weights_stay_finite(rng, noise):
    image = hide(rng, smooth(), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = recover_image(image, noise=noise)
    wanted = (
        recover_image(image) if noise < 1 else np.full(image.shape, np.nanmean(image))
    )
    np.testing.assert_allclose(found, wanted, atol=0.05)
