"""How prototype scores become weights of PMR's terms: the paper's choice and the released one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.pmr import graded_stimulation, switched_stimulation


class Stimulation:
    """Maps mean scores of the modalities, shape ``(M,)``, to weights of the same shape."""

    def __call__(self, scores: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class GradedStimulation(Stimulation):
    """From 0 for the best up to 1 for one half as good (Fan et al., CVPR 2023; from memory)."""

    def __call__(self, scores: Tensor) -> Tensor:
        return graded_stimulation(scores)


@dataclass(frozen=True)
class SwitchedStimulation(Stimulation):
    """1 for the weakest modality, 0 for the others: the released code of PMR."""

    def __call__(self, scores: Tensor) -> Tensor:
        return switched_stimulation(scores)


@dataclass(frozen=True)
class PrototypicalEntropy:
    """PMR's entropy regulariser, which keeps the leader from settling early.

    From memory of the paper, and not in the released code: not verified.

    Args:
        weight: of the entropy that is subtracted from the loss, 0 or more.
        until: the last epoch in which it acts, counted from 0.
    """

    weight: float
    until: int

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise SetupError(
                f"PrototypicalEntropy(weight): expected 0 or more, found {self.weight}"
            )
        if self.until < 0:
            raise SetupError(f"PrototypicalEntropy(until): expected 0 or more, found {self.until}")
