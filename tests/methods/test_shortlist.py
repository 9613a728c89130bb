"""The shortlist: made of the records, and the same wherever it stands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from equimodal.cli.methods import recommended
from equimodal.diagnostics.advice.rules import MENDING
from equimodal.methods import available, shortlist

ROOT = Path(__file__).parents[2]
ORDER = [each.name for each in shortlist.shortlist()]


def test_records_and_tables_are_what_the_script_makes_of_the_pages() -> None:
    """Otherwise: `python scripts/shortlist.py`."""
    script = [sys.executable, str(ROOT / "scripts" / "shortlist.py"), "--check"]
    found = subprocess.run(script, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_it_follows_from_the_records_by_its_rule() -> None:
    recorded = json.loads(shortlist.FILE.read_text())
    expected = []
    for name, on in recorded["differences"].items():
        lows, highs = [low for _, low, _ in on.values()], [high for *_, high in on.values()]
        if on.keys() == recorded["sets"].keys() and max(lows) > 0 and min(highs) >= 0:
            expected.append((-sum(mean for mean, *_ in on.values()), name))
    assert [name for _, name in sorted(expected)] == ORDER
    assert len(ORDER) >= 5
    for each in shortlist.shortlist():
        means = [of.mean for of in each.on.values()]
        assert each.gain == max(means)
        assert each.harm == max(0.0, -min(means))
        assert each.mean == pytest.approx(sum(means) / len(means))
    assert {*recorded["differences"], *recorded["steps"]} - {"alone"} <= {*available()}


def test_numbers_are_those_of_the_page() -> None:
    """By eye, so to speak: not by the script's own patterns."""
    page = (ROOT / "docs" / "methods" / "results.md").read_text()
    assert "| mmpareto | 71.1 [68.9, 74.0] | +8.6 [+6.4, +11.1] |" in page
    grid = shortlist.differences("mmpareto")["GRID letters"]
    assert grid.mean == 8.6
    # A bootstrap's interval, widened to that of Student's t: 1.58 times for five seeds.
    assert grid.low == pytest.approx(8.6 - 1.584 * 2.2, abs=0.06)
    assert grid.high == pytest.approx(8.6 + 1.584 * 2.5, abs=0.06)
    # Of watch, the newer table of the README, whose intervals are Student's already.
    assert (
        "| multi-loss | 80.2 [78.5, 81.9] | +1.3 [-1.3, +3.9] |" in (ROOT / "README.md").read_text()
    )
    assert shortlist.differences("multi-loss")["watch"] == shortlist.Difference(1.3, -1.3, 3.9)
    assert shortlist.step("ogm-ge") == 1.09
    assert shortlist.differences("never-run") == {}
    assert shortlist.step("never-run") is None


def test_every_place_has_the_same_order() -> None:
    said = recommended().splitlines()
    assert [line.split()[1] for line in said if re.match(r" ?\d+ ", line)] == ORDER
    for page, rows in (("README.md", 5), ("docs/methods/README.md", None)):
        text = (ROOT / page).read_text()
        (table,) = re.findall(r"<!-- shortlist -->\n(.*?)\n<!-- end -->", text, flags=re.DOTALL)
        assert re.findall(r"^\| \d+ \| \[([\w-]+)\]", table, flags=re.MULTILINE) == ORDER[:rows]
    assert [*MENDING] == [name for name in ORDER if name in MENDING]
    assert shortlist.in_order(("joint", *reversed(MENDING), "ge")) == (*MENDING, "joint", "ge")
