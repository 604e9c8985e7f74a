"""Checkpoint: states of searches and trainings on disk, written at once or not at all.

The skeleton of every fit by torch opens one.
"""

import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import joblib
import numpy as np
import torch

# What a file raises that was cut short, or is of another kind.
UNREADABLE = (
    AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError,
    UnpicklingError, ValueError, zipfile.BadZipFile,
)  # fmt: skip


class Checkpoint:
    """The folder in which a fit keeps its states; without one nothing is kept.

    Parameters
    ----------
    folder : str, path or None
        Made now: that nothing can be written there is said before hours of work.
    warm_start : bool, default=False
        Whether a fit goes on from what it finds there.

    Raises
    ------
    OSError
        If nothing can be written there.
    """

    def __init__(self, folder: Any, warm_start: bool = False):
        self.folder = None if folder is None else Path(folder)
        self.warm_start = warm_start
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass

    def inside(self, name: str) -> "Checkpoint":
        """A folder of its own for a part of the fit."""
        folder = None if self.folder is None else self.folder / name
        return Checkpoint(folder, self.warm_start)

    def record(self, kind: str, describe: Callable[[], list]) -> "Record":
        """Where the states of a search or a training go.

        ``describe`` lists all that they are a function of. It is called, and hashed
        for the key, only if there is a folder: that takes as long as reading the data.
        """
        if self.folder is None:
            return Record(None, kind, "", goes_on=False)
        return Record(self.folder, kind, joblib.hash(describe()), self.warm_start)


class Record:
    """One file of states, of which the last is there; without a folder nothing is done.

    A process that dies while it writes leaves the state before.
    """

    def __init__(self, folder: Path | None, kind: str, key: str, goes_on: bool):
        name, self._write, self._read = KINDS[kind]
        self.path = None if folder is None else folder / name
        self.key, self.goes_on = key, goes_on

    def load(self) -> dict[str, Any] | None:
        """The state of the same fit; None if there is none, or none is wanted."""
        if self.path is None or not self.goes_on or not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                state = self._read(file)
            found = str(state.pop("key"))
        except UNREADABLE as error:
            reason = f"{error}".partition("\n")[0]
            msg = (
                f"{self.path} is no state of a fit ({reason}); delete it to start "
                "afresh."
            )
            raise ValueError(msg) from error
        return state if found == self.key else None

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write what ``state`` gives."""
        if self.path is None:
            return
        # In the same folder: only within one file system is a file replaced at once.
        handle, name = tempfile.mkstemp(dir=self.path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                self._write(file, state(), self.key)
            os.replace(name, self.path)
        # An interrupt must not leave half a file either.
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _write_arrays(file: BinaryIO, state: dict[str, np.ndarray], key: str) -> None:
    np.savez(file, key=np.array(key), **state)  # type: ignore[arg-type]


def _read_arrays(file: BinaryIO) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _write_tensors(file: BinaryIO, state: dict[str, Any], key: str) -> None:
    torch.save(state | {"key": key}, file)


def _read_tensors(file: BinaryIO) -> dict[str, Any]:
    # No code is run.
    return torch.load(file, map_location="cpu", weights_only=True)


# Name of the file, and how it is written and read: arrays, or tensors with numbers and
# texts.
KINDS: dict[str, tuple[str, Callable, Callable]] = {
    "search": ("search.npz", _write_arrays, _read_arrays),
    "training": ("training.pt", _write_tensors, _read_tensors),
}

NOWHERE = Checkpoint(None)
