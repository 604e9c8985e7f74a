"""Multi-label classifiers whose labels teach each other, for users."""

from sklcomp.multilabel._privileged import PrivilegedMultiLabelClassifier
from sklcomp.multilabel._privileged_logistic import PrivilegedLogisticClassifier
from sklcomp.multilabel._streaming import StreamingLabelClassifier

__all__ = [
    "PrivilegedLogisticClassifier",
    "PrivilegedMultiLabelClassifier",
    "StreamingLabelClassifier",
]
