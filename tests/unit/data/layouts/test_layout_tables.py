"""Rows of lists: right values with the right places, and errors that name file and line."""

from __future__ import annotations

import math
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from equimodal import SetupError
from equimodal.data.layouts.tables import headed, header, headless, parquet, parted
from support.trees import write


def test_csv_with_names_quotes_commas_blank_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        '\ufefflabel, path\r\n"male speech, man speaking",a.mp4\r\n\r\n"two\nlines",b.mp4\r\nü\u2028x,c.mp4\r\n'.encode()
    )
    rows = headed(path, ("path", "label"))
    assert [dict(row.values) for row in rows] == [
        {"label": "male speech, man speaking", "path": "a.mp4"},
        {"label": "two\nlines", "path": "b.mp4"},
        {"label": "ü\u2028x", "path": "c.mp4"},
    ]
    assert [row.place for row in rows] == [f"{path}, line {n}" for n in (2, 4, 6)]
    assert header(path) == ["label", "path"]


def test_lists_without_names_and_lists_parted_by_something_else(tmp_path):
    rows = headless(write(tmp_path / "a.csv", "x,1", '"y, z",2'), ("label", "n"))
    assert [row["label"] for row in rows] == ["x", "y, z"]
    rows = parted(write(tmp_path / "a.txt", 'The "big", bell&x&3'), ("label", "id", "n"), "&")
    assert dict(rows[0].values) == {"label": 'The "big", bell', "id": "x", "n": "3"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["path,kind", "a,b"], "expected the columns path, label, found path, kind"),
        ([], "expected the columns path, label, found an empty file"),
        (["path,label,path", "a,b,c"], "expected columns of different names"),
        (["path,label", "a"], r"line 2: expected 2 fields \(path, label\), found 1"),
        (["path,label", "a,b", "a,b,c"], r"line 3: expected 2 fields \(path, label\), found 3"),
        (["path,label", "a,b", 'a,"b'], "line 3: cannot be read: unexpected end of data"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(tmp_path, lines, said):
    path = write(tmp_path / "a.csv", *lines)
    with pytest.raises(SetupError, match=f"{re.escape(str(path))}.*{said}"):
        headed(path, ("path", "label"))


def test_files_that_are_not_there_or_not_utf8_are_refused(tmp_path):
    with pytest.raises(SetupError, match=r"none.csv: cannot be read: No such file"):
        headed(tmp_path / "none.csv", ("path",))
    (tmp_path / "latin.csv").write_bytes("path\nmüll\n".encode("latin-1"))
    with pytest.raises(SetupError, match=r"latin.csv: expected text in UTF-8"):
        headed(tmp_path / "latin.csv", ("path",))


def test_parquet_gives_the_values_that_a_csv_would(tmp_path):
    path = tmp_path / "a.parquet"
    table = {
        "path": ["a.mp4", "b.mp4"],
        "start": [1.5, math.nan],
        "end": [2, None],
        "label": ["x ", "y"],
    }
    pq.write_table(pa.table(table), path)
    first, second = parquet(path, ("path", "label"))
    assert dict(first.values) == {"path": "a.mp4", "start": "1.5", "end": "2", "label": "x"}
    assert dict(second.values) == {"path": "b.mp4", "start": "", "end": "", "label": "y"}
    assert (first.seconds("start"), second.seconds("start"), first.seconds("none")) == (
        1.5,
        None,
        None,
    )
    assert second.place == f"{path}, row 2"
    with pytest.raises(
        SetupError, match=r"expected the columns split, found path, start, end, label"
    ):
        parquet(path, ("split",))
    path.write_bytes(b"PAR1 this is none")
    with pytest.raises(SetupError, match=r"a.parquet: cannot be read"):
        parquet(path, ("path",))


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "1,5"])
def test_a_time_that_is_none_is_refused(tmp_path, text):
    (row,) = headless(write(tmp_path / "a.csv", f'"{text}"'), ("start",))
    with pytest.raises(SetupError, match=f"a.csv, line 1: start: expected seconds.*'{text}'"):
        row.seconds("start")


def test_values_that_are_missing_or_unknown_are_refused_with_the_nearest(tmp_path):
    rows = headless(write(tmp_path / "a.csv", "x,sining", ",1"), ("id", "label"))
    with pytest.raises(SetupError, match="line 1: unknown class 'sining': did you mean 'singing'"):
        rows[0].one_of("label", "class", {"singing": 0, "bowling": 1})
    many = {f"class {i}": i for i in range(300)} | {"singing": 300}
    with pytest.raises(
        SetupError, match=r"line 1: unknown class 'sining': the nearest of 301 are: singing$"
    ):
        rows[0].one_of("label", "class", many)
    with pytest.raises(SetupError, match="line 2: id: expected a value, found none"):
        rows[1].filled("id")
    assert rows[1].stamp("label") == "000001"
    with pytest.raises(SetupError, match="line 2: id: expected a value"):
        rows[1].stamp("id")
