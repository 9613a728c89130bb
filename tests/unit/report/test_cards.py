"""Title, cards, counts and tables of a page say the same, in whatever state a study is."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import pytest

from equimodal.compare.runs import Entry, Run, main_job
from equimodal.report.cards import cards
from equimodal.report.document import page_of
from equimodal.report.findings import Findings
from equimodal.report.page import Page
from equimodal.report.results import Results, read
from equimodal.report.standing import results_table
from equimodal.tasks import HOLD, locked
from support.reports import change, comparison

MODALITIES = ("accelerometer", "gyroscope")
ENTRIES = [*main_job(MODALITIES, (0.1, 0.3)), *(Entry(n, n) for n in ("pmr", "mla", "arl"))]
SEEDS = 6


def nothing(folder: Path, runs: Sequence[Run]) -> None:
    """All runs are finished."""


def interrupted(folder: Path, runs: Sequence[Run]) -> None:
    """In the middle of the third seed: whole pairs first, as they are trained."""
    for run in runs:
        if run.seed > 2 or (run.seed == 2 and run.label in ("mla", "arl", "ge")):
            shutil.rmtree(folder / "runs" / run.name)


def failed(folder: Path, runs: Sequence[Run]) -> None:
    """One row failed with every seed, another one with one."""
    for run in runs:
        if run.label == "pmr" or (run.label, run.seed) == ("ensemble", 1):
            _left(folder / "runs" / run.name, "SetupError")


def diverged(folder: Path, runs: Sequence[Run]) -> None:
    for run in runs:
        if run.label == "arl" or (run.label, run.seed) == ("gyroscope alone", 0):
            _left(folder / "runs" / run.name, "DivergedError")


def other_data(folder: Path, runs: Sequence[Run]) -> None:
    """Results that cannot be used, of each kind."""
    for run in runs:
        path = folder / "runs" / run.name / "result.json"
        if (run.label, run.seed) == ("multi-loss", 0):
            change(path, fingerprint="another")
        if (run.label, run.seed) == ("multi-loss", 1):
            path.write_text("{")


def without_joint(folder: Path, runs: Sequence[Run]) -> None:
    for run in runs:
        if run.label == "joint":
            shutil.rmtree(folder / "runs" / run.name)


def _left(folder: Path, kind: str) -> None:
    (folder / "result.json").unlink()
    (folder / "failed.json").write_text(json.dumps({"kind": kind, "message": "why"}))


STATES: list[Callable[[Path, Sequence[Run]], None]] = [
    nothing, interrupted, failed, diverged, other_data, without_joint,
]  # fmt: skip


def study(
    folder: Path, state: Callable[[Path, Sequence[Run]], None], running: bool = False
) -> tuple[Results, Page]:
    state(folder, comparison(folder, MODALITIES, ENTRIES, range(SEEDS), plan=True))
    if not running:
        results = read(folder)
    else:
        with locked(folder / HOLD, "held"):
            results = read(folder)
    return results, page_of(results, Findings({}))


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_counts_agree(state: Callable[[Path, Sequence[Run]], None], tmp_path: Path) -> None:
    results, page = study(tmp_path, state)
    table = results_table(results.rows, MODALITIES)
    standings = Counter(row[table.columns.index("standing")].text for row in table.rows)
    methods = len(table.rows) - standings["reference"] - standings["one modality"]
    assert f": {methods} methods" in page.title
    assert ("against joint training" in page.title) == (standings["reference"] == 1)
    seeds = [len(row.results) for row in results.rows]
    said = f"{min(seeds)} to {max(seeds)}" if len(set(seeds)) > 1 else f"{seeds[0]}"
    assert re.search(rf"over {said}( of {SEEDS})? seeds$", page.title)
    judged = sum(standings[each] for each in ("better", "worse", "not told apart"))
    if page.caution:
        of = "" if judged == methods else f" of {methods}"
        assert page.caution.startswith(f"{judged}{of} methods are held against joint training")
    if corrected := re.search(r"correction for (\d+) methods", page.elaboration or ""):
        assert int(corrected[1]) == judged
    states = Counter(held.state for held in results.runs)
    (runs,) = [
        each for section in page.sections if section.name == "runs" for each in section.tables
    ]
    assert runs.caption.startswith(f"All runs ({len(runs.rows)})")
    assert Counter(row[runs.columns.index("state")].text for row in runs.rows) == states
    if states["finished"] < len(results.runs):
        spelt = f"{states.pop('finished')} of {len(results.runs)} runs are finished ("
        (notice,) = [each for each in page.notices if each.startswith(spelt)]
        found = {
            what: int(n)
            for n, what in re.findall(r"(\d+) ([a-z ]+?)(?:,| and|\))", notice[len(spelt) :])
        }
        assert found == dict(states)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_cards_say_where_they_were_chosen_and_are_in_the_tables(
    state: Callable[[Path, Sequence[Run]], None], tmp_path: Path
) -> None:
    results, _ = study(tmp_path, state)
    table = results_table(results.rows, MODALITIES)
    tested = {row[0].text: row[table.columns.index("accuracy")] for row in table.rows}
    rows = {row.label: row for row in results.rows}

    def validation(label: str) -> float:
        return fmean(each.val["accuracy"] for each in rows[label].results.values())

    chosen = 0
    for text, cell in cards(results.rows):
        best = re.fullmatch(
            r"(.+), the best (method|single modality) on validation \(([\d.]+) there\): test accuracy",
            text,
        )
        if best:
            label, kind, shown = best.groups()
            chosen += 1
            assert shown == f"{100 * validation(label):.1f}"
            assert cell == tested[label]
            alike = [
                name
                for name, row in rows.items()
                if (row.entry.method == "unimodal") == (kind == "single modality")
                and row.entry.label != "joint"
                and len(row.results) >= len(rows[label].results)
            ]
            assert max(alike, key=validation) == label
        elif text.startswith("joint"):
            assert text == "joint training: test accuracy"
            assert cell == tested["joint"]
        else:
            assert text.endswith("against a model of its own, on validation")
    assert chosen == 2


def test_runs_wait_only_while_somebody_is_at_work(tmp_path: Path) -> None:
    """What an interrupted study asked for is not waited for once everything has ended."""
    ended, _ = study(tmp_path / "ended", interrupted)
    running, _ = study(tmp_path / "running", interrupted, running=True)
    assert {held.state for held in ended.runs} == {"finished", "not begun"}
    assert {held.state for held in running.runs} == {"finished", "waiting"}
