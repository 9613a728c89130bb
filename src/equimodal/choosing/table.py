"""All rows of a choice as a table: in a document, and on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from equimodal.choosing.candidate import JOINT
from equimodal.choosing.confirm import Confirmed
from equimodal.choosing.cost import Cost
from equimodal.choosing.race import Raced
from equimodal.compare.statistics import Estimate, crossed, difference, estimate
from equimodal.report.page import Page, Section, rendered
from equimodal.report.picture import Cell, Table, number, share

COLUMNS = (
    "row",
    "lr",
    "validation",
    "test",
    f"against {JOINT}",
    "rounds",
    "cost",
    "trainings",
    "spent",
)


def against(ours: Sequence[Mapping[str, Any]], joint: Sequence[Mapping[str, Any]]) -> Estimate:
    """Return a row's difference to joint training on test data.

    With an interval for other seeds and other samples, where samples have scores of their own.
    """
    if all(each["samples"] is not None for each in (*ours, *joint)):
        pairs = zip(ours, joint, strict=True)
        return crossed(
            [
                [a - b for a, b in zip(one["samples"], two["samples"], strict=True)]
                for one, two in pairs
            ]
        )
    return difference([each["score"] for each in ours], [each["score"] for each in joint])


def table(raced: Raced, confirmed: Confirmed, costs: Mapping[str, Cost], shares: bool) -> Table:
    """Return those confirmed first, the best on top, then how far the others came.

    Args:
        raced: all rows.
        confirmed: those confirmed on fresh seeds.
        costs: by row.
        shares: whether scores are shares of samples.
    """

    def cell(found: Estimate, sign: str = "") -> Cell:
        if shares:
            return share(found.mean, (found.low, found.high), sign)
        bounds = (
            f"[{found.low:{sign}.3g}, {found.high:{sign}.3g}]" if found.low == found.low else ""
        )
        return Cell(f"{found.mean:{sign}.4g}", found.mean, bounds)

    def paid(label: str) -> list[Cell]:
        found = costs.get(label, Cost(None, 0))
        many = number(float(found.trainings), ".0f")
        return [number(found.training, ".1f"), many, number(found.spent, ".0f")]

    made, val, tests = [], confirmed.val, confirmed.tests
    ordered = sorted(confirmed.rows, key=lambda row: -fmean(val[row.label]))
    for row in ordered:
        test = estimate([each["score"] for each in tests[row.label]])
        versus = against(tests[row.label], tests[JOINT])
        made.append(
            [
                Cell(row.label, row.label),
                number(row.trial.rate),
                cell(estimate(val[row.label])),
                cell(test),
                Cell("") if row.label == JOINT else cell(versus, "+"),
                Cell("all", float("inf")),
                *paid(row.label),
            ]
        )
    others = {row.label: row for row in [*raced.baselines, *raced.entrants.values()]}
    for row in sorted(others.values(), key=lambda row: (-row.reached, -row.scores[0])):
        if row.label not in val:
            first = cell(Estimate(row.scores[0], float("nan"), float("nan"), ()))
            made.append(
                [
                    Cell(row.label, row.label),
                    number(row.trial.rate),
                    Cell(first.text, first.value, "one seed"),
                    Cell(""),
                    Cell(""),
                    number(float(row.reached), ".0f"),
                    *paid(row.label),
                ]
            )
    strong = frozenset(n for n, row in enumerate(ordered) if row.label == JOINT)
    return Table("Scores with 95% intervals over fresh seeds", COLUMNS, made, strong)


def markdown(found: Table) -> str:
    """Return a table for a document."""
    lines = [[f"{c.text} {c.aside}".strip() for c in row] for row in found.rows]
    head = ["---", *["---:"] * (len(found.columns) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(found.columns), head, *lines])


def page(
    title: str,
    text: str,
    beware: str,
    line: str,
    plan: str,
    found: Table,
    lacking: Mapping[str, str],
) -> str:
    """Return a choice as an HTML page.

    Args:
        title: what was chosen for.
        text: the recommendation.
        beware: of the validation split.
        line: of code.
        plan: what was trained.
        found: all rows.
        lacking: reasons of candidates that cannot run, or failed, by their label.
    """
    reasons = [[Cell(label, label), Cell(why, why)] for label, why in lacking.items()]
    out = Table("Candidates without a result", ["row", "why"], reasons)
    sections = [Section("rows", "All rows", f"{plan} Rates are factors.", tables=[found])]
    if reasons:
        sections.append(Section("out", "What could not run", tables=[out], folded=True))
    return rendered(Page(title, line, text, notices=[beware] if beware else (), sections=sections))
