"""Validation data that mislead are said of any row, on made-up scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from equimodal.choosing.beware import misled, warning
from equimodal.choosing.table import page
from equimodal.report.picture import Cell, Table

SEEDS = 8
VAL = {"joint": [0.70] * SEEDS, "ogm": [0.74] * SEEDS, "sound alone": [0.60] * SEEDS}


def on_test(means: dict[str, float], samples: int | None = 400) -> dict[str, list[dict[str, Any]]]:
    """Shares of right answers on test data, the same samples for all, with a little noise."""
    made = {}
    for label, mean in means.items():
        rng = np.random.default_rng(len(label))
        rows = []
        for _ in range(SEEDS):
            if samples is None:
                score = mean + 0.002 * rng.standard_normal()
                rows.append({"score": float(score), "samples": None})
            else:
                right = np.arange(samples) < round((mean + 0.005 * rng.uniform()) * samples)
                rows.append({"score": float(right.mean()), "samples": right.astype(float).tolist()})
        made[label] = rows
    return made


def said(val: dict[str, Sequence[float]], tests: Any, winner: str = "ogm") -> str:
    return warning(misled(winner, val, tests, True), winner, True)


def test_nothing_is_said_where_both_agree() -> None:
    assert said(VAL, on_test({"joint": 0.69, "ogm": 0.72, "sound alone": 0.59})) == ""


@pytest.mark.parametrize("label", ["joint", "sound alone"])
def test_far_above_test_data_is_said_of_any_row(label: str) -> None:
    means = {name: values[0] for name, values in VAL.items()}
    text = said(VAL, on_test({**means, label: means[label] - 0.12}))
    assert text.startswith(f"Beware of the validation split: {label} has {means[label]:.1%} there")
    assert text.count("on test data") == 1
    near = {**means, label: means[label] - 0.09}
    assert said(VAL, on_test(near)) == ""


@pytest.mark.parametrize("samples", [400, None])
def test_an_order_that_test_data_turn_round_is_said(samples: int | None) -> None:
    """The first finalist is behind joint training on test data beyond the paired interval."""
    tests = on_test({"joint": 0.74, "ogm": 0.66, "sound alone": 0.55}, samples)
    found = misled("ogm", VAL, tests, True)
    assert set(found.behind) == {"joint"}
    assert 0 < found.behind["joint"].low < 0.08 < found.behind["joint"].high
    text = warning(found, "ogm", True)
    assert "joint (+8." in text
    assert "is behind ogm there and ahead on test data. Choose again" in text


def test_an_order_that_is_the_same_is_not_and_a_lead_within_the_interval_is_not() -> None:
    """Joint training stays where nothing is better beyond chance: then both may agree on more."""
    tests = on_test({"joint": 0.66, "ogm": 0.72, "sound alone": 0.55})
    assert said(VAL, tests, winner="joint") == ""
    tests = on_test({"joint": 0.722, "ogm": 0.72, "sound alone": 0.55})
    for n, each in enumerate(tests["joint"]):
        each["score"] += 0.05 * (-1) ** n
        each["samples"] = None
    assert said(VAL, tests) == ""


def test_scores_that_are_no_shares_are_held_against_the_spread_of_samples() -> None:
    rng = np.random.default_rng(0)
    errors = -rng.chisquare(1, 500)
    tests = {"joint": [{"score": float(errors.mean()), "samples": errors.tolist()}]}
    scale = float(errors.std())
    for share, above in ((0.25, True), (0.15, False)):
        val = {"joint": [float(errors.mean()) + share * scale]}
        found = misled("joint", val, tests, False)
        assert bool(found.above) is above
        assert ("joint has" in warning(found, "joint", False)) is above
    tests["joint"][0]["samples"] = None  # one number for all, in a unit that nobody knows
    assert not misled("joint", {"joint": [1e6]}, tests, False).above


def test_the_page_says_it_first() -> None:
    table = Table("rows", ["row"], [[Cell("joint", "joint")]])
    for beware in ("Beware of <all>", ""):
        html = page("Title", "Use it", beware, "line", "plan", table, {})
        assert ("Beware of &lt;all&gt;" in html) is bool(beware)
        assert ('role="note"' in html) is bool(beware)
