"""``show_versions`` and ``warmup``: functions of the package itself, called by users.

They load what they need when they are called.
"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

from sklcomp._version import __version__

_REQUIRED = ("numpy", "scipy", "scikit-learn", "joblib", "numba", "llvmlite")
_OPTIONAL = (
    "torch",
    "skorch",
    "safetensors",
    "matplotlib",
    "scikit-image",
    "rich",
    "onnx",
    "onnxscript",
    "dask",
    "distributed",
)


def show_versions() -> None:
    """Print the versions that a bug report needs.

    Optional packages are named only if they are installed; none of them is imported.

    See Also
    --------
    sklearn.show_versions : The same for scikit-learn and its build.

    Examples
    --------
    >>> import sklcomp
    >>> sklcomp.show_versions()  # doctest: +ELLIPSIS
    sklcomp: 0...
    python: 3...
    platform: ...
    numpy: ...
    """
    lines = {
        "sklcomp": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
    }
    for name in _REQUIRED:
        lines[name] = _installed(name) or "missing"
    for name in _OPTIONAL:
        if found := _installed(name):
            lines[name] = found
    print("\n".join(f"{name}: {value}" for name, value in lines.items()))
    print("thread pools:")
    for pool in _thread_pools():
        print(f"    {pool}")


def warmup(dtype: "DTypeLike | None" = None) -> None:
    """Compile the numba kernels now instead of in the first fit.

    Solves a few tiny problems. The compiled kernels stay in numba's cache on disk, so
    that this takes seconds once and afterwards a fraction of one; where no cache can
    be written (see ``SKLCOMP_NUMBA_CACHE``) they live as long as the process.

    Parameters
    ----------
    dtype : {float32, float64} or None, default=None
        Type of the pictures and features to come; None prepares for both.

    Examples
    --------
    >>> import numpy as np
    >>> import sklcomp
    >>> sklcomp.warmup(np.float64)
    """
    import numpy as np
    from scipy import sparse

    from sklcomp.multilabel import (
        PrivilegedLogisticClassifier,
        PrivilegedMultiLabelClassifier,
        StreamingLabelClassifier,
    )
    from sklcomp.recovery import recover_image

    X, y = np.eye(6), np.tile(np.eye(3, dtype=int), (2, 1))
    # Its kernels see scores, which are float64 whatever the features are.
    PrivilegedLogisticClassifier(cv=2, random_state=0).fit(X, y)
    picture = np.add.outer(np.arange(6.0), np.arange(5.0))
    picture[2:4, 1:3] = np.nan
    for kind in (np.float32, np.float64) if dtype is None else (dtype,):
        for order, solver in (
            (1, "stencil"),
            (2, "stencil"),
            (1.5, "direct"),
            (1.5, "pcg"),
        ):
            recover_image(picture.astype(kind), order=order, solver=solver)
        for features in (X.astype(kind), sparse.csr_array(X, dtype=kind)):
            settings: tuple[dict[str, Any], ...] = {}, {"slack_cap": 1}, {"rank": 2}
            for parameters in settings:
                PrivilegedMultiLabelClassifier(**parameters).fit(features, y)
            streaming = StreamingLabelClassifier().fit(features, y[:, :2])
            streaming.add_labels(features, y[:, 2])


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _thread_pools() -> list[str]:
    """One line for each pool of native threads that the numpy side brings."""
    # Only loaded libraries are seen, hence the import before the question.
    import scipy.linalg  # noqa: F401
    import sklearn.utils  # noqa: F401
    from threadpoolctl import threadpool_info

    return [
        f"{pool['user_api']} ({pool['prefix']} {pool['version']}): "
        f"{pool['num_threads']} threads"
        for pool in threadpool_info()
    ]
