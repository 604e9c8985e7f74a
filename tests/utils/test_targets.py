"""Targets are read in one way."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from sklcomp.utils._targets import (
    as_indicator,
    check_classes,
    check_indicator,
    column_names,
    match_columns,
    plain_names,
    read_targets,
)

Y = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]])
NAMES = ["a", "b", "c"]
FRAME = pd.DataFrame(Y, columns=NAMES)
CONTAINERS = {
    "list": Y.tolist(), "tuple": tuple(map(tuple, Y.tolist())), "bool": Y == 1,
    "float": Y * 1.0, "unsigned": Y.astype(np.uint8), "object": Y.astype(object),
    "mixed": np.array([[1, 0, False], [0, True, 1.0], [0, 0, 0], [1, 1, 0]], object),
    "Fortran": np.asfortranarray(Y), "strided": np.repeat(Y, 2, axis=1)[:, ::2],
    "pandas": FRAME, "polars": pl.DataFrame(FRAME), "pyarrow": pa.table(FRAME),
    "csr": sparse.csr_array(Y), "csc": sparse.csc_matrix(Y), "coo": sparse.coo_array(Y),
    "lil": sparse.lil_array(Y), "sparse frame": FRAME.astype(pd.SparseDtype(int, 0)),
}  # fmt: skip
each_container = pytest.mark.parametrize("kind", CONTAINERS)


@each_container
def test_an_indicator_of_any_container_is_the_same(kind):
    found = as_indicator(read_targets(CONTAINERS[kind]))
    assert isinstance(found, sparse.csr_array)
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), Y)
    assert found.dtype == np.int8
    assert found.nnz == Y.sum()
    present = check_indicator(read_targets(CONTAINERS[kind]))
    assert sparse.issparse(present) == sparse.issparse(read_targets(CONTAINERS[kind]))


def test_reading_changes_nothing_that_is_given():
    stored = sparse.csr_array(
        (np.array([1, 0, 1, 0]), np.array([0, 1, 1, 0]), np.array([0, 2, 4])),
        shape=(2, 2),
    )
    before = stored.copy()
    found = as_indicator(read_targets(stored))
    np.testing.assert_array_equal(found.toarray(), [[1, 0], [0, 1]])
    assert found.nnz == 2  # explicit zeros are none
    np.testing.assert_array_equal(stored.data, before.data)
    np.testing.assert_array_equal(stored.indices, before.indices)
    for kind in ("object", "float", "Fortran"):
        given = CONTAINERS[kind].copy()
        as_indicator(read_targets(given))
        np.testing.assert_array_equal(given, CONTAINERS[kind])


def test_dense_indicators_become_sparse_in_any_layout(rng):
    for shape in ((0, 3), (5, 1), (30, 7)):
        dense = rng.random(shape) < 0.3
        for one in (dense, np.asfortranarray(dense), dense[::-1].copy()[::-1]):
            found = as_indicator(read_targets(one))
            np.testing.assert_array_equal(found.toarray(), dense)
            assert found.has_sorted_indices


@pytest.mark.parametrize(("y", "message"), [
    (Y * 2, r"y holds 2; an indicator matrix takes only 0/1 .* MultiLabelBinarizer"),
    (2.0 * Y - 1, r"y holds -1\.0; .* y > 0 for -1/\+1"),
    (Y.astype(str), "y holds '0', '1'; .* y.astype\\(int\\) for '0'/'1'"),
    (sparse.csr_array(Y * 3), "y holds 3;"), (Y + 0.5, r"y holds 0\.5, 1\.5;"),
    (np.arange(8).reshape(2, 4), r"y holds 2, 3, 4, 5, 6, \.\.\.;"),
    (Y[:, 0], r"y has shape \(4,\); expected \(n_samples, n_labels\)"),
    (Y[:, :0], r"y has shape \(4, 0\); .* at least one column"),
])  # fmt: skip
def test_anything_but_zeros_and_ones_is_named_with_the_cure(y, message):
    with pytest.raises(ValueError, match=message):
        check_indicator(read_targets(y))


@pytest.mark.parametrize(("y", "message"), [
    ([["a", "b"], ["a"]], r"y holds \['a', 'b'\], a list; use MultiLabelBinarizer\(\)"),
    ([{1, 2}, {3}], r"y holds \{1, 2\}, a set"), ([(1,), (1, 2)], "a tuple"),
    ([[1, np.nan], [0, 1]], "y contains NaN or None in 1 places; leave out the rows"),
    (["a", None, pd.NA], "y contains NaN or None in 2 places"),
    (np.array(["NaT", "2020-01-01"], "M8[D]"), "NaN or None in 1 places"),
    (sparse.csr_array([[np.nan, 1.0]]), "NaN or None in 1 places.*add_labels"),
    (np.zeros((2, 2, 2)), r"y has shape \(2, 2, 2\); expected an indicator matrix"),
    (3, r"y has shape \(\)"),
    (np.array([(1, 2.0)], [("a", int), ("b", float)]), "y is a structured array; give"),
])  # fmt: skip
def test_what_are_no_targets_is_named_with_the_cure(y, message):
    with pytest.raises(ValueError, match=message):
        read_targets(y)


@pytest.mark.parametrize("y", [
    ["b", "a", "b"], np.array([3, 1, 3]), np.array(["x", "y", "x"], object),
    [[2], [1], [2]], sparse.csr_array([[2], [0], [2]]), [True, False, True],
    pd.Series(["b", "a", "b"], dtype="category"), [1.0, 2.0, 1.0],
])  # fmt: skip
def test_classes_are_a_vector(y):
    found = check_classes(read_targets(y))
    assert found.shape == (3,)
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(("y", "message"), [
    (np.array([1, "a", 2.5], object), "y mixes float and int and str; give classes"),
    ([0.5, 1.7], "continuous"),
    (np.array([1, "a"], object), "y mixes int and str; give classes of one type"),
])  # fmt: skip
def test_what_are_no_classes_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        check_classes(read_targets(y))


@pytest.mark.parametrize(("y", "names"), [
    (FRAME, NAMES), (pl.DataFrame(FRAME), NAMES), (pa.table(FRAME), NAMES),
    (FRAME["b"], ["b"]), (pl.Series("b", [1]), ["b"]),
    (FRAME.set_axis([4, 2, 0], axis=1), [4, 2, 0]),
    (pd.DataFrame(Y), None), (pd.Series([1, 2]), None), (Y, None), (Y.tolist(), None),
    (FRAME.set_axis([1.5, 2.5, 3.5], axis=1), None), (pl.Series([1]), None),
    (FRAME.set_axis(pd.MultiIndex.from_product([["a"], NAMES]), axis=1), None),
])  # fmt: skip
def test_names_are_those_that_somebody_gave(y, names):
    assert column_names(y) == names


def test_names_of_numpy_become_plain():
    found = plain_names([np.str_("a"), np.int64(2), "b", 3])
    assert found == ["a", 2, "b", 3]
    assert [type(name) for name in found] == [str, int, str, int]


@pytest.mark.parametrize("as_targets", [np.array, sparse.csr_array])
def test_columns_are_matched_by_name_in_any_order(as_targets, rng):
    for _ in range(5):
        places = rng.permutation(3)
        given = [NAMES[k] for k in places]
        found = match_columns(as_targets(Y[:, places]), given, NAMES)
        found = found.toarray() if sparse.issparse(found) else found
        np.testing.assert_array_equal(found, Y)


@pytest.mark.parametrize(("given", "known"), [
    (None, NAMES), (NAMES, NAMES), (["x", "y", "z"], [0, 1, 2]), (NAMES, np.arange(3)),
])  # fmt: skip
def test_columns_without_names_go_by_their_place(given, known):
    assert match_columns(Y, given, known) is Y
    vector = Y[:, 0]
    assert match_columns(vector, ["x"], NAMES) is vector


@pytest.mark.parametrize(("given", "message"), [
    (["a", "b", "x"], r"columns that are no labels: 'x' and no columns for the"),
    (["a", "b"], "y has no columns for the labels 'c'. Columns are matched by name"),
    (["a", "b", "c", "d"], "y has columns that are no labels: 'd'. Columns"),
    (["a", "b", "b", "c"], "y has columns named twice"),
])  # fmt: skip
def test_columns_that_do_not_match_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        match_columns(np.zeros((2, len(given))), given, NAMES)


def test_values_that_are_no_indicator_are_listed_by_size():
    with pytest.raises(ValueError, match=r"y holds 2, 10, 30, 'a'; "):
        check_indicator(np.array([[30, 1, 0], [2, "a", 10]], dtype=object))
