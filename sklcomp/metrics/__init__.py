"""Measures that scikit-learn lacks."""

from sklcomp.metrics._image import psnr

__all__ = ["psnr"]
