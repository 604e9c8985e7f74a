"""Compressor: what the compressors of one net share.

``EvolutionaryPruner`` and both distillers inherit from it: it checks their data, takes
the user's nets, and predicts with the small one.
"""

import copy
import inspect
from typing import Any

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    clone,
    is_classifier,
    is_regressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch import NeuralNet, NeuralNetBinaryClassifier
from torch import nn

from sklcomp.compression._classes import name_classes
from sklcomp.compression._outputs import count_outputs, shape_in_words
from sklcomp.nn._forms import check_form, plain_copy, uncompiled
from sklcomp.nn._running import restoring, torch_session
from sklcomp.training._fit import TorchFitMixin
from sklcomp.training._nets import check_device, rebuild_net
from sklcomp.utils._messages import show
from sklcomp.utils._validation import refuse_masked


def _writable(X: np.ndarray) -> np.ndarray:
    """The array, or a copy: torch does not know arrays that are read-only."""
    return X if X.flags.writeable else X.copy()


def _is_classifier(self: Any) -> bool:
    return is_classifier(self._prototype)


def _can_classify(self: Any) -> bool:
    if not _is_classifier(self):
        raise AttributeError("only a classifier has probabilities")
    return True


class Compressor(TorchFitMixin, MetaEstimatorMixin, BaseEstimator):
    """Shared by all estimators that make a small net from a user's net.

    A subclass names two of its parameters: the net of which ``estimator_`` will be a
    copy, and the net that is compressed or that teaches.
    """

    _net_name = "estimator"
    _source_name = "estimator"
    _fitted_names: tuple[str, ...] = ("estimator_", "classes_")
    estimator_: Any

    @property
    def _prototype(self) -> Any:
        net = getattr(self, self._net_name)
        return net.estimator if isinstance(net, FrozenEstimator) else net

    def _check_fit_data(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """X as float32, and y as the net takes it."""
        self._check_kinds()
        is_classes = _is_classifier(self)
        X, y = validate_data(
            self,
            X,
            y,
            dtype=np.float32,
            allow_nd=True,
            order="C",
            ensure_min_samples=2,
            multi_output=not is_classes,
            y_numeric=not is_classes,
        )
        X = _writable(X)
        self._shape_in = X.shape[1:]
        n_outputs = self._n_outputs(X)
        if not is_classes:
            self._y_is_flat = y.ndim == 1
            return X, y.reshape(len(y), -1).astype(np.float32)
        check_classification_targets(y)
        encoder = LabelEncoder().fit(y)
        source = getattr(self, self._source_name)
        self.classes_ = name_classes(source, encoder.classes_, n_outputs)
        if len(self.classes_) < 2:
            msg = (
                f"{type(self).__name__} needs at least 2 classes in y; it has 1 "
                f"class: {show(self.classes_[0])}."
            )
            raise ValueError(msg)
        # The teacher's classes may be in any order.
        place = {one: k for k, one in enumerate(self.classes_.tolist())}
        places = np.array([place[one] for one in encoder.classes_.tolist()], np.int64)
        return X, places[encoder.transform(y)]

    def _check_validation_data(
        self, X_val: Any, y_val: Any, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """X_val and y_val like X and y, which are known by now; None if not given."""
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            name = "y_val" if y_val is None else "X_val"
            msg = f"{name}=None: X_val and y_val belong together; give both, or none."
            raise ValueError(msg)
        is_classes = _is_classifier(self)
        try:
            X_val, y_val = validate_data(
                self,
                X_val,
                y_val,
                dtype=np.float32,
                allow_nd=True,
                order="C",
                reset=False,
                multi_output=not is_classes,
                y_numeric=not is_classes,
            )
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            msg = f"X_val and y_val must be like X and y: {error}"
            raise kind(msg) from error
        if X_val.shape[1:] != self._shape_in:
            msg = (
                f"X_val has shape {shape_in_words(X_val.shape[1:])}, X has "
                f"{shape_in_words(self._shape_in)}; give X_val the shape of X."
            )
            raise ValueError(msg)
        return _writable(X_val), self._encoded(y_val, y)

    def _encoded(self, y_val: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Other targets in the form that those of a fit have."""
        if _is_classifier(self):
            places = {label: k for k, label in enumerate(self.classes_.tolist())}
            strange = [label for label in y_val.tolist() if label not in places]
            if strange:
                msg = (
                    f"y_val contains {show(strange[0])}, and the classes are "
                    f"{show(list(places))}. Leave such examples out, or give some to y "
                    "too."
                )
                raise ValueError(msg)
            return np.array([places[label] for label in y_val.tolist()], np.int64)
        y_val = y_val.reshape(len(y_val), -1).astype(np.float32)
        if y_val.shape[1] != y.shape[1]:
            msg = (
                f"y_val has {y_val.shape[1]} outputs, y has {y.shape[1]}; give it as "
                "many."
            )
            raise ValueError(msg)
        return y_val

    def _check_kinds(self) -> None:
        """Raise if the nets are not two classifiers, or two regressors."""
        check_kind(self._prototype)
        source = getattr(self, self._source_name)
        net = source.estimator if isinstance(source, FrozenEstimator) else source
        is_net = not isinstance(net, nn.Module)
        # A frozen net that is neither may answer either.
        has_kind = net is source or is_classifier(net) or is_regressor(net)
        if is_net and has_kind and is_classifier(net) != _is_classifier(self):
            msg = (
                f"the teacher is a {type(net).__name__}, the student a "
                f"{type(self._prototype).__name__}; take two classifiers, or two "
                "regressors."
            )
            raise ValueError(msg)

    def _check_X(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return _writable(
            validate_data(
                self, X, dtype=np.float32, allow_nd=True, order="C", reset=False
            )
        )

    def _ready_module(self) -> nn.Module | None:
        """The module of a net that is not to be trained; None if it is."""
        source = getattr(self, self._source_name)
        if isinstance(source, nn.Module):
            return uncompiled(source)
        if not isinstance(source, FrozenEstimator):
            return None
        net = source.estimator
        if not hasattr(net, "module_"):
            msg = (
                f"the {type(net).__name__} inside FrozenEstimator is not fitted "
                "(clone takes the weights of a bare net), or holds no module_: give a "
                "skorch net, and fit it before freezing."
            )
            raise ValueError(msg)
        check_device(net)
        return uncompiled(net.module_)

    def _n_outputs(self, X: np.ndarray) -> int | None:
        """Outputs of the source; None of an untrained one if they cannot be told yet.

        A class of modules that asks for their number is told it later.
        """
        module = self._ready_module()
        if module is not None:
            return self._count_outputs(module, X, self._source_name)
        net = getattr(self, self._source_name)
        if self._asks_for_outputs(net):
            return None
        # Making a module may draw from any generator.
        with torch_session(0, torch.get_num_threads()):
            try:
                kwargs = net.get_params_for("module")
                module = net.initialized_instance(copy.deepcopy(net.module), kwargs)
                return self._count_outputs(module, X, self._source_name)
            # Anything: it may be a callback that makes the module fit the data.
            except Exception:
                return None

    def _count_outputs(self, module: nn.Module, X: np.ndarray, what: str) -> int:
        """Outputs of a network; a distiller also asks teachers that are none."""
        unit = "n_classes" if _is_classifier(self) else "n_outputs"
        return count_outputs(module, X, what, unit)

    def _check_n_outputs(
        self, module: nn.Module, X: np.ndarray, y: np.ndarray, what: str
    ) -> None:
        """Raise if a trained network has not an output for each class, or number."""
        n_outputs = self._count_outputs(module, X, what)
        wanted, unit = y.shape[-1], "outputs"
        if _is_classifier(self):
            wanted, unit = len(self.classes_), "classes"
        if n_outputs != wanted:
            msg = (
                f"the {what} has {n_outputs} outputs for {wanted} {unit}; give its "
                f"module {wanted}."
            )
            raise ValueError(msg)

    def _untrained(self, name: str, y: np.ndarray) -> Any:
        """A copy of a net of the user's, which must not be fitted."""
        net = getattr(self, name)
        check_device(net)
        if getattr(net, "initialized_", False):
            msg = (
                f"{name} is a fitted {type(net).__name__}; {type(self).__name__} would "
                "train it anew. Pass sklearn.base.clone(net) for that"
            )
            if name == self._source_name:
                msg += ", or FrozenEstimator(net) to use it as it is"
            raise ValueError(msg + ".")
        if isinstance(net.module, nn.Module):
            check_form(net.module, f"the module of {name}", "train")
        net = clone(net)
        self._set_outputs(net, y)
        has_settings = any(p.startswith("module__") for p in net.get_params(deep=False))
        if isinstance(net.module, nn.Module) and not has_settings:
            # skorch trains a module that is an instance in place, and the user's must
            # not change. With settings of its own it is made anew anyway.
            net = rebuild_net(net, plain_copy(net.module), keeps_files=True)
        return net

    def _plain_net(self, module: nn.Module, X: np.ndarray, y: np.ndarray) -> Any:
        """A fitted net of the user's class around a module."""
        net = rebuild_net(self.base_estimator_, module.eval())
        net.initialize()
        net.check_data(X, y)
        if hasattr(self, "classes_"):
            # skorch would take its classes from y, which may lack some of them.
            net.classes_inferred_ = np.arange(len(self.classes_))
        return net

    def _set_outputs(self, net: Any, y: np.ndarray) -> None:
        """Tell a module class that asks for it how many outputs are needed."""
        if name := self._asks_for_outputs(net):
            n = len(self.classes_) if _is_classifier(self) else y.shape[-1]
            net.set_params(**{f"module__{name}": n})

    def _asks_for_outputs(self, net: Any) -> str | None:
        """The parameter of a class of modules that is the number of outputs."""
        name = "n_classes" if _is_classifier(self) else "n_outputs"
        is_open = (
            inspect.isclass(net.module)
            and name in inspect.signature(net.module).parameters
            and f"module__{name}" not in net.get_params(deep=False)
        )
        return name if is_open else None

    @refuse_masked
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
        if _is_classifier(self):
            answers = self._ask("predict_proba", self._check_X(X))
            return self.classes_[answers.argmax(axis=1)]
        y = self._ask("predict", self._check_X(X))
        return y.ravel() if self._y_is_flat else y

    @available_if(_can_classify)
    @refuse_masked
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
        return self._ask("predict_proba", self._check_X(X))

    def _ask(self, method: str, X: np.ndarray) -> np.ndarray:
        """What the compressed net says; of images of another size it may be nothing."""
        try:
            # Loaders of batches draw from torch's generator.
            with torch.random.fork_rng(devices=[]), restoring(self.estimator_.module_):
                return getattr(self.estimator_, method)(X)
        # It is a RuntimeError too, and no fault of the shape.
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if X.shape[1:] == self._shape_in:
                raise
            msg = (
                f"X has shape {shape_in_words(X.shape[1:])}; {type(self).__name__} was "
                f"fitted on {shape_in_words(self._shape_in)}, and its net cannot take "
                f"this: {error}"
            )
            raise ValueError(msg) from error

    @refuse_masked
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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(getattr(self, self._net_name))
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags.required = True
        tags.target_tags.multi_output = not _is_classifier(self)
        tags.non_deterministic = False
        return tags


def check_kind(net: Any) -> None:
    """Raise unless a net is a regressor, or has an output for each class."""
    if (
        not isinstance(net, NeuralNet)
        or isinstance(net, NeuralNetBinaryClassifier)
        or not (is_classifier(net) or is_regressor(net))
    ):
        msg = (
            f"{type(net).__name__} is not supported; take a NeuralNetClassifier, with "
            "an output for each class, or a NeuralNetRegressor (of a fitted compressor "
            "its estimator_)."
        )
        raise ValueError(msg)
