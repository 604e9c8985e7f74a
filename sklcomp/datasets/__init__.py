"""Data sets for examples and tests: loaded, made or fetched."""

from sklcomp.datasets._images import make_masked_images
from sklcomp.datasets._labels import load_digit_attributes, make_multilabel_stream
from sklcomp.datasets._mulan import fetch_multilabel, load_mulan
from sklcomp.datasets._unpaired import make_unpaired_digits

__all__ = [
    "fetch_multilabel",
    "load_digit_attributes",
    "load_mulan",
    "make_masked_images",
    "make_multilabel_stream",
    "make_unpaired_digits",
]
