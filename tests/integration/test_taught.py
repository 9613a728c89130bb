"""Methods that need teachers, from the command and in Python: interrupted, killed, resumed."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

import equimodal as eq
from equimodal import data
from equimodal.cli import main
from equimodal.compare import Comparison, Entry, rows_of
from equimodal.compare import candidates as module
from equimodal.compare.task import task_of
from equimodal.compare.teaching import teachers_of_seed
from equimodal.methods.supplied import Recipe, supplied
from equimodal.tasks import HOLD
from equimodal.tasks.task import DONE, perform
from equimodal.training import Settings, fit, model_for, train_teachers
from equimodal.training.models import describe
from equimodal.training.module import BalancedModule

command: Any = importlib.import_module("equimodal.cli.train")
MODALITIES = ("pix", "mor", "fou")
SPLITS = data.load("mfeat", modalities=MODALITIES)
QUICK = Settings(epochs=3, batch_size=200)
G2D = [
    "train", "mfeat", "--modalities=[pix, mor, fou]", "--method=g2d", "--epochs=3",
    "--batch-size=200",
]  # fmt: skip


def same(ours: Mapping[str, nn.Module], theirs: Mapping[str, nn.Module]) -> bool:
    """Whether teachers are the same, bit for bit."""
    assert list(ours) == list(theirs) == list(MODALITIES)
    return all(
        torch.equal(value, theirs[name].state_dict()[key])
        for name, teacher in ours.items()
        for key, value in teacher.state_dict().items()
    )


def by_hand(settings: Settings) -> dict[str, eq.Teacher]:
    """Train the ensemble in the loop of the design, and take the teachers of its best epoch."""
    settings = settings.suited("mfeat")
    model = model_for(SPLITS, seed=settings.seed)
    optimizer = settings.make_optimizer(model)
    balancer = eq.Balancer(
        eq.Ensemble(),
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        seed=settings.seed,
        forward=lambda model, batch: (model(*batch[:-1]), batch[-1]),
    )
    loader = SPLITS.train.loader(settings.batch_size, shuffle=True, seed=settings.seed)
    best, found = -1.0, {}
    for epoch in range(settings.epochs or 0):
        loader.sampler.set_epoch(epoch)
        for *inputs, target in loader:
            balancer.backward(balancer.loss(model(*inputs), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
        model.eval()
        *inputs, target = next(iter(SPLITS.val.loader(512)))
        logits = balancer.predict(*inputs)
        accuracy = (logits.argmax(1) == target).double().mean().item()
        if accuracy > best:
            best = accuracy
            found = eq.teachers_of(balancer, next(iter(SPLITS.val.loader(8))))
        model.train()
    return found


class Stop(L.Callback):
    """Breaks off as Ctrl-C does, in the middle of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.where = (epoch, batch)

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        if (trainer.current_epoch, rest[-1]) == self.where:
            raise KeyboardInterrupt


def test_teachers_are_those_of_the_ensemble_at_its_best_epoch(tmp_path: Path) -> None:
    settings = replace(QUICK, lr=0.4)  # too much to get better in the end
    expected = by_hand(settings)
    model = model_for(SPLITS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        train_teachers(SPLITS, settings, model, out=tmp_path, callbacks=[Stop(1, 2)])
    found = train_teachers(SPLITS, settings, model, out=tmp_path, resume=True)
    best = json.loads((tmp_path / "result.json").read_text())["best_epoch"]
    assert best < 2
    assert same(found, expected)
    assert same(train_teachers(SPLITS, settings, out=tmp_path, resume=True), expected), "read again"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(eq.SetupError, match=r"best\.ckpt is missing, which holds the teachers: re"):
        train_teachers(SPLITS, settings, out=tmp_path, resume=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    held = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    return held["state_dict"]  # type: ignore[no-any-return]


def test_a_student_by_command_broken_off_and_resumed_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert main([*G2D, "--out", str(straight)]) == 0
    shown, log = capsys.readouterr()
    assert log.splitlines()[0] == (
        "first its teachers are trained: pix, mor, fou, each alone for 3 epochs"
    )
    assert [line.partition(" of")[0] for line in log.splitlines()[1:]] == [
        "teachers, epoch 1", "teachers, epoch 2", "teachers, epoch 3",
        "epoch 1", "epoch 2", "epoch 3",
    ]  # fmt: skip
    result = json.loads((straight / "result.json").read_text())
    assert result["method"].startswith("G2D(cached=False, gating=(0, 1), ")
    assert json.loads((straight / "run.json").read_text())["method"] == result["method"]

    stops = iter([Stop(1, 2), None, Stop(1, 3)])
    make, train = command.EpochLines, command.fit

    def between(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    def interrupted(*more: str) -> None:
        with pytest.raises(KeyboardInterrupt, match=r"go on with: equimodal train .* --resume$"):
            command.run([*G2D[1:], "--out", str(broken), *more])

    # While the teachers are trained, between them and the student, and while that is trained.
    monkeypatch.setattr(command, "EpochLines", lambda *given: next(stops) or make(*given))
    interrupted()
    assert not (broken / "run.json").exists()
    monkeypatch.setattr(command, "fit", between)
    interrupted("--resume")
    taught = (broken / "teachers" / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(command, "fit", train)
    monkeypatch.setattr(
        command, "EpochLines", lambda lines, who="": (who and make(lines)) or Stop(1, 3)
    )
    interrupted("--resume")
    monkeypatch.undo()
    capsys.readouterr()
    assert main([*G2D, "--out", str(broken), "--resume"]) == 0
    resumed, log = capsys.readouterr()
    assert resumed.replace("broken", "straight") == shown
    assert log.splitlines()[0] == f"the teachers are those in {broken / 'teachers'}"
    assert (broken / "teachers" / "result.json").stat().st_mtime_ns == taught
    again = json.loads((broken / "result.json").read_text())
    for what in ("history", "test", "val", "method", "best_epoch"):
        assert again[what] == result[what]
    for folder in (Path(), Path("teachers")):
        ours, theirs = weights(broken / folder), weights(straight / folder)
        assert list(ours) == list(theirs)
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_what_is_refused_is_refused_before_teachers_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = [*G2D[:3], "--method=umt", "--epochs=1", "--batch-size=400"]

    def refused(*arguments: str) -> str:
        assert main([*taught, *arguments]) == 2
        return capsys.readouterr().err

    out = tmp_path / "new"
    assert "--method.weight: expected a number of 0 or more" in refused(
        "--method.weight=-1", "--out", str(out)
    )
    assert "unknown option of umt 'teachers'" in refused("--method.teachers=1", "--out", str(out))
    assert not out.exists()
    other = tmp_path / "other"
    fit(SPLITS, eq.Joint(), replace(QUICK, epochs=1), out=other, tensorboard=False)
    for more in ([], ["--resume"]):
        assert f"{other} holds a run without teachers: name another folder" in refused(
            "--out", str(other), *more
        )
    assert not (other / "teachers").exists()
    out.mkdir()
    (out / "comparison.json").write_text("{}")
    assert "holds a comparison, not a run" in refused("--out", str(out))
    assert {path.name for path in out.iterdir()} == {HOLD, "comparison.json"}


class Theirs(eq.Method):
    """A taught method of somebody else, that shares nothing with ours but an argument's name."""

    name = "theirs"
    by_epochs = {"last": lambda epochs: epochs - 1}  # noqa: RUF012

    def __init__(self, strength: float = 1.0, *, teachers: Any, last: int) -> None:
        super().__init__()
        self.strength, self.last = strength, last
        self._teachers = dict(teachers)


def test_a_method_of_somebody_else_is_taught_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supplied(Theirs) == {"teachers", "last"}
    made = Recipe(Theirs, {"strength": 2.0}).make(7, MODALITIES, lambda: {"pix": nn.Identity()})
    assert isinstance(made, Theirs)
    assert (made.strength, made.last, list(made._teachers)) == (2.0, 6, ["pix"])
    chosen = Recipe(Theirs, {"last": 2}).make(7, MODALITIES, dict)
    assert isinstance(chosen, Theirs)
    assert chosen.last == 2
    known = {**eq.methods.available(), "theirs": Theirs}
    monkeypatch.setattr(module, "available", lambda: known)
    monkeypatch.setattr(module, "find", known.__getitem__)
    monkeypatch.setattr("equimodal.compare.runs.find", known.__getitem__)
    entries, _ = rows_of(["theirs"], SPLITS, settings=QUICK)
    assert entries[-1] == Entry("theirs", "theirs", {"last": 2})


def test_runs_of_a_seed_share_their_teachers_whoever_comes_first(tmp_path: Path) -> None:
    """Two processes at once, and this one in another order."""
    settings = replace(QUICK, epochs=2)
    entries = [Entry("umt", "umt"), Entry("g2d", "g2d", {"gating": [0, 0]})]
    both = Comparison("mfeat", entries, tmp_path / "both", [0], settings, MODALITIES)
    assert both.run(2) == {}
    own, threads = tmp_path / "own", max(1, (os.cpu_count() or 1) // 2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for run in reversed(both.runs):
            task = task_of(run, both.source, both.settings, own, threads=threads)
            assert perform(task) == DONE
    finally:
        torch.set_num_threads(before)
    for name in (run.name for run in both.runs):
        ours, theirs = (
            json.loads((folder / "runs" / name / "result.json").read_text())
            for folder in (own, both.folder)
        )
        assert ours["history"] == theirs["history"]
        assert ours["test"] == theirs["test"]
    for folder in (own, both.folder):
        taught = folder / "teachers" / "seed-0"
        assert len(json.loads((taught / "result.json").read_text())["history"]) == 2
        assert [path.name for path in (taught / "checkpoints").iterdir()] == ["best.ckpt"]
    assert [row.label for row in both.rows()] == ["umt", "g2d"]
    assert both.write()


def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


LONG = replace(QUICK, epochs=8, batch_size=50, seed=3)


def teach(folder: Path) -> None:
    torch.set_num_threads(1)
    teachers_of_seed(SPLITS, LONG, model_for(SPLITS, seed=3), folder)


def test_whoever_waits_for_teachers_goes_on_where_the_other_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    begin = BalancedModule.on_train_epoch_start

    def noted(self: BalancedModule) -> None:
        begun.append(self.current_epoch)
        begin(self)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = train_teachers(SPLITS, LONG)
        other = multiprocessing.get_context("spawn").Process(target=teach, args=(tmp_path,))
        other.start()
        own = tmp_path / "seed-3"
        until((own / "checkpoints" / "last.ckpt").exists)
        # It stands still, so that it cannot end before it is killed.
        os.kill(other.pid or 0, signal.SIGSTOP)
        assert not (own / "result.json").exists(), "it was too quick"
        killed = time.monotonic() + 0.5
        kill = threading.Timer(0.5, os.kill, (other.pid, signal.SIGKILL))
        kill.start()
        monkeypatch.setattr(BalancedModule, "on_train_epoch_start", noted)
        found = teachers_of_seed(SPLITS, LONG, model_for(SPLITS, seed=3), tmp_path)
        assert time.monotonic() > killed, "it did not wait"
        other.join()
        assert other.exitcode == -signal.SIGKILL
        assert same(found, expected)
        assert begun[0] > 0, "it began anew"
    finally:
        torch.set_num_threads(threads)


def test_a_model_of_their_own_is_the_students_too() -> None:
    settings = replace(QUICK, epochs=1)
    model = model_for(SPLITS, "film", encoder="plain")
    taught = train_teachers(SPLITS, settings, model)
    kind = describe(model)["pix"]
    assert kind == type(taught["pix"].encoder).__name__
    assert fit(SPLITS, eq.UMT(taught), settings, model).method == "UMT(cached=False, weight=10.0)"
