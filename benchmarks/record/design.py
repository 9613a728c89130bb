"""What is trained: rows, the trials of each, and the runs that these come to."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equimodal.choosing.candidate import RATES, Candidate, candidates, trials

SETTINGS = Path(__file__).with_name("settings.json")
BASELINES = ("joint", "multi-loss", "ensemble", "simbamm")
LEFT_OUT = {
    "greedy": "needs a host with MMTM gates",
    "unimodal": "is the rows of single modalities",
}
ENCODERS, OPTIMIZERS = ("plain", "normalised"), ("sgd", "adamw")


@dataclass(frozen=True)
class Trial:
    """One thing that a row is tried with.

    Attributes:
        encoder: "plain" or "normalised".
        optimizer: "sgd" or "adamw".
        rate: the learning rate.
        options: of each method of the row.
    """

    encoder: str
    optimizer: str
    rate: float
    options: Mapping[str, Mapping[str, Any]]

    @property
    def condition(self) -> str:
        """Encoder and optimizer."""
        return f"{self.encoder}, {self.optimizer}"


@dataclass(frozen=True)
class Design:
    """All that was settled beforehand.

    Attributes:
        seeds: fresh ones, counted from 1; the search has seed 0.
        momentum: of SGD.
        decay: of either optimizer.
        rates: two of either optimizer.
        sets: epochs, batch and a title, by data set.
    """

    seeds: int
    momentum: float
    decay: Mapping[str, float]
    rates: Mapping[str, Sequence[float]]
    sets: Mapping[str, Mapping[str, Any]]

    def rows(self, name: str, modalities: Sequence[str]) -> list[Candidate]:
        """Return the rows of a data set: baselines, each modality alone, and every method."""
        epochs = self.sets[name]["epochs"]
        alone = [Candidate(f"{m} alone", (("unimodal", {"modality": m}),)) for m in modalities]
        every = [row for row in candidates(epochs) if len(row.methods) == 1]
        others = [row for row in every if row.label not in (*BASELINES, *LEFT_OUT)]
        return [*candidates(epochs, BASELINES), *alone, *others]

    def trials(self, row: Candidate, modalities: Sequence[str]) -> list[Trial]:
        """Return eight: every learning rate of every condition, the same for all rows.

        Three settings of a method go around: its defaults, and two points of its declared space.
        """
        drawn = trials(row, len(RATES) + 2, modalities)
        needed = [drawn[0], *drawn[len(RATES) :]]
        found = []
        for place, (encoder, optimizer) in enumerate(itertools.product(ENCODERS, OPTIMIZERS)):
            for turn, rate in enumerate(self.rates[optimizer]):
                options = dict(needed[(turn + place) % 3].methods())
                found.append(Trial(encoder, optimizer, rate, options))
        return found


def read(path: Path = SETTINGS) -> Design:
    """Read a file of settings."""
    return Design(**json.loads(path.read_text()))
