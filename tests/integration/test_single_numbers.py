"""Models of one number per sample, and optimizers of one matrix: run, or refused in plain words."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import equimodal as eq
from equimodal.choosing.candidate import candidates, trials
from equimodal.choosing.training import Training
from equimodal.choosing.words import line
from equimodal.errors import MatchError
from equimodal.update.probing import character

NAMES = ["sound", "picture"]


def training(name: str, build: str, folder: Path) -> Training:
    """A training of one step; teachers are as they begin."""
    (candidate,) = candidates(3, [name])
    spec = {
        "build": f"support.stranger:{build}", "threads": 1, "seed": 0, "late": False,
        "methods": trials(candidate, 1, NAMES)[0].methods(), "rate": 1.0, "tried": True,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of AdamW
        return Training(spec, folder)


@pytest.mark.parametrize("name", ["ensemble", "umt", "olm", "mslr", "ogm"])
def test_what_a_single_number_allows_trains_and_answers(name: str, tmp_path: Path) -> None:
    trained = training(name, "regression", tmp_path)
    trained.take(2)
    (outputs, targets), alone = trained._answers(trained.built.val, alone=name == "ensemble")
    assert outputs.shape == targets.shape == (100,)
    if name == "ensemble":
        mean = (alone["sound"] + alone["picture"]) / 2
        torch.testing.assert_close(outputs, mean)


@pytest.mark.parametrize("name", ["aug", "dynamic-mslr", "g2d"])
def test_what_compares_classes_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(MatchError, match="is defined for one class per sample: expected logits"):
        training(name, "regression", tmp_path).take(1)


def test_labels_that_stand_alone_are_no_classes_of_an_ensemble() -> None:
    """Of several labels at once a softmax would make one that excludes the others."""
    encoders = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(3, 4)})

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoders, self.head = encoders, nn.Linear(8, 5)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cat([self.encoders["a"](a), self.encoders["b"](b)], dim=1))

    model, batch = Model(), (torch.randn(6, 3), torch.randn(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    labels = torch.randint(2, (6, 5)).float()
    with eq.Balancer(
        eq.Ensemble(), model, dict(encoders.items()), model.head, optimizer,
        criterion=nn.BCEWithLogitsLoss(),
    ) as balancer:  # fmt: skip
        balancer.backward(balancer.loss(model(*batch), labels))
        balancer.modulate()
        with torch.no_grad():
            joint, alone = balancer.evaluate(*batch)
    torch.testing.assert_close(joint, (alone["a"] + alone["b"]) / 2)


@pytest.mark.parametrize("name", ["gradient-blending", "lfm", "diagnosing-relearning"])
def test_the_length_of_training_is_told_and_stands_in_the_line(name: str, tmp_path: Path) -> None:
    trained = training(name, "build", tmp_path)
    trained.take(1)
    trained.balancer.detach()
    (candidate,) = candidates(3, [name])
    assert ", epochs=3)" in line(trials(candidate, 1, NAMES)[0].methods(), 1.0, 3)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_of_one_matrix_is_not_taken_for_one_that_keeps_weights(kind: type) -> None:
    found = character(kind(nn.Linear(6, 16).parameters(), lr=0.01))
    assert found is not None
    assert found.others_update == 1.0
    assert not found.keeps_weights
