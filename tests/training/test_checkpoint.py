"""States on disk: written at once or not at all, and found by what they depend on."""

import numpy as np
import pytest
import torch

from sklcomp.training._checkpoint import KINDS, NOWHERE, Checkpoint

STATES = {
    "search": {"generation": np.array(3), "genomes": np.eye(2, dtype=bool)},
    "training": {"weights": torch.arange(3.0), "n_iter": 3, "history": "[]"},
}


def same(found, wanted):
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[name], value) for name, value in wanted.items()
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
@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04 half"])
def test_another_file_is_refused_with_the_cure(tmp_path, kind, content):
    record = Checkpoint(tmp_path, warm_start=True).record(kind, list)
    record.path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{record.path.name} is no .*delete it to"):
        record.load()
    assert record.path.read_bytes() == content


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
