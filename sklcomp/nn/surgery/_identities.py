"""Identities of channels: which must go together, and which cannot go.

The tracing carries them, and its rules join and freeze them.
"""

from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

# The identities along one axis of a tensor; None where the axis has a fixed size.
Ids = np.ndarray | None
Axes = tuple[Ids, ...]


class Identities:
    """Identities, the pairs of them that are one, and those that are frozen."""

    def __init__(self) -> None:
        self.size = 0
        self._pairs: list[np.ndarray] = []
        self._frozen: list[tuple[np.ndarray, str]] = []

    def new(self, n: int) -> np.ndarray:
        """Identities that are tied to no other."""
        self.size += n
        return np.arange(self.size - n, self.size)

    def freeze(self, ids: Ids, reason: str) -> None:
        """Keep these for good."""
        if ids is not None:
            self._frozen.append((np.unique(ids), reason))

    def reason(self, ids: Ids) -> str | None:
        """Why some of these are frozen by themselves."""
        if ids is None:
            return None
        return next((why for one, why in self._frozen if np.isin(one, ids).any()), None)

    def mark(self) -> tuple[int, int]:
        """What there is now, for ``free_again``."""
        return self.size, len(self._frozen)

    def free_again(self, mark: tuple[int, int]) -> None:
        """Forget what was frozen since a mark, of identities that were there then."""
        size, n = mark
        later = [(ids[ids >= size], reason) for ids, reason in self._frozen[n:]]
        self._frozen[n:] = [(ids, reason) for ids, reason in later if len(ids)]

    def tie(self, a: Ids, b: Ids, reason: str) -> None:
        """Make two axes of equal length the same; freeze one that meets a fixed one."""
        if a is None or b is None:
            self.freeze(a, reason)
            self.freeze(b, reason)
        else:
            # Once: of a flattened image they come back at every pixel.
            self._pairs.append(np.unique([a.ravel(), b.ravel()], axis=1))

    def tie_rows(self, table: np.ndarray) -> np.ndarray:
        """Make the entries of each row one; return the first of each row."""
        first = np.broadcast_to(table[:, :1], table.shape)
        self.tie(first, table, "")
        return table[:, 0]

    def tie_columns(self, table: np.ndarray) -> np.ndarray:
        """Make the entries of each column one; return the first of each column."""
        return self.tie_rows(table.T)

    def classes(self) -> tuple[np.ndarray, dict[int, str]]:
        """The class of every identity, and why some classes are frozen."""
        pairs = np.concatenate([np.empty((2, 0), int), *self._pairs], axis=1)
        graph = sparse.coo_array(
            (np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])),
            shape=(self.size, self.size),
        )
        label = connected_components(graph, directed=False)[1]
        frozen: dict[int, str] = {}
        for ids, reason in self._frozen:
            for one in np.unique(label[ids]):
                frozen.setdefault(int(one), reason)
        return label, frozen


def reshape_axes(
    ids: Identities, axes: Axes, old: tuple[int, ...], new: tuple[int, ...], why: str
) -> Axes:
    """Identities of a tensor after its shape changed in row-major order.

    Axes that are merged repeat their identities; where one is split, identities at
    equal offsets are tied, as every part must keep its length.
    """
    found: list[Ids] = [None] * len(new)
    for before, after in _blocks(old, new):
        flat = _merge(ids, [axes[i] for i in before], [old[i] for i in before], why)
        if flat is not None:
            _split(ids, flat, [(i, new[i]) for i in after], found)
    return tuple(found)


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> Any:
    """Least groups of axes that hold the same number of entries; ones are left out."""
    left = [i for i, n in enumerate(old) if n != 1]
    right = [i for i, n in enumerate(new) if n != 1]
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        n_left, n_right = old[a[0]], new[b[0]]
        while n_left != n_right:
            if n_left < n_right:
                a.append(left.pop(0))
                n_left *= old[a[-1]]
            else:
                b.append(right.pop(0))
                n_right *= new[b[-1]]
        yield a, b


def _merge(ids: Identities, axes: list[Ids], sizes: list[int], why: str) -> Ids:
    tracked = [(i, axis) for i, axis in enumerate(axes) if axis is not None]
    if len(tracked) != 1:
        for _, axis in tracked:
            ids.freeze(axis, why)
        return None
    ((k, axis),) = tracked
    shape = [n if i == k else 1 for i, n in enumerate(sizes)]
    return np.broadcast_to(axis.reshape(shape), sizes).ravel()


def _split(
    ids: Identities, flat: np.ndarray, parts: list[tuple[int, int]], found: list[Ids]
) -> None:
    table = flat.reshape([n for _, n in parts])
    varying = [
        k for k in range(table.ndim) if not (table == table.take([0], axis=k)).all()
    ]
    if not varying:
        ids.freeze(flat, "one channel is spread over an axis")
        return
    # All but the last of several axes keep their length: tie along them.
    table = np.moveaxis(table, varying[-1], -1).reshape(-1, table.shape[varying[-1]])
    found[parts[varying[-1]][0]] = ids.tie_columns(table)
