"""Make the records behind the shortlist, and the tables of it, from what the pages say.

    python scripts/shortlist.py [--check]

Read are the tables marked `<!-- record: ... -->` in docs/methods/results.md, the newer one of the
README's main job, and what each step costs. Written are src/equimodal/methods/recorded.json and
what stands between `<!-- shortlist -->` and `<!-- end -->` in README.md and docs/methods/README.md.
`--check` writes nothing, and fails where something would change.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "methods" / "results.md"
README = ROOT / "README.md"
CARDS = ROOT / "docs" / "methods" / "README.md"
RECORDED = ROOT / "src" / "equimodal" / "methods" / "recorded.json"
# A percentile bootstrap of the mean of five is 1.96 sqrt(4/5) standard errors wide on either side,
# Student's t 2.776: intervals of the earlier version are widened by what lies between.
WIDENED = 2.7764 / (1.9600 * 0.8**0.5)
SETS = {
    "watch": "accelerometer and gyroscope, 7 exercises, new subjects",
    "GRID letters": "sound and lips, 25 spoken letters",
    "synthetic": "a fast and a slow modality that know equally much",
}
ROW = re.compile(
    r"^\| ([\w-]+)(?: \([^|]*\))? \| [^|]+ \| ([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\] \|", re.M
)
STEP = re.compile(r"^\| ([\w-]+) \| ([\d.]+)x \| [\d.]+ \| [+-][\d.]+ \|$", re.M)
MARKS = re.compile(r"(<!-- shortlist -->\n)(?:\|.*\n)*(<!-- end -->)")


def records() -> dict[str, dict[str, list[float]]]:
    """Return each method's difference to joint training, with its interval, by data set."""
    found: dict[str, dict[str, list[float]]] = {}
    for section in RESULTS.read_text().split("\n## ")[1:]:
        name = section.partition("\n")[0]
        kind = re.search(r"<!-- record: (bootstrap|t) -->", section)
        if kind:
            wide = WIDENED if kind[1] == "bootstrap" else 1.0
            table = section[kind.end() :].strip().split("\n\n")[0]
            for method, *numbers in ROW.findall(table):
                mean, low, high = map(float, numbers)
                ends = [mean - wide * (mean - low), mean + wide * (high - mean)]
                found.setdefault(method, {})[name] = [mean, *(round(end, 1) for end in ends)]
    newer = README.read_text().split("<!-- main job -->")[1].split("\n\n")[0]
    for method, *numbers in ROW.findall(newer):
        found.setdefault(method, {})["watch"] = [float(each) for each in numbers]
    return {name: on for name, on in found.items() if name not in ("joint",)}


def recorded() -> str:
    """Return what is kept in the package."""
    steps = {name: float(times) for name, times in STEP.findall(RESULTS.read_text())}
    lines = [
        f'"sets": {json.dumps(SETS)}',
        '"differences": {\n' + ",\n".join(_lines(records())) + "\n}",
        '"steps": {\n' + ",\n".join(_lines(steps)) + "\n}",
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def table(rows: int | None, links: str) -> str:
    """Return the shortlist in Markdown.

    Args:
        rows: the first so many; None for all.
        links: the folder of the methods' pages, from where the table stands.
    """
    from equimodal.methods.shortlist import shortlist

    head = [
        f"| | method | {' | '.join(SETS)} | mean | worst | step |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    body = []
    for place, each in enumerate(shortlist()[:rows], 1):
        cells = [f"{of.mean:+.1f} [{of.low:+.1f}, {of.high:+.1f}]" for of in each.on.values()]
        worst = min(of.mean for of in each.on.values())
        body.append(
            f"| {place} | [{each.name}]({links}{each.name}.md) | {' | '.join(cells)} "
            f"| {each.mean:+.1f} | {worst:+.1f} | {f'{each.step:.2f}x' if each.step else ''} |"
        )
    return "\n".join([*head, *body])


def main() -> int:
    """Write what has changed, or say it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where it would")
    check = parser.parse_args().check
    stale = renewed(RECORDED, recorded(), check)  # before it is read by what makes the tables
    for path, rows, links in ((README, 5, "docs/methods/"), (CARDS, None, "")):
        made = MARKS.sub(lambda m: m[1] + table(rows, links) + "\n" + m[2], path.read_text())  # noqa: B023
        stale |= renewed(path, made, check)
    return int(stale and check)


def renewed(path: Path, text: str, check: bool) -> bool:
    """Write a file that has changed, or say that it would."""
    if path.exists() and path.read_text() == text:
        return False
    print(f"{path.relative_to(ROOT)}: {'is not what the records say' if check else 'written'}")
    if not check:
        path.write_text(text)
    return True


def _lines(found: Mapping[str, object]) -> list[str]:
    return [f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found)]


if __name__ == "__main__":
    sys.exit(main())
