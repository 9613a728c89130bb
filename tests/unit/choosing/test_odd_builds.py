"""Functions that build something odd: right, or refused before trainings are spent on it."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal import data
from equimodal.choosing.anew import Anew
from equimodal.choosing.build import Build, build_of
from equimodal.choosing.late import weighed
from equimodal.choosing.probe import probe
from equimodal.choosing.train import train
from equimodal.choosing.training import Training
from equimodal.training import Settings
from support import stranger

SPEC: dict[str, Any] = {
    "build": "support.stranger:odd", "path": None, "threads": 1, "methods": [("joint", {})],
    "rate": 1.0, "seed": 0, "late": False, "keep": False,
}  # fmt: skip


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    monkeypatch.setattr(stranger, "ODD", changed)
    return changed


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_generator_ends_after_one_pass(odd: dict[str, Any]) -> None:
    odd["train"] = (batch for batch in [])
    with pytest.raises(eq.SetupError, match=r"train: expected what can be passed over every epoch"):
        build_of("support.stranger:odd", 0)


def test_scores_that_are_no_numbers(odd: dict[str, Any], tmp_path: Path) -> None:
    """An epoch without one is never the best; a training without any has failed."""
    calls: list[int] = []

    def now_and_then(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        return torch.tensor(float("nan") if len(calls) == 1 else 1 / len(calls))

    odd["score"] = now_and_then
    train(SPEC, tmp_path)
    text = (tmp_path / "result.json").read_text()
    assert '"best_epoch": 1' in text
    odd["score"] = lambda outputs, targets: torch.tensor(float("nan"))
    with pytest.raises(eq.SetupError, match="NaN in every epoch"):
        train(SPEC, made(tmp_path / "none"))


def test_a_loader_without_samples(odd: dict[str, Any], tmp_path: Path) -> None:
    odd["val"] = []
    with pytest.raises(eq.SetupError, match="found a loader without any"):
        train(SPEC, tmp_path)


def test_a_score_that_fails_is_found_before_trainings_are_spent(
    odd: dict[str, Any], tmp_path: Path
) -> None:
    odd["score"] = lambda outputs, targets: outputs.argmax(dim=1) == targets["label"]
    probe({**SPEC, "names": ["ogm"], "few": 0}, tmp_path)
    text = (tmp_path / "result.json").read_text()
    assert '"joint": "IndexError' in text or '"joint": "TypeError' in text


def test_a_forward_that_runs_parts_leaves_out_the_rule_of_a_method(
    odd: dict[str, Any], tmp_path: Path
) -> None:
    def forward(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        features = torch.cat([model.ears(batch["wav"]), model.eyes(batch["img"])], dim=1)
        return model.judge(features), batch["y"]

    odd["forward"] = forward
    train(SPEC, tmp_path)
    with pytest.raises(eq.MatchError, match=r"call model\(\.\.\.\)"):
        train({**SPEC, "methods": [("ensemble", {})]}, made(tmp_path / "ensemble"))


def test_several_labels_are_scored_as_labels() -> None:
    built = Build(nn.Identity(), {}, None, [], [], [], [], 1, criterion=nn.BCEWithLogitsLoss())
    outputs = torch.tensor([[3.0, -2.0], [0.5, 0.1]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert built.scored(outputs, targets).tolist() == [1.0, 0.5]
    alone = {"a": outputs, "v": -outputs}
    even = {"a": 0.5, "v": 0.5}
    assert torch.equal(weighed(alone, even, nn.BCEWithLogitsLoss()), torch.zeros(2, 2))
    assert not torch.equal(weighed(alone, even, F.cross_entropy), torch.zeros(2, 2))


def test_training_knows_when_answers_have_a_rule(odd: dict[str, Any], tmp_path: Path) -> None:
    for name, ruled in (("joint", False), ("ensemble", True)):
        trained = Training({**SPEC, "methods": [(name, {})]}, tmp_path)
        trained.balancer.detach()
        assert trained.ruled is ruled


@pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")  # AdamW
def test_the_probe_builds_and_loads_once(
    odd: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    loaded: list[str] = []
    original, load = stranger.odd, data.Source.load
    monkeypatch.setattr(stranger, "odd", lambda: made.append(original()) or made[-1])
    monkeypatch.setattr(data.Source, "load", lambda self: loaded.append(self.name) or load(self))
    names = ["ogm", "umt", "masam", "pmr"]  # of which one trains teachers, one moves weights
    probe({**SPEC, "names": names, "few": 0}, tmp_path)
    assert len(made) == 1
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["labels"] == names
    assert 0 < found["seconds"] < 60
    source = {"name": "mfeat", "options": {"modalities": ["mor", "fou"]}}
    settings = asdict(Settings(epochs=1, batch_size=400))
    ours = {"source": source, "settings": settings, "encoder": "small"}
    probe({**SPEC, "build": ours, "names": ["g2d"], "few": 900}, tmp_path)
    assert loaded == ["mfeat"]
    assert json.loads((tmp_path / "result.json").read_text())["folds"] == 5


@pytest.mark.filterwarnings("ignore:.*does not follow the size of gradients")  # AdamW
@pytest.mark.parametrize("name", ["ogm", "umt", "masam"])
def test_what_a_trial_has_changed_is_put_back(name: str, tmp_path: Path) -> None:
    make = Anew(build_of("support.stranger:odd", 0))
    before = copy.deepcopy(make.built.model.state_dict())
    groups = copy.deepcopy([each.state_dict()["param_groups"] for each in make.built.optimizers])
    trained = Training(
        {**SPEC, "methods": [(name, {})], "rate": 2.0, "tried": True}, tmp_path, make
    )
    trained.take(2)
    trained.balancer.detach()
    assert any(not torch.equal(before[n], v) for n, v in make.built.model.state_dict().items())
    built = make()
    assert all(torch.equal(before[n], value) for n, value in built.model.state_dict().items())
    for optimizer, was in zip(built.optimizers, groups, strict=True):
        assert not optimizer.state_dict()["state"]
        assert optimizer.state_dict()["param_groups"] == was
    assert all(each.grad is None for each in built.model.parameters())
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in built.model.modules()]
    assert not any(hooks)
