"""Do losses remain with three times the epochs? The chosen trials of rows that lost, trained again.

    python -m benchmarks.record.causes [--workers N]

Every row that lost more than three points against joint training on a data set is trained there
with its chosen trial and as many fresh seeds, and so is joint training with its own; schedules
follow the longer training. Printed are lines of the table in `docs/methods/results.md`.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from benchmarks.record import design, said, table
from benchmarks.record.design import Design, Trial
from benchmarks.record.training import trained
from benchmarks.record.verdicts import verdicts

from equimodal.compare.statistics import difference
from equimodal.methods.registry import find

LONGER = 3
Task = tuple[str, str]  # data set and row


def main(arguments: list[str] | None = None) -> None:
    """Train, and print a line for each row and data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    plan = design.read()
    found = verdicts(plan, table.read())
    lost = said.losses(found)
    longer = lengthened(plan)
    tasks = list(dict.fromkeys((name, row) for each, name, _ in lost for row in ("joint", each)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        runs = {
            (name, row, seed): pool.submit(
                again, longer, name, renewed(found[name][row].chosen.trial, longer, name), seed
            )
            for name, row in tasks
            for seed in range(1, plan.seeds + 1)
        }
        test = {key: run.result() for key, run in runs.items()}
    print("| row | data set | as recorded | three times the epochs |\n|---|---|---:|---:|")
    for row, name, recorded in sorted(lost, key=lambda each: (each[0], each[1])):
        seeds = range(1, plan.seeds + 1)
        now = difference(
            [test[name, row, seed] for seed in seeds], [test[name, "joint", seed] for seed in seeds]
        )
        print(f"| {row} | {name} | {recorded:+} | {now:+} |")


def lengthened(plan: Design) -> Design:
    """Return the design with three times the epochs."""
    sets: dict[str, Mapping[str, Any]] = {
        name: {**of, "epochs": LONGER * of["epochs"]} for name, of in plan.sets.items()
    }
    return replace(plan, sets=sets)


def renewed(trial: Trial, longer: Design, name: str) -> Trial:
    """Return a trial whose defaults by epochs are those of the longer training."""
    epochs = longer.sets[name]["epochs"]
    options = {
        method: {**given, **{of: value(epochs) for of, value in find(method).by_epochs.items()}}
        for method, given in trial.options.items()
    }
    return replace(trial, options=options)


def again(plan: Design, name: str, trial: Trial, seed: int) -> float:
    """Return the test accuracy of one training."""
    torch.set_num_threads(1)
    return trained(plan, name, trial, seed)[1]


if __name__ == "__main__":
    main()
