"""Tables of numbers, dense or sparse, and what is refused of others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sklcomp.datasets._arff import ArffError, read_arff, unescape

HEADER = "@relation r\n@attribute a numeric\n@attribute b {low,high}\n@data\n"


@pytest.fixture
def read(tmp_path):
    """A function that reads a file of this content."""

    def read(content, encoding="utf-8"):
        path = tmp_path / "table.arff"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_arff(str(path), encoding)

    return read


def write_dense(values):
    names = "".join(f"@attribute x{k} numeric\n" for k in range(values.shape[1]))
    rows = [
        ",".join("?" if np.isnan(v) else repr(v) for v in row)
        for row in values.tolist()
    ]
    return f"@relation r\n{names}@data\n" + "\n".join(rows) + "\n"


def write_sparse(values):
    header = write_dense(values).partition("@data\n")[0]
    rows = [
        ", ".join(
            f"{k} " + ("?" if np.isnan(v) else repr(v))
            for k, v in enumerate(row)
            if v != 0
        )
        for row in values.tolist()
    ]
    return f"{header}@data\n" + "".join(f"{{{row}}}\n" for row in rows)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_what_was_written_is_read_dense_or_sparse(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rng.integers(1, 6), rng.integers(1, 5)))
    values *= 10.0 ** rng.integers(-200, 200, values.shape)
    values[rng.random(values.shape) < 0.4] = 0
    values[rng.random(values.shape) < 0.2] = np.nan
    folder = tmp_path_factory.mktemp("tables")
    for write, is_sparse in ((write_dense, False), (write_sparse, True)):
        path = folder / f"{write.__name__}.arff"
        path.write_text(write(values))
        table = read_arff(str(path), "utf-8")
        assert sparse.issparse(table.values) == is_sparse
        found = table.values.toarray() if is_sparse else table.values
        np.testing.assert_array_equal(found, values)
        assert table.names == [f"x{k}" for k in range(values.shape[1])]
        first = values.shape[1] + 3
        assert table.lines == list(range(first, first + len(values)))


@pytest.mark.parametrize(("levels", "rows", "values"), [
    ("{0,1}", "0 1 0", [0, 1, 0]), ("{1,0}", "0 1 1", [0, 1, 1]),
    ("{FALSE,TRUE}", "TRUE FALSE TRUE", [1, 0, 1]), ("{yes,no}", "yes no ?",
                                                    [1, 0, np.nan]),
    ("{1,2,4}", "4 1 2", [4, 1, 2]), ("{-0.5,7}", "7 -0.5 7", [7, -0.5, 7]),
    ("{low,mid,high}", "high low ?", [2, 0, np.nan]), ("{low,1}", "1 low 1", [1, 0, 1]),
    ("integer", "3 2.5 ?", [3, 2.5, np.nan]), ("REAL", "1e3 -2 0", [1000, -2, 0]),
])  # fmt: skip
def test_levels_are_numbers_presence_or_positions(read, levels, rows, values):
    rows = "\n".join(rows.split())
    table = read(f"@relation r\n@attribute a {levels}\n@data\n{rows}\n")
    np.testing.assert_array_equal(table.values[:, 0], values)


def test_a_sparse_file_leaves_out_the_first_level(read):
    header = "@relation r\n@attribute a {0,2,5}\n@attribute b {no,yes}\n@data\n"
    table = read(header + "{0 5}\n{}\n{1 yes, 0 2}\n")
    np.testing.assert_array_equal(table.values.toarray(), [[5, 0], [0, 0], [2, 1]])
    message = "attribute 'a' of the sparse file declares '3' first.*; declare 0 first"
    with pytest.raises(ArffError, match=f"line 2: {message}"):
        read("@relation r\n@attribute a {3,0}\n@data\n{0 0}\n")


@pytest.mark.parametrize(("written", "name"), [
    ("a", "a"), ("'a b'", "a b"), ('"it\'s"', "it's"), (r"'it\'s'", "it's"),
    (r"a\-b", "a-b"), ("'a{b}%,c'", "a{b}%,c"), ("'@data'", "@data"),
    (r"'a\nb'", r"a\nb"),
])  # fmt: skip
@pytest.mark.parametrize("space", [" ", "\t", "   "])
def test_names_are_read_without_quotes_and_escapes(read, written, name, space):
    table = read(f"@RELATION r\n@Attribute{space}{written}{space}Numeric\n@DATA\n1\n")
    assert table.names == [name]


@pytest.mark.parametrize(("written", "name"), [
    (r"a\'b", "a'b"), (r"a\nb", r"a\nb"), (r"\%\,", "%,"), (r"a\ b", r"a\ b"),
    (r"\_", r"\_"),
])  # fmt: skip
def test_backslashes_go_before_what_is_no_letter(written, name):
    assert unescape(written) == name


def test_comments_empty_lines_and_marks_are_skipped(read):
    text = "\ufeff% first\n\n" + HEADER.replace("@data", "% more\n@data\n%") + "1,low\n"
    table = read(text.replace("\n", "\r\n") + "\r\n% last\r\n2,high\r\n")
    np.testing.assert_array_equal(table.values, [[1, 0], [2, 1]])
    assert table.relation == "r"
    # The numbers are those of an editor.
    assert table.lines == [9, 12]


def test_relation_is_read_as_it_is_meant(read):
    table = read(HEADER.replace("r\n", "'it\\'s: -C 3'\n", 1) + "1,low\n")
    assert table.relation == "it's: -C 3"


@pytest.mark.parametrize(("content", "message"), [
    (HEADER + "1,low\nx,low\n", "line 6: not a valid ARFF file"),
    (HEADER + "1,middle\n", "line 5: not a valid ARFF file.*middle"),
    (HEADER + "1\n", "line 5: not a valid ARFF file"),
    (HEADER + "1,low,{0.5}\n", r"line 5: the row ends with a weight, \{0.5\}.*sample"),
    (HEADER + "{0 1, 0 2}\n", "line 5: column 0 has two values; leave one"),
    (HEADER.replace("b {", "a {"), "line 3: attribute 'a' was declared in line 2"),
    (HEADER.replace("a numeric", "a"), "line 2: expected @attribute, a name and its"),
    (HEADER.replace("a numeric", "my a numeric") + "1,low\n", "arff, line 2: not a"),
    (HEADER.replace("numeric", "string") + "x,low\n", "line 2: attribute 'a' holds t"),
    (HEADER.encode() + b"1,l\xf6w\n", 'line 5: this is not in utf-8; .*="latin-1'),
])  # fmt: skip
def test_files_that_are_unclear_are_named_by_line_and_cure(read, content, message):
    with pytest.raises(ArffError, match=message):
        read(content)


def test_encoding_is_that_which_is_told(read):
    text = "@relation r\n@attribute 'gr\xfcn' numeric\n@data\n1\n"
    assert read(text.encode("latin-1"), "latin-1").names == ["gr\xfcn"]
    assert read(text.encode("utf-16"), "utf-16").names == ["gr\xfcn"]
    with pytest.raises(ArffError, match="line 2: this is not in utf-8"):
        read(text.encode("latin-1"))
