import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

from sklcomp.datasets import load_digit_attributes, make_multilabel_stream


def test_attributes_are_true_of_the_digits():
    data = load_digit_attributes()
    digits = load_digits()
    np.testing.assert_array_equal(data.data, digits.data)
    np.testing.assert_array_equal(data.digit, digits.target)
    is_prime = [d > 1 and all(d % k for k in range(2, d)) for d in data.digit]
    root = np.sqrt(data.digit)
    expected = {
        "even": data.digit % 2 == 0,
        "at least five": data.digit >= 5,
        "multiple of three": data.digit % 3 == 0,
        "prime": is_prime,
        "square": root == np.round(root),
        "power of two": np.isin(data.digit, 2 ** np.arange(4)),
    }
    for name, values in expected.items():
        column = data.target_names.index(name)
        np.testing.assert_array_equal(data.target[:, column], values)
    # No two digits have the same labels.
    assert len(np.unique(data.target, axis=0)) == 10


def test_attributes_as_frames_and_as_a_pair():
    pytest.importorskip("pandas")
    data = load_digit_attributes(as_frame=True)
    X, y = load_digit_attributes(return_X_y=True)
    assert list(data.target.columns) == data.target_names
    np.testing.assert_array_equal(data.data.to_numpy(), X)
    np.testing.assert_array_equal(data.target.to_numpy(), y)


@pytest.mark.parametrize("dependence", [0.0, 0.6, 1.0])
def test_new_directions_have_the_dependence_on_the_earlier_ones(dependence):
    X, y, coef = make_multilabel_stream(
        50,
        30,
        n_initial=4,
        n_new=5,
        dependence=dependence,
        return_coef=True,
        random_state=0,
    )
    np.testing.assert_allclose(np.linalg.norm(coef, axis=1), 1)
    for j in range(4, 9):
        basis = np.linalg.qr(coef[:j].T)[0]
        cosine = np.linalg.norm(basis.T @ coef[j])
        # The fresh part may be within the span by chance, but never less than d is.
        assert cosine >= dependence - 1e-12
        if dependence == 1.0:
            assert cosine == pytest.approx(1)
    assert X.shape == (50, 30)
    assert y.shape == (50, 9)


def test_labels_are_the_largest_scores():
    X, y, coef = make_multilabel_stream(
        100, prevalence=0.25, flip_y=0, return_coef=True, random_state=3
    )
    scores = X @ coef.T
    np.testing.assert_array_equal(y.sum(axis=0), 25)
    for j in range(y.shape[1]):
        assert scores[y[:, j] == 1, j].min() > scores[y[:, j] == 0, j].max()


def test_flips_are_as_many_as_asked():
    clean = make_multilabel_stream(2000, flip_y=0, random_state=1)[1]
    noisy = make_multilabel_stream(2000, flip_y=0.2, random_state=1)[1]
    assert np.mean(clean != noisy) == pytest.approx(0.2, abs=0.01)
    inverted = make_multilabel_stream(2000, flip_y=1, random_state=1)[1]
    np.testing.assert_array_equal(inverted, 1 - clean)


def test_same_seed_same_stream_without_touching_the_global_one():
    before = check_random_state(None).get_state()[1].copy()
    first = make_multilabel_stream(random_state=7)
    again = make_multilabel_stream(random_state=check_random_state(7))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    after = check_random_state(None).get_state()[1]
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("prevalence", [0.001, 0.999])
@pytest.mark.parametrize("n_samples", [2, 5])
def test_no_label_is_constant(prevalence, n_samples):
    y = make_multilabel_stream(
        n_samples, 1, prevalence=prevalence, flip_y=0, random_state=0
    )[1]
    assert (y.sum(axis=0) > 0).all()
    assert (y.sum(axis=0) < n_samples).all()


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="'dependence' parameter"):
        make_multilabel_stream(dependence=1.1)
    with pytest.raises(ValueError, match="'n_initial' parameter"):
        make_multilabel_stream(n_initial=0)
