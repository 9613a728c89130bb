"""From finished runs to rows: the setting chosen by validation, and its test results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equimodal.compare.runs import Entry, Run, chosen
from equimodal.compare.statistics import Estimate, crossed, difference, estimate
from equimodal.training.cost import relative
from equimodal.training.result import Result

REFERENCE = "joint"


@dataclass(frozen=True)
class Row:
    """A method of the comparison with the setting that validation chose.

    Attributes:
        entry: which.
        options: the chosen setting.
        results: by seed; of the seeds for which every value of the grid is finished.
        missing: seeds that are not finished.
        accuracy: on the test split.
        macro_f1: on the test split.
        versus: paired difference of the accuracy to joint training, over the seeds that both have;
            None for joint training, and where they have none in common.
        sampled: the same with an interval for other test samples too; None as well where a result
            does not hold which samples were right.
        modalities: accuracy of each modality alone on the test split: read through the joint head,
            or of models of single modalities.
        cost: of a training, in joint trainings, over the seeds that both have; None where it was
            not counted.
    """

    entry: Entry
    options: dict[str, Any]
    results: dict[int, Result]
    missing: int
    accuracy: Estimate
    macro_f1: Estimate
    versus: Estimate | None
    sampled: Estimate | None
    modalities: dict[str, Estimate]
    cost: float | None = None

    @property
    def label(self) -> str:
        """The entry's label, with the chosen value."""
        return chosen(self.entry.label, {name: self.options[name] for name in self.entry.grid})


def read(folder: Path, runs: Sequence[Run]) -> dict[Run | str, Result]:
    """Return the results that are there, by the name of their run."""
    found: dict[Run | str, Result] = {}
    for run in runs:
        path = folder / run.name / "result.json"
        if path.exists():
            found[run.name] = Result.load(path)
    return found


def summarised(
    entries: Sequence[Entry],
    seeds: Sequence[int],
    results: Mapping[Any, Result],
    modalities: Sequence[str],
) -> list[Row]:
    """Return a row for every entry of which any seed is finished.

    A seed is finished when every value of the entry's grid is: the value with the best mean
    validation accuracy over these seeds is taken, the first of several that are equal. Test results
    play no part in it.
    """
    rows = []
    joint: dict[int, Result] = {}
    for entry in sorted(entries, key=lambda entry: entry.label != REFERENCE):
        best = _best(entry, seeds, results)
        if best is None:
            continue
        options, found = best
        if entry.label == REFERENCE:
            joint = found
        shared = [seed for seed in found if seed in joint]
        versus = sampled = None
        if entry.label != REFERENCE and shared:
            sampled = _sampled([found[seed] for seed in shared], [joint[seed] for seed in shared])
            versus = difference(
                [found[seed].test["accuracy"] for seed in shared],
                [joint[seed].test["accuracy"] for seed in shared],
            )
        rows.append(
            Row(
                entry=entry,
                options=options,
                results=found,
                missing=len(seeds) - len(found),
                accuracy=estimate([r.test["accuracy"] for r in found.values()]),
                macro_f1=estimate([r.test["macro_f1"] for r in found.values()]),
                versus=versus,
                sampled=sampled,
                modalities=_modalities(entry, found, modalities),
                cost=relative(
                    [found[seed].operations for seed in shared],
                    [joint[seed].operations for seed in shared],
                ),
            )
        )
    order = [entry.label for entry in entries]
    return sorted(rows, key=lambda row: order.index(row.entry.label))


def _best(
    entry: Entry, seeds: Sequence[int], results: Mapping[Any, Result]
) -> tuple[dict[str, Any], dict[int, Result]] | None:
    by_choice = []
    for options in entry.choices():
        names = {seed: Run(entry.label, entry.method, options, seed).name for seed in seeds}
        by_choice.append(
            (options, {seed: results[name] for seed, name in names.items() if name in results})
        )
    whole = [seed for seed in seeds if all(seed in found for _, found in by_choice)]
    if not whole:
        return None

    def validation(choice: tuple[dict[str, Any], dict[int, Result]]) -> float:
        return sum(choice[1][seed].val["accuracy"] for seed in whole)

    options, found = max(by_choice, key=validation)
    return options, {seed: found[seed] for seed in whole}


def _sampled(ours: Sequence[Result], theirs: Sequence[Result]) -> Estimate | None:
    lengths = {len(result.right) for result in (*ours, *theirs)}
    if lengths == {0} or len(lengths) > 1:
        return None
    right = [np.array([list(r.right) for r in of]) == "1" for of in (ours, theirs)]
    return crossed(right[0].astype(float) - right[1])


def _modalities(
    entry: Entry, found: Mapping[int, Result], modalities: Sequence[str]
) -> dict[str, Estimate]:
    alone = entry.options.get("modality")
    return {
        name: estimate([r.test[f"accuracy/{name}"] for r in found.values()])
        for name in modalities
        if alone in (None, name)
    }
