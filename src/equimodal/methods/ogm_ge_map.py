"""Where OGM-GE was better than tuned baselines, and where worse: the map of `docs/ogm-ge-map.md`.

Its numbers are in `ogm_ge_map.json`, which `python -m benchmarks.ogm_ge_map.page` makes of the
table of all trials. The advice of a diagnosis quotes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_suffix(".json")
Rival = Literal["joint", "multi-loss"]


@dataclass(frozen=True)
class Standing:
    """How OGM-GE stood against a rival, everything tuned with as many trials.

    Attributes:
        cells: how many settings were compared.
        better: those in which the 95% t interval of the difference over seeds is above 0, in words,
            the largest difference first.
        worse: those in which it is below, likewise.
        kept: how many of `better` there still were when all could take larger learning rates than
            the study had foreseen; as many where nothing further was tried.
        most: the largest difference in a cell of `better`, in points of accuracy; 0 without any.
        least: the lowest in a cell of `worse`, in points; 0 without any.
    """

    cells: int
    better: tuple[str, ...]
    worse: tuple[str, ...]
    kept: int
    most: float
    least: float


def standing(rival: Rival) -> Standing:
    """Return how OGM-GE stood against tuned joint training, or against tuned multi-loss.

    >>> of = standing("joint")
    >>> of.cells >= len(of.better) + len(of.worse)
    True
    """
    found = _mapped()
    cells = found["cells"]
    better, worse = ([cells[name] for name in found[side][rival]] for side in ("better", "worse"))
    return Standing(
        cells=len(cells),
        better=tuple(each["is"] for each in better),
        worse=tuple(each["is"] for each in worse),
        kept=len(found["kept"].get(rival, better)),
        most=max((each[rival][0] for each in better), default=0.0),
        least=min((each[rival][0] for each in worse), default=0.0),
    )


@cache
def _mapped() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
