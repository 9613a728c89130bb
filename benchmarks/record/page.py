"""Write what the table of trainings says: results, ranks, the shortlist, and the records of it.

    python -m benchmarks.record.page [--check]

Written are docs/figures/ranks.svg, what stands between marks in docs/methods/results.md,
docs/methods/README.md and README.md, and src/equimodal/methods/recorded.json.
`--check` writes nothing, draws nothing, and fails where a text would change.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import design, picture, said, table
from benchmarks.record.design import Design
from benchmarks.record.verdicts import everywhere, ranks, verdicts
from benchmarks.written import ROOT, made_of, marked, renewed

from equimodal.methods.shortlist import listed

RESULTS = ROOT / "docs" / "methods" / "results.md"
CARDS = ROOT / "docs" / "methods" / "README.md"
README = ROOT / "README.md"
RECORDS = ROOT / "src" / "equimodal" / "methods" / "recorded.json"
FIGURE = ROOT / "docs" / "figures" / "ranks"
STEP = re.compile(r"^\| ([\w-]+) \| ([\d.]+)x \| [\d.]+ \| [+-][\d.]+ \|$", re.M)


def records(plan: Design, found: said.Found) -> dict[str, Any]:
    """Return what is kept in the package: differences to joint training, and what steps cost."""
    differences = {
        row: {name: said.points(of[row].against["joint"]) for name, of in found.items()}
        for row in everywhere(found)
        if row != "joint"
    }
    return {
        "sets": {name: setting["title"] for name, setting in plan.sets.items()},
        "differences": differences,
        "steps": {name: float(times) for name, times in STEP.findall(RESULTS.read_text())},
    }


def kept(of: Mapping[str, Any]) -> str:
    """Return the records as a file, a line for each method."""
    parts = [f'"sets": {json.dumps(of["sets"])}']
    for name in ("differences", "steps"):
        lines = [f"{json.dumps(each)}: {json.dumps(of[name][each])}" for each in sorted(of[name])]
        parts.append(f'"{name}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def source() -> str:
    """Return what the figure was made of: the digest of settings and table together."""
    return made_of(design.SETTINGS, table.TABLE)


def texts() -> dict[Path, str]:
    """Return every file of text that follows from the table."""
    plan, trainings = design.read(), table.read()
    found = verdicts(plan, trainings)
    of = records(plan, found)
    first = listed(of)
    page = RESULTS.read_text()
    for name, content in (
        ("answer", said.answer(found, first)),
        ("shortlist", said.shortlist(first, None, "")),
        ("summary", said.summary(found)),
        ("conditions", said.conditions(plan, trainings, found)),
        ("ends", said.ends(plan, found)),
        ("lost", said.lost(found)),
        ("left out", said.left_out(plan, trainings)),
        ("sets", said.each_set(found, plan)),
    ):
        page = marked(page, f"record: {name}", content)
    readme = marked(README.read_text(), "record: answer", said.answer(found, first))
    return {
        RESULTS: page,
        CARDS: marked(CARDS.read_text(), "record: shortlist", said.shortlist(first, None, "")),
        README: marked(readme, "record: shortlist", said.shortlist(first, 5, "docs/methods/")),
        RECORDS: kept(of),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write what has changed, or say it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where it would")
    check = parser.parse_args(arguments).check
    stale = renewed(texts(), check)
    if not check:
        found = verdicts(design.read(), table.read())
        picture.save(picture.drawn(ranks(found)), FIGURE, source())
    return int(stale and check)


if __name__ == "__main__":
    sys.exit(main())
