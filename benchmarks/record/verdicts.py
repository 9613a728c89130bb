"""What the table says: the chosen trial of every row, and how it stands against the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.record.design import Design
from benchmarks.record.table import Key, Trained, best, lacking

from equimodal.compare.ranks import Ranks, ranked
from equimodal.compare.statistics import Estimate, difference, estimate

RIVALS = ("joint", "multi-loss")
ALONE = " alone"


@dataclass(frozen=True)
class Verdict:
    """A row on a data set.

    Attributes:
        name: of the data set.
        row: its label.
        chosen: the trial that validation chose, with its search's accuracies.
        test: over the fresh seeds.
        against: paired differences to joint training and to multi-loss.
    """

    name: str
    row: str
    chosen: Trained
    test: Estimate
    against: Mapping[str, Estimate]


def verdicts(plan: Design, table: Mapping[Key, Sequence[Trained]]) -> dict[str, dict[str, Verdict]]:
    """Return the verdicts by data set and row; one that failed is left out.

    Raises:
        SystemExit: a data set has no trainings yet.
    """
    found: dict[str, dict[str, Verdict]] = {}
    for name in plan.sets:
        fresh = {
            row: [each.test for each in of if each.seed]
            for (on, row), of in table.items()
            if on == name and not lacking(of)
        }
        if missing := [rival for rival in RIVALS if rival not in fresh]:
            raise SystemExit(
                f"{name}: {', '.join(missing)} not in the table: python -m benchmarks.record"
            )
        found[name] = {
            row: Verdict(
                name,
                row,
                best(table[name, row]),
                estimate(of),
                {rival: difference(of, fresh[rival]) for rival in RIVALS},
            )
            for row, of in fresh.items()
        }
    return found


def everywhere(found: Mapping[str, Mapping[str, Verdict]]) -> list[str]:
    """Return the rows that are on every data set, single modalities aside."""
    first, *rest = found.values()
    return [row for row in first if not row.endswith(ALONE) and all(row in of for of in rest)]


def ranks(found: Mapping[str, Mapping[str, Verdict]]) -> Ranks:
    """Return the mean ranks of these rows by test accuracy."""
    rows = everywhere(found)
    return ranked({name: {row: of[row].test.mean for row in rows} for name, of in found.items()})


def mean(found: Mapping[str, Mapping[str, Verdict]], row: str, rival: str = "joint") -> float:
    """Return the mean difference of a row over the data sets, in points."""
    return 100 * fmean(of[row].against[rival].mean for of in found.values())


def sure(of: Estimate) -> int:
    """Return 1 where an interval is above 0, -1 where below, 0 where it holds 0."""
    return (of.low > 1e-9) - (of.high < -1e-9)


def within(of: Sequence[Trained]) -> dict[str, float]:
    """Return what a row's best trial of each condition reaches on test data, in the search."""
    conditions: dict[str, list[Trained]] = {}
    for each in of:
        if each.seed == 0:
            conditions.setdefault(each.trial.condition, []).append(each)
    return {condition: best(tried).test for condition, tried in conditions.items()}


def by_condition(
    plan: Design, table: Mapping[Key, Sequence[Trained]], rows: Sequence[str]
) -> dict[str, dict[str, Estimate]]:
    """Return the difference to joint training within each condition, over the data sets.

    A row's trial of a condition is the one that is best on validation data there; what is compared
    is the test accuracy of the search's one seed, paired by data set.

    Returns:
        By row and condition, the mean over data sets with its t interval.
    """
    reference = {name: within(table[name, "joint"]) for name in plan.sets}
    conditions = next(iter(reference.values()))
    found: dict[str, dict[str, Estimate]] = {}
    for row in rows:
        ours = {name: within(table[name, row]) for name in plan.sets}
        found[row] = {
            condition: difference(
                [ours[name][condition] for name in plan.sets],
                [reference[name][condition] for name in plan.sets],
            )
            for condition in conditions
        }
    return found
