"""What the trials say of each cell: OGM-GE against tuned joint training and tuned multi-loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.ogm_ge_map.design import RIVALS, Cell, Design, Trial
from benchmarks.ogm_ge_map.trials import Key, Tried

from equimodal.compare.statistics import LEVEL, Estimate, difference, estimate

Region = Literal["better", "worse", "open"]
NAMES = {"joint": "tuned joint training", "multi-loss": "tuned multi-loss"}


@dataclass(frozen=True)
class Chosen:
    """The trial of a method that stands.

    Attributes:
        trial: the one with the best validation accuracy in the mean of the seeds, the first of
            several.
        test: accuracy on the test split, with its interval.
    """

    trial: Trial
    test: Estimate


@dataclass(frozen=True)
class Verdict:
    """What was found in a cell.

    Attributes:
        cell: which one.
        chosen: for each method what stands.
        against: the paired difference of OGM-GE to each rival.
    """

    cell: Cell
    chosen: Mapping[str, Chosen]
    against: Mapping[str, Estimate]


def verdicts(design: Design, found: Mapping[Key, Tried]) -> list[Verdict]:
    """Return the verdict on every cell.

    Raises:
        SystemExit: a trial is not in the table.
    """
    return [_verdict(design, cell, found) for cell in design.cells]


def region(against: Estimate) -> Region:
    """Return on which side of 0 an interval is."""
    if against.low > 0:
        return "better"
    return "worse" if against.high < 0 else "open"


def by_chance(count: int) -> float:
    """Return how many of some intervals are above 0 where nothing differs; as many are below."""
    return count * (1 - LEVEL) / 2


def untuned(design: Design, found: Mapping[Key, Tried], trial: Trial) -> list[Estimate]:
    """Return OGM-GE in one trial minus joint training at the same rate, in every cell."""
    return [
        difference(
            found[cell.name, "ogm-ge", trial].test,
            found[cell.shared, "joint", Trial(trial.rate)].test,
        )
        for cell in design.cells
    ]


def named(all_: Sequence[Verdict], rival: str, where: Region) -> list[Verdict]:
    """Return the cells of a region, the largest difference first."""
    inside = [each for each in all_ if region(each.against[rival]) == where]
    return sorted(inside, key=lambda each: -abs(each.against[rival].mean))


def _verdict(design: Design, cell: Cell, found: Mapping[Key, Tried]) -> Verdict:
    chosen = {}
    for kept, method in design.parts(cell):
        keys = [(kept.name, method, trial) for trial in design.trials[method]]
        lacking = [key for key in keys if key not in found]
        if lacking:
            raise SystemExit(
                f"{cell.name}: {len(lacking)} trials of {method} are not in the table: "
                f"run python -m benchmarks.ogm_ge_map --only {cell.name}"
            )
        best = max(keys, key=lambda key: found[key].mean)
        chosen[method] = Chosen(best[2], estimate(found[best].test))
    ours = chosen["ogm-ge"].test.values
    against = {rival: difference(ours, chosen[rival].test.values) for rival in RIVALS}
    return Verdict(cell, chosen, against)
