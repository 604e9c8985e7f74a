"""States of searches and trainings on disk, written at once or not at all."""

import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np
import torch

FILE = "search.npz"
TRAINING_FILE = "training.pt"
UNREADABLE = (
    AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError,
    UnpicklingError, ValueError, zipfile.BadZipFile,
)  # fmt: skip


def check_folder(folder: str | Path) -> None:
    """Raise OSError now rather than after hours if nothing can be written there."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def save_state(folder: str | Path, state: dict[str, np.ndarray], key: str) -> None:
    """Write arrays; a process that dies meanwhile leaves those before."""
    _write(
        Path(folder) / FILE,
        lambda file: np.savez(file, key=np.array(key), **state),  # type: ignore[arg-type]
    )


def load_state(folder: str | Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays of the same fit; None if there are none."""

    def read(file: BinaryIO) -> dict[str, Any]:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    return _read(Path(folder) / FILE, read, key)


def save_training(folder: str | Path, state: dict[str, Any], key: str) -> None:
    """Write tensors, numbers and texts, likewise."""
    _write(
        Path(folder) / TRAINING_FILE,
        lambda file: torch.save(state | {"key": key}, file),
    )


def load_training(folder: str | Path, key: str) -> dict[str, Any] | None:
    """The state of the same fit; None if there is none. No code is run."""
    return _read(
        Path(folder) / TRAINING_FILE,
        lambda file: torch.load(file, map_location="cpu", weights_only=True),
        key,
    )


def _write(path: Path, write: Callable[[BinaryIO], None]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path, read: Callable[[BinaryIO], dict], key: str) -> dict | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            state = read(file)
        found = str(state.pop("key"))
    except UNREADABLE as error:
        reason = f"{error}".partition("\n")[0]
        msg = f"{path} is no state of a fit ({reason}); delete it to start afresh."
        raise ValueError(msg) from error
    return state if found == key else None
