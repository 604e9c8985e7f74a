from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklcomp.nn.surgery._identities import Identities, reshape_axes


@pytest.fixture
def ids():
    return Identities()


def classes_by_hand(n, pairs):
    """Class of every identity, by joining one pair after the other."""
    label = list(range(n))
    for a, b in pairs:
        old, new = label[a], label[b]
        label = [new if one == old else one for one in label]
    return label


def same_partition(first, second):
    pairs = set(zip(first, second, strict=True))
    return len(pairs) == len(set(first)) == len(set(second))


def test_new_identities_are_tied_to_no_other(ids):
    first, second = ids.new(3), ids.new(4)
    label, frozen = ids.classes()
    assert len(set(label.tolist())) == ids.size == 7
    assert not set(first) & set(second)
    assert not frozen


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
def test_classes_are_those_of_joining_pair_by_pair(pairs):
    ids = Identities()
    ids.new(12)
    for a, b in pairs:
        ids.tie(np.array([a]), np.array([b]), "")
    assert same_partition(ids.classes()[0].tolist(), classes_by_hand(12, pairs))


def test_one_frozen_identity_freezes_its_class_for_the_first_reason(ids):
    a, b, c = ids.new(3), ids.new(3), ids.new(3)
    ids.freeze(b[1:2], "first")
    ids.tie(a, b, "")
    ids.freeze(a[1:], "second")
    label, frozen = ids.classes()
    assert frozen == {label[b[1]]: "first", label[a[2]]: "second"}
    assert label[a[0]] not in frozen
    assert not set(label[c].tolist()) & frozen.keys()


def test_an_axis_that_meets_a_fixed_one_is_frozen(ids):
    a, b = ids.new(2), ids.new(2)
    ids.tie(a, None, "left")
    ids.tie(None, b, "right")
    ids.tie(None, None, "neither")
    label, frozen = ids.classes()
    assert frozen == {
        label[a[0]]: "left",
        label[a[1]]: "left",
        label[b[0]]: "right",
        label[b[1]]: "right",
    }


def test_reason_is_that_of_the_identities_themselves(ids):
    a, b = ids.new(2), ids.new(2)
    ids.tie(a, b, "")
    ids.freeze(a, "because")
    assert ids.reason(a) == ids.reason(a[:1]) == "because"
    assert ids.reason(b) is None  # though its class is frozen
    assert ids.reason(None) is None


def test_free_again_forgets_what_was_frozen_since_of_what_was_there(ids):
    old = ids.new(3)
    ids.freeze(old[:1], "before")
    mark = ids.mark()
    new = ids.new(2)
    ids.freeze(np.append(old, new), "after")
    ids.free_again(mark)
    label, frozen = ids.classes()
    assert frozen == {
        label[old[0]]: "before",
        label[new[0]]: "after",
        label[new[1]]: "after",
    }
    ids.free_again(ids.mark())
    assert ids.classes()[1] == frozen


@pytest.mark.parametrize("axis", [0, 1])
def test_entries_of_rows_and_of_columns_become_one(ids, axis):
    table = ids.new(12).reshape(3, 4)
    first = ids.tie_columns(table) if axis == 0 else ids.tie_rows(table)
    label = ids.classes()[0][table]
    assert (label == label.take([0], axis=axis)).all()
    assert len(np.unique(label)) == len(first) == (4 if axis == 0 else 3)
    assert same_partition(ids.classes()[0][first].tolist(), list(range(len(first))))


def test_tying_leaves_what_it_is_given_alone(ids):
    a, b = ids.new(4), ids.new(4)
    before = a.copy(), b.copy()
    ids.tie(a, b[::-1], "")
    ids.tie_rows(a.reshape(2, 2))
    np.testing.assert_array_equal([a, b], before)


def merged(shape, rng):
    """Another shape in row-major order, by merging and splitting axes."""
    flat = prod(shape)
    found = []
    while flat > 1:
        sizes = [n for n in range(2, flat + 1) if flat % n == 0]
        found.append(int(rng.choice(sizes)))
        flat //= found[-1]
    for _ in range(rng.integers(3)):
        found.insert(rng.integers(len(found) + 1), 1)
    return tuple(found)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3),
       st.sampled_from([2, 3, 4, 6]), st.integers(0, 2**32 - 1))  # fmt: skip
def test_cutting_and_reshaping_commute(others, n, seed):
    # What is left of the classes in the new shape is what is left of the old.
    rng = np.random.default_rng(seed)
    axis, ids = int(rng.integers(len(others) + 1)), Identities()
    old = (*others[:axis], n, *others[axis:])
    new = merged(old, rng)
    axes = [None] * len(old)
    axes[axis] = ids.new(old[axis])
    found = reshape_axes(ids, tuple(axes), old, new, "")
    label, frozen = ids.classes()
    alive = rng.random(label.max() + 1) < 0.6
    alive[list(frozen)] = True
    x = np.arange(prod(old)).reshape(old)
    kept = np.take(x, np.flatnonzero(alive[label[axes[axis]]]), axis)
    other = x.reshape(new)
    for k, one in enumerate(found):
        if one is not None:
            assert len(one) == new[k]
            other = np.take(other, np.flatnonzero(alive[label[one]]), k)
    np.testing.assert_array_equal(kept.ravel(), other.ravel())


@pytest.mark.parametrize(("old", "new", "axis", "n_free", "at"), [
    ((2, 6, 4), (2, 24), 1, 6, 1),  # a flatten: every channel of four places
    ((2, 6, 4), (12, 4), 1, 6, 0),
    ((2, 6), (2, 2, 3), 1, 3, 2),  # groups that keep their length
    ((2, 6, 1, 1), (2, 6), 1, 6, 1),
    ((2, 6), (1, 2, 1, 6, 1), 1, 6, 3),
    ((6, 4), (3, 8), 0, 2, 1),  # rows of two: the even and the odd
])  # fmt: skip
def test_channels_that_are_free_after_a_reshape(ids, old, new, axis, n_free, at):
    axes = [None] * len(old)
    axes[axis] = ids.new(old[axis])
    found = reshape_axes(ids, tuple(axes), old, new, "")
    label, frozen = ids.classes()
    assert len(set(label.tolist()) - frozen.keys()) == n_free
    assert [k for k, one in enumerate(found) if one is not None] == [at]


def test_two_axes_of_channels_that_are_merged_stay(ids):
    axes = ids.new(2), ids.new(3)
    assert reshape_axes(ids, axes, (2, 3), (6,), "are merged") == (None,)
    assert set(ids.classes()[1].values()) == {"are merged"}
    assert len(ids.classes()[1]) == 5


def test_a_shape_that_stays_passes_all_axes_on(ids):
    axes = ids.new(2), None, ids.new(3)
    found = reshape_axes(ids, axes, (2, 4, 3), (2, 4, 3), "")
    label, frozen = ids.classes()
    assert len(set(label.tolist())) == 5
    assert not frozen
    for one, two in zip(axes, found, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_array_equal(label[one], label[two])
