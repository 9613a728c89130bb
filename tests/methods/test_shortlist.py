"""The shortlist: made of the records, and the same wherever it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from equimodal.cli.methods import recommended
from equimodal.diagnostics.advice.rules import MENDING
from equimodal.methods import available, shortlist

ROOT = Path(__file__).parents[2]
ORDER = [each.name for each in shortlist.shortlist()]


def test_it_follows_from_the_records_by_its_rule() -> None:
    recorded = json.loads(shortlist.FILE.read_text())
    expected = []
    for name, on in recorded["differences"].items():
        lows, highs = [low for _, low, _ in on.values()], [high for *_, high in on.values()]
        total = sum(mean for mean, *_ in on.values())
        sure = on.keys() == recorded["sets"].keys() and max(lows) > 0 and min(highs) >= 0
        if sure and total > 0:
            expected.append((-total, name))
    assert [name for _, name in sorted(expected)] == ORDER
    assert ORDER
    for each in shortlist.shortlist():
        means = [of.mean for of in each.on.values()]
        assert each.gain == max(means)
        assert each.harm == max(0.0, -min(means))
        assert each.mean == pytest.approx(sum(means) / len(means))
    assert {*recorded["differences"], *recorded["steps"]} - {"alone"} <= {*available()}


def test_numbers_are_those_of_the_page() -> None:
    """By eye, so to speak: not by the script's own writer."""
    page = (ROOT / "docs" / "methods" / "results.md").read_text()
    summary = page.split("<!-- record: summary -->\n")[1].split("<!-- end -->")[0]
    head, _, *rows = (line.strip("|\n ").split(" | ") for line in summary.splitlines())
    assert head[1:-2] == list(shortlist.sets())
    by_name = {row[0]: row for row in rows}
    for name in ("multi-loss", "ogm-ge", "mmpareto"):
        for data, cell in zip(head[1:-2], by_name[name][1:-2], strict=True):
            on = shortlist.differences(name)[data]
            assert cell.strip("*") == f"{on.mean:+.1f} [{on.low:+.1f}, {on.high:+.1f}]"
    assert shortlist.differences("never-run") == {}
    assert shortlist.step("never-run") is None
    assert f"| ogm-ge | {shortlist.step('ogm-ge'):.2f}x |" in page


def test_every_place_has_the_same_order() -> None:
    said = recommended().splitlines()
    assert [line.split()[1] for line in said if re.match(r" ?\d+ ", line)] == ORDER
    pages = ("README.md", 5), ("docs/methods/README.md", None), ("docs/methods/results.md", None)
    for page, rows in pages:
        text = (ROOT / page).read_text()
        mark = r"<!-- record: shortlist -->\n(.*?)\n<!-- end -->"
        (table,) = re.findall(mark, text, flags=re.DOTALL)
        assert re.findall(r"^\| \d+ \| \[([\w-]+)\]", table, flags=re.MULTILINE) == ORDER[:rows]
    assert [*MENDING] == [name for name in ORDER if name in MENDING]
    assert shortlist.in_order(("joint", *reversed(MENDING), "ge")) == (*MENDING, "joint", "ge")
