"""What a net does while it learns from a teacher: the mixin of its class meanwhile.

Called by ``FeatureEmbeddingDistiller`` and by the fine-tuning of the pruners.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.dataset import Dataset as SkorchDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from sklcomp.nn._features import capturing
from sklcomp.training._loop import StopTraining, is_stopped_early


def rows_of(dataset: Any, X: np.ndarray, kind: type) -> np.ndarray | None:
    """Places of a data set's examples in X; None if they are not from there.

    ``kind`` is the class of data sets that a net makes of X. Subclasses may show
    examples in another form.
    """
    if type(dataset) is Subset:
        rows = rows_of(dataset.dataset, X, kind)
        return None if rows is None else rows[np.asarray(dataset.indices)]
    if type(dataset) not in (kind, SkorchDataset) or len(dataset) != len(X):
        return None
    return np.arange(len(X)) if getattr(dataset, "X", X) is X else None


class NumberedRows(Dataset):
    """Examples together with their places."""

    def __init__(self, dataset: Any, rows: np.ndarray):
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple:
        return *self.dataset[i], self.rows[i]


class RowsKept:
    """Batches as skorch knows them; the places of their examples go elsewhere."""

    def __init__(self, loader: DataLoader, keep: Callable[[Tensor], None]):
        self.loader, self.keep = loader, keep

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list]:
        for X, y, rows in self.loader:
            self.keep(rows)
            yield [X, y]


class Listening(NeuralNet):
    """A training step with a teacher's loss in it, beside a net's own class."""

    # Of the class, so that nothing is left in a net once its own is set back.
    _lesson: Any
    _own_class: type

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        train, valid = super().get_split_datasets(X, y, **fit_params)
        self._lesson.valid_rows = None
        if valid is not None:
            self._lesson.valid_rows = rows_of(valid, self._lesson.X, self.dataset)
        return train, valid

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        rows = None
        if training and self._lesson.answers is not None:
            # Places of an earlier epoch must not stand for batches that tell none.
            self._lesson.rows = None
            rows = rows_of(dataset, self._lesson.X, self.dataset)
        if rows is None:
            return super().get_iterator(dataset, training=training)
        numbered = NumberedRows(dataset, rows)
        loader = super().get_iterator(numbered, training=True)
        return RowsKept(loader, self._lesson.keep_rows)

    def infer(self, x: Any, **fit_params: Any) -> Any:
        if not (self.module_.training and self._lesson.gamma):
            return super().infer(x, **fit_params)
        n_rows = len(x) if torch.is_tensor(x) else None
        with capturing(
            self.module_, self._lesson.layer, n_rows
        ) as self._lesson.features:
            return super().infer(x, **fit_params)

    def get_loss(
        self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False
    ) -> Tensor:
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        return self._lesson.loss(loss, y_pred, X) if training else loss

    def on_grad_computed(
        self, net: Any, named_parameters: Any = None, **kwargs: Any
    ) -> None:
        super().on_grad_computed(net, named_parameters=named_parameters, **kwargs)
        if self._lesson.clip_grad_norm is not None:
            parameters = [parameter for _, parameter in named_parameters]
            nn.utils.clip_grad_norm_(parameters, self._lesson.clip_grad_norm)

    def notify(self, method_name: str, **kwargs: Any) -> None:
        if method_name != "on_epoch_end":
            super().notify(method_name, **kwargs)
            return
        # Means before the callbacks, which may stop; the state after them, as it holds
        # what they have noted.
        self._lesson.end_epoch(self)
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt:
            if is_stopped_early(self):
                with suppress(StopTraining):
                    self._lesson.after_epoch(self)
            raise
        self._lesson.after_epoch(self)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        # Callbacks may pickle the net.
        return self._own_class.__new__, (self._own_class,), self.__getstate__()


def listening(net_class: type, lesson: Any) -> type:
    """The class of a net while a lesson is part of its training."""
    parts = {"_lesson": lesson, "_own_class": net_class}
    return type("Listening", (Listening, net_class), parts)
