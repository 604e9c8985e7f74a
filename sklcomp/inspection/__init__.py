"""Displays: pictures of what an estimator does, called by users.

They need the extra ``plot``.
"""

from sklcomp.inspection._compression import CompressionDisplay, EvolutionDisplay
from sklcomp.inspection._distillation import DistillationDisplay
from sklcomp.inspection._recovery import RecoveryDisplay
from sklcomp.inspection._stream import LabelStreamDisplay
from sklcomp.inspection._translation import TranslationDisplay

__all__ = [
    "CompressionDisplay",
    "DistillationDisplay",
    "EvolutionDisplay",
    "LabelStreamDisplay",
    "RecoveryDisplay",
    "TranslationDisplay",
]
