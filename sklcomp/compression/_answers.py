"""Teachers that are no networks: fitted estimators that teach by their answers.

``FeatureEmbeddingDistiller`` makes one where a frozen teacher has no module.
"""

from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sklcomp.training._lesson import Teacher
from sklcomp.training._nets import OutputKind


class AnsweringTeacher(Teacher):
    """Scores of a fitted estimator: logarithms of its probabilities, or its numbers.

    It has no features, and no gradients go through it.
    """

    def __init__(self, estimator: Any, is_classes: bool, names: Any, device: Any):
        self.module, self.layer, self.device = estimator, None, device
        self.names = names
        self.task = OutputKind(is_classes, is_probability=True)

    def state(self, X: Tensor) -> Any:
        """Its answers: they are all that is taken of it."""
        return self(X)[1].cpu().numpy()

    def answer(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Features of no column, and scores (n, k)."""
        values = answers_of(self.module, X, self.task.is_classes, self.names)
        scores = self.task.logits(torch.from_numpy(values).to(self.device))
        return scores.new_empty(len(X), 0), scores


def check_answers(estimator: Any, is_classes: bool) -> None:
    """Raise if an estimator cannot answer for classes, or for numbers."""
    name = type(estimator).__name__
    try:
        check_is_fitted(estimator)
    except TypeError as error:
        msg = (
            f"the {name} inside FrozenEstimator is no estimator, as it has no fit: "
            "give a fitted estimator of scikit-learn, a skorch net, or a module."
        )
        raise ValueError(msg) from error
    except NotFittedError as error:
        msg = (
            f"the {name} inside FrozenEstimator is not fitted: fit it before freezing "
            "(clone takes what a bare estimator has learned)."
        )
        raise ValueError(msg) from error
    method = "predict_proba" if is_classes else "predict"
    if not hasattr(estimator, method):
        msg = (
            f"the {name} inside FrozenEstimator holds no module_ of a network and has "
            f"no {method}, so it can teach nothing. Give a fitted estimator that has "
            "it (sklearn.calibration.CalibratedClassifierCV gives probabilities to a "
            "classifier), a fitted skorch net, or a module."
        )
        raise ValueError(msg)


def answers_of(estimator: Any, X: Tensor, is_classes: bool, names: Any) -> np.ndarray:
    """Probabilities (n, n_classes), or numbers (n, n_outputs), as float32."""
    # A copy: a transformer may work in place.
    rows: Any = X.detach().cpu().numpy().copy()
    if names is not None and hasattr(estimator, "feature_names_in_"):
        rows = _named(rows, names)
    name = type(estimator).__name__
    try:
        values = (estimator.predict_proba if is_classes else estimator.predict)(rows)
    except ValueError as error:
        shape = ", ".join(["n", *map(str, X.shape[1:])])
        msg = (
            f"the teacher {name} cannot take X of shape ({shape}) and dtype float32: "
            f"{error} Freeze a pipeline that brings X into the form it takes, such as "
            "make_pipeline(FunctionTransformer(...), ...)."
        )
        raise ValueError(msg) from error
    # That is the form in which scikit-learn answers for several outputs.
    if isinstance(values, list):
        msg = (
            f"the teacher {name} answers for {len(values)} outputs of classes; give "
            "one that was fitted on one."
        )
        raise ValueError(msg)
    values = np.asarray(values, dtype=np.float32).reshape(len(X), -1)
    if not np.isfinite(values).all():
        msg = f"the teacher {name} gives answers that are NaN or infinite."
        raise ValueError(msg)
    return values


def _named(rows: np.ndarray, names: Any) -> Any:
    """A frame of these columns, by which a pipeline may choose; without pandas rows."""
    try:
        import pandas as pd
    except ImportError:
        return rows
    return pd.DataFrame(rows, columns=names)
