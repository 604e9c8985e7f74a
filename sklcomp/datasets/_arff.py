"""Reader of ARFF files, dense or sparse, which refuses what is ambiguous.

``load_mulan`` and ``fetch_multilabel`` read their tables with it.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sklcomp.utils._sklearn import arff

PRESENT = {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}
QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
ATTRIBUTE = re.compile(
    rf"@attribute\s+({QUOTED}|[^\s{{}},%'\"][^\s{{}},%]*)\s+(.+)", re.I
)
WEIGHT = re.compile(r",\s*(\{[^{}]*\})$")
QUOTE = re.compile("['\"]")
KEY = re.compile(r"[{,]\s*(\d+)\s")


class ArffTable(NamedTuple):
    """Columns and values of a file.

    ``values`` is an ndarray, or a CSR array for a sparse file, in float64; ``lines``
    are the numbers of the lines that the rows stand in.
    """

    relation: str
    names: list[str]
    values: Any
    lines: list[int]


class ArffError(ValueError):
    """The file, the line, what is wrong there and the cure."""


def unescape(name: str) -> str:
    """Without backslashes before what is neither letter, digit nor space."""
    return re.sub(r"\\([^\w\s])", r"\1", name)


class _Lines:
    """Lines of a file as the parser takes them; the number of the last one.

    Names are read here, since the parser knows neither escapes nor tabs: it is given
    their positions.
    """

    def __init__(self, path: str):
        self.path, self.number = path, 0
        self.relation = ""
        self.names: dict[str, int] = {}
        self.rows: list[int] = []

    def read(self, file: Iterable[str]) -> Iterator[str]:
        is_header = True
        for number, text in enumerate(file, 1):
            self.number = number
            line = text.strip("\ufeff \t\r\n")
            start = line.lower()
            if not line or line.startswith("%"):
                continue
            if not is_header:
                self.rows.append(number)
                self._check_row(line)
            elif start.startswith("@relation"):
                self.relation = unescape(line[len("@relation") :].strip("\"' \t"))
                line = "@relation r"
            elif start.startswith("@attribute"):
                line = self._read_name(line)
            elif start.startswith("@data"):
                is_header = False
            yield line

    def refuse(self, what: str) -> ArffError:
        return ArffError(f"{self.path}, line {self.number}: {what}")

    def _read_name(self, line: str) -> str:
        found = ATTRIBUTE.fullmatch(line)
        if found is None:
            raise self.refuse(
                "expected @attribute, a name and its type; quote a name with spaces, "
                "and write \\' for a quote in it."
            )
        name, kind = found.groups()
        if name[0] in "\"'":
            name = name[1:-1]
        name = unescape(name)
        if name in self.names:
            first = self.names[name]
            raise self.refuse(
                f"attribute {name!r} was declared in line {first} before; rename one."
            )
        self.names[name] = self.number
        # Of whole numbers the parser would cut off what follows the point.
        kind = "numeric" if kind.lower() == "integer" else kind
        return f"@attribute {len(self.names)} {kind}"

    def _check_row(self, line: str) -> None:
        weight = WEIGHT.search(line)
        if weight is not None:
            raise self.refuse(
                f"the row ends with a weight, {weight[1]}, which is not read; remove "
                "the weights, and pass them to fit as sample_weight."
            )
        if line.startswith("{"):
            keys = KEY.findall(re.sub(QUOTED, "", line) if QUOTE.search(line) else line)
            if len(set(keys)) < len(keys):
                twice = max(keys, key=keys.count)
                raise self.refuse(f"column {twice} has two values; leave one.")


def read_arff(path: str, encoding: str) -> ArffTable:
    """Read a file whose columns are numbers or nominal.

    Nominal values become numbers: 0 and 1 if they say whether something is present,
    themselves if they are numbers, else their positions.
    """
    lines = _Lines(path)
    try:
        with open(path, encoding=encoding) as file:
            is_sparse = _first_row(file).startswith("{")
        with open(path, encoding=encoding) as file:
            kinds, levels, table = _parse(lines, file, is_sparse)
    except UnicodeError as error:
        lines.number = _undecodable_line(path, encoding)
        raise lines.refuse(
            f"this is not in {encoding}; pass the encoding of the file, perhaps "
            'encoding="latin-1".'
        ) from error
    for column, (name, numbers) in enumerate(zip(lines.names, levels, strict=True)):
        if numbers is None:
            continue
        if is_sparse:
            if numbers[0] != 0:
                lines.number = lines.names[name]
                raise lines.refuse(
                    f"attribute {name!r} of the sparse file declares "
                    f"{kinds[column][0]!r} first, which an omitted value would mean; "
                    "declare 0 first."
                )
            own = slice(table.indptr[column], table.indptr[column + 1])
            table.data[own] = _decode(numbers, table.data[own])
        else:
            table[:, column] = _decode(numbers, table[:, column])
    values = table.tocsr() if is_sparse else table
    return ArffTable(lines.relation, list(lines.names), values, lines.rows)


def _parse(lines: _Lines, file: Iterable[str], is_sparse: bool) -> tuple:
    """Types of the columns, their levels and the table, of nominal ones with codes."""
    form = arff.LOD_GEN if is_sparse else arff.DENSE_GEN
    try:
        content = arff.load(lines.read(file), encode_nominal=True, return_type=form)
        kinds = [kind for _, kind in content["attributes"]]
        levels = [
            _levels(lines, name, kind)
            for name, kind in zip(lines.names, kinds, strict=True)
        ]
        read = _sparse_table if is_sparse else _dense_table
        return kinds, levels, read(content["data"], len(kinds))
    except (ArffError, UnicodeError):
        raise
    except (arff.ArffException, ValueError) as error:
        error.line = lines.number  # type: ignore[union-attr]
        try:
            reason = str(error)
        except (TypeError, ValueError):
            # A percent sign of the line itself is taken for a place to fill.
            reason = type(error).__name__
        raise lines.refuse(f"not a valid ARFF file. {reason}") from error


def _undecodable_line(path: str, encoding: str) -> int:
    with open(path, "rb") as file:
        content = file.read()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        content = content[: error.start]
    except UnicodeError:
        content = b""
    return content.count(b"\n") + 1


def _first_row(lines: Iterable[str]) -> str:
    """First line of the data, "" if there is none."""
    rows = (line.strip() for line in lines)
    for line in rows:
        if line.lower().startswith("@data"):
            break
    return next((line for line in rows if line and not line.startswith("%")), "")


def _dense_table(rows: list, n_columns: int) -> Any:
    values = (np.nan if v is None else v for v in chain.from_iterable(rows))
    return np.fromiter(values, dtype=np.float64).reshape(-1, n_columns)


def _sparse_table(rows: list, n_columns: int) -> Any:
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


def _levels(lines: Any, name: str, values: Any) -> Any:
    """Numbers of the values of a nominal attribute; None for a numeric one."""
    if values == "STRING":
        lines.number = lines.names[name]
        raise lines.refuse(
            f"attribute {name!r} holds text, which is no number; remove it from the "
            "file, or vectorise it."
        )
    if not isinstance(values, list):
        return None
    words = [str(value).lower() for value in values]
    if set(words) <= set(PRESENT):
        return np.array([PRESENT[word] for word in words], dtype=float)
    try:
        return np.array(words, dtype=float)
    except ValueError:
        return np.arange(len(words), dtype=float)


def _decode(levels: Any, codes: Any) -> Any:
    """Levels of codes, of which some may be missing."""
    known = ~np.isnan(codes)
    values = np.full(codes.shape, np.nan)
    values[known] = levels[codes[known].astype(int)]
    return values
