"""Which classes the outputs of a network stand for.

The compressors ask it when a fit begins.
"""

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet

from sklcomp.utils._messages import show


def name_classes(source: Any, seen: np.ndarray | None, n_outputs: int | None) -> Any:
    """Classes that the outputs of a source stand for, by its own word if it has one.

    The classes of a skorch net may be codes that were made outside of it.
    """
    net = source.estimator if isinstance(source, FrozenEstimator) else None
    own = getattr(net, "classes_", None)
    if seen is None:
        own = np.arange(n_outputs or 0) if own is None else own
        return all_classes(np.asarray(own), n_outputs)
    if own is None:
        return all_classes(seen, n_outputs)
    known = set(np.asarray(own).tolist())
    strange = [one for one in seen.tolist() if one not in known]
    if strange and not isinstance(net, NeuralNet):
        msg = (
            f"y contains {show(strange[0])}; the {type(net).__name__} knows "
            f"{show(np.asarray(own))}. Give it no other classes."
        )
        raise ValueError(msg)
    return all_classes(seen if strange else np.asarray(own), n_outputs)


def all_classes(seen: np.ndarray, n_outputs: int | None) -> np.ndarray:
    """Classes that the outputs of a network stand for, also those that y lacks.

    As in skorch, output k is the class k, unless y has as many classes as there are
    outputs: then they are taken in sorted order.
    """
    if n_outputs is None or len(seen) == n_outputs:
        return seen
    if seen.dtype.kind in "iu" and seen[0] >= 0 and seen[-1] < n_outputs:
        return np.arange(n_outputs)
    msg = (
        f"y has {len(seen)} classes, from {seen[0]} to {seen[-1]}, and the "
        f"net has {n_outputs} outputs. Give as many classes, or number them "
        f"0 to {n_outputs - 1} as the outputs are."
    )
    raise ValueError(msg)
