"""Self-distillation from the stronger to the weaker modality, sample by sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.mbsd import self_distillation
from equimodal.method import Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.search import Log, searched
from equimodal.step import Step


class MBSD(Method):
    r"""Let the modality that knows a sample better teach the other (after Liu et al., WSDM 2023).

    .. math:: L = L(f, y) + \sum_m L(u_m, y) + \lambda_{RS} L_{RS} + \lambda_{KL} L_{KL}

    with the weighted distance and divergence of the weaker modality's logits from the stronger
    one's; see `equimodal.functional.self_distillation`. Nothing flows back into the stronger one.

    The unimodal logits are those of the chosen scores. For classification. The equations are those
    of the toolkit BalanceMM: not verified against the paper, whose abstract describes the idea.

    Args:
        similarity: weight of the distance, 0 or more.
        divergence: weight of the divergence, 0 or more.

    Raises:
        SetupError: a weight is negative.
    """

    name = "mbsd"
    search = searched(similarity=Log(0.1, 3.0), divergence=Log(0.1, 3.0))
    source = "after Liu et al., WSDM 2023"
    needs = frozenset({"scores"})
    capabilities = Capabilities()

    def __init__(self, similarity: float = 1.0, divergence: float = 1.0) -> None:
        super().__init__()
        for what, weight in (("similarity", similarity), ("divergence", divergence)):
            if not 0 <= weight < math.inf:
                raise SetupError(f"MBSD({what}): expected a number of 0 or more, found {weight}")
        self.similarity = similarity
        self.divergence = divergence

    def objective(self, step: Step) -> dict[str, Tensor]:
        labels, has_label = class_labels(step, "MBSD")
        logits = step.unimodal
        losses = {name: step.loss(logits[name], modality=name) for name in self.names}
        similarity, divergence = self_distillation(
            torch.stack([logits[name] for name in self.names]).to(step.shapes.dtype),
            labels,
            counted(step, has_label),
        )
        return {
            **losses,
            "(similarity)": self.similarity * similarity,
            "(divergence)": self.divergence * divergence,
        }
