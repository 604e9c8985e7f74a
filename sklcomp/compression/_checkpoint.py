"""States of searches on disk, written at once or not at all."""

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

FILE = "search.npz"


def check_folder(folder: str | Path) -> None:
    """Raise OSError now rather than after hours if nothing can be written there."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def save_state(folder: str | Path, state: dict[str, np.ndarray], key: str) -> None:
    """Write a state; a process that dies meanwhile leaves the one before."""
    path = Path(folder)
    handle, name = tempfile.mkstemp(dir=path, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, key=np.array(key), **state)  # type: ignore[arg-type]
        os.replace(name, path / FILE)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_state(folder: str | Path, key: str) -> dict[str, np.ndarray] | None:
    """The state of the same fit; None if there is none."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    try:
        # A file of our own: numpy leaves one open when the archive is broken.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            state = {name: file[name] for name in file.files}
        found = str(state.pop("key"))
    except (
        AttributeError,
        EOFError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        msg = f"{path} is no state of a search ({error}); delete it to start afresh."
        raise ValueError(msg) from error
    return state if found == key else None
