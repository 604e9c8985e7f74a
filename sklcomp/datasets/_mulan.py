"""``load_mulan`` and ``fetch_multilabel``: data from files of Mulan and from OpenML."""

import codecs
import os
import re
from numbers import Integral, Real
from typing import Any
from xml.parsers import expat

import numpy as np
from scipy import sparse
from sklearn.datasets import fetch_openml, get_data_home
from sklearn.utils import Bunch

from sklcomp.datasets._arff import PRESENT, ArffTable, read_arff, unescape
from sklcomp.utils._sklearn import (
    Interval,
    StrOptions,
    get_openml_columns,
    validate_params,
)

LARGEST_XML = 2**24
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
        "xml_path": [str, os.PathLike, None],
        "return_X_y": ["boolean"],
        "max_bytes": [Interval(Integral, 1, None, closed="left")],
        "encoding": [str],
    },
    prefer_skip_nested_validation=True,
)
def load_mulan(
    arff_path: Any,
    xml_path: Any = None,
    *,
    return_X_y: bool = False,
    max_bytes: int = 2**30,
    encoding: str = "utf-8",
) -> Any:
    r"""Multi-label data from an ARFF file and the XML file that names its labels.

    This is the format of Mulan, in which most multi-label data is published, dense or
    sparse; without an XML file, that of Meka. Nothing but these files is read: an XML
    file with a document type, and so with entities, is refused.

    Parameters
    ----------
    arff_path : str or path-like
        ARFF file of features and labels. Nominal features become numbers: their
        values if those are numbers, else their positions in the declaration.
    xml_path : str or path-like, default=None
        XML file with one ``<label name="...">`` a label, nested or not; 16 MiB at
        most. None is for files whose relation says, by ``-C 3`` or ``-C -3``, that the
        first or the last three columns are the labels.
    return_X_y : bool, default=False
        Whether to return only ``(data, target)``.
    max_bytes : int, default=2**30
        Largest ARFF file that is read.
    encoding : str, default="utf-8"
        Of the ARFF file; a mark of the byte order is skipped. XML files name their own.

    Returns
    -------
    data : Bunch
        With ``data`` of shape (n_samples, n_features), float64, a CSR array if the
        file is sparse, NaN where a value is missing; ``target`` of shape (n_samples,
        n_labels), int64, in the order of the XML file; ``feature_names`` and
        ``target_names``, lists of str, as the ARFF file has them, without escapes. If
        ``return_X_y``, the tuple (data, target).

    Raises
    ------
    ValueError
        If a file is too large or not in its format or encoding, the XML file has a
        document type, names a label twice or one that the ARFF file has not, a feature
        is a string, a row has a weight (``{5}`` at its end) or two values of a column,
        or a label has other values than 0/1, false/true or no/yes. The file and the
        line are named.

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
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        msg = f'encoding={encoding!r} is unknown to Python; "utf-8" and "latin-1" are.'
        raise ValueError(msg) from error
    # Before the larger file, as it may be refused.
    wanted = None if xml_path is None else _read_label_names(xml_path)
    _, names, table, _ = content = read_arff(os.fspath(arff_path), encoding)
    if wanted is None:
        target_names = _labels_of_relation(os.fspath(arff_path), content)
    else:
        target_names = _find_labels(wanted, names, arff_path, xml_path)
    columns = {name: column for column, name in enumerate(names)}
    labels = [columns[name] for name in target_names]
    is_label = np.zeros(len(names), dtype=bool)
    is_label[labels] = True
    target = table[:, labels]
    target = target.toarray() if sparse.issparse(target) else target
    wrong = np.argwhere(~np.isin(target, (0, 1)))
    if len(wrong):
        row, label = wrong[0]
        value = float(target[row, label])
        found = "missing" if np.isnan(value) else f"{value:g}"
        msg = (
            f"{os.fspath(arff_path)}, line {content.lines[row]}: label "
            f"{target_names[label]!r} is {found}; labels have values 0 and 1."
        )
        raise ValueError(msg)
    # Not int8: of that, scikit-learn's OneVsRestClassifier mixes up labels beyond 127.
    found = Bunch(
        data=table[:, np.flatnonzero(~is_label)],
        target=target.astype(np.int64),
        feature_names=[name for name in names if not is_label[columns[name]]],
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
    settings = {"data_id": OPENML[name], "n_retries": n_retries, "delay": delay}
    # All columns as features: of sparse data scikit-learn leaves omitted targets
    # uninitialised, and fails where their memory holds what is no category.
    raw = fetch_openml(
        **settings,
        data_home=data_home,
        cache=cache,
        target_column=None,
        as_frame=False,
        parser="liac-arff",
    )
    home = os.path.join(get_data_home(data_home), "openml") if cache else None
    is_label = {
        column["name"]: column["is_target"] == "true"
        for column in get_openml_columns(**settings, data_home=home)
    }
    labels = [k for k, name in enumerate(raw.feature_names) if is_label[name]]
    others = [k for k, name in enumerate(raw.feature_names) if not is_label[name]]
    table = raw.data.tocsc() if sparse.issparse(raw.data) else raw.data
    target_names = [raw.feature_names[k] for k in labels]
    codes = table[:, labels]
    codes = codes.toarray() if sparse.issparse(codes) else codes
    target = [
        [_is_present(raw.categories[name][int(code)]) for code in codes[:, j]]
        for j, name in enumerate(target_names)
    ]
    data = table[:, others]
    found = Bunch(
        data=sparse.csr_array(data) if sparse.issparse(data) else data,
        target=np.array(target, dtype=np.int64).T,
        feature_names=[raw.feature_names[k] for k in others],
        target_names=target_names,
        DESCR=raw.DESCR,
    )
    return (found.data, found.target) if return_X_y else found


def _is_present(value: Any) -> int:
    return PRESENT[str(value).lower().removesuffix(".0")]


def _check_size(path: Any, limit: int, cure: str) -> None:
    size = os.stat(path).st_size
    if size > limit:
        msg = f"{os.fspath(path)} has {size} bytes, more than {limit}; {cure}."
        raise ValueError(msg)


def _find_labels(wanted: Any, names: Any, arff_path: Any, xml_path: Any) -> Any:
    """Names of the ARFF file that the XML file lists, which may escape them too."""
    known = set(names)
    found = [name if name in known else unescape(name) for name in wanted]
    missing = [name for name in found if name not in known]
    if missing:
        msg = (
            f"{os.fspath(xml_path)} names {len(missing)} labels that "
            f"{os.fspath(arff_path)} has not, first {missing[0]!r}; give the XML file "
            "that belongs to it."
        )
        raise ValueError(msg)
    return found


def _labels_of_relation(path: str, content: ArffTable) -> list[str]:
    """Names of the first or last columns, as many as the relation says."""
    found = re.search(r"-C\s+(-?\d+)", content.relation)
    n_labels = int(found[1]) if found else 0
    if not 0 < abs(n_labels) < len(content.names):
        msg = (
            f"{path} does not say which of its {len(content.names)} columns are "
            'labels; give the XML file that names them, or write "-C 3" into its '
            "@relation where the first three are."
        )
        raise ValueError(msg)
    return content.names[:n_labels] if n_labels > 0 else content.names[n_labels:]


def _read_label_names(path: Any) -> list[str]:
    _check_size(path, LARGEST_XML, "it should only name the labels")
    names: list[str] = []
    lines: dict[str, int] = {}

    def take_label(tag: str, attributes: dict) -> None:
        if tag.rpartition(":")[2] != "label" or "name" not in attributes:
            return
        name, line = attributes["name"], parser.CurrentLineNumber
        if unescape(name) in lines:
            msg = (
                f"{os.fspath(path)}, line {line}: label {name!r} was named in line "
                f"{lines[unescape(name)]} before; leave one."
            )
            raise ValueError(msg)
        lines[unescape(name)] = line
        names.append(name)

    def refuse(*_: Any) -> Any:
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
