"""Rows of a comparison as JSON values; the schema is in `docs/json.md`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from equimodal.compare.statistics import Estimate
from equimodal.compare.summary import Row

FORMAT = 1  # of everything that a command writes with --json


def plain_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as JSON values: accuracies are shares from 0 to 1, what is not known is None."""
    return [
        {
            "row": row.entry.label,
            "method": row.entry.method,
            "options": row.options,
            "seeds": sorted(row.results),
            "seeds_missing": row.missing,
            "validation_accuracy": _known(fmean(r.val["accuracy"] for r in row.results.values())),
            "test_accuracy": plain(row.accuracy),
            "test_macro_f1": plain(row.macro_f1),
            "against_joint": plain(row.versus),
            "against_joint_other_samples": plain(row.sampled),
            "modalities": {name: plain(of) for name, of in row.modalities.items()},
            "cost": row.cost,
        }
        for row in rows
    ]


def plain(found: Estimate | None) -> dict[str, Any] | None:
    """Return an estimate as JSON values; the ends of an interval that is not known are None.

    >>> plain(Estimate(0.5, float("nan"), float("nan"), (0.5,)))
    {'mean': 0.5, 'low': None, 'high': None, 'values': [0.5]}
    """
    if found is None:
        return None
    ends = {name: _known(getattr(found, name)) for name in ("mean", "low", "high")}
    return {**ends, "values": [_known(each) for each in found.values]}


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
