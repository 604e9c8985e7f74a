"""Linear multi-label classifiers whose labels teach each other."""

from sklcomp.multilabel._privileged import PrivilegedMultiLabelClassifier

__all__ = ["PrivilegedMultiLabelClassifier"]
