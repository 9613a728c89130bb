"""Mean ranks as a picture: every method a dot, and what multi-loss and joint are not told from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from equimodal.compare.ranks import Ranks

INK, QUIET, BAND = "#000000", "#5c5c5c", "#dcecf7"
MARKED = {"joint": "#d55e00", "multi-loss": "#0072b2", "ogm-ge": "#009e73"}  # Okabe and Ito
STYLE: Any = {"font.size": 8, "svg.fonttype": "path", "svg.hashsalt": "equimodal"}
ROW = 0.17  # inches of a row


def drawn(ranks: Ranks) -> Figure:
    """Return the picture, the best method at the top."""
    rows = sorted(ranks.mean, key=lambda row: (ranks.mean[row], row))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, ROW * len(rows) + 1.0), layout="constrained")
        figure.patch.set_facecolor("white")  # a card of its own where the page is dark
        axes = figure.add_subplot()
        joint = ranks.mean["joint"]
        axes.axvspan(joint - ranks.critical, joint + ranks.critical, color=BAND, linewidth=0)
        for place, row in enumerate(rows):
            colour = MARKED.get(row, QUIET)
            axes.plot(ranks.mean[row], place, "o", color=colour, markersize=4)
        axes.axvline(joint, color=MARKED["joint"], linewidth=0.8)
        axes.set_yticks(range(len(rows)), rows)
        for label in axes.get_yticklabels():
            if label.get_text() in MARKED:
                label.set_color(MARKED[label.get_text()])
                label.set_fontweight("bold")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(1, len(rows))
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel(f"mean rank over {ranks.sets} data sets, 1 is best")
        within = f"critical difference {ranks.critical:.1f}"
        axes.set_title(f"Shaded: not told apart from joint training ({within})", loc="left", size=8)
    return figure


def save(figure: Figure, stem: Path, source: str) -> None:
    """Write it as SVG, with a line that says what it was made of."""
    with mpl.rc_context(STYLE):
        of: Any = {"Description": source, "Date": None}
        figure.savefig(stem.with_suffix(".svg"), metadata=of)
