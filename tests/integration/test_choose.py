"""A stranger's model is chosen for: from Python, by command, killed, extended, and used after."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import equimodal as eq
from equimodal import data
from equimodal.choosing import Choice, choose, predictions
from equimodal.choosing.build import build_of
from equimodal.choosing.candidate import candidates, trials
from equimodal.choosing.late import weighed
from equimodal.choosing.seeds import seed_all, seed_epoch
from equimodal.choosing.train import train
from equimodal.choosing.words import line
from equimodal.cli import main
from equimodal.methods import teachers_of
from equimodal.tasks import lock as locks
from equimodal.tasks import locked
from equimodal.training import Settings
from support import stranger

SAID: list[str] = []
FEW = ["arl", "ogm+multi-loss"]
TESTS = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(TESTS)]),
    "OMP_NUM_THREADS": "1",
}


def results(folder: Path) -> dict[str, Any]:
    """What every training came to, but for its duration."""
    found = {}
    for path in folder.glob("runs/*/result.json"):
        found[path.parent.name] = {**json.loads(path.read_text()), "seconds": 0}
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Choice:
    folder = tmp_path_factory.mktemp("whole")
    return choose(
        "support.stranger:build", folder, budget=80, methods=FEW, workers=2, say=SAID.append
    )


def test_what_is_said_and_left_behind(whole: Choice) -> None:
    assert "trainings: baselines 6 x 3; race 2 x 3" in SAID[0]
    assert "Only 120 validation samples" in SAID[1]
    known = json.loads((whole.folder / "choice.json").read_text())
    assert known["method"] == whole.method
    assert known["text"] == whole.text
    assert whole.text.startswith(("Use ", "Stay with joint", "One modality is enough"))
    assert whole.line.startswith("eq.Balancer(")
    table = (whole.folder / "table.md").read_text()
    for label in ("joint", "multi-loss", "ensemble", "late fusion", "sound alone", *FEW):
        assert f"| {label} |" in table
    assert "| cost | trainings | spent |" in table
    assert whole.costs["joint"].training == 1.0
    assert sum(each.trainings for each in whole.costs.values()) == int(SAID[0].split()[0])
    assert known["costs"]["arl"]["spent"] == whole.costs["arl"].spent
    html = (whole.folder / "choice.html").read_text()
    assert whole.text.split(":")[0] in html
    assert html.count("<tr") > 8
    assert len(results(whole.folder)) == int(SAID[0].split()[0])
    kept = {path.parent.name for path in whole.folder.glob("runs/*/best.pt")}
    assert kept == {name for name in results(whole.folder) if name.endswith("-kept")}
    assert not list(whole.folder.rglob("last.pt"))
    assert (whole.difference is None) == (whole.method == "joint")


def by_hand(
    pasted: str, rate: float, seed: int, built_by: Callable[[], dict[str, Any]]
) -> tuple[eq.Balancer, dict[str, Any], list[float]]:
    """Paste the line into a plain loop of one's own; return all, and scores of validation data."""
    teachers = None
    if "teachers=teachers" in pasted:
        alone = re.sub(r"eq.Balancer\(.*?\), model", "eq.Balancer(eq.Ensemble(), model", pasted)
        taught, theirs, _ = by_hand(alone, rate, seed, built_by)
        teachers = teachers_of(taught, next(iter(theirs["val"])))
        taught.detach()
    seed_all(seed)
    built = {**built_by(), "teachers": teachers}
    model, several = built["model"], isinstance(built["optimizer"], list)
    optimizers = built["optimizer"] if several else [built["optimizer"]]
    for each in optimizers:
        for group in each.param_groups:
            group["lr"] *= rate
    schedules = built["schedule"](optimizers) if "schedule" in built else []
    steps = built.get("schedule_every") == "step"
    kind = {"bf16": torch.bfloat16, "16": torch.float16}.get(built.get("precision", "32"))
    scaler = torch.amp.GradScaler("cpu", enabled=kind is torch.float16)
    balancer = eval(pasted, {"eq": eq, **built})
    scores: list[float] = []
    best: Any = None
    for epoch in range(built["epochs"]):
        seed_epoch(seed, epoch, built["train"])
        model.train()
        for batch in balancer.batches(built["train"]):
            for _ in balancer.passes():
                with torch.autocast("cpu", kind, enabled=kind is not None):
                    logits, target = built["forward"](model, batch)
                    loss = balancer.loss(logits, target)
                balancer.backward(scaler.scale(loss))
            for each in optimizers:
                scaler.unscale_(each)
            balancer.modulate()
            if "clip" in built:
                torch.nn.utils.clip_grad_norm_(model.parameters(), built["clip"])
            for each in optimizers:
                scaler.step(each)
                each.zero_grad()
            scaler.update()
            for schedule in schedules if steps else ():
                schedule.step()
        for schedule in () if steps else schedules:
            schedule.step()
        scores.append(score(balancer, built, "val"))
        if scores[-1] == max(scores) and scores.count(scores[-1]) == 1:
            best = copy.deepcopy((model.state_dict(), balancer.state_dict()))
        balancer.end_epoch()
    model.load_state_dict(best[0])
    balancer.load_state_dict(best[1])
    return balancer, built, scores


def score(balancer: eq.Balancer, built: dict[str, Any], split: str, weights: Any = None) -> float:
    balancer.attached.model.eval()
    answer = balancer.predict
    if weights:  # of late fusion
        criterion = built.get("criterion", torch.nn.functional.cross_entropy)

        def answer(batch: Any) -> torch.Tensor:
            return weighed(balancer.evaluate(batch)[1], weights, criterion)

    with torch.no_grad():
        answers = [built["forward"](answer, batch) for batch in built[split]]
    outputs, targets = (torch.cat(each) for each in zip(*answers, strict=True))
    if "score" in built:
        return float(built["score"](outputs.float(), targets))
    return -float((outputs - targets).square().double().mean())


def retrained(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train by the line of a choice, and return what is recorded and what came of it."""
    known = json.loads((folder / "choice.json").read_text())
    function = getattr(stranger, name)
    threads = torch.get_num_threads()
    torch.set_num_threads(known["threads"])
    try:
        balancer, built, scores = by_hand(
            known["line"], known["rate"], known["seed"],
            (lambda: function(fold=known["seed"] % 5)) if name == "folding" else function,
        )  # fmt: skip
        with balancer:
            test = score(balancer, built, "test", known["weights"])
    finally:
        torch.set_num_threads(threads)
    place = known["seed"] - 1000
    recorded = {"val": known["val"][known["method"]][place],
                "test": known["test"][known["method"]][place]}  # fmt: skip
    # With weights of late fusion the recorded score of validation data is that of the mixture.
    found = {"val": recorded["val"] if known["weights"] else max(scores), "test": test}
    return recorded, found


@pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")  # AdamW
def test_the_line_of_the_choice_trains_to_the_same_numbers(whole: Choice) -> None:
    recorded, found = retrained(whole.folder, "build")
    assert found == recorded
    assert "forward=forward" in whole.line
    assert f"seed={whole.seed})" in whole.line


@pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")  # AdamW
@pytest.mark.parametrize("label", ["joint", "multi-loss", *FEW])
def test_the_line_of_any_row_trains_to_the_same_numbers(whole: Choice, label: str) -> None:
    names = [name for name in results(whole.folder) if name.startswith(f"{label}-")]
    said = results(whole.folder)[max(names, key=lambda name: name.endswith("-kept"))]
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    try:
        methods = [tuple(each) for each in said["methods"]]
        pasted = line(methods, said["rate"], 3, said["seed"], ["forward"])
        balancer, _, scores = by_hand(pasted, said["rate"], said["seed"], stranger.build)
        balancer.detach()
    finally:
        torch.set_num_threads(threads)
    assert scores == said["history"]


@pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")  # AdamW
@pytest.mark.parametrize("name", ["g2d", "pmr", "masam"])
def test_a_line_with_teachers_loaders_or_second_passes_does_too(name: str, tmp_path: Path) -> None:
    (candidate,) = candidates(3, [name])
    methods = trials(candidate, 1, ["sound", "picture"])[0].methods()
    spec = {
        "build": "support.stranger:build", "path": None, "threads": 1, "methods": methods,
        "rate": 0.5, "seed": 7, "late": False, "keep": False,
    }  # fmt: skip
    train(spec, tmp_path)
    said = json.loads((tmp_path / "result.json").read_text())
    pasted = line(methods, 0.5, 3, 7, ["forward"])
    balancer, _, scores = by_hand(pasted, 0.5, 7, stranger.build)
    balancer.detach()
    assert scores == said["history"]


def test_the_model_answers_as_it_did(whole: Choice, capsys: pytest.CaptureFixture[str]) -> None:
    known = json.loads((whole.folder / "choice.json").read_text())
    outputs, targets = predictions(whole.folder)
    assert float(stranger.macro_recall(outputs, targets)) in known["test"][whole.method]
    if whole.method not in ("ensemble", "late fusion") and " alone" not in whole.method:
        with torch.no_grad():
            batches = [stranger.forward(whole.model, b)[0] for b in stranger.build()["test"]]
        assert torch.equal(torch.cat(batches).argmax(1), outputs.argmax(1))
    assert main(["predict", str(whole.folder), "--split=val"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 120
    assert set(rows[0]) == {"sample", "target", "class", "probability"}


def start(folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "equimodal", "choose", "support.stranger:build", "--budget=80",
        f"--methods=[{', '.join(FEW)}]", "--workers=2", f"--out={folder}",
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=ENVIRONMENT, cwd=TESTS,
    )  # fmt: skip


def test_killed_and_interrupted_it_ends_with_the_same_choice(whole: Choice, tmp_path: Path) -> None:
    rng = random.Random(0)
    for stop in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        before = len(results(tmp_path))
        process = start(tmp_path)
        end = time.monotonic() + 120
        while len(results(tmp_path)) < before + 3 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3 * rng.random())
        assert process.poll() is None
        if stop == signal.SIGINT:
            os.killpg(process.pid, stop)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 130
            assert "Traceback" not in err
            assert err.splitlines()[-1] == (
                "equimodal choose: interrupted: the same command goes on"
            )
        else:
            process.kill()
            process.communicate()
    process = start(tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert results(tmp_path) == results(whole.folder)
    assert whole.text in out
    assert whole.line in out


def test_more_methods_add_to_what_is_there(whole: Choice) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.folder.glob("runs/*/result.json")}
    choose(
        "support.stranger:build", whole.folder, budget=110, methods=[*FEW, "ge"], workers=2,
        say=SAID.append,
    )  # fmt: skip
    after = {p: p.stat().st_mtime_ns for p in whole.folder.glob("runs/*/result.json")}
    assert before.items() <= after.items()
    assert any(p.parent.name.startswith("ge-") for p in after)


def test_a_number_is_predicted_by_command_and_what_cannot_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TESTS)
    command = ["choose", "support.stranger:regression", "--workers=2", f"--out={tmp_path}"]
    assert main([*command, "--budget=70", "--methods=[mmpareto]"]) == 0
    out, _ = capsys.readouterr()
    known = json.loads((tmp_path / "choice.json").read_text())
    assert known["line"] in out
    assert "forward=forward, criterion=criterion" in known["line"]
    outputs, targets = predictions(tmp_path)
    error = -float((outputs - targets).double().square().mean())
    assert any(error == pytest.approx(value) for value in known["test"][known["method"]])
    recorded, found = retrained(tmp_path, "regression")
    assert found == pytest.approx(recorded, rel=1e-6)
    assert main([*command, "--methods=[pmr]"]) == 2
    _, err = capsys.readouterr()
    assert "pmr cannot run here: PMR is defined for one class" in err


@pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")  # AdamW
def test_every_seed_holds_out_another_fold_in_half_precision(tmp_path: Path) -> None:
    said: list[str] = []
    choice = choose(
        "support.stranger:folding",
        tmp_path,
        budget=60,
        methods=["ogm"],
        workers=2,
        say=said.append,
    )
    assert said[1].endswith("holds out another of 5 folds of your training and validation data: "
                            "choices rest on all of it.")  # fmt: skip
    assert choice.trained.spec["folds"] == 5
    assert len(predictions(tmp_path, "val")[0]) == 72  # a fifth of 360
    recorded, found = retrained(tmp_path, "folding")
    assert found == pytest.approx(recorded, rel=1e-6)


def test_a_data_set_is_chosen_for_with_a_small_model_and_teachers(tmp_path: Path) -> None:
    source = data.Source("mfeat", {"modalities": ("mor", "fou")})
    settings = Settings(epochs=1, batch_size=400)
    choice = choose(
        source, tmp_path, budget=80, methods=["g2d"], workers=2, settings=settings, say=SAID.append
    )
    assert "| g2d |" in (tmp_path / "table.md").read_text()
    assert choice.model is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["support.nothing:build"], "no module support.nothing"),
        (["support.stranger:Pairs"], "expected a function without arguments"),
        (["support.stranger:build", "--budget=5"], "--budget: expected .* found 5"),
        (["support.stranger:build", "--budget=90", "--hours=1"], "expected --budget or --hours"),
        (["support.stranger:build", "--modalities=[a, b]"], "--modalities is for data sets"),
        (["support.stranger:build", "--methods=[ogn]"], "did you mean 'ogm'"),
        (["support.stranger:build", "--partition=x"], "--partition is for --engine slurm"),
        (["support.stranger:build", "--limit=0"], "--limit: expected minutes above 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    given: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(TESTS)
    assert main(["choose", *given, "--workers=1", f"--out={tmp_path / 'out'}"]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert err.count("\n") == 1


def test_a_second_one_and_a_function_that_leaves_things_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with (
        locked(tmp_path / ".equimodal.lock", "held"),
        pytest.raises(eq.SetupError, match="another process is at work in it"),
    ):
        choose("support.stranger:build", tmp_path, workers=1)
    made = stranger.build()
    made.pop("epochs")
    monkeypatch.setattr(stranger, "build", lambda: made)
    with pytest.raises(eq.SetupError, match=r"missing epochs \(how many\)"):
        build_of("support.stranger:build", 0)
    made |= {"epochs": 3, "shedule": None}
    with pytest.raises(eq.SetupError, match="did you mean 'schedule'"):
        build_of("support.stranger:build", 0)
    made.pop("shedule")
    made["test"] = made["val"]
    with pytest.raises(eq.SetupError, match="val and test are one loader"):
        build_of("support.stranger:build", 0)
