"""States on disk: written at once or not at all, and found by what they depend on."""

import os
import pickle

import numpy as np
import pytest
import torch

from sklcomp.training._checkpoint import KINDS, NOWHERE, Checkpoint

STATES = {
    "search": {
        "population": np.arange(12).reshape(3, 4) % 2 == 0,
        "fitness": np.array([1.5, -np.inf, np.nan]), "generation": np.array(7),
        "small": np.arange(3, dtype=np.int8), "words": np.array(["a", "bc"]),
        "none": np.empty((0, 4), np.float32),
    },
    "training": {
        "weights": torch.arange(3.0), "half": torch.ones(2, dtype=torch.bfloat16),
        "history": [{"loss": 0.1, "name": "a"}, {"loss": float("inf"), "name": None}],
        "flags": (True, 3, 2.5),
    },
}  # fmt: skip


def is_same(one, other):
    if torch.is_tensor(one):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        is_number = one.dtype.kind == "f"
        return one.dtype == other.dtype and np.array_equal(one, other, is_number)
    return one == other


def same(found, wanted):
    return found.keys() == wanted.keys() and all(
        is_same(value, found[name]) for name, value in wanted.items()
    )


def forbidden():
    raise AssertionError("asked for without a folder")


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_comes_back_to_the_same_fit_alone(tmp_path, kind):
    place, X = Checkpoint(tmp_path, warm_start=True), np.arange(6.0)
    assert place.record(kind, lambda: [X, 1]).load() is None
    place.record(kind, lambda: [X, 1]).save(lambda: STATES[kind])
    assert same(place.record(kind, lambda: [X.copy(), 1]).load(), STATES[kind])
    assert place.record(kind, lambda: [X + 1e-9, 1]).load() is None
    assert place.record(kind, lambda: [X, 2]).load() is None
    # Cold, it is there and not looked at.
    assert Checkpoint(tmp_path).record(kind, lambda: [X, 1]).load() is None


@pytest.mark.parametrize("kind", KINDS)
def test_who_dies_while_writing_leaves_the_state_before(tmp_path, kind, monkeypatch):
    record = Checkpoint(tmp_path, warm_start=True).record(kind, list)
    record.save(lambda: STATES[kind])

    def die(file, *args, **arrays):
        getattr(file, "write", args[0].write if args else None)(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", die)
    monkeypatch.setattr(torch, "save", lambda state, file: die(file))
    with pytest.raises(KeyboardInterrupt):
        record.save(lambda: STATES[kind])
    assert same(record.load(), STATES[kind])
    assert [path.name for path in tmp_path.iterdir()] == [record.path.name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: b"no archive", lambda content: content[:-200],
    lambda content: content[:300], lambda content: pickle.dumps({"key": "key"}, 2),
    lambda content: content.replace(b"key", b"kex"),
], ids=["empty", "words", "cut", "begun", "pickle", "without a key"])  # fmt: skip
def test_a_file_that_is_no_state_is_named_with_its_cure(kind, damage, tmp_path):
    record = Checkpoint(tmp_path, warm_start=True).record(kind, list)
    record.save(lambda: STATES[kind])
    content = damage(record.path.read_bytes())
    record.path.write_bytes(content)
    message = rf"{record.path.name} is no state of a fit \(.*\); delete it to start"
    with pytest.raises(ValueError, match=message) as caught:
        record.load()
    assert "\n" not in str(caught.value)
    assert record.path.read_bytes() == content
    record.path.unlink()
    assert record.load() is None


class Evil:
    """Code that would run if a file were trusted."""

    def __reduce__(self):
        return os.mkdir, ("was-here",)


def test_no_code_of_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Checkpoint(tmp_path, warm_start=True)
    records = {kind: place.record(kind, list) for kind in KINDS}
    key = records["search"].key
    np.savez(records["search"].path, key=np.array(key), evil=np.array([Evil()]))
    torch.save({"key": key, "evil": Evil()}, records["training"].path)
    for record in records.values():
        with pytest.raises(ValueError, match="is no state of a fit"):
            record.load()
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_written_leaves_the_state_before(kind, tmp_path, monkeypatch):
    record = Checkpoint(tmp_path).record(kind, list)
    record.save(lambda: STATES[kind])
    content = record.path.read_bytes()

    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        record.save(dict)
    assert [path.name for path in tmp_path.iterdir()] == [record.path.name]
    assert record.path.read_bytes() == content


def test_a_folder_is_made_tried_and_left_empty(tmp_path):
    folder = tmp_path / "deep" / "deeper"
    for _ in range(2):
        Checkpoint(str(folder))
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_folder_nothing_is_described_kept_or_found(kind):
    record = NOWHERE.inside("base").record(kind, forbidden)
    record.save(forbidden)
    assert record.load() is None


def test_parts_have_folders_of_their_own(tmp_path):
    whole = Checkpoint(tmp_path / "new", warm_start=True)
    part = whole.inside("tuning")
    part.record("training", list).save(lambda: STATES["training"])
    assert whole.record("training", list).load() is None
    assert same(part.record("training", list).load(), STATES["training"])
    assert part.folder == tmp_path / "new" / "tuning"


def test_a_file_in_place_of_the_folder_is_said_at_once(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        Checkpoint(tmp_path / "taken")
