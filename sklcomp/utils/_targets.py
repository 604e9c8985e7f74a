"""One reading of targets, for all that learn, split or score labels."""

from collections.abc import Iterable, Mapping
from numbers import Number, Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets

from sklcomp.utils._messages import show, show_some

CURE = (
    "an indicator matrix takes only 0/1 or False/True, one column a label. Use "
    "MultiLabelBinarizer for label sets, y > 0 for -1/+1 and y.astype(int) for '0'/'1'."
)


def read_targets(y: Any, name: str = "y") -> Any:
    """Targets as an array of one or two dimensions or as CSR, none of them missing.

    What is read as an array is an indicator matrix or classes by its values, see
    :func:`check_indicator` and :func:`check_classes`.
    """
    if hasattr(getattr(y, "sparse", None), "to_coo") and y.ndim == 2:
        y = y.sparse.to_coo()  # a frame of pandas
    if sparse.issparse(y):
        y = sparse.csr_array(y.reshape(-1, 1) if y.ndim == 1 else y)
        _check_present(y.data, name)
        return y
    try:
        array = np.asarray(y)
    except ValueError as error:  # rows of unequal lengths
        raise _label_sets(y, name) from error
    if array.dtype.names:
        msg = f"{name} is a structured array; give a frame, or a matrix of one type."
        raise ValueError(msg)
    if array.ndim not in (1, 2):
        msg = (
            f"{name} has shape {array.shape}; expected an indicator matrix of shape "
            "(n_samples, n_labels), or (n_samples,). Use MultiLabelBinarizer for label "
            "sets."
        )
        raise ValueError(msg)
    kinds = {type(value) for value in array.flat} if array.dtype.kind == "O" else ()
    if any(map(_holds_many, kinds)):
        raise _label_sets(y, name)
    _check_present(array, name)
    if kinds and all(issubclass(kind, Number | np.bool_) for kind in kinds):
        return np.array(array.tolist())
    return array


def _place(value: Any) -> tuple:
    """Where to list a value: numbers by size, all others behind them by their text."""
    is_number = isinstance(value, Real)
    return not is_number, value if is_number else 0, show(value)


def check_indicator(y: Any, name: str = "y") -> Any:
    """Where targets that were read are 1: bool, or int8 as canonical CSR.

    Anything but 0/1 is refused by its value.
    """
    if y.ndim != 2 or y.shape[1] == 0:
        msg = (
            f"{name} has shape {y.shape}; expected (n_samples, n_labels), an indicator "
            "matrix with at least one column. Use label_binarize for 1-D classes, and "
            "MultiLabelBinarizer for label sets."
        )
        raise ValueError(msg)
    values = y.data if sparse.issparse(y) else y
    if values.dtype.kind not in "biuf":
        values = values.astype(object)
    present = values == 1
    if np.count_nonzero(present) != np.count_nonzero(values != 0):
        odd = values[(values != 0) & ~present][:1000]
        shown = show_some(sorted(set(odd.tolist()), key=_place))
        msg = f"{name} holds {shown}; {CURE}"
        raise ValueError(msg)
    if not sparse.issparse(y):
        return present
    Y = y.astype(np.int8)
    Y.sum_duplicates()
    Y.eliminate_zeros()
    Y.data[:] = 1
    return Y


def as_indicator(y: Any, name: str = "y") -> sparse.csr_array:
    """CSR of the ones of targets that were read; anything but 0/1 is refused."""
    present = check_indicator(y, name)
    return present if sparse.issparse(present) else _as_csr(present)


def check_classes(y: Any, name: str = "y") -> np.ndarray:
    """Classes as a vector, of targets of one column that were read."""
    flat = (y.toarray() if sparse.issparse(y) else y).ravel()
    if flat.dtype.kind == "O":
        kinds = sorted({type(value).__name__ for value in flat})
        if len(kinds) > 1:
            msg = (
                f"{name} mixes {' and '.join(kinds)}; give classes of one type, such "
                "as y.astype(str)."
            )
            raise ValueError(msg)
    check_classification_targets(flat)
    return flat


def column_names(y: Any) -> list | None:
    """Names of the columns of a frame, or of a series: strings and integers.

    None where there are none: 0, 1, 2 and so on are those that nobody gave.
    """
    names = getattr(y, "columns", None)
    if isinstance(names, list):
        names = getattr(y, "column_names", names)  # pyarrow's columns are the values
    elif names is None and hasattr(y, "to_frame"):
        names = [y.name]
    if names is None:
        return None
    names = plain_names(names)
    if not all(isinstance(name, str | int) and name != "" for name in names):
        return None
    return None if names == list(range(len(names))) else names


def plain_names(names: Iterable) -> list:
    """Names as a list, numpy's strings and integers as Python's."""
    return [name.item() if isinstance(name, np.generic) else name for name in names]


def match_columns(y: Any, given: Any, known: Any, name: str = "y") -> Any:
    """Targets that were read, their columns in the order of the known names.

    Without names of its own, or where the known ones are but numbers that nobody gave,
    a column is known by its place.
    """
    known = list(known)
    if given is None or y.ndim == 1 or given == known:
        return y
    if len(given) == len(known) and set(given) == set(known):
        return y[:, [given.index(label) for label in known]]
    if known == list(range(len(known))):
        return y
    foreign = [label for label in given if label not in known]
    missing = [label for label in known if label not in given]
    what = [f"columns that are no labels: {show_some(foreign)}"] * bool(foreign)
    what += [f"no columns for the labels {show_some(missing)}"] * bool(missing)
    what = what or ["columns named twice"]
    msg = (
        f"{name} has {' and '.join(what)}. Columns are matched by name, in any order; "
        "rename them, or give an array in the order of the labels."
    )
    raise ValueError(msg)


def _holds_many(kind: type) -> bool:
    return issubclass(kind, list | tuple | set | frozenset | Mapping | np.ndarray)


def _label_sets(y: Any, name: str) -> ValueError:
    first = next(iter(y))
    return ValueError(
        f"{name} holds {show(first)[:60]}, a {type(first).__name__}; use "
        "MultiLabelBinarizer().fit_transform to turn label sets into an indicator "
        "matrix of 0/1, one column a label."
    )


def _check_present(values: np.ndarray, name: str) -> None:
    """Refuse NaN, None, NaT and pandas' NA."""
    if values.dtype.kind == "O":
        missing = sum(map(_is_missing, values.flat))
    elif values.dtype.kind in "fcmM":
        missing = int(np.count_nonzero(values != values))
    else:
        return
    if missing:
        msg = (
            f"{name} contains NaN or None in {missing} places; leave out the rows "
            "without an annotation. Labels that are annotated on rows of their own can "
            "be learned one after the other, see StreamingLabelClassifier.add_labels."
        )
        raise ValueError(msg)


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas' NA is neither true nor false
        return True


def _as_csr(present: np.ndarray) -> sparse.csr_array:
    """CSR of a dense mask; scipy takes several times as long."""
    if not present.flags.c_contiguous and present.flags.f_contiguous:
        return _as_csr(present.T).T.tocsr()
    counts = np.count_nonzero(present, axis=1)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    starts = np.arange(len(present)) * present.shape[1]
    columns = np.flatnonzero(present) - np.repeat(starts, counts)
    kind = np.int32 if indptr[-1] < 2**31 else np.int64
    return sparse.csr_array(
        (np.ones(len(columns), np.int8), columns.astype(kind), indptr.astype(kind)),
        shape=present.shape,
    )
