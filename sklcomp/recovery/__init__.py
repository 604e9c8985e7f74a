"""Recovery of missing pixels: DCTImputer, DCTRegressor and ``recover_image``."""

from sklcomp.recovery._dct import recover_image
from sklcomp.recovery._imputer import DCTImputer
from sklcomp.recovery._regressor import DCTRegressor

__all__ = ["DCTImputer", "DCTRegressor", "recover_image"]
