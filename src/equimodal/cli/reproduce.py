"""equimodal reproduce: the tables of published articles."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equimodal.cli import FAILED, INTERRUPTED
from equimodal.cli.engines import add_engine, add_limit, engine_from, seconds
from equimodal.cli.folders import new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.progress import progress
from equimodal.cli.source import view_of
from equimodal.cli.text import WIDTH, wrapped
from equimodal.compare import Progress
from equimodal.errors import SetupError
from equimodal.reproducing import (
    FIGURE,
    PAPERS,
    Reproduction,
    Row,
    Trial,
    chosen,
    found,
    paper_of,
)
from equimodal.reproducing.paper import Paper, Protocol
from equimodal.reproducing.table import TERMS, for_terminal
from equimodal.system.extras import require

require("train", "rich")

from rich.console import Console  # noqa: E402


def run(arguments: Sequence[str]) -> int:
    """Do the trainings of some tables, and print them beside the published numbers."""
    offered = "; ".join(f"{p.name}: {', '.join(p.tables)}" for p in PAPERS.values())
    parser = Parser(
        "reproduce",
        "Train what stands in the tables of an article, with its settings, on data that you have "
        "prepared, and print our numbers with intervals beside the published ones. Epochs are "
        "selected on validation data, unlike there. Interrupted, the same command goes on.",
    )
    parser.add("paper", type=str, help=f"an article with its tables: {offered}")
    parser.add("table", type=str, nargs="?", default=None, help="one of its tables [all]")
    parser.add(
        "--data",
        type=list[str],
        default=[],
        help="the folder that prepared data sets are in by their names, or NAME=FOLDER, or several",
    )
    parser.add("--out", type=Path, default=None, help="folder for the results [results/PAPER]")
    parser.add("--seeds", type=int, default=5, help="how many, counted from 0")
    parser.add(
        "--protocol",
        type=Protocol,
        default="honest",
        help="published selects epochs on the test split and takes the article's splits: its "
        "numbers flatter, and are marked so",
    )
    parser.add(
        "--rows",
        type=list[str],
        default=None,
        help="some, or how they begin, as [crema-d/concat, ave] [all]",
    )
    parser.add("--epochs", type=int, default=None, help="for a trial, which is marked so")
    parser.add("--view", type=str, default=None, help="for a trial, as size=32,frames=1")
    parser.add("--width", type=int, default=64, help="for a trial, of ResNet-18's first stage")
    parser.add("--readers", type=int, default=0, help="processes that read for each training")
    add_engine(parser)
    add_limit(parser)
    options = parser.read(arguments)
    if options is None:
        return 0
    _check(options)
    paper = paper_of(options.paper)
    tables = _tables(paper, options.table, options.rows)
    rows = [row for of in tables.values() for row in of]
    folder = new_or_existing_folder(options.out or Path("results", paper.name))
    view = {} if options.view is None else view_of(options.view)
    reproduction = Reproduction(
        paper,
        tables,
        found((row.data for row in rows), options.data, options.protocol),
        folder,
        range(options.seeds),
        options.protocol,
        Trial(options.epochs, view, options.width),
    )
    print(_plan(reproduction), flush=True)
    return _reproduce(reproduction, options)


def _check(options: Any) -> None:
    for name in ("seeds", "width", "epochs", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise SetupError(f"--{name}: expected 1 or more, found {value}")
    if options.readers < 0:
        raise SetupError(f"--readers: expected 0 or more, found {options.readers}")


def _tables(
    paper: Paper, table: str | None, wanted: list[str] | None
) -> dict[str, tuple[Row, ...]]:
    names = [table] if table is not None else list(paper.tables)
    everything = tuple(row for name in names for row in paper.rows(name))
    chosen(everything, wanted)  # a row of any table
    left = {name: tuple(_kept(paper.rows(name), everything, wanted)) for name in names}
    return {name: rows for name, rows in left.items() if rows}


def _kept(rows: Sequence[Row], everything: tuple[Row, ...], wanted: list[str] | None) -> list[Row]:
    kept = chosen(everything, wanted)
    return [row for row in rows if row in kept]


def _plan(reproduction: Reproduction) -> str:
    paper, tables = reproduction.paper, reproduction.tables
    counts = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in tables.items())
    done = reproduction.finished()
    there = f", {done} of them done" if done else ""
    seeds = len(reproduction.seeds)
    trainings = f"{reproduction.trainings} trainings of {seeds} seed{'s' * (seeds > 1)}{there}"
    rows = [row for of in tables.values() for row in of]
    lines = [
        f"{paper.name}, {counts}: {trainings}, {reproduction.protocol} protocol",
        *reproduction.remarks(),
        "Differs from the article:",
    ]
    points = [
        textwrap.fill(f"- {point}", WIDTH, subsequent_indent="  ")
        for point in paper.differing(reproduction.protocol, rows)
    ]
    return "\n".join([*map(wrapped, lines), *points])


def _reproduce(reproduction: Reproduction, options: Any) -> int:
    console = Console()
    interrupted = False
    failed: dict[str, str] = {}
    try:
        with progress(Console(stderr=True)) as show:

            def tell(state: Progress) -> None:
                show(state.done, max(state.total, 1), f"{state.finished} of {state.runs} trainings")

            engine = engine_from(options, reproduction.folder)
            failed = reproduction.run(
                options.workers, tell, engine, seconds(options), options.readers
            )
    except KeyboardInterrupt:
        interrupted = True
    paths = reproduction.write()
    outcomes = reproduction.outcomes()
    marks = " ".join(reproduction.remarks())
    for name, rows in reproduction.tables.items():
        if name != FIGURE and any(row.name in outcomes for row in rows):
            console.print(f"\n{name}", highlight=False, markup=False, style="bold")
            if marks:
                print(wrapped(marks))
            console.print(for_terminal(rows, outcomes, reproduction.seeds))
    if paths:
        named = ", ".join(path.name for path in paths)
        print(f"\n{wrapped(TERMS)}\n\n{wrapped(reproduction.paper.untraced)}")
        print(f"\nin {reproduction.folder}:\n{wrapped(named)}")
    for name, reason in failed.items():
        print(f"equimodal reproduce: {name} failed: {reason}", file=sys.stderr)
    if missing := reproduction.missing():
        what = "interrupted, " if interrupted else ""
        print(
            f"equimodal reproduce: {what}{missing} of {reproduction.trainings} trainings are left: "
            "the same command goes on",
            file=sys.stderr,
        )
    if interrupted:
        return INTERRUPTED
    return FAILED if missing else 0
