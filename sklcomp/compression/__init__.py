"""Estimators that make smaller networks from networks that a user has trained."""

try:
    import skorch as _skorch  # noqa: F401
except ModuleNotFoundError as _error:
    _message = (
        "sklcomp.compression needs PyTorch and skorch, of which "
        f'{_error.name!r} is missing: pip install "sklcomp[torch]".'
    )
    raise ImportError(_message) from _error

from sklcomp.compression._embedding import FeatureEmbeddingDistiller
from sklcomp.compression._report import CompressionReport
from sklcomp.compression.data_free._distiller import DataFreeDistiller
from sklcomp.compression.data_free._recipe import DataFreeRecipe
from sklcomp.compression.search._coevolutionary import CoEvolutionaryPruner
from sklcomp.compression.search._evolutionary import EvolutionaryPruner
from sklcomp.compression.search._recipe import PairRecipe, SearchRecipe

__all__ = [
    "CoEvolutionaryPruner",
    "CompressionReport",
    "DataFreeDistiller",
    "DataFreeRecipe",
    "EvolutionaryPruner",
    "FeatureEmbeddingDistiller",
    "PairRecipe",
    "SearchRecipe",
]
