"""Means, intervals and choices of a comparison, against slow twins and made-up results."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from equimodal.compare import Entry, Run, difference, estimate, main_job, verdict
from equimodal.compare.runs import planned
from equimodal.compare.summary import Row, summarised
from equimodal.compare.tables import as_csv, for_terminal, markdown
from equimodal.diagnostics.interval import few_interval, student
from equimodal.training import Result

MODALITIES = ("audio", "visual")
BLANK = Result("made up", "0", "", {}, 0, {}, {}, [], 0.0, {})


def result(test: float, val: float = 0.5, modalities: Any = MODALITIES) -> Result:
    scores = {"accuracy": test, "macro_f1": test, **{f"accuracy/{m}": test / 2 for m in modalities}}
    return replace(BLANK, val={"accuracy": val}, test=scores)


def named(entry: Entry, by_seed: dict[int, Result], **options: Any) -> dict[Any, Result]:
    return {
        Run(entry.label, entry.method, {**entry.options, **options}, seed).name: found
        for seed, found in by_seed.items()
    }


JOINT = Entry("joint", "joint")
GE = Entry("ge", "ge")
OGM = Entry("ogm", "ogm", grid={"alpha": (0.1, 0.8)})


@pytest.mark.parametrize(
    "values", [[0.5, 0.6], [0.1, 0.2, 0.9], [0.7, 0.72, 0.68, 0.71], [0.3, 0.31, 0.5, 0.45, 0.4]]
)
def test_interval_is_that_of_students_t(values: list[float]) -> None:
    found = estimate(values)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert found.mean == pytest.approx(sum(values) / len(values))
    few = few_interval(torch.tensor(values, dtype=torch.float64))
    assert (few.low, few.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 151, 1000])
def test_quantiles_without_scipy_are_those_of_scipy(freedom: int) -> None:
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_intervals_cover_what_they_say_however_few_the_seeds(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    studies = rng.normal(0.7, 0.02, size=(3000, seeds)).tolist()
    covered = [(e := estimate(study)).low <= 0.7 <= e.high for study in studies]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.013)  # three standard errors


def test_one_seed_has_no_interval() -> None:
    found = estimate([0.5])
    assert math.isnan(found.low)
    assert f"{found}" == "50.0"
    assert math.isnan(estimate([]).mean)


def test_differences_are_paired() -> None:
    """Seeds differ widely and both rise alike: only the pairs show that the difference is sure."""
    ours, theirs = [0.52, 0.62, 0.925], [0.50, 0.60, 0.90]
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    found = difference(ours, theirs)
    assert found == estimate([round(pair, 12) for pair in pairs])
    assert found.low > 0
    unpaired = estimate(ours).low - estimate(theirs).high
    assert unpaired < 0
    with pytest.raises(ValueError):
        difference([0.1], [0.1, 0.2])


def test_alpha_is_chosen_by_validation_and_never_by_test() -> None:
    results = {
        **named(JOINT, {0: result(0.5), 1: result(0.5)}),
        **named(OGM, {0: result(0.9, val=0.3), 1: result(0.9, val=0.4)}, alpha=0.1),
        **named(OGM, {0: result(0.2, val=0.4), 1: result(0.2, val=0.4)}, alpha=0.8),
    }
    joint, ogm = summarised([JOINT, OGM], [0, 1], results, MODALITIES)
    assert ogm.options == {"alpha": 0.8}
    assert ogm.label == "ogm (alpha 0.8)"
    assert ogm.accuracy.mean == pytest.approx(0.2)
    assert ogm.versus is not None
    assert ogm.versus.mean == pytest.approx(-0.3)
    assert joint.versus is None


def test_test_samples_count_too_where_they_are_known() -> None:
    """Every seed gains on the same two of eight samples: sure for these, not for others."""
    theirs, ours = "00111100", "11111100"
    results = {
        **named(JOINT, {s: replace(result(0.5), right=theirs) for s in range(3)}),
        **named(GE, {s: replace(result(0.75), right=ours) for s in range(3)}),
    }
    _, ge = summarised([JOINT, GE], [0, 1, 2], results, MODALITIES)
    assert ge.versus is not None
    assert ge.sampled is not None
    assert ge.versus.low == pytest.approx(0.25)
    assert ge.sampled.mean == pytest.approx(0.25)
    assert ge.sampled.low < 0
    table = markdown([ge], MODALITIES)
    assert "other samples too" in table
    assert f"[{100 * ge.sampled.low:+.1f}" in table
    old = {**results, **named(JOINT, {s: result(0.5) for s in range(3)})}
    assert summarised([JOINT, GE], [0, 1, 2], old, MODALITIES)[1].sampled is None


def test_equal_values_go_to_the_first() -> None:
    same = {0: result(0.5)}
    results = {**named(OGM, same, alpha=0.1), **named(OGM, same, alpha=0.8)}
    (row,) = summarised([OGM], [0], results, MODALITIES)
    assert row.options == {"alpha": 0.1}


def test_a_seed_counts_when_every_value_of_the_grid_is_finished() -> None:
    """Alpha 0.1 has a lucky third seed that 0.8 has not had yet: it is neither chosen by it nor
    reported with it."""
    results = {
        **named(OGM, {s: result(0.5, val=0.5) for s in (0, 1)}, alpha=0.8),
        **named(
            OGM, {0: result(0.4, val=0.6), 1: result(0.4, val=0.5), 2: result(1.0, val=1.0)},
            alpha=0.1,
        ),
    }  # fmt: skip
    (row,) = summarised([OGM], [0, 1, 2], results, MODALITIES)
    assert sorted(row.results) == [0, 1]
    assert row.missing == 1
    assert row.accuracy.values == (0.4, 0.4)
    only_one = named(OGM, {0: result(0.4)}, alpha=0.1)
    assert summarised([OGM], [0], only_one, MODALITIES) == []


def test_pairs_are_of_the_seeds_that_both_have() -> None:
    results = {
        **named(JOINT, {0: result(0.5), 2: result(0.9)}),
        **named(GE, {0: result(0.6), 1: result(0.1), 2: result(0.95)}),
    }
    _, ge = summarised([JOINT, GE], [0, 1, 2], results, MODALITIES)
    assert ge.versus is not None
    assert ge.versus.values == pytest.approx((0.1, 0.05))
    nothing_shared = {**named(JOINT, {0: result(0.5)}), **named(GE, {1: result(0.6)})}
    _, ge = summarised([JOINT, GE], [0, 1], nothing_shared, MODALITIES)
    assert ge.versus is None


def rows_of(joint: list[float], **others: list[float]) -> list[Row]:
    entries = [JOINT, *(Entry(name, "ge") for name in others)]
    results: dict[Any, Result] = {}
    for entry, values in zip(entries, [joint, *others.values()], strict=True):
        results |= named(entry, {seed: result(v) for seed, v in enumerate(values)})
    return summarised(entries, range(len(joint)), results, MODALITIES)


def test_the_verdict_tells_noise_from_difference() -> None:
    base = [0.5, 0.6, 0.55, 0.52, 0.58]
    noisy = [0.55, 0.55, 0.56, 0.50, 0.58]
    up, down = [v + 0.02 for v in base], [v - 0.05 for v in base]
    assert verdict(rows_of(base, a=noisy)) == (
        "No method is better than joint training beyond the noise of 5 seeds."
    )
    assert verdict(rows_of(base, a=noisy, b=up, c=down)).startswith(
        "Better than joint training beyond the noise of 5 seeds: b (+2.0). Not told apart from "
        "it: a. Worse: c (-5.0)."
    )
    assert verdict(rows_of(base, c=down)).endswith("of 5 seeds. Worse: c (-5.0).")
    assert verdict(rows_of(base)) == "No other method is held against joint training."
    assert verdict(rows_of(base, a=base)).startswith("No method is better")
    assert verdict(rows_of(base, b=up, c=down[:3])).endswith("5 seeds: b (+2.0).")
    alone = summarised([GE], [0], named(GE, {0: result(0.5)}), MODALITIES)
    assert verdict(alone).startswith("No run of joint training is finished")


@pytest.mark.parametrize(("seeds", "said"), [(1, "1 seed is"), (2, "2 seeds are")])
def test_few_seeds_have_no_verdict_however_large_the_difference(seeds: int, said: str) -> None:
    sentence = verdict(rows_of([0.2, 0.3][:seeds], a=[0.8, 0.9][:seeds]))
    assert sentence.startswith(f"{said} too few to tell a method from joint training: 5 or more")


def test_the_verdict_says_what_is_left_after_correction_for_many_methods() -> None:
    base = [0.5, 0.6, 0.55, 0.52, 0.58]
    lucky = [v + d for v, d in zip(base, [0.01, 0.03, 0.01, 0.03, 0.02], strict=True)]
    sure = [v + d for v, d in zip(base, [0.10, 0.11, 0.10, 0.11, 0.10], strict=True)]

    def said(many: int) -> str:
        alike = {f"m{number}": base for number in range(many - 2)}
        return verdict(rows_of(base, lucky=lucky, sure=sure, **alike))

    assert said(2).endswith("All of this holds after correction for 2 methods (Holm).")
    assert said(11).endswith(
        "After correction for 11 methods (Holm) sure stands apart: repeat what matters with other "
        "seeds."
    )
    assert "Better" in said(11)
    assert "lucky (+2.0), sure (+10.4)" in said(11)


def test_a_modality_alone_is_no_method_of_the_verdict() -> None:
    alone = Entry("audio alone", "unimodal", {"modality": "audio"})
    results = {
        **named(JOINT, {0: result(0.5), 1: result(0.5)}),
        **named(alone, {0: result(0.9), 1: result(0.9)}),
    }
    assert "audio" not in verdict(summarised([JOINT, alone], [0, 1], results, MODALITIES))


def whole(modalities: tuple[str, ...], seeds: int = 3, finished: int | None = None) -> list[Row]:
    entries = main_job(modalities)
    rng = np.random.default_rng(0)
    results = {
        run.name: result(float(rng.uniform(0.5, 1)), modalities=modalities)
        for run in planned(entries, range(seeds))[:finished]
    }
    return summarised(entries, range(seeds), results, modalities)


@pytest.mark.parametrize(
    "modalities",
    [
        ("accelerometer", "gyroscope"),
        ("pix", "mor", "fou"),
        ("fac", "fou", "kar", "mor", "pix", "zer"),
        ("visual-left", "visual-right"),
        tuple(f"sensor-number-{n}" for n in range(9)),
    ],
)
@pytest.mark.parametrize("finished", [None, 20])
def test_tables_fit_into_80_columns_and_lose_nothing(
    modalities: tuple[str, ...], finished: int | None
) -> None:
    from rich.console import Console

    rows = whole(modalities, finished=finished)
    console = Console(width=80, record=True, force_terminal=False)
    with console.capture() as captured:
        for table in for_terminal(rows, modalities):
            console.print(table)
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for row in rows:
        assert f"{row.accuracy}" in text
        for name, each in row.modalities.items():
            assert f"{100 * each.mean:.1f}" in text, name
    assert ("seeds" in text) == any(row.missing for row in rows)


def test_names_are_cut_only_where_they_stay_different() -> None:
    (one,) = for_terminal(whole(("accelerometer", "gyroscope")), ("accelerometer", "gyroscope"))
    assert [column.header for column in one.columns][3:] == ["accel.", "gyros."]
    first, second = for_terminal(whole(names := ("visual-left", "visual-right")), names)
    assert [column.header for column in second.columns] == ["method", *names]
    assert len(first.columns) == 3


def test_markdown_and_csv_hold_all_rows() -> None:
    rows = whole(("pix", "mor"))
    lines = markdown(rows, ("pix", "mor")).splitlines()
    assert lines[0] == "| method | accuracy | against joint | pix | mor |"
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {6}
    table = [line.split(",") for line in as_csv(rows, ("pix", "mor")).splitlines()]
    assert len(table) == 1 + 3 * len(rows)
    assert {len(line) for line in table} == {8}
    first = rows[0].results[0]
    assert table[1][:2] == ["pix alone", "0"]
    assert float(table[1][4]) == pytest.approx(first.test["accuracy"], abs=1e-4)
    assert table[1][7] == ""  # mor plays no part in the model of pix
