import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

from sklcomp.datasets import make_unpaired_digits
from sklcomp.datasets._unpaired import INK


def originals(rows):
    """Pixels 0 to 16 of grey rows of the original size."""
    return np.rint((rows[:, ::3].astype(float) + 1) * 8)


@pytest.mark.parametrize("seed", [0, 1])
def test_halves_are_disjoint_and_show_their_digits(seed):
    data = make_unpaired_digits(image_size=8, random_state=seed)
    digits = load_digits()
    place = {image.tobytes(): row for row, image in enumerate(digits.data)}
    a = [place[image.tobytes()] for image in originals(data.data_a)]
    b = [
        place[image.tobytes()] for image in originals(data.translate_back(data.data_b))
    ]
    assert len({*a, *b}) == len(a) + len(b) == 1796
    np.testing.assert_array_equal(digits.target[a], data.digit_a)
    np.testing.assert_array_equal(digits.target[b], data.digit_b)


@pytest.mark.parametrize("seed", range(5))
def test_every_digit_is_split_evenly(seed):
    data = make_unpaired_digits(image_size=8, random_state=seed)
    counts = [np.bincount(digit) for digit in (data.digit_a, data.digit_b)]
    assert np.abs(counts[0] - counts[1]).max() == 1
    all_counts = np.bincount(load_digits().target)
    assert all_counts.sum() - np.sum(counts) == 1
    for digit in (data.digit_a, data.digit_b):
        rounds = np.sort(digit[:800].reshape(-1, 10), axis=1)
        assert (rounds == np.arange(10)).all()
        assert not (digit[:800].reshape(-1, 10) == digit[:10]).all()


def test_fewer_samples_are_the_first_rows():
    whole = make_unpaired_digits(random_state=0)
    part = make_unpaired_digits(25, random_state=0)
    np.testing.assert_array_equal(part.data_a, whole.data_a[:25])
    np.testing.assert_array_equal(part.data_b, whole.data_b[:25])
    np.testing.assert_array_equal(part.digit_b, whole.digit_b[:25])


@pytest.mark.parametrize("size", [8, 11, 16, 32])
def test_the_translator_is_exact(size):
    data = make_unpaired_digits(50, image_size=size, random_state=0)
    translated = data.translate(data.data_a)
    assert translated.dtype == np.float32
    back = data.translate_back(translated)
    np.testing.assert_allclose(back, data.data_a, rtol=0, atol=1e-6)
    again = data.translate(data.translate_back(data.data_b))
    np.testing.assert_allclose(again, data.data_b, rtol=0, atol=1e-6)
    # Pictures with the channels last are translated as their rows are.
    pictures = data.data_a.reshape(-1, *data.image_shape)
    same = data.translate(pictures).reshape(translated.shape)
    np.testing.assert_array_equal(same, translated)


@pytest.mark.parametrize("size", [8, 16, 32])
def test_colours_of_the_domains(size):
    data = make_unpaired_digits(40, image_size=size, random_state=0)
    assert data.image_shape == (size, size, 3)
    np.testing.assert_array_equal(data.data, np.vstack([data.data_a, data.data_b]))
    np.testing.assert_array_equal(data.target, [0] * 40 + [1] * 40)
    assert data.data.shape == (80, 3 * size**2)
    assert data.data.dtype == np.float32
    a, b = (rows.reshape(-1, 3) for rows in (data.data_a, data.data_b))
    assert (a == a[:, :1]).all()
    assert a.min() == -1
    assert a.max() == 1
    background, stroke = np.asarray(INK)
    assert np.abs(INK).max() <= 1
    share = (b - background) @ (stroke - background)
    share /= np.sum((stroke - background) ** 2)
    segment = np.outer(1 - share, background) + np.outer(share, stroke)
    np.testing.assert_allclose(b, segment, atol=1e-6)
    assert share.min() == pytest.approx(0, abs=1e-6)
    assert share.max() == pytest.approx(1, abs=1e-6)
    # Strokes cover less than half of an image; in B they are the darker part.
    assert np.median(a) < a.mean()
    assert np.median(b) > b.mean()


def test_translation_of_single_colours():
    data = make_unpaired_digits(1, random_state=0)
    background, stroke = np.asarray(INK)
    colours = np.array([[-1, -1, -1], [1, 1, 1], [0, 0, 0]])
    expected = np.array([background, stroke, (background + stroke) / 2])
    np.testing.assert_allclose(data.translate(colours), expected)
    np.testing.assert_allclose(data.translate_back(expected), colours, atol=1e-15)
    # Grey is nearest to the mean of the channels, and no colour lies beyond the ends.
    np.testing.assert_allclose(data.translate([[-1, 0, 1]]), [expected[2]])
    np.testing.assert_allclose(data.translate([[5, 5, 5]]), [stroke])
    beyond = 2 * background - stroke
    np.testing.assert_allclose(data.translate_back(beyond), [-1, -1, -1])
    across = np.cross(stroke - background, [1, 0, 0])
    np.testing.assert_allclose(
        data.translate_back(expected[2] + across), [0, 0, 0], atol=1e-15
    )
    assert data.translate(np.empty((0, 768))).shape == (0, 768)


def test_callables_and_data_can_be_pickled():
    data = make_unpaired_digits(10, random_state=0)
    copy = pickle.loads(pickle.dumps(data))
    translated = data.translate(data.data_a)
    np.testing.assert_array_equal(copy.translate(data.data_a), translated)
    np.testing.assert_array_equal(
        copy.translate_back(translated), data.translate_back(translated)
    )


def test_same_seed_same_images_without_touching_the_global_one():
    before = check_random_state(None).get_state()[1].copy()
    first = make_unpaired_digits(30, random_state=7)
    again = make_unpaired_digits(30, random_state=check_random_state(7))
    other = make_unpaired_digits(30, random_state=8)
    np.testing.assert_array_equal(first.data, again.data)
    np.testing.assert_array_equal(first.digit_a, again.digit_a)
    assert not np.array_equal(first.data, other.data)
    after = check_random_state(None).get_state()[1]
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_samples": 899}, "n_samples=899 exceeds the 898 images.*<= 898"),
        ({"n_samples": 0}, "'n_samples' parameter"),
        ({"image_size": 7}, "'image_size' parameter"),
        ({"random_state": "seed"}, "'random_state' parameter"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_unpaired_digits(**settings)


def test_images_without_channels_are_named():
    translate = make_unpaired_digits(1, random_state=0).translate
    with pytest.raises(ValueError, match=r"shape \(2, 64\).*multiple of the 3"):
        translate(np.zeros((2, 64)))
    with pytest.raises(ValueError, match="channels last"):
        translate(0.0)
