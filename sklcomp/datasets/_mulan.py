"""Multi-label data in the format of Mulan, and on OpenML."""

import os
from collections.abc import Iterator
from itertools import chain
from numbers import Integral, Real
from typing import Any
from xml.parsers import expat

import numpy as np
from scipy import sparse
from sklearn.datasets import fetch_openml
from sklearn.utils import Bunch

from sklcomp.utils._sklearn import Interval, StrOptions, arff, validate_params

LARGEST_XML = 2**24
PRESENT = {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}
# Numbers of the data on OpenML.
OPENML = {
    "birds": 40588,
    "emotions": 40589,
    "enron": 40590,
    "genbase": 40591,
    "image": 40592,
    "langlog": 40593,
    "reuters": 40594,
    "scene": 40595,
    "slashdot": 40596,
    "yeast": 40597,
}


@validate_params(
    {
        "arff_path": [str, os.PathLike],
        "xml_path": [str, os.PathLike],
        "return_X_y": ["boolean"],
        "max_bytes": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def load_mulan(
    arff_path: Any, xml_path: Any, *, return_X_y: bool = False, max_bytes: int = 2**30
) -> Any:
    r"""Multi-label data from an ARFF file and the XML file that names its labels.

    This is the format of Mulan, in which most multi-label data is published, dense or
    sparse. Nothing but these two files is read: an XML file with a document type, and
    so with entities, is refused.

    Parameters
    ----------
    arff_path : str or path-like
        ARFF file of features and labels. Nominal features become numbers: their
        values if those are numbers, else their positions in the declaration.
    xml_path : str or path-like
        XML file with one ``<label name="...">`` a label, nested or not; 16 MiB at
        most.
    return_X_y : bool, default=False
        Whether to return only ``(data, target)``.
    max_bytes : int, default=2**30
        Largest ARFF file that is read.

    Returns
    -------
    data : Bunch
        With ``data`` of shape (n_samples, n_features), float64, a CSR array if the
        file is sparse, NaN where a value is missing; ``target`` of shape (n_samples,
        n_labels), int64, in the order of the XML file; ``feature_names`` and
        ``target_names``, lists of str. If ``return_X_y``, the tuple (data, target).

    Raises
    ------
    ValueError
        If a file is too large or not in its format, the XML file has a document type or
        names a label that the ARFF file has not, a feature is a string, or a label has
        other values than 0/1, false/true or no/yes.

    See Also
    --------
    fetch_multilabel : Downloads such data.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklcomp.datasets import load_mulan
    >>> lines = "@relation r", "@attribute x numeric", "@attribute sad {0,1}"
    >>> arff = "\n".join([*lines, "@data", "2.5,1"])
    >>> xml = '<labels><label name="sad"></label></labels>'
    >>> with TemporaryDirectory() as folder:
    ...     data, labels = Path(folder, "music.arff"), Path(folder, "music.xml")
    ...     _ = data.write_text(arff), labels.write_text(xml)
    ...     music = load_mulan(data, labels)
    >>> music.data, music.target, music.target_names
    (array([[2.5]]), array([[1]]), ['sad'])
    """
    _check_size(arff_path, max_bytes, "pass a larger max_bytes if you trust it")
    _check_size(xml_path, LARGEST_XML, "it should only name the labels")
    target_names = _read_label_names(xml_path)
    try:
        attributes, table = _read_arff(arff_path)
    except (arff.ArffException, UnicodeDecodeError) as error:
        msg = f"{os.fspath(arff_path)} is not a valid ARFF file. {error}"
        raise ValueError(msg) from error
    columns = {name: column for column, (name, _) in enumerate(attributes)}
    missing = [name for name in target_names if name not in columns]
    if missing:
        msg = (
            f"{os.fspath(xml_path)} names {len(missing)} labels that "
            f"{os.fspath(arff_path)} has not, first {missing[0]!r}; give the XML file "
            "that belongs to it."
        )
        raise ValueError(msg)
    labels = [columns[name] for name in target_names]
    is_label = np.zeros(len(attributes), dtype=bool)
    is_label[labels] = True
    target = table[:, labels]
    target = target.toarray() if sparse.issparse(target) else target
    wrong = ~np.isin(target, (0, 1)).all(axis=0)
    if wrong.any():
        name = target_names[int(np.argmax(wrong))]
        msg = f"label {name!r} has values other than 0 and 1, or missing ones."
        raise ValueError(msg)
    # Not int8: of that, scikit-learn's OneVsRestClassifier mixes up labels beyond 127.
    found = Bunch(
        data=table[:, np.flatnonzero(~is_label)],
        target=target.astype(np.int64),
        feature_names=[name for name, _ in attributes if not is_label[columns[name]]],
        target_names=target_names,
    )
    return (found.data, found.target) if return_X_y else found


@validate_params(
    {
        "name": [StrOptions(set(OPENML))],
        "data_home": [str, os.PathLike, None],
        "cache": ["boolean"],
        "return_X_y": ["boolean"],
        "n_retries": [Interval(Integral, 1, None, closed="left")],
        "delay": [Interval(Real, 0, None, closed="neither")],
    },
    prefer_skip_nested_validation=True,
)
def fetch_multilabel(
    name: str,
    *,
    data_home: Any = None,
    cache: bool = True,
    return_X_y: bool = False,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Any:
    """Download a multi-label benchmark from OpenML, once.

    Parameters
    ----------
    name : {"birds", "emotions", "enron", "genbase", "image", "langlog", "reuters", \
"scene", "slashdot", "yeast"}
        Which one.
    data_home : str or path-like, default=None
        Folder of scikit-learn's cache; None is ``~/scikit_learn_data``.
    cache : bool, default=True
        Whether to keep the files there and to read them from there.
    return_X_y : bool, default=False
        Whether to return only ``(data, target)``.
    n_retries : int, default=3
        Attempts at a download when the network fails.
    delay : float, default=1.0
        Seconds between them.

    Returns
    -------
    data : Bunch
        With ``data`` of shape (n_samples, n_features), float64, a CSR array if it is
        stored sparse; ``target`` of shape (n_samples, n_labels), int64;
        ``feature_names`` and ``target_names``, lists of str; and ``DESCR``. If
        ``return_X_y``, the tuple (data, target).

    Raises
    ------
    URLError, HTTPError
        If OpenML cannot be reached and the data is not in the cache.
    ValueError
        If the file is not the one that OpenML describes (its checksum differs).

    See Also
    --------
    load_digit_attributes : Real multi-label data without a download.
    load_mulan : Reads files that you have.

    Notes
    -----
    The training and test parts that papers use are not marked on OpenML; split with
    :class:`sklcomp.model_selection.IterativeStratifiedKFold`.

    Examples
    --------
    >>> from sklcomp.datasets import fetch_multilabel
    >>> X, y = fetch_multilabel("emotions", return_X_y=True)  # doctest: +SKIP
    >>> X.shape, y.shape  # doctest: +SKIP
    ((593, 72), (593, 6))
    """
    settings = {
        "data_id": OPENML[name],
        "data_home": data_home,
        "cache": cache,
        "as_frame": False,
        "parser": "liac-arff",
        "n_retries": n_retries,
        "delay": delay,
    }
    raw = fetch_openml(**settings)
    data, labels = raw.data, np.asarray(raw.target).reshape(raw.data.shape[0], -1)
    if sparse.issparse(data):
        # scikit-learn leaves omitted labels of sparse data uninitialised, but not
        # omitted features: so all columns are read as features.
        whole = fetch_openml(**settings, target_column=None)
        columns = {name: column for column, name in enumerate(whole.feature_names)}
        table = whole.data.tocsc()[:, [columns[name] for name in raw.target_names]]
        values = [np.array(whole.categories[name]) for name in raw.target_names]
        codes = table.toarray().astype(int)
        labels = np.column_stack([v[codes[:, j]] for j, v in enumerate(values)])
        data = sparse.csr_array(data)
    found = Bunch(
        data=data,
        target=np.vectorize(_is_present, otypes=[np.int64])(labels),
        feature_names=list(raw.feature_names),
        target_names=list(raw.target_names),
        DESCR=raw.DESCR,
    )
    return (found.data, found.target) if return_X_y else found


def _is_present(value):
    return PRESENT[str(value).lower().removesuffix(".0")]


def _check_size(path, limit, cure):
    size = os.stat(path).st_size
    if size > limit:
        msg = f"{os.fspath(path)} has {size} bytes, more than {limit}; {cure}."
        raise ValueError(msg)


def _read_label_names(path):
    names: list[str] = []

    def take_label(tag, attributes):
        if tag.rpartition(":")[2] == "label" and "name" in attributes:
            names.append(attributes["name"])

    def refuse(*_):
        msg = (
            f"{os.fspath(path)} declares a document type, which can hide harmful "
            "entities; remove its <!DOCTYPE ...>."
        )
        raise ValueError(msg)

    parser = expat.ParserCreate()
    parser.StartElementHandler = take_label
    parser.StartDoctypeDeclHandler = refuse
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        msg = f"{os.fspath(path)} is not valid XML: {error}."
        raise ValueError(msg) from error
    if not names:
        msg = f'{os.fspath(path)} names no label; expected <label name="..."> in it.'
        raise ValueError(msg)
    return names


def _read_arff(path):
    """Attributes and the table of all values, in float64."""
    with open(path, encoding="utf-8") as file:
        is_sparse = _first_row(file).startswith("{")
    with open(path, encoding="utf-8") as file:
        kind = arff.LOD_GEN if is_sparse else arff.DENSE_GEN
        content = arff.load(file, encode_nominal=True, return_type=kind)
        attributes = content["attributes"]
        levels = [_levels(path, name, values) for name, values in attributes]
        read = _sparse_table if is_sparse else _dense_table
        table = read(content["data"], len(attributes))
    for column, (name, values) in enumerate(attributes):
        numbers = levels[column]
        if numbers is None:
            continue
        if is_sparse:
            if numbers[0] != 0:
                msg = (
                    f"attribute {name!r} of the sparse file declares {values[0]!r} "
                    "first, which an omitted value would mean; declare 0 first."
                )
                raise ValueError(msg)
            own = slice(table.indptr[column], table.indptr[column + 1])
            table.data[own] = _decode(numbers, table.data[own])
        else:
            table[:, column] = _decode(numbers, table[:, column])
    return attributes, table.tocsr() if is_sparse else table


def _first_row(lines: Iterator[str]) -> str:
    """First line of the data, "" if there is none."""
    rows = (line.strip() for line in lines)
    for line in rows:
        if line.lower().startswith("@data"):
            break
    return next((line for line in rows if line and not line.startswith("%")), "")


def _dense_table(rows, n_columns):
    values = (np.nan if v is None else v for v in chain.from_iterable(rows))
    return np.fromiter(values, dtype=np.float64).reshape(-1, n_columns)


def _sparse_table(rows, n_columns):
    values: list[float] = []
    columns: list[int] = []
    indptr = [0]
    for row in rows:
        columns.extend(row)
        values.extend(np.nan if v is None else v for v in row.values())
        indptr.append(len(columns))
    shape = (len(indptr) - 1, n_columns)
    table = sparse.csr_array((values, columns, indptr), shape=shape, dtype=np.float64)
    return table.tocsc()


def _levels(path, name, values):
    """Numbers of the values of a nominal attribute; None for a numeric one."""
    if values == "STRING":
        msg = (
            f"attribute {name!r} of {os.fspath(path)} holds text, which is no number; "
            "remove it from the file, or vectorise it."
        )
        raise ValueError(msg)
    if not isinstance(values, list):
        return None
    words = [str(value).lower() for value in values]
    if set(words) <= set(PRESENT):
        return np.array([PRESENT[word] for word in words], dtype=float)
    try:
        return np.array(words, dtype=float)
    except ValueError:
        return np.arange(len(words), dtype=float)


def _decode(levels, codes):
    """Levels of codes, of which some may be missing."""
    known = ~np.isnan(codes)
    values = np.full(codes.shape, np.nan)
    values[known] = levels[codes[known].astype(int)]
    return values
