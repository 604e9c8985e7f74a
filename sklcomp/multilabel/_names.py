"""Names of labels: from frames, from the user, or numbers."""

from itertools import count, islice
from typing import Any

import numpy as np


def column_names(y: Any) -> Any:
    """Names of the columns of a frame, or of a series, if they are strings."""
    names = getattr(y, "columns", None)
    if names is None and hasattr(y, "to_frame"):
        names = [y.name]
    if names is None or not all(isinstance(name, str) and name for name in names):
        return None
    return list(names)


def next_numbers(known: np.ndarray, n_new: int) -> list[int]:
    """Numbers of the new labels, without those that are names already."""
    taken = set(known.tolist())
    free = (number for number in count(len(known)) if number not in taken)
    return list(islice(free, n_new))


def check_names(names: Any, n_labels: int, known: Any) -> np.ndarray:
    """Names as objects, one for each label and each only once."""
    if not isinstance(names, str) and not np.iterable(names):
        msg = (
            f"label_names={names!r} is neither a name nor a list; give numbers in a "
            f"list, such as [{names!r}]."
        )
        raise ValueError(msg)
    names = [names] if isinstance(names, str) else list(names)
    if len(names) != n_labels:
        msg = f"{len(names)} names are given for {n_labels} labels; give one for each."
        raise ValueError(msg)
    taken = set(known)
    for name in names:
        if name in taken:
            msg = (
                f"the label {name!r} is there already; choose another name, or fit "
                "anew to learn it again."
            )
            raise ValueError(msg)
        taken.add(name)
    result = np.empty(n_labels, dtype=object)
    result[:] = names
    return result
