import numpy as np
import pytest

from sklcomp.multilabel._names import check_names, next_numbers


@pytest.mark.parametrize(("known", "n_new", "numbers"), [
    ([], 3, [0, 1, 2]), ([0, 1], 2, [2, 3]), (["a", "b"], 2, [2, 3]),
    ([0, 3, "b"], 3, [4, 5, 6]), ([5, 2], 3, [3, 4, 6]), ([0], 0, []),
])  # fmt: skip
def test_new_labels_are_numbered_by_their_place_but_for_names_that_there_are(
    known, n_new, numbers
):
    found = next_numbers(np.array(known, dtype=object), n_new)
    assert found == numbers
    assert not set(found) & set(known)


@pytest.mark.parametrize(("names", "want"), [
    ("a", ["a"]), (["a", "b"], ["a", "b"]), (np.array(["a", "b"]), ["a", "b"]),
    (np.array([3, 1]), [3, 1]), (range(2), [0, 1]), ([("a", 1)], [("a", 1)]),
    (iter(["a", 2]), ["a", 2]),
])  # fmt: skip
def test_names_are_objects_one_for_each_label(names, want):
    found = check_names(names, len(want), known=())
    assert found.dtype == object
    assert found.shape == (len(want),)
    assert found.tolist() == want
    assert not any(isinstance(name, np.generic) for name in found)


@pytest.mark.parametrize(("names", "n", "known", "message"), [
    (3, 1, (), r"label_names=3 is neither a name nor a list; give .* such as \[3\]"),
    (["a"], 2, (), "1 names are given for 2 labels; give one for each"),
    ("ab", 2, (), "1 names are given for 2 labels"),
    (["a", "b"], 2, ("b", "c"), "the label 'b' is there already; choose another name"),
    ([np.int64(2)], 1, [2], "the label 2 is there already"),
    (["a", "b", "a", "a"], 4, (), "labels are named 'a' 3 times; name each only once"),
])  # fmt: skip
def test_names_that_cannot_be_are_refused(names, n, known, message):
    with pytest.raises(ValueError, match=message):
        check_names(names, n, known)
