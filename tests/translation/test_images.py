import joblib
import numpy as np
import pandas as pd
import pytest
import torch

from sklcomp.translation._images import ImageLayout
from tests.helpers.translators import Keep, draw, draw_domains, same, translator

# Shape of an example, the parameter, and whether examples come as flat rows.
LAYOUTS = [
    ((8, 8, 3), (8, 8, 3), True),
    ((8, 8, 3), None, False),
    ((3, 8, 8), (3, 8, 8), True),
    ((3, 8, 8), None, False),
    ((8, 8), (8, 8), True),
    ((8, 8), None, False),
    ((8, 8, 1), None, False),
    ((5, 7, 3), None, False),
    ((10, 13), (10, 13), True),
    ((2, 13, 10), [2, 13, 10], True),
    ((1, 1), None, False),
    ((1, 9, 4), None, False),
    ((6,), None, False),
]


@pytest.mark.parametrize(("shape", "given", "is_flat"), LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_generators_that_keep_their_input_give_X_back(shape, given, is_flat, dtype):
    X, Y = (draw(5, shape, seed) for seed in (1, 2))
    if dtype == np.uint8:
        X, Y = ((images * 127.5 + 127.5).round() for images in (X, Y))
    X, Y = (images.astype(dtype) for images in (X, Y))
    if is_flat:
        X, Y = X.reshape(5, -1), Y.reshape(5, -1)
    fitted = translator(given, generator=Keep()).fit(X, Y)
    for method in (fitted.transform, fitted.inverse_transform, fitted.cycle):
        found = method(X)
        # What is no image has no range either, so that its integers become floats.
        is_plain = shape == (6,) and dtype == np.uint8
        assert found.dtype == (np.float64 if is_plain else dtype)
        np.testing.assert_array_equal(found, X)
    assert fitted.score(X, Y) == 0
    assert fitted.image_shape_ == shape
    assert fitted.n_features_in_ == np.prod(shape)


def test_every_value_of_a_byte_comes_back():
    X = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    found = translator(generator=Keep()).fit(X, X).transform(X)
    np.testing.assert_array_equal(found, X)


def test_values_beyond_a_byte_are_clipped():
    X = np.full((2, 8, 8), 250, np.uint8)

    class Far(Keep):
        def forward(self, x):
            return super().forward(3 * x)

    fitted = translator(generator=Far()).fit(X, X)
    assert (fitted.transform(X) == 255).all()
    assert (fitted.transform(5 * (X // 250)) == 0).all()


def test_all_layouts_are_the_same_training():
    A, B = draw_domains()
    last = translator().fit(A, B)
    first = translator().fit(np.moveaxis(A, -1, 1), np.moveaxis(B, -1, 1))
    flat = translator((8, 8, 3)).fit(A.reshape(9, -1), B.reshape(7, -1))
    flat_first = translator((3, 8, 8)).fit(
        np.moveaxis(A, -1, 1).reshape(9, -1), np.moveaxis(B, -1, 1).reshape(7, -1)
    )
    for other in (first, flat, flat_first):
        assert same(last, other)
    want = last.transform(A)
    assert not np.array_equal(want, A)
    np.testing.assert_array_equal(
        flat.transform(A.reshape(9, -1)).reshape(A.shape), want
    )
    moved = first.transform(np.moveaxis(A, -1, 1))
    np.testing.assert_allclose(np.moveaxis(moved, 1, -1), want, atol=1e-5)
    # A fit on images takes rows as well.
    np.testing.assert_array_equal(
        last.transform(A.reshape(9, -1)), flat.transform(A.reshape(9, -1))
    )
    gray = translator().fit(A[..., 0], B[..., 0])
    one = translator().fit(A[..., :1], B[..., :1])
    assert same(gray, one)
    np.testing.assert_allclose(
        gray.transform(A[..., 0]), one.transform(A[..., :1])[..., 0], atol=1e-5
    )


def test_bytes_are_floats_to_half_a_level():
    A, B = ((images * 127.5 + 127.5).astype(np.uint8) for images in draw_domains())
    floats = [images.astype(np.float32) / np.float32(127.5) - 1 for images in (A, B)]
    bytes_, reals = translator().fit(A, B), translator().fit(*floats)
    assert same(bytes_, reals)
    found, want = bytes_.transform(A), reals.transform(floats[0])
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found / 127.5 - 1, want, rtol=0, atol=0.5001 / 127.5)
    # Either domain may be in either form.
    assert same(translator().fit(A, floats[1]), reals)
    assert bytes_.score(A, B) == pytest.approx(reals.score(*floats), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, object, ">f4", "i1", bool])
def test_numbers_of_any_type_are_the_same_training(dtype):
    X, Y = (images.astype(dtype) for images in draw_domains())
    single = [images.astype(np.float32) for images in (X, Y)]
    found, want = translator().fit(X, Y), translator().fit(*single)
    assert same(found, want)
    made = found.transform(X)
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made, want.transform(single[0]))


@pytest.mark.parametrize("size", [(5, 7), (10, 13), (1, 1), (8, 8), (9, 3), (2, 31)])
def test_padding_repeats_the_edges(size):
    images = draw(2, (*size, 3))
    layout = ImageLayout((*size, 3))
    tensor = layout.to_tensor(images.reshape(2, -1))
    height, width = tensor.shape[2:]
    assert (height, width) == layout.padded_size
    assert height % 4 == width % 4 == 0
    assert height in range(max(8, size[0]), max(9, size[0] + 4))
    assert width in range(max(8, size[1]), max(9, size[1] + 4))
    more = ((0, 0), (0, height - size[0]), (0, width - size[1]), (0, 0))
    np.testing.assert_array_equal(
        tensor.movedim(1, -1), np.pad(images, more, mode="edge")
    )
    np.testing.assert_array_equal(
        layout.to_rows(tensor, np.float32), images.reshape(2, -1)
    )
    assert torch.equal(layout.pad(tensor), tensor)


@pytest.mark.parametrize("shape", [(5, 7, 3), (10, 13), (2, 9, 11)])
def test_odd_sizes_are_translated(shape):
    A, B = draw_domains(shape=shape)
    fitted = translator().fit(A, B)
    made = fitted.transform(A)
    assert made.shape == A.shape
    assert np.abs(made).max() <= 1
    # Rows do not depend on one another.
    np.testing.assert_allclose(fitted.transform(A[2:3]), made[2:3], atol=1e-5)
    np.testing.assert_allclose(
        fitted.cycle(A), fitted.inverse_transform(fitted.transform(A)), atol=1e-6
    )
    error = np.abs(fitted.cycle(A).astype(float) - A).mean()
    assert fitted.score(A) == pytest.approx(-error, rel=1e-6)


def test_memory_of_the_user_is_left_alone(tmp_path):
    A, B = draw_domains()
    want = translator().fit(A, B).transform(A)
    joblib.dump(A, tmp_path / "A")
    wide = np.repeat(A, 2, axis=2)
    frozen = A.copy()
    frozen.setflags(write=False)
    variants = {
        "frozen": frozen,
        "map": joblib.load(tmp_path / "A", mmap_mode="r"),
        "fortran": np.asfortranarray(A),
        "strided": wide[:, :, ::2],
        "negative": A[::-1, ::-1].copy()[::-1, ::-1],
        "list": A.tolist(),
    }
    for name, X in variants.items():
        before = joblib.hash(X)
        fitted = translator().fit(X, B)
        np.testing.assert_array_equal(fitted.transform(X), want, err_msg=name)
        fitted.cycle(X)
        fitted.score(X, B)
        assert joblib.hash(X) == before, name
    bytes_ = np.zeros((4, 8, 8), np.uint8)
    bytes_.setflags(write=False)
    translator().fit(bytes_, bytes_).transform(bytes_)
    assert not bytes_.any()


@pytest.mark.parametrize(
    ("X", "given", "message"),
    [
        (draw(4) * 1.01, None, r"X holds -?1.0\d*; images of dtype float32 must lie"),
        (draw(4) * 255, None, r"Pass uint8 for 0 to 255, or X / 127.5 - 1"),
        (
            draw(4, (192,)),
            (8, 8),
            r"image_shape=\(8, 8\) has 8 x 8 = 64 values, but X has 192 features",
        ),
        (draw(4), (3, 8, 8), r"images of shape \(8, 8, 3\); expected \(3, 8, 8\)"),
        (draw(4, (2, 2, 2, 2)), None, r"shape \(2, 2, 2, 2\); images have 2 or 3 dim"),
        (draw(4, (2, 2, 2, 2)), (4, 4), r"images of shape \(2, 2, 2, 2\); expected"),
        (draw(4, (64,)), (64,), r"image_shape=\(64,\); expected \(height, width\)"),
        (draw(4, (64,)), (8.0, 8), r"\(8.0, 8\) must consist of positive integers"),
        (draw(4, (64,)), (-8, -8), r"\(-8, -8\) must consist of positive integers"),
        (draw(4, (64,)), "8x8", "'image_shape' parameter"),
        (draw(4)[:0], None, "0 sample"),
        (np.empty((4, 0)), None, r"0 feature\(s\)"),
        (draw(1)[0, 0, :, 0], None, "Reshape your data"),
        (draw(4) * 1j, None, "Complex data not supported"),
        (np.full((4, 8, 8), np.nan), None, "contains NaN"),
        (np.full((4, 8, 8), np.inf), None, "contains infinity"),
        (np.full((4, 6), 1e300), None, "X has values that exceed 3.4e.38, the limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_examples_that_cannot_be_taken(X, given, message):
    for y in (X, np.arange(len(X)) % 2):
        with pytest.raises(ValueError, match=message):
            translator(given).fit(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            draw(4, (3, 8, 8)),
            r"y has images of shape \(3, 8, 8\); expected \(8, 8, 3\)",
        ),
        (draw(4, (4, 16, 3)), r"y has images of shape \(4, 16, 3\); expected"),
        (
            draw(4, (64,)),
            "X has 192 features and y, the images of the other domain, 64",
        ),
        (draw(4) * 2, r"y holds .* or y / 127.5 - 1"),
        (draw(4) * np.nan, "Input y contains NaN"),
        (draw(4)[:0], "0 sample"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_of_the_other_domain_that_cannot_be_taken(y, message):
    with pytest.raises(ValueError, match=message):
        translator().fit(draw(4), y)


@pytest.mark.parametrize("method", ["transform", "inverse_transform", "cycle", "score"])
def test_examples_other_than_those_of_the_fit(method):
    fitted = translator().fit(*draw_domains())
    for X, message in (
        (draw(2, (100,)), "expecting 192 features"),
        (draw(2, (3, 8, 8)), r"expected \(8, 8, 3\)"),
        (draw(2) * 3, r"must lie in \[-1, 1\]"),
        (draw(2)[0, 0, :, 0], "Reshape your data"),
        (draw(2) * np.nan, "contains NaN"),
        (draw(2)[:0], "0 sample"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(fitted, method)(X)
    plain = translator().fit(draw(5, (3,)), draw(5, (3,)))
    with pytest.raises(ValueError, match="limit of float32"):
        getattr(plain, method)(np.full((2, 3), -1e300))


def test_rounding_beyond_one_is_no_error():
    X = np.ones((4, 8, 8)) * (1 + 1e-6)
    assert np.isfinite(translator().fit(X, -X).transform(X)).all()


def test_tables_and_their_names():
    A, B = (images.reshape(len(images), -1)[:, :16] for images in draw_domains())
    names = [f"pixel{k}" for k in range(16)]
    X = pd.DataFrame(A, columns=names)
    fitted = translator((4, 4)).fit(X, pd.DataFrame(B, columns=names))
    assert list(fitted.get_feature_names_out()) == names
    found = fitted.set_output(transform="pandas").transform(X)
    assert list(found.columns) == names
    want = translator((4, 4)).fit(A, B).transform(A)
    np.testing.assert_array_equal(found, want)
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(X[names[::-1]])
