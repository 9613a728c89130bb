"""Features drawn towards those of unimodal teachers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.functional.distillation import feature_distance
from equimodal.methods.teachers import TaughtMethod
from equimodal.readout import feature_vectors
from equimodal.search import Log, searched
from equimodal.step import Step


class UMT(TaughtMethod):
    r"""Draw every modality's feature to that of a model of it alone (Du et al., ICML 2023).

    .. math:: L = L(f, y) + \lambda \sum_m \mathrm{MSE}(z_m, z_m^T)

    A teacher :math:`T` was trained on its modality alone and is frozen. Features are pooled to one
    vector per sample. From general knowledge of the paper: not verified against it.

    Args:
        teachers: for each modality a module that takes what the encoder takes and returns logits
            and feature, such as those of `eq.teachers_of(balancer, batch)`. They are copied, and
            frozen in evaluation mode.
        weight: lambda, 0 or more; 10 in BalanceMM.
        cached: keep what teachers say of an input for when it comes back, bit for bit, in a later
            epoch: not with random augmentation. Elsewhere than on a CPU each step waits for the
            device.

    Raises:
        SetupError: the weight is negative or a teacher is no module; when attached, a modality has
            no teacher.
    """

    name = "umt"
    search = searched(weight=Log(1.0, 50.0))
    source = "Du et al., ICML 2023"

    def __init__(
        self, teachers: Mapping[str, nn.Module], weight: float = 10.0, *, cached: bool = False
    ) -> None:
        super().__init__(teachers, cached)
        if not 0 <= weight < math.inf:
            raise SetupError(f"UMT(weight): expected a number of 0 or more, found {weight}")
        self.weight = weight

    def objective(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        for name, answer in self.answers(step).items():
            present = step.present[name].to(step.logits.device) if name in step.present else None
            student = feature_vectors(step.features[name]).to(answer.feature.dtype)
            everyone = None if present is None else torch.ones_like(present)
            distance = feature_distance(student, answer.feature, present, everyone)
            terms[name] = self.weight * distance
        return terms
