"""A published article as data: rows of its tables, settings, numbers, and where it differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from equimodal.errors import SetupError, unknown
from equimodal.training import Settings

Protocol = Literal["honest", "published"]
FIGURE = "figure"  # the table that is drawn


@dataclass(frozen=True)
class Published:
    """A number of an article, and where it was read.

    Attributes:
        accuracy: on its test split, in per cent.
        source: where it can be read; whoever quotes it says so.
    """

    accuracy: float
    source: str


@dataclass(frozen=True)
class Row:
    """A row of a table: a data set, a model, a method.

    Attributes:
        data: a name of `equimodal.reproducing.sets.SETS`.
        model: a name of `equimodal.reproducing.models.MODELS`.
        label: of the method; "joint" is training without one.
        method: its name in the registry.
        options: its arguments, as in `equimodal.compare.Entry`.
        published: the article's number; None where it could not be traced.
    """

    data: str
    model: str
    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    published: Published | None = None

    @property
    def name(self) -> str:
        """What ``--rows`` calls it, such as "crema-d/concat/ogm-ge"."""
        return f"{self.data}/{self.model}/{self.label}"


@dataclass(frozen=True)
class Point:
    """A point in which the published run and ours differ.

    Attributes:
        topic: what it is about.
        published: what the article or its code does.
        ours: what is done here.
        followed: whether ``--protocol published`` follows the article in it.
        of: the data sets or models that it is about; all if there are none.
    """

    topic: str
    published: str
    ours: str
    followed: bool = False
    of: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.topic}: published: {self.published}; here: {self.ours}"


# In which several articles' runs differ alike.
LISTS_OF_OGM_GE = Point(
    "split",
    "CREMA-D: OGM-GE's lists, all of whose test speakers are trained on; no validation split",
    "whole speakers for test (--protocol speakers of prepare), others for validation",
    followed=True,
    of=("crema-d",),
)
ONE_SEED = Point("seeds", "one run with the seed 0", "several paired seeds, 95% t intervals")


@dataclass(frozen=True)
class Paper:
    """An article.

    Attributes:
        name: what the command calls it.
        title: authors, title, venue.
        code: of the authors, with the commit that settings were read at.
        settings: how its models are trained.
        views: how its samples look, by data set: options of `equimodal.data.View`.
        tables: rows by the name of the table.
        points: where ours differs.
        untraced: what could not be established, in words.
    """

    name: str
    title: str
    code: str
    settings: Settings
    views: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, tuple[Row, ...]]
    points: tuple[Point, ...]
    untraced: str

    def rows(self, table: str) -> tuple[Row, ...]:
        """Return the rows of a table.

        Raises:
            SetupError: there is no such table.
        """
        if table not in self.tables:
            raise SetupError(unknown(f"table of {self.name}", table, self.tables))
        return self.tables[table]

    def differing(self, protocol: Protocol, rows: Iterable[Row]) -> list[Point]:
        """Return the points in which a protocol leaves the article in some rows."""
        parts = {part for row in rows for part in (row.data, row.model)}
        left = [p for p in self.points if protocol == "honest" or not p.followed]
        return [p for p in left if not p.of or parts & set(p.of)]


def chosen(rows: tuple[Row, ...], wanted: list[str] | None) -> tuple[Row, ...]:
    """Return the rows that are wanted, by their names or how these begin, as "crema-d/concat".

    Raises:
        SetupError: there is no such row.
    """
    for name in wanted or []:
        if not any(_within(row, name) for row in rows):
            raise SetupError("--rows: " + unknown("row", name, [row.name for row in rows]))
    return tuple(row for row in rows if not wanted or any(_within(row, each) for each in wanted))


def _within(row: Row, name: str) -> bool:
    return f"{row.name}/".startswith(f"{name.rstrip('/')}/")
