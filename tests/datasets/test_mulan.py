import gzip
import hashlib
import json

import numpy as np
import pytest
from scipy import sparse
from sklearn.multiclass import OneVsRestClassifier
from sklearn.tree import DecisionTreeClassifier

from sklcomp.datasets import fetch_multilabel, load_mulan

XML = """<?xml version="1.0" encoding="utf-8"?>
<labels xmlns="http://mulan.sourceforge.net/labels">
  <label name="calm"></label>
  <label name="it's sad"><label name="angry"/></label>
</labels>
"""
HEADER = """% a comment
@relation 'Music: -C 3'
@attribute tempo numeric
@attribute angry {0,1}
@attribute 'loud ness' {1,2,4}
@attribute mood {low,high}
@attribute "it's sad" {FALSE,TRUE}
@attribute calm numeric
@data

"""
DENSE = (
    HEADER + "1.5,1,2,high,TRUE,0\n% between\n?,0,4,low,FALSE,1\n-3e2,0,1,?,TRUE,0\n"
)
TEXT = HEADER.replace("tempo numeric", "tempo string")
X = np.array([[1.5, 2, 1], [np.nan, 4, 0], [-300, 1, np.nan]])
Y = np.array([[0, 1, 1], [1, 0, 0], [0, 1, 0]])


@pytest.fixture
def files(tmp_path):
    """A function that writes the two files and returns their paths."""

    def write(arff=DENSE, xml=XML):
        paths = tmp_path / "music.arff", tmp_path / "music.xml"
        for path, text in zip(paths, (arff, xml), strict=True):
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return paths

    return write


def test_reads_a_dense_file_by_hand(files):
    music = load_mulan(*files())
    np.testing.assert_array_equal(music.data, X)
    np.testing.assert_array_equal(music.target, Y)
    assert music.target.dtype == np.int64
    assert music.feature_names == ["tempo", "loud ness", "mood"]
    assert music.target_names == ["calm", "it's sad", "angry"]


def test_a_sparse_file_equals_its_dense_one(files):
    names = "".join(f"@attribute f{j} numeric\n" for j in range(4))
    labels = '@attribute angry {0,1}\n@attribute "it\'s sad" {0,1}\n'
    header = f"@relation r\n{names}{labels}@attribute calm {{0,1}}\n@data\n"
    rows = "{0 1.5, 3 2, 4 1}\n{}\n{ 2 ?,5 1, 6 1 }\n{}\n"
    sparse_music = load_mulan(*files(header + rows))
    dense = "1.5,0,0,2,1,0,0\n0,0,0,0,0,0,0\n0,0,?,0,0,1,1\n0,0,0,0,0,0,0\n"
    dense_music = load_mulan(*files(header + dense))
    assert sparse.issparse(sparse_music.data)
    assert sparse_music.data.format == "csr"
    assert sparse_music.data.nnz == 3
    np.testing.assert_array_equal(sparse_music.data.toarray(), dense_music.data)
    np.testing.assert_array_equal(sparse_music.target, dense_music.target)
    assert sparse_music.target.sum() == 3


def test_more_than_127_labels_keep_their_order_in_scikit_learn(files, rng):
    Y = rng.integers(0, 2, (40, 150))
    header = "@relation r\n@attribute x numeric\n" + "".join(
        f"@attribute l{j} {{0,1}}\n" for j in range(150)
    )
    rows = "\n".join(",".join(["0", *map(str, row)]) for row in Y)
    xml = "".join(f'<label name="l{j}"/>' for j in range(150))
    music = load_mulan(*files(f"{header}@data\n{rows}\n", f"<labels>{xml}</labels>"))
    tree = DecisionTreeClassifier(random_state=0)
    model = OneVsRestClassifier(tree).fit(np.eye(40), music.target)
    np.testing.assert_array_equal(model.predict(np.eye(40)), Y)


def test_returns_a_pair_if_asked(files):
    data, target = load_mulan(*files(), return_X_y=True)
    np.testing.assert_array_equal(data, X)
    np.testing.assert_array_equal(target, Y)


ENTITIES = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;">]>
<labels><label name="&lol2;"/></labels>
"""
EXTERNAL = """<!DOCTYPE labels [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<labels><label name="a"/>&secret;</labels>
"""


@pytest.mark.parametrize("xml", [ENTITIES, EXTERNAL, ENTITIES.encode("utf-16")])
def test_hostile_xml_is_refused(files, xml):
    with pytest.raises(ValueError, match=r"document type.*remove its <!DOCTYPE"):
        load_mulan(*files(xml=xml))


@pytest.mark.parametrize(
    ("arff", "xml", "message"),
    [
        (DENSE, "<labels>", "not valid XML"),
        (DENSE, "<labels></labels>", "names no label"),
        (DENSE, XML.replace("calm", "joyful"), "1 labels .*first 'joyful'"),
        ("no arff", XML, "line 1: not a valid ARFF"),
        (
            DENSE.replace("1.5,1", "1.5,7"),
            XML,
            "arff, line 11: not a valid ARFF.*7 not",
        ),
        (
            DENSE.replace(",0\n%", "\n%"),
            XML,
            "arff, line 11: not a valid ARFF.*1.5,1,2",
        ),
        (DENSE.replace("1.5", "1%s"), XML, "arff, line 11: not a valid ARFF"),
        (
            DENSE.replace("1.5", "'1\\x'"),
            XML,
            "arff, line 11: not a valid ARFF.*escape",
        ),
        (DENSE.replace(",TRUE,0\n%", ",TRUE,3\n%"), XML, "line 11: label 'calm' is 3;"),
        (
            DENSE.replace(",FALSE,1", ",?,1"),
            XML,
            'line 13: label "it\'s sad" is missing',
        ),
        (TEXT + "abc,1,2,high,TRUE,0\n", XML, "arff, line 3: .*'tempo' holds text"),
        (TEXT + "{0 abc}\n", XML, "arff, line 3: .*'tempo' holds text"),
        (b"\xff\xfe@relation", XML, "arff, line 1: this is not in utf-8; .*encoding="),
        (HEADER + "{2 4}\n", XML, "line 5: .*'loud ness' .*declares '1' first"),
        # Dialects that would be read wrong, or not at all.
        (
            DENSE.replace("1,?,TRUE,0", "1,?,TRUE,0, {5}"),
            XML,
            r"line 14: .*weight, \{5\}",
        ),
        (
            HEADER + "{0 1, 5 1}, {.5}\n",
            XML,
            r"line 11: .*weight, \{.5\}.*sample_weight",
        ),
        (HEADER + "{0 1, 5 1, 0 2}\n", XML, "line 11: column 0 has two values"),
        (
            DENSE.replace("tempo", "calm"),
            XML,
            "line 8: .*'calm' was declared in line 3",
        ),
        (
            DENSE.replace("mood", "has mood"),
            XML,
            "line 6: not a valid ARFF|line 6: exp",
        ),
        (DENSE.replace("tempo numeric", "tempo"), XML, "line 3: expected @attribute"),
        (DENSE.replace("tempo numeric", "tempo date"), XML, "line 3: not a valid ARFF"),
        (DENSE, XML.replace("angry", "calm"), "xml, line 4: label 'calm' .*in line 3"),
        (DENSE, XML.replace("angry", "it\\'s sad"), "xml, line 4: label .*in line 4"),
        (
            DENSE,
            XML.replace("calm", "sch\xf6n").encode("latin-1"),
            "not valid XML.*line 3",
        ),
        (DENSE, None, "does not say which of its 6 columns are labels; give the XML"),
    ],
)
def test_bad_files_are_named(files, arff, xml, message):
    if xml is None:
        arff = arff.replace(" -C 3", "")
    arff, path = files(arff, xml or XML)
    with pytest.raises(ValueError, match=message):
        load_mulan(arff, path if xml else None)


NAMES = ("m\\'usica", "sch\xf6n", "it's", "50%", "a b")


@pytest.mark.parametrize("escaped_in_xml", [True, False])
@pytest.mark.parametrize("separator", [" ", "\t", "  \t"])
def test_names_are_read_without_quotes_and_escapes(files, separator, escaped_in_xml):
    declared = ["m\\'usica", "sch\xf6n", "'it\\'s'", '"50%"', "'a b'"]
    lines = ["@RELATION\tr", separator.join(["@attribute", "x", "integer"])]
    lines += [separator.join(["@Attribute", name, "{0,1}"]) for name in declared]
    xml = "".join(f'<label name="{name}"/>' for name in NAMES)
    if not escaped_in_xml:
        xml = xml.replace("\\", "")
    rows = "@data\r\n2.5,1,0,1,0,1\r\n-1,0,1,1,0,0"
    text = "\r\n".join([*lines, rows])
    music = load_mulan(*files("\ufeff" + text, f"<labels>{xml}</labels>"))
    assert music.target_names == [name.replace("\\", "") for name in NAMES]
    assert music.feature_names == ["x"]
    np.testing.assert_array_equal(music.data, [[2.5], [-1]])
    np.testing.assert_array_equal(music.target, [[1, 0, 1, 0, 1], [0, 1, 1, 0, 0]])
    # In another encoding if that is said, else not at all.
    for encoding in ("latin-1", "utf-16"):
        paths = files(text.encode(encoding), f"<labels>{xml}</labels>")
        found = load_mulan(*paths, encoding=encoding)
        assert found.target_names == music.target_names
        np.testing.assert_array_equal(found.target, music.target)
        with pytest.raises(ValueError, match=r"arff, line \d: this is not in utf-8"):
            load_mulan(*paths)
    with pytest.raises(ValueError, match="encoding='klingon' is unknown"):
        load_mulan(*paths, encoding="klingon")


@pytest.mark.parametrize(("number", "labels"), [("2", "ab"), ("-2", "cd")])
def test_without_xml_the_relation_tells_the_labels(files, number, labels):
    header = f"@relation 'r: -C {number} -split 5'\n" + "".join(
        f"@attribute {name} {{0,1}}\n" for name in "abcd"
    )
    path, _ = files(header + "@data\n0,1,1,1\n1,0,0,1\n")
    music = load_mulan(path)
    assert music.target_names == list(labels)
    table = np.array([[0, 1, 1, 1], [1, 0, 0, 1]])
    first = number == "2"
    np.testing.assert_array_equal(music.target, table[:, :2] if first else table[:, 2:])
    np.testing.assert_array_equal(music.data, table[:, 2:] if first else table[:, :2])


def test_too_large_files_are_refused_before_they_are_read(files, monkeypatch):
    with pytest.raises(ValueError, match=f"{len(DENSE)} bytes, more than 100; .*max_b"):
        load_mulan(*files(), max_bytes=100)
    monkeypatch.setattr("sklcomp.datasets._mulan.LARGEST_XML", 10)
    with pytest.raises(ValueError, match="bytes, more than 10; .*name the labels"):
        load_mulan(*files())


@pytest.fixture
def cached(tmp_path):
    """A function that fills scikit-learn's cache as a download would."""

    def fill(data_id, content, columns, is_sparse=False):
        def keep(path, text):
            file = tmp_path / "openml" / "openml.org" / f"{path}.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(gzip.compress(text.encode()))

        features = [
            {
                "index": str(index),
                "name": name,
                "data_type": kind,
                "is_target": "true" if target else "false",
                "is_ignore": "false",
                "is_row_identifier": "false",
                "number_of_missing_values": "0",
            }
            for index, (name, kind, target) in enumerate(columns)
        ]
        description = {
            "id": str(data_id),
            "name": "x",
            "version": "1",
            "status": "active",
            "format": "Sparse_ARFF" if is_sparse else "ARFF",
            "description": "About.",
            "url": f"https://www.openml.org/data/v1/download/{data_id}/x.arff",
            "md5_checksum": hashlib.md5(content.encode()).hexdigest(),
        }
        n_rows = content.split("@data\n")[1].count("\n")
        quality = [{"name": "NumberOfInstances", "value": f"{n_rows}.0"}]
        base = "api/v1/json/data"
        keep(f"{base}/{data_id}", json.dumps({"data_set_description": description}))
        keep(
            f"{base}/features/{data_id}",
            json.dumps({"data_features": {"feature": features}}),
        )
        keep(
            f"{base}/qualities/{data_id}",
            json.dumps({"data_qualities": {"quality": quality}}),
        )
        keep(f"data/v1/download/{data_id}/x.arff", content)
        return tmp_path

    return fill


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError("the network is used")

    monkeypatch.setattr("sklearn.datasets._openml.urlopen", refuse)


def test_fetches_dense_data_from_the_cache(cached):
    content = (
        "@relation r\n@attribute a numeric\n@attribute b {x,y}\n"
        "@attribute l1 {FALSE,TRUE}\n@attribute l2 {TRUE,FALSE}\n@data\n"
        "1.5,y,TRUE,TRUE\n-1,x,FALSE,TRUE\n0,x,TRUE,FALSE\n"
    )
    columns = [
        ("a", "numeric", False),
        ("b", "nominal", False),
        ("l1", "nominal", True),
        ("l2", "nominal", True),
    ]
    home = cached(40589, content, columns)
    data = fetch_multilabel("emotions", data_home=home)
    np.testing.assert_array_equal(data.data, [[1.5, 1], [-1, 0], [0, 0]])
    np.testing.assert_array_equal(data.target, [[1, 1], [0, 1], [1, 0]])
    assert data.target.dtype == np.int64
    assert (data.feature_names, data.target_names) == (["a", "b"], ["l1", "l2"])
    assert data.DESCR.startswith("About.")
    X, y = fetch_multilabel("emotions", data_home=home, return_X_y=True)
    np.testing.assert_array_equal(X, data.data)
    np.testing.assert_array_equal(y, data.target)


def test_fetches_sparse_data_from_the_cache(cached, monkeypatch):
    # Memory that holds what is no category before it is written.
    empty = np.empty

    def used(shape, dtype=float, **settings):
        found = empty(shape, dtype, **settings)
        if found.dtype == float:
            found.fill(1e9)
        return found

    monkeypatch.setattr(np, "empty", used)
    content = (
        "@relation r\n@attribute a numeric\n@attribute b numeric\n"
        "@attribute l1 {FALSE,TRUE}\n@attribute l2 {FALSE,TRUE}\n@data\n"
        "{1 2.5,2 TRUE}\n{0 1}\n{2 TRUE,3 TRUE}\n"
    )
    columns = [
        ("a", "numeric", False),
        ("b", "numeric", False),
        ("l1", "nominal", True),
        ("l2", "nominal", True),
    ]
    home = cached(40590, content, columns, is_sparse=True)
    data = fetch_multilabel("enron", data_home=home)
    assert isinstance(data.data, sparse.csr_array)
    np.testing.assert_array_equal(data.data.toarray(), [[0, 2.5], [1, 0], [0, 0]])
    np.testing.assert_array_equal(data.target, [[1, 0], [0, 0], [1, 1]])


def test_a_file_of_another_checksum_is_refused(cached):
    content = "@relation r\n@attribute a numeric\n@attribute l {0,1}\n@data\n1,1\n"
    columns = [("a", "numeric", False), ("l", "nominal", True)]
    home = cached(40597, content, columns)
    file = home / "openml/openml.org/data/v1/download/40597/x.arff.gz"
    file.write_bytes(gzip.compress(content.replace("1,1", "2,1").encode()))
    with (
        pytest.warns(RuntimeWarning, match="Invalid cache"),
        pytest.raises((ValueError, AssertionError)),
    ):
        fetch_multilabel("yeast", data_home=home)


def test_unknown_data_is_named():
    with pytest.raises(ValueError, match="'name' parameter.*'emotions'"):
        fetch_multilabel("emotion")
