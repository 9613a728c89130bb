"""What was chosen: the words, the numbers, and the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.choosing.cost import Cost
from equimodal.choosing.late import weighed
from equimodal.choosing.training import Training
from equimodal.compare.statistics import Estimate, Harm
from equimodal.errors import SetupError

CHOICE, MODEL, TABLE, PAGE = "choice.json", "chosen.pt", "table.md", "choice.html"


@dataclass(frozen=True)
class Choice:
    """What `choose` recommends.

    Attributes:
        method: label of the row.
        line: of code that attaches it.
        difference: to tuned joint training on test data, with an interval for other seeds and other
            samples; None if joint training is recommended.
        harm: chances that it is worse; None as well.
        text: one paragraph.
        folder: of the results.
        rate: factor on the learning rates of the model that was chosen.
        seed: of its training.
        costs: by row, one training in plain joint trainings, and how many were spent on it.
    """

    method: str
    line: str
    difference: Estimate | None
    harm: Harm | None
    text: str
    folder: Path
    rate: float
    seed: int
    costs: Mapping[str, Cost] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.text}\n\n    {self.line}\n\nModel: {self.folder / MODEL}; all rows: " + str(
            self.folder / TABLE
        )

    @cached_property
    def trained(self) -> Training:
        """The training of the chosen model, at its best epoch."""
        return chosen(self.folder)

    @property
    def model(self) -> nn.Module:
        """The chosen model, in evaluation mode.

        Ensembles, late fusion and models of one modality answer by a rule of their own:
        `equimodal predict` and `predictions` follow it.
        """
        return self.trained.built.model.eval()


def chosen(folder: Path) -> Training:
    """Return the training of the model that was chosen in a folder, at its best epoch.

    Raises:
        SetupError: nothing was chosen there.
    """
    if not (folder / MODEL).exists():
        raise SetupError(
            f"{folder}: expected the folder of `equimodal choose`, finished, found no {MODEL}"
        )
    held = torch.load(folder / MODEL, weights_only=False)
    # Teachers have done their part: what they taught is in the model.
    trained = Training(held["spec"], folder / "runs" / held["run"])
    trained._load(held)
    return trained


def predictions(folder: Path, split: str = "test") -> tuple[Tensor, Tensor]:
    """Return what the chosen model answers on a split, and the targets, ``(N, ...)`` each.

    Args:
        folder: of `choose`.
        split: "train", "val" or "test".
    """
    trained = chosen(folder)
    late = bool(trained.spec.get("late"))
    loader: Any = getattr(trained.built, split)
    (outputs, targets), alone = trained._answers(loader, alone=late)
    if late:
        weights = json.loads((folder / CHOICE).read_text())["weights"]
        outputs = weighed(alone, weights, trained.built.criterion)
    return outputs, targets
