import copy
import os
import pickle

import numpy as np
import pytest
import torch

from sklcomp.nn._checkpoint import (
    FILE,
    TRAINING_FILE,
    check_folder,
    load_state,
    load_training,
    save_state,
    save_training,
)


def test_state_is_written_at_once_or_not_at_all(tmp_path, monkeypatch):
    check_folder(tmp_path / "new")
    save_state(tmp_path / "new", {"generation": np.array(3)}, "key")

    def die(file, **arrays):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", die)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path / "new", {"generation": np.array(4)}, "key")
    assert load_state(tmp_path / "new", "key") == {"generation": 3}
    assert load_state(tmp_path / "new", "another fit") is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["search.npz"]


ARRAYS = {
    "population": np.arange(12).reshape(3, 4) % 2 == 0,
    "fitness": np.array([1.5, -np.inf, np.nan]),
    "generation": np.array(7), "small": np.arange(3, dtype=np.int8),
    "words": np.array(["a", "bc"]), "none": np.empty((0, 4), np.float32),
}  # fmt: skip
TRAINING = {
    "weights": {"0.bias": torch.arange(3.0), "n": torch.tensor(5)},
    "history": [{"loss": 0.1, "name": "a"}, {"loss": float("inf"), "name": None}],
    "half": torch.ones(2, dtype=torch.bfloat16), "flags": (True, 3, 2.5),
}  # fmt: skip
BOTH = pytest.mark.parametrize(
    ("save", "load", "state", "file"),
    [
        (save_state, load_state, ARRAYS, FILE),
        (save_training, load_training, TRAINING, TRAINING_FILE),
    ],
    ids=["arrays", "training"],
)


def test_arrays_come_back_as_they_were(tmp_path):
    save_state(tmp_path, ARRAYS, "key")
    found = load_state(tmp_path, "key")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_tensors_numbers_and_texts_come_back_as_they_were(tmp_path):
    save_training(tmp_path, TRAINING, "key")
    found = load_training(tmp_path, "key")
    assert found.keys() == TRAINING.keys()
    assert found["history"] == TRAINING["history"]
    assert found["flags"] == TRAINING["flags"]
    assert found["half"].dtype == torch.bfloat16
    for name, value in TRAINING["weights"].items():
        assert torch.equal(found["weights"][name], value)


@BOTH
def test_a_state_is_that_of_its_key_alone(save, load, state, file, tmp_path):
    assert load(tmp_path, "key") is None
    before = copy.copy(state)
    save(tmp_path, state, "key")
    assert load(tmp_path, "another") is None
    assert load(tmp_path, "key").keys() == state.keys()
    assert state.keys() == before.keys()  # without the key
    save(tmp_path, {}, "another")
    assert load(tmp_path, "key") is None
    assert load(tmp_path, "another") == {}


@BOTH
def test_only_the_last_state_is_kept(save, load, state, file, tmp_path):
    for _ in range(3):
        save(tmp_path, state, "key")
    assert [path.name for path in tmp_path.iterdir()] == [file]


@BOTH
@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: b"no archive", lambda content: content[:-200],
    lambda content: content[:300], lambda content: pickle.dumps({"key": "key"}, 2),
    lambda content: content.replace(b"key", b"kex"),
], ids=["empty", "words", "cut", "begun", "pickle", "without a key"])  # fmt: skip
def test_a_file_that_is_no_state_is_named_with_its_cure(
    save, load, state, file, damage, tmp_path
):
    save(tmp_path, state, "key")
    path = tmp_path / file
    path.write_bytes(damage(path.read_bytes()))
    message = rf"{file} is no state of a fit \(.*\); delete it to start afresh"
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, "key")
    assert "\n" not in str(caught.value)
    path.unlink()
    assert load(tmp_path, "key") is None


class Evil:
    """Code that would run if a file were trusted."""

    def __reduce__(self):
        return os.mkdir, ("was-here",)


def test_no_code_of_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / FILE, key=np.array("key"), evil=np.array([Evil()]))
    torch.save({"key": "key", "evil": Evil()}, tmp_path / TRAINING_FILE)
    for load in (load_state, load_training):
        with pytest.raises(ValueError, match="is no state of a fit"):
            load(tmp_path, "key")
    assert not (tmp_path / "was-here").exists()


@BOTH
def test_what_cannot_be_written_leaves_the_state_before(
    save, load, state, file, tmp_path, monkeypatch
):
    save(tmp_path, state, "key")
    content = (tmp_path / file).read_bytes()

    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path, {}, "another")
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert (tmp_path / file).read_bytes() == content


def test_a_folder_is_made_tried_and_left_empty(tmp_path):
    folder = tmp_path / "deep" / "deeper"
    for _ in range(2):
        check_folder(str(folder))
        assert list(folder.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        check_folder(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        check_folder(tmp_path / "file" / "deeper")
    assert (tmp_path / "file").read_text() == "in the way"
