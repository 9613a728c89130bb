"""What the local engine costs: its overhead per task, and two workers against one.

    python benchmarks/engines.py [--tasks N] [--seconds S]

Overhead is processor time, of the driver and its processes, beyond that of the tasks themselves;
so it can be measured on a busy machine. How much faster two workers are is wall time: that takes
two cores with nothing else on them, and the load is printed beside it.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from equimodal.compare.task import task_of
from equimodal.tasks import Local, Task, carry_out

LONG = 30.0  # seconds of a task that the bar is about


def work(spec: dict[str, Any], folder: Path) -> None:
    """Use so many seconds of a processor."""
    until = time.process_time() + spec["seconds"]
    while time.process_time() < until:
        sum(range(10_000))
    (folder / "result.json").write_text("1")


def spent() -> float:
    """Return the processor time of this process and of all that it waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(each.ru_utime + each.ru_stime for each in used)


def run(workers: int, tasks: int, seconds: float) -> float:
    """Carry out tasks, and return how long it took by the clock."""
    with tempfile.TemporaryDirectory() as folder:
        todo = [
            Task(str(n), "benchmarks.engines:work", {"seconds": seconds}, Path(folder, str(n)))
            for n in range(tasks)
        ]
        start = time.perf_counter()
        with Local(workers, [task_of.__module__]) as engine:
            for _ in carry_out(engine, todo):
                pass
        return time.perf_counter() - start


def main() -> None:
    """Print overhead and speed beside their bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    run(1, 1, 0.0)  # imports once what processes are forked from
    before = time.perf_counter(), spent()
    run(1, given.tasks, 0.0)
    wall, driver = time.perf_counter() - before[0], spent() - before[1]
    each = wall / given.tasks
    verdict = "met" if each <= 0.02 * LONG else "MISSED"
    print(
        f"{given.tasks} empty tasks: {1000 * each:.0f} ms each by the clock, "
        f"{1000 * driver / given.tasks:.0f} ms of the driver: {100 * each / LONG:.2f}% of a task "
        f"of {LONG:g} s   bar 2%: {verdict}"
    )
    one, two = (run(workers, 8, given.seconds) for workers in (1, 2))
    verdict = "met" if one / two >= 1.8 else "MISSED"
    print(
        f"8 tasks of {given.seconds:g} s: one worker {one:.1f} s, two {two:.1f} s: "
        f"{one / two:.2f}x   bar 1.8x: {verdict} (load {os.getloadavg()[0]:.1f})"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
