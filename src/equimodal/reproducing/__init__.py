"""Articles whose tables one command makes: their settings, on your data, beside their numbers.

Needs the extras ``compare``, ``report`` and ``data``.
"""

from __future__ import annotations

from collections.abc import Mapping

from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

require("compare", "lightning", "torchmetrics", "scipy")
require("report", "matplotlib")
require("data", "numpy")

from equimodal.reproducing import arl, mmpareto, ogm_ge  # noqa: E402
from equimodal.reproducing.paper import FIGURE, Paper, Point, Published, Row, chosen  # noqa: E402
from equimodal.reproducing.reproduction import AS_PUBLISHED, Reproduction, Trial  # noqa: E402
from equimodal.reproducing.sets import SETS, found  # noqa: E402

PAPERS: Mapping[str, Paper] = {p.name: p for p in (ogm_ge.PAPER, mmpareto.PAPER, arl.PAPER)}


def paper_of(name: str) -> Paper:
    """Return an article.

    Raises:
        SetupError: it is not known.
    """
    if name not in PAPERS:
        raise SetupError(unknown("article", name, PAPERS))
    return PAPERS[name]


__all__ = [
    "AS_PUBLISHED",
    "FIGURE",
    "PAPERS",
    "SETS",
    "Paper",
    "Point",
    "Published",
    "Reproduction",
    "Row",
    "Trial",
    "chosen",
    "found",
    "paper_of",
]
