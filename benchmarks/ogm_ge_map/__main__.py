"""Where does OGM-GE help? Train the cells of `settings.json`, and draw the map of them.

    python -m benchmarks.ogm_ge_map [--only CELL ...] [--table FILE] [--settings FILE]

What is in the table is not trained again: a run that was stopped goes on where it was. Half an hour
on one core. `python -m benchmarks.ogm_ge_map.page` then writes the map, the page and the records.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from benchmarks.ogm_ge_map import design, trials
from benchmarks.ogm_ge_map.training import trained


def main(arguments: list[str] | None = None) -> None:
    """Train what is not in the table, and say of each cell when it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="*", help="names of cells; all by default")
    parser.add_argument("--table", type=Path, default=trials.TABLE, help="where trials are kept")
    parser.add_argument("--settings", type=Path, default=design.SETTINGS, help="the design")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = design.read(options.settings)
    names = [cell.name for cell in plan.cells] if options.only is None else options.only
    found = trials.read(options.table)
    for name in names:
        begun, before = time.perf_counter(), len(found)
        for cell, method in plan.parts(plan.cell(name)):
            for trial in plan.trials[method]:
                if (cell.name, method, trial) not in found:
                    reached = [
                        trained(cell.setting, cell.method, method, trial, seed)
                        for seed in range(plan.seeds)
                    ]
                    val, test = zip(*reached, strict=True)
                    found[cell.name, method, trial] = trials.Tried(val, test)
        trials.write(found, options.table)
        spent = time.perf_counter() - begun
        print(f"{name}: {len(found) - before} trials in {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
