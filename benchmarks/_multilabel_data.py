"""The multi-label data of the benchmarks."""

import importlib.util

import numpy as np
from scipy import sparse
from sklearn.preprocessing import StandardScaler

from sklcomp.model_selection import IterativeStratifiedKFold


def load_all(folder, name):
    """X, Y and the number of training rows, which come first; 0 if not marked."""
    path = folder / "multilabel" / "load.py"
    spec = importlib.util.spec_from_file_location("multilabel_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    X, Y, n_train, *_ = module.load(name)
    X = sparse.csr_matrix(X) if sparse.issparse(X) else np.ascontiguousarray(X)
    return X, np.ascontiguousarray(Y, dtype=np.int64), max(n_train, 0)


def load(folder, name, max_labels=None, dtype=np.float64):
    """Training rows, and the labels that vary in them."""
    X, Y, n_train = load_all(folder, name)
    n_train = n_train or X.shape[0]
    X, Y = X[:n_train].astype(dtype), Y[:n_train]
    varies = (Y.sum(axis=0) > 0) & (Y.sum(axis=0) < n_train)
    return X, np.ascontiguousarray(Y[:, varies][:, :max_labels])


def load_split(folder, name, seed):
    """A random third of all rows for testing, with a share of every label.

    Dense features are standardised by the other rows, which are for training.
    """
    X, Y, _ = load_all(folder, name)
    X = X.astype(np.float64)
    splits = IterativeStratifiedKFold(3, random_state=seed).split(X, Y)
    train, test = next(splits)
    X, X_test = X[train], X[test]
    if not sparse.issparse(X):
        scaler = StandardScaler().fit(X)
        X, X_test = scaler.transform(X), scaler.transform(X_test)
    return X, Y[train], X_test, Y[test]
