"""Write what the table of trials says: the map, the tables of its page, the records of the advice.

    python -m benchmarks.ogm_ge_map.page [--check]

Written are docs/figures/ogm-ge-map.svg and .png, what stands between marks in docs/ogm-ge-map.md
and README.md, and src/equimodal/methods/ogm_ge_map.json. `--check` writes nothing, draws nothing,
and fails where a text would change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ogm_ge_map import design, picture, trials
from benchmarks.ogm_ge_map.verdicts import (
    NAMES,
    Verdict,
    by_chance,
    named,
    region,
    untuned,
    verdicts,
)

from equimodal.compare.statistics import Estimate
from equimodal.data import Synthetic

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ogm-ge-map.md"
README = ROOT / "README.md"
RECORDS = ROOT / "src" / "equimodal" / "methods" / "ogm_ge_map.json"
FIGURE = ROOT / "docs" / "figures" / "ogm-ge-map"


def answer(found: Sequence[Verdict]) -> str:
    """Return the straight answer, with the second region first."""
    count, said = len(found), []
    for rival in ("multi-loss", "joint"):
        better, worse = (named(found, rival, where) for where in ("better", "worse"))
        words = f"OGM-GE beats {NAMES[rival]} in {_of(better, count)}"
        if not better:
            words = f"The region in which OGM-GE beats {NAMES[rival]} is empty: {_of([], count)}"
        most = f", by {_points(better, rival)} points" if better else ""
        least = f", by {_points(worse, rival)} points" if worse else ""
        said.append(f"{words}{most}; it is worse in {len(worse)}{least}.")
    return (
        f"{' '.join(said)} If nothing differed, {by_chance(count):.0f} of {count} intervals would "
        "be above 0 by chance, and as many below."
    )


def table(found: Sequence[Verdict]) -> str:
    """Return a row for each cell in Markdown."""
    head = [
        "| cell | best possible | joint | multi-loss | OGM-GE | against joint | against multi-loss "
        "| `--only` |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    return "\n".join([*head, *map(_row, found)])


def chosen(found: Sequence[Verdict]) -> str:
    """Return which trial stood in each cell, in Markdown."""
    head = ["| cell | joint | multi-loss | OGM-GE |", "|---|---|---|---|"]
    body = []
    for each in found:
        cells = [
            f"{of.trial.rate:g}" + ("" if of.trial.knob is None else f", {of.trial.knob:g}")
            for of in each.chosen.values()
        ]
        body.append(f"| {each.cell.name} | {' | '.join(cells)} |")
    return "\n".join([*head, *body])


def regions(found: Sequence[Verdict]) -> str:
    """Return the cells of each region, by name and with their differences."""
    lines = []
    for rival, spelt in NAMES.items():
        for where in ("better", "worse"):
            inside = [f"{of.cell.name} {of.against[rival]:+}" for of in named(found, rival, where)]
            lines.append(f"- **{where.title()} than {spelt}**: {'; '.join(inside) or 'nowhere'}.")
    return "\n".join(lines)


def same_rate(differences: Sequence[Estimate]) -> str:
    """Return what a comparison at one rate, without tuning, would have found."""
    sides = [region(each) for each in differences]
    best = max(differences, key=lambda each: each.mean)
    return (
        f"Of {len(sides)} such comparisons {sides.count('better')} are above 0 beyond the noise of "
        f"seeds and {sides.count('worse')} below ({by_chance(len(sides)):.0f} each by chance); the "
        f"largest is {best:+} points."
    )


def records(found: Sequence[Verdict]) -> str:
    """Return what is kept in the package."""
    cells = [
        f"{json.dumps(each.cell.name)}: "
        + json.dumps({"is": _spelt(each)} | {r: _rounded(of) for r, of in each.against.items()})
        for each in found
    ]
    sides: dict[str, Any] = {
        where: {rival: [of.cell.name for of in named(found, rival, where)] for rival in NAMES}
        for where in ("better", "worse")
    }
    lines = [f"{json.dumps(where)}: {json.dumps(of)}" for where, of in sides.items()]
    return "{\n" + ",\n".join([*lines, '"cells": {\n' + ",\n".join(cells) + "\n}"]) + "\n}\n"


def source() -> str:
    """Return what a figure was made of: the digest of settings and table together."""
    of = hashlib.sha256(design.SETTINGS.read_bytes() + trials.TABLE.read_bytes())
    return f"settings.json and trials.csv, sha256 {of.hexdigest()[:16]}"


def marked(text: str, name: str, content: str) -> str:
    """Put content between the marks of a name."""
    pattern = re.compile(rf"(<!-- map: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    made, count = pattern.subn(lambda m: f"{m[1]}{content}\n{m[2]}", text)
    if count != 1:
        raise SystemExit(f"expected the mark <!-- map: {name} --> once, found it {count} times")
    return made


def texts() -> dict[Path, str]:
    """Return every file of text that follows from the table."""
    plan, tried = design.read(), trials.read()
    found = verdicts(plan, tried)
    page = PAGE.read_text()
    for name, content in (
        ("answer", answer(found)),
        ("regions", regions(found)),
        ("same rate", same_rate(untuned(plan, tried))),
        ("table", table(found)),
        ("chosen", chosen(found)),
    ):
        page = marked(page, name, content)
    readme = marked(README.read_text(), "answer", answer(found))
    return {PAGE: page, README: readme, RECORDS: records(found)}


def main(arguments: list[str] | None = None) -> int:
    """Write what has changed, or say it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where it would")
    check = parser.parse_args(arguments).check
    stale = False
    for path, text in texts().items():
        if not path.exists() or path.read_text() != text:
            stale = True
            print(f"{path.relative_to(ROOT)}: {'not what the table says' if check else 'written'}")
            if not check:
                path.write_text(text)
    if not check:
        picture.save(picture.drawn(verdicts(design.read(), trials.read())), FIGURE, source())
    return int(stale and check)


def _row(of: Verdict) -> str:
    reached = [f"{each.test.mean * 100:.1f}" for each in of.chosen.values()]
    against = []
    for each in of.against.values():
        sure = region(each) != "open"
        against.append(f"**{each:+}**" if sure else f"{each:+}")
    return " | ".join([f"| {_spelt(of)}", _possible(of), *reached, *against, f"`{of.cell.name}` |"])


def _spelt(of: Verdict) -> str:
    return f"{of.cell.row}: {of.cell.label}"


def _possible(of: Verdict) -> str:
    """Return the accuracy of the best classifier that there can be, where that is known."""
    setting = of.cell.setting
    if setting["data"] != "synthetic":
        return ""
    shares = dict(zip(setting["modalities"], setting["informed"], strict=True))
    truth = Synthetic(shares, redundancy=setting["redundancy"], synergy=setting["synergy"])
    return f"{100 * truth.optimal():.1f}"


def _of(inside: Sequence[Verdict], count: int) -> str:
    return f"{len(inside) or 'none'} of {count} settings"


def _points(inside: Sequence[Verdict], rival: str) -> str:
    sizes = sorted(abs(100 * of.against[rival].mean) for of in inside)
    ends = [f"{sizes[0]:.1f}", f"{sizes[-1]:.1f}"]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _rounded(of: Estimate) -> list[float]:
    return [round(100 * each, 1) for each in (of.mean, of.low, of.high)]


if __name__ == "__main__":
    sys.exit(main())
