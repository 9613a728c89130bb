"""The reference trainer: the loop of the design within Lightning, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F

import equimodal as eq
from equimodal import data
from equimodal.training import Result, Settings, fit, model_for
from equimodal.training.module import BalancedModule

SPLITS = data.load("mfeat", modalities=("pix", "mor", "fou"))
QUICK = Settings(epochs=3, batch_size=200)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def by_hand(method: eq.Method, settings: Settings, epochs: int) -> torch.Tensor:
    """The loop of the design in plain torch."""
    settings = settings.suited("mfeat")
    model = model_for(SPLITS, seed=settings.seed)
    optimizer = settings.make_optimizer(model)
    balancer = eq.Balancer(
        method, model, dict(model.encoders.items()), model.head, optimizer, seed=settings.seed
    )
    order = data.Order(SPLITS.train, settings.seed, shuffle=True)
    loader = torch.utils.data.DataLoader(
        SPLITS.train, settings.batch_size, sampler=order, collate_fn=SPLITS.train.collate
    )
    for epoch in range(epochs):
        order.set_epoch(epoch)
        batches = list(loader)
        for first in range(0, len(batches), settings.accumulate):
            group = batches[first : first + settings.accumulate]
            for *inputs, target in group:
                loss = balancer.loss(model(*inputs), target)
                balancer.backward(loss / settings.accumulate)
            balancer.modulate()
            if settings.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
    return weights(model)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (lambda: eq.OGMGE(0.8), QUICK),
        (lambda: eq.OGMGE(0.8, space="update"), replace(QUICK, optimizer="adamw")),
        (lambda: eq.OGM(0.8), replace(QUICK, accumulate=2, clip=0.5)),
        (eq.MultiLoss, QUICK),
    ],
)
def test_lightning_runs_the_loop_of_the_design(make: Any, settings: Settings) -> None:
    model = model_for(SPLITS, seed=settings.seed)
    trained: list[torch.Tensor] = []

    class Keep(L.Callback):
        def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            trained.append(weights(model))

    fit(SPLITS, make(), settings, model, callbacks=[Keep()])
    assert torch.equal(trained[0], by_hand(make(), settings, 3))


class Stop(L.Callback):
    """Breaks off as Ctrl-C does, in the middle of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.where = (epoch, batch)

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        if (trainer.current_epoch, rest[-1]) == self.where:
            raise KeyboardInterrupt


@pytest.mark.parametrize("make", [lambda: eq.OGMGE(0.8, smoothing=0.9), eq.MultiLoss, eq.Ensemble])
def test_resumed_equals_uninterrupted(make: Any, tmp_path: Path) -> None:
    straight = fit(SPLITS, make(), QUICK, out=tmp_path / "straight", tensorboard=False)
    with pytest.raises(KeyboardInterrupt):
        fit(
            SPLITS,
            make(),
            QUICK,
            out=tmp_path / "broken",
            callbacks=[Stop(1, 3)],
            tensorboard=False,
        )
    assert not (tmp_path / "broken" / "result.json").exists()
    resumed = fit(SPLITS, make(), QUICK, out=tmp_path / "broken", resume=True, tensorboard=False)
    assert resumed.history == straight.history
    assert resumed.test == straight.test
    assert resumed.operations == straight.operations > 0


def test_a_run_goes_on_from_its_last_epoch_not_from_its_best(tmp_path: Path) -> None:
    settings = replace(QUICK, epochs=4, lr=0.7, clip=1.0)  # too much to get better
    straight = fit(SPLITS, eq.Joint(), settings, out=tmp_path / "straight", tensorboard=False)
    assert straight.best_epoch < 2
    with pytest.raises(KeyboardInterrupt):
        fit(SPLITS, eq.Joint(), settings, out=tmp_path / "broken", callbacks=[Stop(3, 0)])
    begun: list[int] = []

    class Note(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            begun.append(trainer.current_epoch)

    resumed = fit(
        SPLITS, eq.Joint(), settings, out=tmp_path / "broken", resume=True, callbacks=[Note()]
    )
    assert begun == [3]
    assert str(resumed.history) == str(straight.history)  # in which ratios may be NaN
    assert resumed.test == straight.test


def test_a_checkpoint_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"PK\x03\x04 cut off")
    result = fit(SPLITS, eq.Joint(), QUICK, out=tmp_path, resume=True, tensorboard=False)
    assert len(result.history) == 3


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    first = fit(SPLITS, eq.Joint(), QUICK, out=tmp_path, tensorboard=False)
    with pytest.raises(eq.SetupError, match="holds a run already"):
        fit(SPLITS, eq.Joint(), QUICK, out=tmp_path)
    assert fit(SPLITS, eq.Joint(), QUICK, out=tmp_path, resume=True) == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": eq.OGM(0.1)}, "a run with method Joint"),
        ({"settings": replace(QUICK, epochs=4)}, "settings epochs 3, this one has epochs 4:"),
        ({"model": model_for(SPLITS, "film")}, "model head Concat"),
        ({"splits": data.load("mfeat", modalities=("pix", "mor"))}, "pix, mor, fou, this one has"),
    ],
)
def test_another_run_is_not_resumed(change: Any, message: str, tmp_path: Path) -> None:
    given: Any = {"splits": SPLITS, "method": eq.Joint(), "settings": QUICK}
    with pytest.raises(KeyboardInterrupt):
        fit(**given, out=tmp_path, callbacks=[Stop(1, 0)], tensorboard=False)
    held = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(eq.SetupError, match=message):
        fit(**(given | change), out=tmp_path, resume=True)
    assert held == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


def test_what_cannot_be_attached_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(eq.SetupError, match="unknown modality 'nope'"):
        fit(SPLITS, eq.Unimodal("nope"), QUICK, out=tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_interruptions_are_heard_again_after_one(tmp_path: Path) -> None:
    heard = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(SPLITS, eq.Joint(), QUICK, callbacks=[Stop(0, 0)])
    assert signal.getsignal(signal.SIGINT) == heard


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    result = fit(SPLITS, eq.OGMGE(0.8), QUICK, out=tmp_path)
    assert Result.load(tmp_path / "result.json") == result
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    assert list((tmp_path / "tensorboard").glob("events*"))
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        columns = set(csv.DictReader(file).fieldnames or ())
    for name in ("pix", "mor", "fou"):
        for what in (
            "evidence",
            "ratio",
            "coefficient",
            "gradient_norm",
            "update_norm",
            "update_ratio",
        ):
            assert f"train/{what}/{name}" in columns
        assert {f"val/accuracy/{name}", f"test/accuracy/{name}"} <= columns
    assert {
        "train/loss/joint",
        "val/loss",
        "val/accuracy",
        "val/macro_f1",
        "test/accuracy",
    } <= columns
    assert result.fingerprint == SPLITS.fingerprint
    assert result.versions["torch"] == torch.__version__
    assert json.loads((tmp_path / "result.json").read_text())["settings"]["lr"] == 0.05
    assert not list(tmp_path.rglob("*partial*"))


def test_the_epoch_is_chosen_by_validation_and_test_is_touched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []
    evaluate = BalancedModule._evaluate

    def watched(self: BalancedModule, batch: Any, stage: str) -> None:
        stages.append(stage)
        evaluate(self, batch, stage)

    monkeypatch.setattr(BalancedModule, "_evaluate", watched)
    model = model_for(SPLITS)
    result = fit(SPLITS, eq.Joint(), replace(QUICK, epochs=6, lr=0.2), model, out=tmp_path)
    assert stages == ["val"] * 6 + ["test"]  # one batch holds either split
    accuracies = [epoch["val/accuracy"] for epoch in result.history]
    assert result.best_epoch == accuracies.index(max(accuracies))
    assert result.val["accuracy"] == max(accuracies)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    model.load_state_dict({k[6:]: v for k, v in best.items() if k.startswith("model.")})
    model.eval()
    with torch.no_grad():
        logits = model(*SPLITS.test.features.values())
    accuracy = (logits.argmax(1) == SPLITS.test.target).double().mean().item()
    assert result.test["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    right = (logits.argmax(1) == SPLITS.test.target).tolist()
    assert result.right == "".join("01"[each] for each in right)
    assert result.test["loss"] == pytest.approx(
        F.cross_entropy(logits, SPLITS.test.target).item(), rel=1e-4
    )


@pytest.mark.parametrize("precision", ["bf16", "16"])
@pytest.mark.parametrize("make", [lambda: eq.OGMGE(0.8), eq.MultiLoss])
def test_mixed_precision(precision: Any, make: Any) -> None:
    result = fit(SPLITS, make(), replace(QUICK, precision=precision, epochs=4))
    assert result.test["accuracy"] > 0.6


@pytest.mark.parametrize("name", ["watch", "mfeat"])
@pytest.mark.parametrize("fusion", ["concat", "sum", "late-average", "film", "gated"])
def test_a_model_for_every_data_set_and_fusion(name: str, fusion: Any) -> None:
    splits = data.load(name)
    model = model_for(splits, fusion, seed=1)
    inputs = [feature[:5] for feature in splits.train.features.values()]
    assert model(*inputs).shape == (5, len(splits.classes))
    assert torch.equal(weights(model), weights(model_for(splits, fusion, seed=1)))
    assert not torch.equal(weights(model), weights(model_for(splits, fusion, seed=2)))


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"batch_size": 0}, {"lr": -1.0}, {"clip": float("nan")}, {"accumulate": 0}],
)
def test_settings_out_of_range_are_refused(change: Any) -> None:
    with pytest.raises(eq.SetupError, match=next(iter(change))):
        replace(QUICK, **change)


def test_orders_follow_from_seed_and_epoch() -> None:
    order = data.Order(range(50), seed=3, shuffle=True)
    first = list(order)
    assert sorted(first) == list(range(50))
    assert list(order) != first  # the next epoch's
    order.set_epoch(0)
    assert list(order) == first
    assert list(data.Order(range(50), seed=4, shuffle=True)) != first
