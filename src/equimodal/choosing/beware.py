"""Whether validation data, by which all is chosen, has misled: told when test data is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from equimodal.choosing.table import against
from equimodal.compare.statistics import Estimate
from equimodal.report.picture import joined

Tests = Mapping[str, Sequence[Mapping[str, Any]]]

POINTS = 0.1  # by which validation may be better than test before it is said, of shares
# The same of other scores, in standard deviations of single samples: those of right and wrong
# answers, half of each, deviate by 0.5.
DEVIATIONS = 0.2
WHAT_TO_DO = "Choose again with other validation data, not by test data."


@dataclass(frozen=True)
class Misled:
    """Where validation and test data disagree.

    Attributes:
        above: rows whose validation score is far above that on test data, with both.
        behind: rows that validation put behind the one recommended, and that are better on test
            data beyond the paired interval, with their lead.
    """

    above: Mapping[str, tuple[float, float]]
    behind: Mapping[str, Estimate]


def misled(winner: str, val: Mapping[str, Sequence[float]], tests: Tests, shares: bool) -> Misled:
    """Hold the validation scores of all rows that were confirmed against test data.

    Args:
        winner: the row that is recommended.
        val: by row, scores of the seeds on validation data.
        tests: by row, "score" and "samples" of the same seeds on test data.
        shares: whether scores are shares of samples.
    """
    above = {}
    for label, values in val.items():
        score = fmean(each["score"] for each in tests[label])
        far = _far(tests[label], shares)
        if far is not None and fmean(values) - score > far:
            above[label] = (fmean(values), score)
    behind = {}
    for label, values in val.items():
        if label != winner and fmean(values) < fmean(val[winner]):
            lead = against(tests[label], tests[winner])
            if lead.low > 0:
                behind[label] = lead
    return Misled(above, behind)


def _far(found: Sequence[Mapping[str, Any]], shares: bool) -> float | None:
    """Return what is far in units of the score; None where nothing tells."""
    if shares:
        return POINTS
    if any(each["samples"] is None for each in found):
        return None
    return DEVIATIONS * fmean(pstdev(each["samples"]) for each in found)


def warning(found: Misled, winner: str, shares: bool) -> str:
    """Say where validation has misled; "" if nowhere."""

    def score(value: float) -> str:
        return f"{value:.1%}" if shares else f"{value:.3g}"

    def lead(each: Estimate) -> str:
        mean, low, high = (
            f"{100 * v:+.1f}" if shares else f"{v:+.3g}" for v in (each.mean, each.low, each.high)
        )
        return f"{mean}{' points' if shares else ''} [{low}, {high}]"

    said = []
    if found.above:
        rows = [
            f"{label} has {score(val)} there and {score(test)} on test data"
            for label, (val, test) in found.above.items()
        ]
        said.append(f"{joined(rows)}.")
    if found.behind:
        rows = [f"{label} ({lead(each)})" for label, each in found.behind.items()]
        verb = "is" if len(rows) == 1 else "are"
        said.append(f"{joined(rows)} {verb} behind {winner} there and ahead on test data.")
    return " ".join(["Beware of the validation split:", *said, WHAT_TO_DO]) if said else ""
