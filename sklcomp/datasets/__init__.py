"""Data for examples and tests."""

from sklcomp.datasets._images import make_masked_images
from sklcomp.datasets._labels import load_digit_attributes, make_multilabel_stream
from sklcomp.datasets._mulan import fetch_multilabel, load_mulan

__all__ = [
    "fetch_multilabel",
    "load_digit_attributes",
    "load_mulan",
    "make_masked_images",
    "make_multilabel_stream",
]
