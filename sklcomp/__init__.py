"""Learning with little memory, few labels and missing pixels, as estimators.

Every method is a scikit-learn estimator in one of the subpackages, which are loaded
when first used: ``import sklcomp`` by itself loads neither numpy nor scikit-learn.
"""

from importlib import import_module as _import_module
from types import ModuleType as _ModuleType

from sklcomp._top import show_versions, warmup
from sklcomp._version import __version__

_SUBPACKAGES = (
    "compression",
    "datasets",
    "evolution",
    "inspection",
    "metrics",
    "model_selection",
    "multilabel",
    "nn",
    "recovery",
    "translation",
)

__all__ = [
    "__version__",
    "compression",
    "datasets",
    "evolution",
    "inspection",
    "metrics",
    "model_selection",
    "multilabel",
    "nn",
    "recovery",
    "show_versions",
    "translation",
    "warmup",
]


def __getattr__(name: str) -> _ModuleType:
    if name in _SUBPACKAGES:
        return _import_module(f"sklcomp.{name}")
    raise AttributeError(f"module 'sklcomp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
