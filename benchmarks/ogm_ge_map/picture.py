"""The map as a picture: a tile for every cell, coloured where seeds do not explain it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from benchmarks.ogm_ge_map.design import RIVALS
from benchmarks.ogm_ge_map.verdicts import NAMES, Region, Verdict, region
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from equimodal.compare.statistics import Estimate

# Blue and orange of Okabe and Ito, lightened so that black letters stand on them: told apart by
# any colour vision, and by their letters' weight where there is no colour. Pale: below `SMALL`.
FULL: dict[Region, str] = {"better": "#6bbcec", "worse": "#f2ab4c", "open": "#eeeeee"}
FAINT: dict[Region, str] = {"better": "#cbe7f8", "worse": "#fbe3c0", "open": "#eeeeee"}
INK, QUIET = "#000000", "#5c5c5c"
SMALL = 0.01  # of accuracy
KEYS = (
    (FULL["better"], "OGM-GE is better"),
    (FAINT["better"], "by less than a point"),
    (FULL["worse"], "OGM-GE is worse"),
    (FAINT["worse"], "by less than a point"),
    (FULL["open"], "the interval holds 0"),
)
STYLE: Any = {"font.size": 8, "svg.fonttype": "path", "svg.hashsalt": "equimodal"}
WIDE, ROW, GAP = 4, 0.36, 0.06  # tiles in a row; inches of a row; share of a tile between two


def drawn(found: Sequence[Verdict]) -> Figure:
    """Return the picture: rows are dials, tiles their cells, one panel for each rival."""
    rows = list(dict.fromkeys(each.cell.row for each in found))
    with mpl.rc_context(STYLE):
        margins = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
        figure = Figure(figsize=(9.6, ROW * len(rows) + 1.1), layout=margins)
        figure.patch.set_facecolor("white")  # a card of its own where the page is dark
        figure.suptitle(
            "Test accuracy of OGM-GE minus that of its rival, in points; all tuned alike, "
            "learning rates up to 0.1",
            size=9,
        )
        for axes, rival in zip(figure.subplots(1, 2, sharey=True), RIVALS, strict=True):
            _panel(axes, found, rows, rival)
        figure.legend(
            [Patch(facecolor=colour) for colour, _ in KEYS],
            [words for _, words in KEYS],
            loc="outside lower center",
            ncols=len(KEYS),
            frameon=False,
        )
    return figure


def save(figure: Figure, stem: Path, source: str) -> None:
    """Write it as SVG and as PNG, each with a line that says what it was made of."""
    of: Any = {"Description": source}
    with mpl.rc_context(STYLE):
        figure.savefig(stem.with_suffix(".svg"), metadata={**of, "Date": None})
        figure.savefig(stem.with_suffix(".png"), dpi=150, metadata={**of, "Software": None})


def fill(against: Estimate) -> str:
    """Return the colour of a tile."""
    return (FAINT if abs(against.mean) < SMALL else FULL)[region(against)]


def _panel(axes: Axes, found: Sequence[Verdict], rows: Sequence[str], rival: str) -> None:
    for line, row in enumerate(rows):
        for column, each in enumerate(of for of in found if of.cell.row == row):
            _tile(axes, column, line, each, rival)
    axes.set_title(f"against {NAMES[rival]}", loc="left", weight="bold", size=9)
    axes.set_xlim(0, WIDE)
    axes.set_ylim(len(rows), 0)
    axes.set_xticks([])
    axes.set_yticks([line + 0.5 for line in range(len(rows))], rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _tile(axes: Axes, column: int, line: int, of: Verdict, rival: str) -> None:
    against, size = of.against[rival], 1 - GAP
    sure = region(against) != "open"
    axes.add_patch(
        Rectangle((column, line + GAP / 2), size, size, facecolor=fill(against), linewidth=0)
    )
    middle: Any = {"ha": "center", "va": "center"}
    axes.text(
        column + size / 2,
        line + 0.68,
        _signed(100 * against.mean),
        color=INK,
        weight="bold" if sure else "normal",
        **middle,
    )
    axes.text(
        column + size / 2,
        line + 0.27,
        of.cell.label,
        color=INK if sure else QUIET,
        size=6.5,
        **middle,
    )


def _signed(points: float) -> str:
    shown = f"{points:+.1f}"
    return "0.0" if shown[1:] == "0.0" else shown.replace("-", "\N{MINUS SIGN}")
