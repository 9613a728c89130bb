"""Rows of lists that come with data sets: CSV with and without a header, and Parquet."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

Value = TypeVar("Value")
DELIMITERS = (",", ";", "\t")
MANY = 40  # names that an error does not list


@dataclass(frozen=True)
class Row:
    """One row of a list.

    Args:
        place: file and line, for errors.
        values: by the name of their column; empty where nothing is given.
    """

    place: str
    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def filled(self, name: str) -> str:
        """Return a value that has to be there.

        Raises:
            SetupError: it is empty.
        """
        if not self.values[name]:
            raise SetupError(f"{self.place}: {name}: expected a value, found none")
        return self.values[name]

    def seconds(self, name: str) -> float | None:
        """Return a time, None where it is empty or the file has no such column.

        Raises:
            SetupError: it is no number from 0 up.
        """
        text = self.values.get(name, "")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < math.inf:
            raise SetupError(f"{self.place}: {name}: expected seconds from 0 up, found {text!r}")
        return value

    def stamp(self, name: str) -> str:
        """Return a time as names of cut videos have it: whole seconds, six digits.

        Raises:
            SetupError: there is none.
        """
        self.filled(name)
        return f"{int(self.seconds(name) or 0):06d}"

    def one_of(self, name: str, kind: str, known: Mapping[str, Value]) -> Value:
        """Return what a value stands for.

        Raises:
            SetupError: it is not known.
        """
        value = self.filled(name)
        if value not in known:
            raise SetupError(f"{self.place}: {misspelt(kind, value, known)}")
        return known[value]


def misspelt(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown; of many names the nearest ones alone, else as `unknown` does.

    >>> misspelt("class", "sining", ["singing", *map(str, range(100))])
    "unknown class 'sining': the nearest of 101 are: singing"
    """
    options = list(known)
    if len(options) <= MANY:
        return unknown(kind, name, options)
    near = difflib.get_close_matches(name, options) or sorted(options)[:3]
    return f"unknown {kind} '{name}': the nearest of {len(options)} are: {', '.join(near)}"


def text_of(path: Path) -> str:
    """Return the text of a file, without the byte order mark that some programs put before it.

    Raises:
        SetupError: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SetupError(f"{path}: expected text in UTF-8, found {error.reason}") from error
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error


def headed(path: Path, required: Sequence[str]) -> list[Row]:
    """Return the rows of a CSV file whose first line names the columns.

    Raises:
        SetupError: it cannot be read, a column is missing, or a row has too few or many fields.
    """
    records = _records(path, _delimiter(path), csv.QUOTE_MINIMAL)
    _, names = next(records, (0, []))
    _refuse_missing(path, required, names)
    return [_row(path, line, names, fields) for line, fields in records]


def headless(path: Path, names: Sequence[str]) -> list[Row]:
    """Return the rows of a CSV file without a line of names; fields in quotes may hold commas.

    Raises:
        SetupError: it cannot be read, or a row has too few or many fields.
    """
    records = _records(path, ",", csv.QUOTE_MINIMAL)
    return [_row(path, line, names, fields) for line, fields in records]


def parted(path: Path, names: Sequence[str], delimiter: str) -> list[Row]:
    """Return the lines of a file, parted at a delimiter; there are no quotes.

    Raises:
        SetupError: it cannot be read, or a line has too few or many parts.
    """
    records = _records(path, delimiter, csv.QUOTE_NONE)
    return [_row(path, line, names, fields) for line, fields in records]


def parquet(path: Path, required: Sequence[str]) -> list[Row]:
    """Return the rows of a Parquet file.

    Raises:
        SetupError: it cannot be read, or a column is missing.
        ImportError: pyarrow is missing.
    """
    require("data", "pyarrow")
    arrow: Any = import_module("pyarrow")
    try:
        table = import_module("pyarrow.parquet").read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from error
    _refuse_missing(path, required, table.column_names)
    return [
        Row(f"{path}, row {number}", {name: _spelt(value) for name, value in values.items()})
        for number, values in enumerate(table.to_pylist(), start=1)
    ]


def header(path: Path) -> list[str]:
    """Return the fields of the first line of a CSV file."""
    return next(_records(path, ",", csv.QUOTE_MINIMAL), (0, []))[1]


def _records(path: Path, delimiter: str, quoting: Any) -> Iterator[tuple[int, list[str]]]:
    """Return the number of the line that each record starts on, and its fields."""
    reader = csv.reader(
        io.StringIO(text_of(path)), delimiter=delimiter, quoting=quoting, strict=True
    )
    line = 0
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield line + 1, [field.strip() for field in fields]
            line = reader.line_num  # a record in quotes may go over several lines
    except csv.Error as error:
        raise SetupError(f"{path}, line {line + 1}: cannot be read: {error}") from error


def _delimiter(path: Path) -> str:
    """Return what parts the names of the columns: a comma, or what Excel puts in its place."""
    head = text_of(path).lstrip("\r\n").partition("\n")[0]
    return max(DELIMITERS, key=head.count) if "," not in head else ","


def _row(path: Path, line: int, names: Sequence[str], fields: Sequence[str]) -> Row:
    place = f"{path}, line {line}"
    if len(fields) != len(names):
        raise SetupError(
            f"{place}: expected {len(names)} fields ({', '.join(names)}), found {len(fields)}"
        )
    return Row(place, dict(zip(names, fields, strict=True)))


def _refuse_missing(path: Path, required: Sequence[str], names: Sequence[str]) -> None:
    missing = [name for name in required if name not in names]
    if missing or len(set(names)) < len(names):
        what = f"the columns {', '.join(required)}" if missing else "columns of different names"
        raise SetupError(f"{path}: expected {what}, found {', '.join(names) or 'an empty file'}")


def _spelt(value: Any) -> str:
    """Return a value of a Parquet file as a CSV file would hold it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""  # pandas writes a missing number in either way
    return str(value).strip()
