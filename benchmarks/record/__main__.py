"""Which method to take? Train the rows of `settings.json` on every data set of the record.

    python -m benchmarks.record [--sets NAME ...] [--rows NAME ...] [--workers N] [--table FILE]

A row is trained with eight trials, and the best of them on validation data on five fresh seeds.
What is in the table is not trained again: a run that was stopped goes on where it was. About an
hour on two cores. `python -m benchmarks.record.page` then writes page, picture and shortlist.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.record import design, table
from benchmarks.record.searching import searched
from benchmarks.record.sources import parts


def main(arguments: list[str] | None = None) -> None:
    """Train what is not in the table, and say of each row when it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sets", nargs="*", help="names of data sets; all by default")
    parser.add_argument("--rows", nargs="*", help="names of rows; all by default")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--table", type=Path, default=table.TABLE, help="where trainings are kept")
    parser.add_argument("--settings", type=Path, default=design.SETTINGS, help="the design")
    options = parser.parse_args(arguments)
    plan = design.read(options.settings)
    found = table.read(options.table)
    sets = [name for name in plan.sets if options.sets is None or name in options.sets]
    rows = [(name, row) for name in sets for row in plan.rows(name, parts(name)[0].modalities)]
    wanted = [
        (name, row)
        for name, row in rows
        if (options.rows is None or row.label in options.rows) and (name, row.label) not in found
    ]
    places = {(name, row.label): place for place, (name, row) in enumerate(rows)}

    def place(of: tuple[table.Key, object]) -> tuple[int, int]:
        key, _ = of
        return [*plan.sets].index(key[0]), places.get(key, 0)  # sets left out stay as they are

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        begun = time.perf_counter()
        tasks = {pool.submit(searched, plan, name, row): (name, row.label) for name, row in wanted}
        for done, task in enumerate(as_completed(tasks), 1):
            key = tasks[task]
            found[key] = task.result()
            table.write(dict(sorted(found.items(), key=place)), options.table)
            spent = time.perf_counter() - begun
            said = table.lacking(found[key]) or f"{len(found[key])} trainings"
            print(f"{' '.join(key)}: {said}; {done} of {len(tasks)} in {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
