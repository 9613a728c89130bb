"""equimodal compare: methods over paired seeds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from equimodal import data
from equimodal.cli import INTERRUPTED
from equimodal.cli.parser import Parser, existing_or_new_folder
from equimodal.compare import Comparison, main_job
from equimodal.compare import Progress as State
from equimodal.compare.tables import for_terminal
from equimodal.errors import SetupError, unknown
from equimodal.training import Settings


def run(arguments: Sequence[str]) -> int:
    """Do the runs, write table and figure, and print the table."""
    parser = Parser(
        "compare",
        "Train unimodal, joint, multi-loss, OGM, GE and OGM-GE models over paired seeds, choose "
        "alpha by validation accuracy, and report test accuracy with intervals. Interrupted, the "
        "same command goes on where it was.",
    )
    parser.add("data", type=str, help=f"a data set: {', '.join(data.available())}")
    parser.add("--out", type=Path, default=None, help="folder; results/DATA by default")
    parser.add("--seeds", type=int, default=5, help="how many")
    parser.add("--alphas", type=list[float], default=[0.1, 0.3, 0.8], help="as [a, b]")
    parser.add("--rows", type=list[str], default=None, help="some rows, as [joint, ogm]")
    parser.add("--modalities", type=list[str], default=None, help="some of them, as [a, b]")
    parser.add("--workers", type=int, default=None, help="processes; one per core if null")
    parser.add_settings(Settings, skip={"seed"})
    options = parser.read(arguments)
    names = [name for name in Settings.__dataclass_fields__ if name != "seed"]
    settings = Settings(**{name: getattr(options, name) for name in names})
    if options.seeds < 1:
        raise SetupError(f"--seeds: expected 1 or more, found {options.seeds}")
    splits = data.load(options.data, modalities=options.modalities)
    entries = main_job(splits.modalities, options.alphas)
    if options.rows is not None:
        labels = [entry.label for entry in entries]
        for row in options.rows:
            if row not in labels:
                raise SetupError(unknown("row", row, labels))
        entries = [entry for entry in entries if entry.label in options.rows]
    folder = existing_or_new_folder(str(options.out or Path("results", options.data)))
    comparison = Comparison(
        options.data, entries, folder, range(options.seeds), settings, options.modalities
    )
    return _compare(comparison, options.workers)


def _compare(comparison: Comparison, workers: int | None) -> int:
    console = Console()
    console.print(f"{comparison.splits}", highlight=False)
    start = time.monotonic()
    interrupted, failed = False, {}
    try:
        with _bar(console) as show:
            failed = comparison.run(workers, show)
    except KeyboardInterrupt:
        interrupted = True
    written = comparison.write()
    rows = comparison.rows()
    if rows:
        console.print()
        console.print(for_terminal(rows, comparison.modalities))
        console.print(
            "\nTest accuracy in %, mean [95% bootstrap interval] over paired seeds; modalities:\n"
            "read through the joint head, or models of their own (alone, ensemble).\n"
            "Epochs and alpha are chosen on the validation split.",
            highlight=False,
        )
    for name, reason in failed.items():
        print(f"equimodal compare: {name} failed: {reason}", file=sys.stderr)
    if written:
        files = ", ".join(path.name for path in written)
        console.print(
            f"\n{time.monotonic() - start:.0f} s; in {comparison.folder}:\n{files}", highlight=False
        )
    if interrupted:
        print(
            f"equimodal compare: interrupted, {comparison.missing()} of {len(comparison.runs)} "
            "runs are left: the same command goes on",
            file=sys.stderr,
        )
        return INTERRUPTED
    return 1 if failed else 0


@contextmanager
def _bar(console: Console) -> Iterator[object]:
    """Show a bar over all epochs, and the runs that are under way."""
    bar = Progress(
        TextColumn("{task.fields[runs]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("", total=1, runs="starting")

        def show(state: State) -> None:
            runs = f"{state.finished} of {state.runs} runs"
            bar.update(task, completed=state.done, total=state.total, runs=runs)

        yield show
