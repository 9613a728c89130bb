"""Scores that fit the head, without the user having to say which."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equimodal.errors import MatchError, SetupError, unknown
from equimodal.scores.ablation import Ablation
from equimodal.scores.base import Scores
from equimodal.scores.function import Function
from equimodal.scores.split import Split
from equimodal.step import Step


class Auto(Scores):
    """The exact split where it is exact, else ablation.

    The head's function decides, in generic position, and neither its present weights nor the first
    batch: once, at the first step, and then it is kept. Where zeros in place of the others make the
    head deaf to a modality, as in a product with gates, ablation replaces the others by their mean;
    and where the head says so, by an attribute ``ablation_fill = "mean"``.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self.split = Split(temperature)
        self.ablation = Ablation(temperature=temperature)
        self.filled = Ablation("mean", temperature)
        self.chosen: Scores | None = None

    @property
    def cost(self) -> str:  # type: ignore[override]
        return self.chosen.cost if self.chosen else "decided at the first step"

    def bind(self, names: tuple[str, ...], head: nn.Module | None) -> None:
        super().bind(names, head)
        self.split.bind(names, head)
        self.ablation.bind(names, head)
        self.filled.bind(names, head)
        self.chosen = None

    def logits(self, step: Step) -> dict[str, Tensor]:
        if self.chosen is None:
            if torch.compiler.is_compiling():
                raise MatchError(
                    "what the head is, is found out in a step that is not compiled: take one, or "
                    "call balancer.check(batch), before compiling"
                )
            self.chosen = self._choose(step)
        return self.chosen.logits(step)

    def _choose(self, step: Step) -> Scores:
        if self.split.finds(step):
            return self.split
        structure = self.split.structure(step)
        if structure.mute:
            raise MatchError(
                f"scores: the logits tell nothing of {', '.join(structure.mute)} alone, whether "
                "zeros or means stand for the others, as where logits are similarities of two "
                "modalities: give scores=, a function from features to unimodal logits, or "
                "eq.Probe()"
            )
        means = structure.silenced or getattr(self.head, "ablation_fill", "zero") == "mean"
        return self.filled if means else self.ablation


def scores_from(given: object) -> Scores:
    """Return the scores that the user asked for: "auto", an object, or a function."""
    if isinstance(given, Scores):
        return given
    if given == "auto":
        return Auto()
    if callable(given):
        return Function(given)
    if isinstance(given, str):
        raise SetupError(unknown("scores", given, ["auto"]) + ", eq.Probe(), eq.Ablation(), ...")
    raise SetupError(f'scores: expected "auto", eq.Probe(), ... or a function, found {given!r}')
