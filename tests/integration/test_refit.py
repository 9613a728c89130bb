"""After the choice of the epoch: anew on training and validation data, up to that epoch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import equimodal as eq
from equimodal import data
from equimodal.cli import main
from equimodal.training import Settings, fit, model_for, refit

SPLITS = data.load("mfeat", modalities=("pix", "mor"))
SETTINGS = Settings(epochs=3, batch_size=300, lr=0.05)


def trained(out: Path, epochs: list[int]) -> dict[str, torch.Tensor]:
    """Train by hand on both splits, in the order of a run, and return the model's state."""
    settings = SETTINGS.suited("mfeat")
    model = model_for(SPLITS, seed=0)
    optimizer = settings.make_optimizer(model)
    both = SPLITS.refitted().train
    balancer = eq.Balancer(
        eq.OGM(0.5), model, dict(model.encoders.items()), model.head, optimizer, seed=0
    )
    loader = both.loader(settings.batch_size, shuffle=True, seed=0)
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        for *inputs, target in loader:
            balancer.backward(balancer.loss(model(*inputs), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
    return model.state_dict()


def test_it_is_a_loop_over_both_splits_that_ends_at_the_epoch(tmp_path: Path) -> None:
    chosen = fit(SPLITS, eq.OGM(0.5), SETTINGS, model_for(SPLITS, seed=0))
    model = model_for(SPLITS, seed=0)
    out = tmp_path / "refit"
    again = refit(SPLITS, eq.OGM(0.5), SETTINGS, model, chosen, out=out)
    assert again.best_epoch == chosen.best_epoch
    assert len(again.history) == chosen.best_epoch + 1
    assert again.val == {}
    kept = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    expected = trained(out, list(range(chosen.best_epoch + 1)))
    for name, value in expected.items():
        assert torch.allclose(kept[f"model.{name}"], value, atol=1e-5), name
    assert again.fingerprint != chosen.fingerprint


def test_both_splits_are_trained_on_and_each_sample_once() -> None:
    joined = SPLITS.refitted()
    assert len(joined.train) == len(SPLITS.train) + len(SPLITS.val)
    assert joined.train.names == SPLITS.train.names + SPLITS.val.names
    assert torch.equal(joined.train[len(SPLITS.train)][0], SPLITS.val[0][0])
    assert joined.test is SPLITS.test


def test_the_command_reports_both_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", "mfeat", "--modalities", "[pix, mor]", "--method", "ogm", "--epochs", "2"]
    command += ["--refit", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "trained anew on training and validation data, up to epoch" in said
    assert said.count("test accuracy") == 2
    first, second = (
        json.loads((folder / "result.json").read_text()) for folder in (out, out / "refit")
    )
    assert second["best_epoch"] == first["best_epoch"]
    assert main([*command, "--resume"]) == 0
    assert capsys.readouterr().out == said


def test_a_method_that_needs_validation_data_is_refused_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["train", "mfeat", "--method", "gradient-blending", "--epochs", "1", "--refit"]
    assert main(command) == 2
    assert "refit: GradientBlending needs validation data of its own" in capsys.readouterr().err
