"""Articles on look-alikes: every row trains, tables are marked, killed and resumed alike."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equimodal import reproducing
from equimodal.cli import main
from equimodal.errors import SetupError
from equimodal.reproducing import PAPERS, Paper, Reproduction, Row, Trial
from support.lookalikes import Here, lookalikes, made

ROOT = Path(__file__).parents[2]
SMALL = Trial(1, {"size": 16, "seconds": 0.2, "frames": 1, "mels": 16, "n_fft": 64, "hop": 200}, 2)
TABLES = [(paper.name, table) for paper in PAPERS.values() for table in paper.tables]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lookalikes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each article, so that its tables share what they have in common."""
    return tmp_path_factory.mktemp("results")


def whole(
    paper: Paper, sets: Path, out: Path, tables: dict[str, tuple[Row, ...]], **changes: object
) -> Reproduction:
    names = [row.data for rows in tables.values() for row in rows]
    protocol = changes.get("protocol", "honest")
    places = reproducing.found(names, [str(sets)], protocol)  # type: ignore[arg-type]
    return Reproduction(paper, tables, places, out, [0], trial=SMALL, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_every_row_of_every_table_trains(name: str, table: str, sets: Path, results: Path) -> None:
    paper = PAPERS[name]
    rows = paper.rows(table)
    made = whole(paper, sets, results / name, {table: rows})
    assert made.run(engine=Here()) == {}
    assert made.missing() == 0
    made.write()
    text = (made.folder / f"{table}.md").read_text()
    for row in rows:
        line = next(line for line in text.splitlines() if line.startswith(f"| `{row.name}` |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert re.fullmatch(r"\d+\.\d", cells[1]), line
        assert cells[-1] == ("" if row.published is None else f"{row.published.accuracy:.1f}")
        assert row.published is None or row.published.source in text
    assert "TRIAL, not the article's settings: epochs 1, size 16" in text
