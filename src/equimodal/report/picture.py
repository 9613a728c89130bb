"""What a figure of the report is: drawn once, shown on the page and saved for a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from equimodal.report.curves import COLOURS

INK, QUIET, PALE, GRID = "#000000", "#777777", "#999999", "#e5e5e5"
SERIES = COLOURS[1:]  # for what is drawn beside a reference, which takes the ink
DASHES = {"solid": "", "dashed": "5 3", "dashdot": "6 2 1 2", "dotted": "1 3"}
STYLE: Any = {
    "text.parse_math": False,  # names hold dollar signs, not formulas
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "axes.edgecolor": QUIET,
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "equimodal",
    "pdf.fonttype": 42,  # whole outlines: printers refuse fonts of type 3
}
LONGEST = 24  # letters of a name in a figure; the table below it has all of them


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is read.
        value: what is sorted by: a number, or None for nothing, which stays last.
        aside: what is set smaller behind the text, such as an interval.
    """

    text: str
    value: float | str | None = None
    aside: str = ""


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: of cells, as many as there are headings.
        strong: positions of rows to set off.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    strong: frozenset[int] = frozenset()

    def worded(self, column: int) -> bool:
        """Whether a column holds words, and not numbers."""
        return any(isinstance(row[column].value, str) for row in self.rows)


@dataclass(frozen=True)
class Panel:
    """A part of a figure with axes of its own.

    Attributes:
        title: above it.
        draw: draws into the axes.
        height: in inches, at a width of 3.4 inches.
        wide: it has long labels beside it and takes a column of a paper, not half of one.
    """

    title: str
    draw: Callable[[Axes], None]
    height: float = 2.3
    wide: bool = False


@dataclass(frozen=True)
class Key:
    """An entry of the legend.

    Attributes:
        label: what is named.
        colour: its colour.
        line: style of its line; empty for an area, or for marks alone.
        marker: of its marks, as matplotlib calls it.
    """

    label: str
    colour: str
    line: str = "solid"
    marker: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its files.
        title: its heading on the page.
        caption: what is seen, and how it was measured.
        described: what it shows, for who does not see it.
        panels: its parts.
        keys: its legend.
        table: its numbers.
    """

    name: str
    title: str
    caption: str
    described: str
    panels: Sequence[Panel]
    keys: Sequence[Key]
    table: Table


def short(name: str, longest: int = LONGEST) -> str:
    """Cut a name that is too long for a figure, in its middle: names often differ at the end.

    >>> short("a method with a very long name", 12)
    'a meth… name'
    """
    line = " ".join(name.split())
    last = (longest - 1) // 2
    return line if len(line) <= longest else f"{line[: longest - 1 - last]}…{line[-last:]}"


def share(value: float | None, interval: tuple[float, float] | None = None, sign: str = "") -> Cell:
    """Return a share, such as an accuracy, in per cent, with its interval.

    >>> share(0.745, (0.7, 0.8))
    Cell(text='74.5', value=0.745, aside='[70.0, 80.0]')
    >>> share(float("nan")).text
    'not a number'
    """
    if value is None:
        return Cell("")
    if value != value:
        return Cell("not a number")
    aside = ""
    if interval is not None and all(bound == bound for bound in interval):
        aside = "[" + ", ".join(f"{100 * bound:{sign}.1f}" for bound in interval) + "]"
    return Cell(f"{100 * value:{sign}.1f}", value, aside)


def number(value: float | None, spec: str = ".3g") -> Cell:
    """Return a number as a cell."""
    if value is None:
        return Cell("")
    return Cell(f"{value:{spec}}", value) if value == value else Cell("not a number")


def joined(names: Sequence[str]) -> str:
    """Write a list as one does in a sentence.

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
