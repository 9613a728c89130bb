"""Comparing every method that can run: which can, why others cannot, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

import equimodal as eq
from equimodal import data
from equimodal.choosing.candidate import candidates
from equimodal.cli import main
from equimodal.compare import Entry, Run, main_job, rows_of
from equimodal.compare import candidates as module
from equimodal.compare.runs import chosen, with_rates
from equimodal.compare.task import task_of
from equimodal.report.plan import entries_of
from equimodal.training import Settings

SPLITS = data.load("mfeat", modalities=("pix", "mor", "fou"))


def test_every_method_has_a_row_or_a_reason() -> None:
    entries, lacking = rows_of(None, SPLITS, alphas=(0.1,))
    job = main_job(SPLITS.modalities, (0.1,))
    assert entries[: len(job)] == job
    assert {entry.method for entry in entries} | set(lacking) == set(eq.methods.available())
    assert "defined for 2 modalities, found 3" in lacking["greedy"]
    assert set(lacking) == {"greedy"}
    others = [entry.label for entry in entries[len(job) :]]
    assert others == sorted(others)


def test_two_modalities_do_not_make_gates() -> None:
    _, lacking = rows_of(None, data.load("watch"))
    assert "MMTM" in lacking["greedy"]


def test_what_has_no_default_follows_from_the_data_and_the_epochs() -> None:
    entries, _ = rows_of(["g2d", "mslr", "umt"], SPLITS, settings=Settings(epochs=9))
    *_, g2d, mslr, umt = entries
    assert g2d == Entry("g2d", "g2d", {"gating": [0, 4]})
    assert umt == Entry("umt", "umt")
    assert mslr.choices() == [
        {"factors": {name: factor}} for name in SPLITS.modalities for factor in (0.1, 0.3)
    ]
    names = [Run("mslr", "mslr", options, 0).name for options in mslr.choices()]
    assert names[1].startswith("mslr-factors.pix-0.3-seed-0-")
    assert len(set(names)) == 6


def test_named_methods_are_held_against_joint() -> None:
    entries, lacking = rows_of(["pmr", "unimodal", "ogm"], SPLITS, alphas=(0.1, 0.3))
    labels = [entry.label for entry in entries]
    assert labels == ["pix alone", "mor alone", "fou alone", "joint", "ogm", "pmr"]
    assert entries[4].grid == {"alpha": (0.1, 0.3)}
    assert not lacking


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("greedy", "greedy cannot be compared here: Greedy is defined for 2 modalities"),
        ("pmrr", "unknown method 'pmrr': did you mean 'pmr'?"),
    ],
)
def test_named_methods_that_cannot_run_are_refused(name: str, said: str) -> None:
    with pytest.raises(eq.SetupError) as caught:
        rows_of(["pmr", name], SPLITS)
    assert said in str(caught.value)


def test_how_it_is_trained_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Single(eq.Joint):
        name = "single"
        capabilities = eq.Capabilities(accumulation="refused", autocast=False)

    class Asks(eq.Method):
        name = "asks"

        def __init__(self, width: int) -> None:
            super().__init__()

    class Breaks(eq.Method):
        name = "breaks"

        def objective(self, step: eq.Step) -> dict[str, object]:  # type: ignore[override]
            raise eq.MatchError("no such features")

    known = {**eq.methods.available(), "single": Single, "breaks": Breaks, "asks": Asks}
    monkeypatch.setattr(module, "available", lambda: known)
    monkeypatch.setattr(module, "find", known.__getitem__)
    monkeypatch.setattr("equimodal.compare.runs.find", known.__getitem__)

    def reasons(settings: Settings) -> dict[str, str]:
        return rows_of(None, SPLITS, settings=settings)[1]

    assert "single" not in reasons(Settings())
    assert "cannot accumulate" in reasons(Settings(accumulate=2))["single"]
    assert "mixed precision" in reasons(Settings(precision="bf16"))["single"]
    assert reasons(Settings())["breaks"] == "no such features"
    assert reasons(Settings())["asks"] == "needs width"


COMMAND = ["compare", "mfeat", "--modalities=[pix, mor, fou]", "--epochs=1", "--batch-size=400"]


def test_the_command_says_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*COMMAND, "--seeds=1", "--workers=1", "--out", str(tmp_path / "out")]
    assert main([*command, "--methods=all", "--rows=[joint, sample-valuation]"]) == 0
    shown = capsys.readouterr().out
    assert "sample-valuation" in shown
    left_out = shown.split("Left out, as they do not run here with their defaults:\n")[1]
    assert left_out.startswith(f"  {'greedy':<24}Greedy is defined for 2 modalities, found 3")
    assert max(map(len, left_out.split("\n\n")[0].splitlines())) <= 80
    # Joint training is done already.
    assert main([*command, "--methods=[pmr]", "--rows=[joint]"]) == 0
    assert "Left out" not in capsys.readouterr().out
    # All methods and compositions; what it takes is said before it begins.
    assert main([*command, "--full", "--rows=[joint, ge+multi-loss]"]) == 0
    shown = capsys.readouterr()
    assert shown.out.split("ge+multi-loss")[1].split()[2] == "1.0", "its cost"
    assert " ".join(shown.err.split()).startswith(
        "2 runs: 2 rows (1 of them compositions) over 1 seed. Finished: 1. At the pace of joint "
        "training here, about 1 minute on 1 workers; more for rows that cost more. 1 of 2 runs"
    )
    assert max(map(len, shown.err.splitlines())) <= 80


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--methods=[greedy]", "greedy cannot be compared here: Greedy is defined for 2 modal"),
        ("--methods=[pmr, pmr]", "--methods: expected one or more, none twice, found pmr, pmr"),
        ("--methods=[]", "--methods: expected one or more"),
        ("--methods=[pmrr]", "did you mean 'pmr'?"),
        ("--methods=everything", "unknown method 'everything'"),
        ("--full --methods=all", "--full takes all methods: give --full or --methods, not both"),
    ],
)
def test_what_is_refused(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, *option.replace(" --", "\n--").split("\n")]) == 2
    assert said in capsys.readouterr().err


def test_compositions_are_rows_by_their_names() -> None:
    entries, lacking = rows_of(["ogm+multi-loss", "mmpareto"], SPLITS)
    assert lacking == {}
    by_label = {entry.label: entry for entry in entries}
    assert set(by_label) == {"joint", "ogm+multi-loss", "mmpareto"}
    pair = by_label["ogm+multi-loss"]
    run = Run(pair.label, pair.method, pair.choices()[0], 0)
    assert [method.name for method in run.make()] == ["ogm", "multi-loss"]
    with pytest.raises(
        eq.SetupError, match=r"mmpareto\+unimodal cannot be compared here: needs modality"
    ):
        rows_of(["mmpareto+unimodal"], SPLITS)
    with pytest.raises(eq.SetupError, match="did you mean 'ogm'"):
        rows_of(["ogn+multi-loss"], SPLITS)


def test_a_part_of_a_composition_has_the_choices_that_it_has_alone() -> None:
    (_, entry), _ = rows_of(["mslr+multi-loss"], SPLITS)
    (_, alone), _ = rows_of(["mslr"], SPLITS)
    assert entry.choices() == [{"mslr": options} for options in alone.choices()]
    assert len(entry.choices()) == 6
    runs = [Run(entry.label, entry.method, options, 0) for options in entry.choices()]
    assert entries_of(runs) == [entry], "the report finds the row again"
    assert chosen(entry.label, runs[1].options) == "mslr+multi-loss (pix 0.3)"
    assert runs[0].make()[0].factors == {"pix": 0.1}


def test_the_compositions_of_choosing_are_tried_beside_all_methods() -> None:
    names = [each.label for each in candidates(1) if len(each.methods) > 1]
    entries, lacking = rows_of(None, SPLITS, more=names)
    assert set(names) <= {entry.label for entry in entries}, lacking
    assert len({entry.label for entry in entries}) == len(entries)


def test_a_row_may_choose_its_learning_rate_too() -> None:
    entry = with_rates(Entry("ogm", "ogm", grid={"alpha": (0.1, 0.3)}), (0.01, 0.1))
    assert len(entry.choices()) == 4
    runs = [Run("ogm", "ogm", options, 0) for options in entry.choices()]
    assert len({run.name for run in runs}) == 4
    assert all(run.make()[0].name == "ogm" for run in runs)
    tasks = [task_of(run, data.Source("mfeat"), Settings(lr=0.5), Path("x")) for run in runs]
    assert {task.spec["settings"]["lr"] for task in tasks} == {0.01, 0.1}
