"""What every compressor does: check data, train nets reproducibly, predict."""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.callbacks import InputShapeSetter
from torch import Tensor, nn

from sklcomp.nn._running import has_batch_norm
from sklcomp.utils._sklearn import CallbackSupportMixin


@contextmanager
def torch_session(seed: int, n_threads: int) -> Iterator[None]:
    """A seeded generator and a fixed number of threads; both are restored.

    Sums of one and of two threads differ in the last bits.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def hold_out(y: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and at most n and a quarter not to, with a share of classes."""
    n_held = max(1, min(n, len(y) // 4))
    classes = None
    if y.dtype.kind == "i" and n_held >= y.max() + 1 and np.bincount(y).min() > 1:
        classes = y
    return train_test_split(
        np.arange(len(y)), test_size=n_held, random_state=seed, stratify=classes
    )


def train_net(net: Any, X: np.ndarray, y: np.ndarray) -> Any:
    """``net.fit``, but an interrupt is not swallowed, nor a last batch of one trained.

    A batch norm cannot take the statistics of a single row.
    """
    try:
        net.initialize()
        n_rows = len(net.get_split_datasets(X, y)[0])
        if n_rows % net.batch_size == 1 and has_batch_norm(net.module_):
            # set_params would make the module anew.
            vars(net)["iterator_train__drop_last"] = True
        net.check_data(X, y)
        net.notify("on_train_begin", X=X, y=y)
        net.fit_loop(X, y)
        net.notify("on_train_end", X=X, y=y)
    except (MemoryError, torch.OutOfMemoryError) as error:
        msg = (
            f"training ran out of memory with batch_size={net.batch_size}; choose a "
            "smaller batch_size."
        )
        raise MemoryError(msg) from error
    return net


def check_device(net: Any) -> None:
    """Raise if a net asks for a GPU that is not there."""
    if str(net.device).startswith("cuda") and not torch.cuda.is_available():
        msg = f"device={net.device!r} of {type(net).__name__} is not there: no CUDA."
        raise RuntimeError(msg + ' Choose device="cpu".')


def rebuild_net(net: Any, module: nn.Module, net_class: type | None = None) -> Any:
    """A net of the same class and settings around another module."""
    settings = {
        name: value
        for name, value in net.get_params(deep=False).items()
        if not name.startswith("module__") and name != "module"
    }
    settings["callbacks"] = _without_shape_setters(settings.get("callbacks"))
    return (net_class or type(net))(module=module, **copy.deepcopy(settings))


def _without_shape_setters(callbacks: Any) -> Any:
    """Callbacks but those that would make the module anew."""
    if not isinstance(callbacks, (list, tuple)):
        return callbacks

    def sets_shape(entry: Any) -> bool:
        callback = entry[1] if isinstance(entry, tuple) else entry
        kind = callback if inspect.isclass(callback) else type(callback)
        return issubclass(kind, InputShapeSetter)

    return [entry for entry in callbacks if not sets_shape(entry)]


class Task:
    """What the outputs of a net mean: classes by logits, or numbers."""

    def __init__(self, net: Any, is_classes: bool):
        self.is_classes = is_classes
        self.is_probability = isinstance(net.criterion_, nn.NLLLoss)

    def logits(self, output: Any) -> Tensor:
        """Scores that softmax turns into probabilities; regression: the output."""
        output = output[0] if isinstance(output, tuple) else output
        if self.is_classes and self.is_probability:
            return torch.log(output.clamp_min(torch.finfo(output.dtype).eps))
        return output

    def divergence(self, teacher: Tensor, student: Tensor, T: float = 1.0) -> Tensor:
        """KL divergence at a temperature, times its square; or mean squared error."""
        if self.is_classes:
            return T**2 * F.kl_div(
                F.log_softmax(student / T, -1), F.log_softmax(teacher / T, -1),
                reduction="batchmean", log_target=True,
            )  # fmt: skip
        return F.mse_loss(student, teacher)

    def check_outputs(self, output: Tensor, y: np.ndarray) -> None:
        """Raise if a net does not give what y asks for."""
        n = int(y.max()) + 1 if self.is_classes else y.shape[1]
        if output.ndim != 2 or (
            output.shape[1] < n if self.is_classes else output.shape[1] != n
        ):
            what = "classes" if self.is_classes else "outputs"
            msg = (
                f"the net gives outputs of shape {tuple(output.shape)} for {len(y)} "
                f"examples, y has {n} {what}: expected ({len(y)}, {n})."
            )
            raise ValueError(msg)

    def score(self, output: Tensor, y: np.ndarray) -> float:
        """Accuracy, or the coefficient of determination."""
        values = output.detach().cpu().numpy()
        if self.is_classes:
            return float(accuracy_score(y, values.argmax(1)))
        return float(r2_score(y, values))


def distilling(net_class: type, teacher: nn.Module, task: Task, weight: float,
               temperature: float) -> type:  # fmt: skip
    """A net class whose loss mixes in the divergence from a teacher."""

    class Distilling(net_class):
        def get_loss(self, y_pred: Any, y_true: Any, X: Any = None,
                     training: bool = False) -> Tensor:  # fmt: skip
            loss = super().get_loss(y_pred, y_true, X=X, training=training)
            if not training:
                return loss
            with torch.no_grad():
                target = task.logits(teacher(X.to(self.device)))
            soft = task.divergence(target, task.logits(y_pred), temperature)
            return (1 - weight) * loss + weight * soft

    return Distilling


def _writable(X: np.ndarray) -> np.ndarray:
    """The array, or a copy: torch does not know arrays that are read-only."""
    return X if X.flags.writeable else X.copy()


def _is_classifier(self: Any) -> bool:
    net = self.estimator
    return is_classifier(net.estimator if isinstance(net, FrozenEstimator) else net)


def _can_classify(self: Any) -> bool:
    if not _is_classifier(self):
        raise AttributeError("only a classifier has probabilities")
    return True


class Compressor(CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Shared by all that make a small net from a user's net."""

    estimator: Any
    estimator_: Any
    base_estimator_: Any

    def _check_fit_data(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """X as float32, and y as the net takes it."""
        self.__dict__.pop("estimator_", None)
        is_classes = _is_classifier(self)
        X, y = validate_data(
            self, X, y, dtype=np.float32, allow_nd=True, order="C",
            ensure_min_samples=2, multi_output=not is_classes, y_numeric=not is_classes,
        )  # fmt: skip
        X = _writable(X)
        if is_classes:
            check_classification_targets(y)
            self._encoder = LabelEncoder().fit(y)
            self.classes_ = self._encoder.classes_
            if len(self.classes_) < 2:
                msg = (
                    f"{type(self).__name__} needs at least 2 classes in y; it has 1 "
                    f"class: {self.classes_[0]!r}."
                )
                raise ValueError(msg)
            return X, self._encoder.transform(y).astype(np.int64)
        self._y_is_flat = y.ndim == 1
        return X, y.reshape(len(y), -1).astype(np.float32)

    def _check_X(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return _writable(
            validate_data(
                self, X, dtype=np.float32, allow_nd=True, order="C", reset=False
            )
        )

    def _fitted_base(self, X: np.ndarray, y: np.ndarray) -> Any:
        """The user's net: a frozen one as it is, another one trained first."""
        name = type(self).__name__
        is_frozen = isinstance(self.estimator, FrozenEstimator)
        check_device(self.estimator.estimator if is_frozen else self.estimator)
        if is_frozen:
            net = self.estimator.estimator
            if not getattr(net, "initialized_", False):
                msg = (
                    f"the {type(net).__name__} inside FrozenEstimator is not fitted "
                    "(clone takes the weights of a bare net): fit it before freezing."
                )
                raise ValueError(msg)
            return net
        if getattr(self.estimator, "initialized_", False):
            msg = (
                f"estimator is a fitted {type(self.estimator).__name__}; {name} would "
                "train it anew. Pass FrozenEstimator(net) to compress it as it is, or "
                "sklearn.base.clone(net) to train it here."
            )
            raise ValueError(msg)
        net = clone(self.estimator)
        self._set_outputs(net, y)
        if isinstance(net.module, nn.Module):
            net = rebuild_net(net, copy.deepcopy(net.module))
        return train_net(net, X, y)

    def _plain_net(self, module: nn.Module, X: np.ndarray, y: np.ndarray) -> Any:
        """A fitted net of the user's class around a module."""
        net = rebuild_net(self.base_estimator_, module.eval())
        net.initialize()
        net.check_data(X, y)
        if hasattr(self, "classes_"):
            net.classes_inferred_ = np.arange(len(self.classes_))
        return net

    def _set_outputs(self, net: Any, y: np.ndarray) -> None:
        """Tell a module class that asks for it how many outputs are needed."""
        name, n = "n_outputs", y.shape[-1]
        if _is_classifier(self):
            name, n = "n_classes", len(self.classes_)
        if (
            inspect.isclass(net.module)
            and name in inspect.signature(net.module).parameters
            and f"module__{name}" not in net.get_params(deep=False)
        ):
            net.set_params(**{f"module__{name}": n})

    def predict(self, X: Any) -> np.ndarray:
        """Predict with the compressed net.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            What the net takes.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Classes, or numbers.
        """
        X = self._check_X(X)
        if _is_classifier(self):
            return self.classes_[self.estimator_.predict_proba(X).argmax(axis=1)]
        y = self.estimator_.predict(X)
        return y.ravel() if self._y_is_flat else y

    @available_if(_can_classify)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, by the compressed net.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            What the net takes.

        Returns
        -------
        probability : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        X = self._check_X(X)
        return self.estimator_.predict_proba(X)

    def score(self, X: Any, y: Any) -> float:
        """Accuracy of a classifier, coefficient of determination of a regressor.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            What the net takes.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True classes or numbers.

        Returns
        -------
        score : float
            Higher is better.
        """
        measure = accuracy_score if _is_classifier(self) else r2_score
        return float(measure(y, self.predict(X)))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def _draw_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags.required = True
        tags.target_tags.multi_output = not _is_classifier(self)
        tags.non_deterministic = False
        return tags
