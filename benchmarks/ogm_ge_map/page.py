"""Write what the table of trials says: the map, the tables of its page, the records of the advice.

    python -m benchmarks.ogm_ge_map.page [--check]

Written are docs/figures/ogm-ge-map.svg and .png, what stands between marks in docs/ogm-ge-map.md
and README.md, and src/equimodal/methods/ogm_ge_map.json. `--check` writes nothing, draws nothing,
and fails where a text would change.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ogm_ge_map import design, picture, said, trials
from benchmarks.ogm_ge_map.verdicts import NAMES, Verdict, named, verdicts
from benchmarks.written import ROOT, made_of, marked, renewed

from equimodal.compare.statistics import Estimate

PAGE = ROOT / "docs" / "ogm-ge-map.md"
README = ROOT / "README.md"
RECORDS = ROOT / "src" / "equimodal" / "methods" / "ogm_ge_map.json"
FIGURE = ROOT / "docs" / "figures" / "ogm-ge-map"


def records(found: Sequence[Verdict], further: Sequence[Verdict]) -> str:
    """Return what is kept in the package."""
    cells = [
        f"{json.dumps(each.cell.name)}: "
        + json.dumps({"is": said.spelt(each)} | {r: _rounded(of) for r, of in each.against.items()})
        for each in found
    ]
    sides: dict[str, Any] = {
        where: {rival: [of.cell.name for of in named(found, rival, where)] for rival in NAMES}
        for where in ("better", "worse")
    }
    again = said.kept_apart(found, further)
    sides["kept"] = {"joint": [of.cell.name for of in named(again, "joint", "better")]}
    lines = [f"{json.dumps(where)}: {json.dumps(of)}" for where, of in sides.items()]
    return "{\n" + ",\n".join([*lines, '"cells": {\n' + ",\n".join(cells) + "\n}"]) + "\n}\n"


def source() -> str:
    """Return what a figure was made of: the digest of settings and table together."""
    return made_of(design.SETTINGS, trials.TABLE)


def texts() -> dict[Path, str]:
    """Return every file of text that follows from the table."""
    plan, tried = design.read(), trials.read()
    found, further = verdicts(plan, tried), verdicts(design.read(design.BEYOND), tried)
    largest = max(trial.rate for trial in plan.trials["joint"])
    straight = said.answer(found, further)
    page = PAGE.read_text()
    for name, content in (
        ("answer", straight),
        ("regions", said.regions(found)),
        ("end", said.at_the_end(found, largest)),
        ("beyond", said.beyond(found, further)),
        ("same rate", said.same_rate(plan, tried)),
        ("table", said.table(found)),
        ("chosen", said.chosen(found)),
    ):
        page = marked(page, f"map: {name}", content)
    readme = marked(README.read_text(), "map: answer", straight)
    return {PAGE: page, README: readme, RECORDS: records(found, further)}


def main(arguments: list[str] | None = None) -> int:
    """Write what has changed, or say it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where it would")
    check = parser.parse_args(arguments).check
    stale = renewed(texts(), check)
    if not check:
        picture.save(picture.drawn(verdicts(design.read(), trials.read())), FIGURE, source())
    return int(stale and check)


def _rounded(of: Estimate) -> list[float]:
    return [round(100 * each, 1) for each in (of.mean, of.low, of.high)]


if __name__ == "__main__":
    sys.exit(main())
