"""What a model was worth under every condition, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.blind.conditions import AS_IS, CONTENT, Condition, Plan
from equimodal.diagnostics.blind.conflict import Conflict
from equimodal.diagnostics.blind.proportion import proportion
from equimodal.diagnostics.blind.verdict import Verdict, judged
from equimodal.diagnostics.contributions.shapley import Shapley
from equimodal.diagnostics.interval import RESAMPLES, Interval, few_interval, mean_intervals
from equimodal.errors import SetupError, unknown
from equimodal.functional.valuation import shapley_values

FORMAT = 1
FEW = 30  # samples below which Student's t stands for the bootstrap, which is too narrow there


@dataclass(frozen=True)
class Blind:
    """What was found. Numbers are shares from 0 to 1; intervals are 95% over samples, paired.

    Attributes:
        model: what was asked.
        data: about what.
        plan: the conditions.
        values: float64, shapes ``(N,)``, by condition and metric; the first metric is judged.
        same: whether the answer is the one that was given with all as it is, shapes ``(N,)``.
        unable: why a condition is missing.
        conflicts: whom the model follows.
        alike: modalities that all samples have the same of, as far as words tell: another sample's
            changes nothing of them.
        notes: what to know when reading it.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    model: str
    data: str
    plan: Plan
    values: Mapping[Condition, Mapping[str, Tensor]] = field(default_factory=dict)
    same: Mapping[Condition, Tensor] = field(default_factory=dict)
    unable: Mapping[str, str] = field(default_factory=dict)
    conflicts: Conflict = field(default_factory=Conflict)
    alike: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    resamples: int = RESAMPLES
    seed: int = 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names."""
        return self.plan.names

    @property
    def metrics(self) -> tuple[str, ...]:
        """What was measured; verdicts rest on the first."""
        return tuple(self.values.get(AS_IS, ()))

    @property
    def samples(self) -> int:
        """How many were asked about, without those whose modalities contradict each other."""
        return len(self.values[AS_IS][self.metrics[0]]) if self.metrics else 0

    def level(self, condition: Condition = AS_IS, metric: str | None = None) -> Interval:
        """Return the mean score under a condition."""
        return self._interval("level", condition, metric)

    def lost(self, condition: Condition, metric: str | None = None) -> Interval:
        """Return what is lost under a condition, paired: the score as it is minus that."""
        return self._interval("lost", condition, metric)

    def moved(self, condition: Condition, metric: str | None = None) -> Interval:
        """Return how far scores move under a condition, up or down: mean absolute difference."""
        return self._interval("moved", condition, metric)

    def unchanged(self, condition: Condition) -> Interval | None:
        """Return the share of answers that stay; None if the model gives no answers."""
        same = self.same.get(condition)
        return None if same is None else proportion(int(same.sum()), len(same))

    def single(self, modality: str) -> list[Condition]:
        """Return the conditions that were asked and change one modality alone."""
        return [c for c in self.values if [name for name, _ in c.fills] == [modality]]

    def shapley(self, metric: str | None = None) -> Shapley | None:
        """Return the Shapley values of the modalities; None where no fill has all subsets.

        As `equimodal.diagnostics.shapley`: what a modality adds, averaged over the orders in which
        they can join. They sum to the score as it is minus that with nothing as it is.
        """
        values: dict[str, Tensor] = {}
        for fill in self.plan.fills:
            conditions = self.plan.every(fill)
            if conditions is not None and all(each in self.values for each in conditions):
                table = torch.stack([self.of(each, metric) for each in conditions])
                values[fill] = shapley_values(table)
        if not values:
            return None
        means = iter(self._means(torch.cat(list(values.values()))))
        intervals = {fill: {name: next(means) for name in self.modalities} for fill in values}
        return Shapley(self.modalities, values, intervals)

    def dominance(self, fill: str, metric: str | None = None) -> Interval | None:
        """Return the text dominance: the score from text alone minus that from all but the text.

        Above 0 the text leads, below 0 the others; with two modalities it is the difference of
        their Shapley values. None where there is no text, or nothing beside it, or a condition of
        the two is missing.
        """
        words = self.plan.words
        if not words or len(words) == len(self.modalities):
            return None
        pair = (self.plan.only(fill, *words), self.plan.without(fill, *words))
        if any(each not in self.values for each in pair):
            return None
        (interval,) = self._means((self.of(pair[0], metric) - self.of(pair[1], metric))[None])
        return interval

    def verdict(self, modality: str) -> Verdict:
        """Say whether a modality is used.

        Raises:
            SetupError: it is no modality of these samples.
        """
        if modality not in self.modalities:
            raise SetupError(unknown("modality", modality, self.modalities))
        asked = {c.of(modality): c for c in self.single(modality)}
        if modality in self.alike:
            asked.pop("other", None)
        content = [asked[fill] for fill in CONTENT if fill in asked]
        used = content or list(asked.values())
        return judged(
            modality,
            self.level().value if self.samples else 0.0,
            [(str(c), self.lost(c), self.moved(c)) for c in used],
            self.samples,
        )

    def of(self, condition: Condition, metric: str | None = None) -> Tensor:
        """Return the scores of all samples under a condition, float64, shape ``(N,)``.

        Raises:
            SetupError: it was not asked, or there is no such metric.
        """
        if condition not in self.values:
            reason = self.unable.get(str(condition), "it was not asked")
            raise SetupError(f"{condition}: there are no scores: {reason}")
        name = self.metrics[0] if metric is None else metric
        if name not in self.metrics:
            raise SetupError(unknown("metric", name, self.metrics))
        return self.values[condition][name]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        conditions = {}
        for condition in self.values:
            unchanged = self.unchanged(condition)
            conditions[str(condition)] = {
                "fills": dict(condition.fills),
                "metrics": {
                    name: {
                        "level": asdict(self.level(condition, name)),
                        "lost": asdict(self.lost(condition, name)),
                        "moved": asdict(self.moved(condition, name)),
                    }
                    for name in self.metrics
                },
                "unchanged": None if unchanged is None else asdict(unchanged),
            }
        values = {name: self.shapley(name) for name in self.metrics}
        return {
            "format": FORMAT,
            "model": self.model,
            "data": self.data,
            "samples": self.samples,
            "modalities": list(self.modalities),
            "metrics": list(self.metrics),
            "conditions": conditions,
            "shapley": {n: each.to_dict() for n, each in values.items() if each is not None},
            "text_dominance": {
                name: {
                    fill: asdict(of)
                    for fill in self.plan.fills
                    if (of := self.dominance(fill, name)) is not None
                }
                for name in self.metrics
            },
            "conflicts": {
                name: {**asdict(share), "samples": self.conflicts.samples[name]}
                for name, share in self.conflicts.shares.items()
            },
            "verdicts": {name: asdict(self.verdict(name)) for name in self.modalities},
            "unable": dict(self.unable),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Spell everything, at most 80 columns wide."""
        from equimodal.diagnostics.blind.page import page

        return page(self)

    def _interval(self, what: str, condition: Condition, metric: str | None) -> Interval:
        self.of(condition, metric)  # refuses what there is not
        return self._known[what, condition, metric or self.metrics[0]]

    @cached_property
    def _known(self) -> dict[tuple[str, Condition, str], Interval]:
        """All intervals of conditions, in one go: all are of the same draws."""
        rows: dict[tuple[str, Condition, str], Tensor] = {}
        for condition in self.values:
            for metric in self.metrics:
                level = self.of(condition, metric)
                lost = self.of(AS_IS, metric) - level
                for what, row in (("level", level), ("lost", lost), ("moved", lost.abs())):
                    rows[what, condition, metric] = row
        return dict(zip(rows, self._means(torch.stack(list(rows.values()))), strict=True))

    def _means(self, rows: Tensor) -> list[Interval]:
        """Return the mean of each row with its interval, shape ``(K, N)``."""
        if rows.shape[1] < FEW:
            return [few_interval(row) for row in rows]
        return mean_intervals(rows, self.resamples, self.seed)
