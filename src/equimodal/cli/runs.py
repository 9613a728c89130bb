"""equimodal runs: which results are in a folder, and how far they are."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from equimodal.cli.parser import Parser
from equimodal.cli.text import WIDTH
from equimodal.errors import SetupError
from equimodal.tasks.lock import HOLD, held


class Found(NamedTuple):
    """A folder of results.

    Attributes:
        folder: where.
        kind: what made it, as the command is called.
        data: the name of the data set, or what was trained on it.
        state: how far it is.
        result: the number that choices are made by, or the name of what was chosen.
    """

    folder: Path
    kind: str
    data: str
    state: str
    result: str


def run(arguments: Sequence[str]) -> int:
    """Print a line for each folder of results."""
    parser = Parser(
        "runs",
        "List what commands left in a folder and those within: runs, comparisons, choices, "
        "diagnoses and prepared data, how far each is, and what came out: of a run its accuracy "
        "on validation data, of a comparison the best row by it, of a choice the method.",
    )
    parser.add("folder", type=Path, nargs="?", default=Path(), help="where to look [here]")
    parser.add("--json", action="store_true", help="print JSON in place of words: see docs/json.md")
    options = parser.read(arguments)
    if options is None:
        return 0
    if not options.folder.is_dir():
        what = "a file" if options.folder.exists() else "nothing"
        raise SetupError(f"{options.folder}: expected a folder, found {what}")
    found = list(results_in(options.folder))
    if options.json:
        rows = [{**each._asdict(), "folder": str(each.folder)} for each in found]
        print(json.dumps({"format": 1, "kind": "runs", "runs": rows}, indent=1))
    elif found:
        print(_table(found, options.folder))
    else:
        print(f"No results of equimodal in {options.folder} or the folders in it.")
    return 0


def results_in(folder: Path) -> Iterator[Found]:
    """Look through a folder and those in it, but not into what a command made as a whole."""
    for place, within, files in os.walk(folder):
        found = _found(Path(place), set(files))
        within[:] = [] if found else sorted(n for n in within if not n.startswith((".", "__")))
        if found:
            yield found


def _found(folder: Path, files: set[str]) -> Found | None:
    if "choosing.json" in files:
        return _choice(folder)
    if files & {"comparison.json", "run.json"}:
        return _trained(folder)
    if "dataset.json" in files:
        about = _read(folder / "dataset.json")
        return Found(folder, "prepare", str(about.get("name", "")), "finished", "")
    for kind, name in (("diagnose", "diagnosis.json"), ("blind", "blind.json")):
        if name in files:
            about = _read(folder / name)
            data = about.get("data", "")
            return Found(folder, kind, data if isinstance(data, str) else "", "finished", "")
    return None


def _choice(folder: Path) -> Found:
    build = _read(folder / "choosing.json").get("build", "")
    data = str(build if isinstance(build, str) else build.get("source", {}).get("name", ""))
    chosen = str(_read(folder / "choice.json").get("method", ""))
    return Found(folder, "choose", data, "finished" if chosen else _broken(folder), chosen)


def _trained(folder: Path) -> Found:
    from equimodal.report.results import read  # takes a second: not for --help

    try:
        results = read(folder)
    except SetupError:
        return Found(folder, "damaged", "", "cannot be read", "")
    if not results.comparison:
        (only,) = results.runs
        state = _broken(folder) if only.state == "broken off" else only.state
        accuracy = only.result.val.get("accuracy") if only.result else None
        return Found(
            folder, "train", results.data, state, "" if accuracy is None else f"{accuracy:.1%}"
        )
    states = Counter(each.state for each in results.runs)
    done = states["finished"]
    state = "finished" if done == len(results.runs) else f"{done} of {len(results.runs)}"
    for bad in ("diverged", "failed"):
        if states[bad]:
            state += f", {states[bad]} {bad}"
    if held(folder / HOLD):
        state += ", at work"
    scores = {
        row.label: sum(result.val["accuracy"] for result in row.results.values()) / len(row.results)
        for row in results.rows
        if row.results
    }
    best = max(scores, key=lambda label: scores[label], default=None)
    return Found(
        folder, "compare", results.data, state, "" if best is None else f"{best} {scores[best]:.1%}"
    )


def _broken(folder: Path) -> str:
    return "at work" if held(folder / HOLD) else "broken off"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _table(found: Sequence[Found], root: Path) -> str:
    rows = [("folder", "by", "data", "state", "result")]
    for each in found:
        inside = "." if each.folder == root else each.folder.relative_to(root).as_posix()
        rows.append((inside, each.kind, each.data, each.state, each.result))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    # Where a line would be too long, the folder has one of its own: names are not cut.
    narrow = sum(widths) + 8 <= WIDTH
    lines = []
    for row in rows:
        rest = "  ".join(
            f"{cell:<{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)
        )
        if narrow:
            lines.append(f"{row[0]:<{widths[0]}}  {rest}".rstrip())
        else:
            lines += [row[0], f"  {rest}".rstrip()]
    return "\n".join(lines)
