"""equimodal compare: methods over paired seeds."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from equimodal.cli import INTERRUPTED
from equimodal.cli.engines import add_engine, add_limit, engine_from, seconds
from equimodal.cli.folders import kept, new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.planned import planned, taken
from equimodal.cli.progress import progress
from equimodal.cli.source import add_data, folder_name, several, source_of
from equimodal.cli.text import described
from equimodal.compare import Comparison, Entry, Row, main_job, rows_of, verdict
from equimodal.compare import Progress as State
from equimodal.compare.plain import FORMAT, plain_rows
from equimodal.compare.runs import ALPHAS, with_rates
from equimodal.compare.tables import for_terminal
from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require
from equimodal.training import Encoder, Settings

require("train", "rich")

from rich.console import Console  # noqa: E402

SEARCHED = (0.25, 0.5, 1.0, 2.0, 4.0)  # factors on the learning rate that suits the data
TERMS = (
    "Test accuracy in %: mean [95% t interval] over paired seeds, and the paired difference to "
    "joint; table.md has its interval for other test samples too. Columns of modalities: read "
    "through the joint head, or models of their own (alone, ensemble). Epochs, and what is in "
    "parentheses, are chosen on the validation split. Cost: of one training, in joint trainings, "
    "counted in operations and not timed; each value to choose from took as much again."
)


def run(arguments: Sequence[str]) -> int:
    """Do the runs, write table and figure, and print the table."""
    parser = Parser(
        "compare",
        "Train unimodal, joint, multi-loss, OGM, GE and OGM-GE models over paired seeds, choose "
        "alpha by validation accuracy, and report test accuracy with intervals, as a table and a "
        "figure; --methods compares others, --full all and compositions of them, which takes "
        "hours where the default takes minutes. Interrupted, the same command goes on where it "
        "was; with more seeds, rows or alphas it adds to what is there.",
        configurable=True,
    )
    add_data(parser)
    parser.add("--out", type=Path, default=None, help="folder for the results [results/DATA]")
    parser.add("--seeds", type=int, default=5, help="how many, counted from 0")
    parser.add(
        "--alphas", type=list[float], default=list(ALPHAS), help="to choose from for OGM and OGM-GE"
    )
    parser.add(
        "--methods",
        type=Literal["all"] | list[str],
        default=None,
        help="all that can run here by default, or some, as [mla, ogm-ge+multi-loss] [those above]",
    )
    parser.add(
        "--full",
        action="store_true",
        help="all methods that can run here, and the compositions that `equimodal choose` tries: "
        "each on every seed, to the end; how many runs that is, and about how long, is said first",
    )
    parser.add("--rows", type=list[str], default=None, help="some rows, as [joint, ogm] [all]")
    parser.add("--encoder", type=Encoder, default="small", help="what encodes a modality")
    parser.add(
        "--lr",
        type=Literal["search"] | float | list[float] | None,
        default=None,
        help="of all rows; or several, as [0.01, 0.1], or search: each row has its own, chosen by "
        "validation [what suits the data]",
    )
    parser.add(
        "--dry_run",
        action="store_true",
        help="say what would be trained, and about how long that takes; write nothing",
    )
    parser.add(
        "--json", action="store_true", help="print JSON in place of the table: see docs/json.md"
    )
    add_engine(parser)
    add_limit(parser)
    parser.add_settings(Settings, "training", "what suits the data", skip={"seed", "lr"})
    options = parser.read(arguments)
    if options is None:
        return 0
    _check(options)
    names = [name for name in Settings.__dataclass_fields__ if name not in ("seed", "lr")]
    given = {name: getattr(options, name) for name in names}
    if isinstance(options.lr, list) and len(options.lr) == 1:
        (options.lr,) = options.lr
    settings = Settings(**given, lr=options.lr if isinstance(options.lr, int | float) else None)
    source = source_of(options)
    splits = source.load()
    several(splits)
    folder = new_or_existing_folder(options.out or Path("results", folder_name(splits)))
    entries = main_job(splits.modalities, options.alphas)
    left_out: dict[str, str] = {}
    if options.methods is not None or options.full:
        named = None if options.methods in ("all", None) else options.methods
        how = (options.alphas, settings, options.encoder)
        composed = _compositions() if options.full else []
        entries, left_out = rows_of(named, splits, *how, composed)
    if rates := _rates(options.lr, settings.suited(splits.card.name).lr or 0.0):
        entries = [with_rates(entry, rates) for entry in entries]
    comparison = Comparison(
        source,
        _chosen(entries, options.rows, options.methods is not None or options.full),
        folder,
        range(options.seeds),
        settings,
        encoder=options.encoder,
    )
    if options.dry_run:
        print(planned(comparison, options, left_out))
        return 0
    if options.full:
        print(taken(comparison, options), file=sys.stderr, flush=True)
    with kept(folder):
        return _compare(comparison, options, left_out)


def _check(options: Any) -> None:
    """Refuse what makes no comparison, by the names of the options."""
    if options.full and options.methods is not None:
        raise SetupError("--full takes all methods: give --full or --methods, not both")
    for name in ("seeds", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise SetupError(f"--{name}: expected 1 or more, found {value}")
    for name in ("alphas", "rows", "modalities", "methods"):
        values = getattr(options, name)
        if values == "all":
            continue
        least = 2 if name == "modalities" else 1
        if values is not None and (len(values) < least or len(set(values)) < len(values)):
            found = ", ".join(map(str, values)) or "none"
            number = "two" if least == 2 else "one"
            raise SetupError(f"--{name}: expected {number} or more, none twice, found {found}")
    for alpha in options.alphas:
        if not 0 <= alpha < math.inf:
            raise SetupError(f"--alphas: expected numbers of 0 or more, found {alpha}")


def _compositions() -> list[str]:
    from equimodal.choosing.candidate import candidates  # which nothing else here needs

    return [each.label for each in candidates(1) if len(each.methods) > 1]


def _rates(given: str | float | list[float] | None, usual: float) -> list[float]:
    """Return the learning rates that each row chooses from; none where all have one."""
    if given == "search":
        return [float(f"{usual * factor:.3g}") for factor in SEARCHED]
    if not isinstance(given, list):
        return []
    if not given or len(set(given)) < len(given) or not all(0 < r < math.inf for r in given):
        found = ", ".join(map(str, given)) or "none"
        raise SetupError(f"--lr: expected numbers above 0, none twice, found {found}")
    return given


def _chosen(
    entries: Sequence[Entry], rows: Sequence[str] | None, among: bool = False
) -> list[Entry]:
    labels = [entry.label for entry in entries]
    for row in rows or []:
        if row not in labels:
            more = "; --rows chooses among those of --methods: add it there too" if among else ""
            raise SetupError("--rows: " + unknown("row", row, labels) + more)
    return [entry for entry in entries if rows is None or entry.label in rows]


def _compare(comparison: Comparison, options: Any, left_out: Mapping[str, str]) -> int:
    start = time.monotonic()
    interrupted = False
    failed: dict[str, str] = {}
    try:
        with progress(Console(stderr=True)) as show:

            def tell(state: State) -> None:
                show(state.done, state.total, f"{state.finished} of {state.runs} runs")

            engine = engine_from(options, comparison.folder)
            failed = comparison.run(options.workers, tell, engine, seconds(options))
    except KeyboardInterrupt:
        interrupted = True
    written = comparison.write()
    rows = comparison.rows()
    if options.json:
        print(json.dumps(_plain(comparison, rows, left_out, failed), indent=1, allow_nan=False))
    else:
        _print(comparison, rows, left_out, written, time.monotonic() - start)
    for name, reason in failed.items():
        print(f"equimodal compare: {name} failed: {reason}", file=sys.stderr)
    missing = comparison.missing()
    if diverged := comparison.diverged():
        print(
            f"equimodal compare: {len(diverged)} of {len(comparison.runs)} runs have diverged and "
            "are not in the table: a lower --lr may help all rows alike",
            file=sys.stderr,
        )
    if missing:
        what = "interrupted, " if interrupted else ""
        print(
            f"equimodal compare: {what}{missing} of {len(comparison.runs)} runs are left: "
            "the same command goes on",
            file=sys.stderr,
        )
    if interrupted:
        return INTERRUPTED
    return 1 if missing else 0


def _plain(
    comparison: Comparison,
    rows: Sequence[Row],
    left_out: Mapping[str, str],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """Return what was found as JSON values."""
    return {
        "format": FORMAT,
        "kind": "comparison",
        "folder": str(comparison.folder),
        "data": comparison.splits.card.name,
        "fingerprint": comparison.splits.fingerprint,
        "modalities": list(comparison.modalities),
        "seeds": list(comparison.seeds),
        "runs_planned": len(comparison.runs),
        "runs_missing": comparison.missing(),
        "failed": dict(failed),
        "diverged": comparison.diverged(),
        "left_out": dict(left_out),
        "verdict": verdict(rows) if rows else None,
        "rows": plain_rows(rows),
    }


def _print(
    comparison: Comparison,
    rows: Sequence[Row],
    left_out: Mapping[str, str],
    written: Sequence[Path],
    took: float,
) -> None:
    console = Console()
    console.print(f"{comparison.splits}", highlight=False, soft_wrap=True)
    for table in for_terminal(rows, comparison.modalities, console.width) if rows else []:
        console.print()
        console.print(table)
    if rows:
        # Without markup: intervals stand in brackets.
        text = f"\n{TERMS}\n\n{verdict(rows)}"
        console.print(text, highlight=False, markup=False)
    if left_out:
        text = described(list(left_out.items()))
        text = f"\nLeft out, as they do not run here with their defaults:\n{text}"
        console.print(text, highlight=False, markup=False)
    if written:
        files = ", ".join(path.name for path in written)
        console.print(
            f"\n{took:.0f} s; in {comparison.folder}:\n{files}\n\n"
            f"Next: {shlex.join(['equimodal', 'report', str(comparison.folder)])}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
