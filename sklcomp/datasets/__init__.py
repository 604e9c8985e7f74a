"""Data for examples and tests."""

from sklcomp.datasets._images import make_masked_images

__all__ = ["make_masked_images"]
