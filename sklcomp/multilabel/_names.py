"""Names of labels: from frames, from the user, or numbers, for both classifiers."""

from collections import Counter
from itertools import count, islice
from typing import Any

import numpy as np

from sklcomp.utils._messages import show
from sklcomp.utils._targets import plain_names


def next_numbers(known: np.ndarray, n_new: int) -> list[int]:
    """Numbers of the new labels, without those that are names already."""
    taken = set(known.tolist())
    free = (number for number in count(len(known)) if number not in taken)
    return list(islice(free, n_new))


def check_names(names: Any, n_labels: int, known: Any) -> np.ndarray:
    """Names as objects, one for each label and each only once."""
    if not isinstance(names, str) and not np.iterable(names):
        msg = (
            f"label_names={show(names)} is neither a name nor a list; give numbers in "
            f"a list, such as [{show(names)}]."
        )
        raise ValueError(msg)
    names = plain_names([names] if isinstance(names, str) else names)
    if len(names) != n_labels:
        msg = f"{len(names)} names are given for {n_labels} labels; give one for each."
        raise ValueError(msg)
    taken = set(known)
    for name in names:
        if name in taken:
            msg = (
                f"the label {show(name)} is there already; choose another name, or "
                "fit anew to learn it again."
            )
            raise ValueError(msg)
    counts = Counter(names)
    if len(counts) < n_labels:
        name, count = counts.most_common(1)[0]
        msg = f"labels are named {show(name)} {count} times; name each only once."
        raise ValueError(msg)
    result = np.empty(n_labels, dtype=object)
    result[:] = names
    return result
