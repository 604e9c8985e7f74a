"""Measures that scikit-learn lacks.

Those of rankings are also there as scorers, for ``scoring`` in a search:
``one_error_scorer``, ``normalized_coverage_scorer`` and ``precision_at_k_scorer`` (with
its default k; for another, ``make_scorer(precision_at_k, k=5,
response_method="decision_function")``).
"""

from sklcomp.metrics._frechet import frechet_distance
from sklcomp.metrics._image import psnr
from sklcomp.metrics._multilabel import (
    normalized_coverage,
    normalized_coverage_scorer,
    one_error,
    one_error_scorer,
    precision_at_k,
    precision_at_k_scorer,
)

__all__ = [
    "frechet_distance",
    "normalized_coverage",
    "normalized_coverage_scorer",
    "one_error",
    "one_error_scorer",
    "precision_at_k",
    "precision_at_k_scorer",
    "psnr",
]
