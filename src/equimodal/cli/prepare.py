"""equimodal prepare: from a download to a folder that training reads."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equimodal.cli.engines import add_engine, engine_from
from equimodal.cli.folders import new_or_existing_folder
from equimodal.cli.parser import Parser
from equimodal.cli.progress import progress
from equimodal.cli.text import described
from equimodal.data.layouts import LAYOUTS
from equimodal.data.layouts.layout import Layout
from equimodal.data.preparing import (
    MissingClipsError,
    Progress,
    Recipe,
    Summary,
    prepare,
    verify,
)
from equimodal.data.preparing.folder import TASKS
from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

require("train", "rich")

from rich.console import Console  # noqa: E402

WHAT = (
    "Decode a downloaded data set into a folder of Parquet shards, which `equimodal train` and "
    "equimodal.data.load read. Stopped by whatever, the same command goes on where it was; clips "
    "that cannot be decoded are listed in failures.csv."
)


def run(arguments: Sequence[str]) -> int:
    """Prepare, and say what came of it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0].split("=")[0] == "--verify":
        return _verify(arguments)
    if arguments[0].startswith("-"):
        raise SetupError(f"expected the name of a data set first: {', '.join(sorted(LAYOUTS))}")
    if arguments[0] not in LAYOUTS:
        raise SetupError(unknown("data set to prepare", arguments[0], LAYOUTS))
    kind = LAYOUTS[arguments[0]]
    options = _options(kind, arguments)
    if options is None:
        return 0
    recipe = Recipe(**_given(options, Recipe))
    out = new_or_existing_folder(options.out)
    engine = engine_from(options, out / TASKS)
    listing = kind(**_given(options, kind)).listing()
    done = [0, 0]
    try:
        with progress(Console(stderr=True)) as show:

            def tell(state: Progress) -> None:
                done[:] = state.done, state.total
                failed = f", {state.failed:,} left out" if state.failed else ""
                show(state.done, state.total, f"{state.done:,} of {state.total:,} clips{failed}")

            summary = prepare(
                listing,
                out,
                recipe,
                kind.view,
                workers=options.workers,
                engine=engine,
                allow_missing=options.allow_missing,
                shard_size=options.shard_size,
                time_limit=options.time_limit,
                fresh=options.fresh,
                show=tell,
            )
    except MissingClipsError as error:
        print(f"equimodal: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"{done[0]:,} of {done[1]:,} clips; the same command goes on (without --fresh), and "
            "does not make finished shards again"
        ) from error
    print(_report(summary))
    return 0


def _options(kind: type[Layout], arguments: Sequence[str]) -> Any:
    parser = Parser("prepare", f"Prepare {kind.name}. {WHAT}")
    parser.add("name", type=str, help=f"here {kind.name}")
    parser.add(
        "--source", type=Path, required=True, help="what was downloaded: a folder, or a manifest"
    )
    parser.add("--out", type=Path, required=True, help="folder to prepare into")
    parser.add_settings(kind, f"of {kind.name}", "none", skip={"source"})
    parser.add_settings(Recipe, "decoding", "none", skip={"keep_partial"})
    kept = dataclasses.asdict(kind.recipe)
    del kept["keep_partial"]
    parser.parser.set_defaults(kept)
    parser.add(
        "--keep_partial",
        action="store_true",
        help="keep clips of which some modalities, but not all, can be had",
    )
    add_engine(parser, "shard")
    parser.add(
        "--allow_missing", type=float, default=0.01, help="share of the clips that may be left out"
    )
    parser.add("--shard_size", type=int, default=256, help="clips in a shard, at most")
    parser.add(
        "--time_limit",
        type=float,
        default=600.0,
        help="seconds that decoding a clip may take; one that takes longer, twice, is left out",
    )
    parser.add(
        "--fresh", action="store_true", help="first remove what was prepared in the folder before"
    )
    return parser.read(arguments)


def _given(options: Any, kind: type[Any]) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(kind)}


def _verify(arguments: Sequence[str]) -> int:
    parser = Parser("prepare", "Check a prepared folder against the hashes in its dataset.json.")
    parser.add("--verify", type=Path, required=True, help="the folder")
    options = parser.read(arguments)
    if options is not None:
        print(f"{options.verify}: all shards are as they were made; {verify(options.verify)}")
    return 0


def _report(summary: Summary) -> str:
    name = summary.dataset["name"]
    following = shlex.join(["equimodal", "train", name, "--data", str(summary.folder)])
    return f"{summary}\n\nNext: {following}"


def _help() -> str:
    entries = [(name, _first_line(LAYOUTS[name])) for name in sorted(LAYOUTS)]
    return "\n".join(
        [
            "usage: equimodal prepare NAME --source RAW --out DIR [OPTIONS]",
            "       equimodal prepare --verify DIR",
            "",
            "Prepare a downloaded data set for training, or check a prepared one.",
            "",
            described(entries, indent=20),
            "",
            "equimodal prepare NAME --help says more about a data set.",
        ]
    )


def _first_line(kind: type[Layout]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].rstrip(".")
