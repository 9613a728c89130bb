"""Samples whose modalities contradict each other: whom does the model follow?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from equimodal.diagnostics.blind.conditions import AS_IS
from equimodal.diagnostics.blind.proportion import proportion
from equimodal.diagnostics.blind.scores import Score, Scores
from equimodal.diagnostics.interval import Interval
from equimodal.errors import SetupError

RESERVED = ("answer", "choices", "says", "id")  # entries of a sample that are no modality


@dataclass(frozen=True)
class Conflict:
    """How often each modality was followed.

    Attributes:
        times: by modality; a tie counts for none.
        samples: how many samples there were of which a modality said something.
    """

    times: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)

    def plus(self, other: Conflict) -> Conflict:
        """Return both together."""
        return Conflict(_sum(self.times, other.times), _sum(self.samples, other.samples))

    @property
    def shares(self) -> dict[str, Interval]:
        """How often each was followed, of the samples of which it said something."""
        return {
            name: proportion(self.times.get(name, 0), many) for name, many in self.samples.items()
        }


def conflict(score: Score, batch: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Conflict:
    """Ask which of the contradicting answers a model holds most likely, all being as they are.

    Args:
        score: of the model; the first of its metrics decides.
        batch: samples; those without ``says`` are passed over.
        names: the modalities.
    """
    told = [sample for sample in batch if "says" in sample]
    if not told:
        return Conflict()
    levels = []
    for name in names:
        asked = [sample for sample in told if name in sample["says"]]
        made = [{**sample, "answer": sample["says"][name]} for sample in asked]
        for sample in made:
            del sample["says"]
            sample.pop("choices", None)
        level = torch.full((len(told),), -torch.inf, dtype=torch.float64)
        if made:
            got = score(made, AS_IS)
            first = next(iter(got.values.values())) if isinstance(got, Scores) else got
            rows = [row for row, sample in enumerate(told) if name in sample["says"]]
            level[rows] = first.double().cpu()
        levels.append(level)
    table = torch.stack(levels)
    best = table == table.max(dim=0).values
    alone = best & (best.sum(dim=0) == 1)
    return Conflict(
        dict(zip(names, alone.sum(dim=1).tolist(), strict=True)),
        {n: many for n, level in zip(names, levels, strict=True)
         if (many := int(level.isfinite().sum()))},
    )  # fmt: skip


def says(sample: Mapping[str, Any], names: Sequence[str], place: int) -> None:
    """Refuse what a sample's modalities say if it is no contradiction.

    Raises:
        SetupError: it is none.
    """
    told = sample["says"]
    if not isinstance(told, Mapping) or len(told) < 2 or not set(told) <= set(names):
        raise SetupError(
            f"sample {sample.get('id', place)}: says: expected the answers of two modalities or "
            f"more, of {', '.join(names)}, found {told!r}"
        )
    if len(set(map(str, told.values()))) < len(told):
        raise SetupError(
            f"sample {sample.get('id', place)}: says: expected answers that differ, found {told!r}"
        )


def _sum(ours: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, int]:
    return {name: ours.get(name, 0) + theirs.get(name, 0) for name in {**ours, **theirs}}
