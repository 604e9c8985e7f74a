"""Recovery of missing pixels."""

from sklcomp.recovery._dct import recover_image
from sklcomp.recovery._imputer import DCTImputer

__all__ = ["DCTImputer", "recover_image"]
