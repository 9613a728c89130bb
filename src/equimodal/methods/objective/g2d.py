"""Distillation from unimodal teachers, which also say whose encoder is trained first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.distillation import feature_distance, logit_divergence, prioritised
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted, labelled_among
from equimodal.methods.teachers import TaughtMethod
from equimodal.methods.window import checked_window
from equimodal.modalities import Selection, Selector, selector
from equimodal.readout import feature_vectors
from equimodal.search import Log, searched
from equimodal.step import Step


def first_half(epochs: int) -> tuple[int, int]:
    """Return the epochs of gating in the released code: of 300, the first 0 to 150.

    >>> first_half(300)
    (0, 150)
    """
    return 0, min(epochs // 2, epochs - 1)


class G2D(TaughtMethod):
    r"""Distil unimodal teachers, and hold back whose teacher leads (Rakib, Bagavathi, ICCV 2025).

    .. math:: L = L(f, y) + \sum_m \lambda_l \tau^2 KL(p(t_m / \tau) \,\Vert\, p(f / \tau))
        + \lambda_z \mathrm{MSE}(z_m, z_m^T), \quad g_m \leftarrow k_m g_m

    :math:`t_m, z_m^T` are logits and feature of the frozen teacher of modality m; its logits teach
    the fused logits f. In the epochs of `gating`, k is 1 for the modality whose teacher gives the
    true classes of the step the lowest probability, and 0 for the others. After them all are
    trained. With M > 2 these epochs are cut into M - 1 equal phases, and the modalities take their
    turn from the weakest on (from memory: not verified against the paper).

    For classification.

    Args:
        teachers: see `UMT`.
        gating: first and last epoch of gating, counted from 0, both included; by default the first
            half of the training, as in the released code (0 to 150 of 300).
        logits: weight of the divergence, 0 or more.
        features: weight of the distance between features, 0 or more.
        temperature: tau, positive.
        parameters: which parameters of an encoder are gated: "all", "weights" with two or more
            dimensions, "convolutions" only (the released code), or a function.
        cached: see `UMT`.

    Raises:
        SetupError: an argument is out of its range or a teacher is no module; when attached, a
            modality has no teacher.
    """

    name = "g2d"
    search = searched(features=Log(0.1, 3.0), logits=Log(0.1, 3.0))
    source = "Rakib and Bagavathi, ICCV 2025"
    graded = False
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"gating": first_half}

    def __init__(
        self,
        teachers: Mapping[str, nn.Module],
        gating: tuple[int, int] | None = None,
        *,
        logits: float = 1.0,
        features: float = 1.0,
        temperature: float = 1.0,
        parameters: Selection | Selector = "all",
        cached: bool = False,
    ) -> None:
        super().__init__(teachers, cached)
        for what, weight in (("logits", logits), ("features", features)):
            if not 0 <= weight < math.inf:
                raise SetupError(f"G2D({what}): expected a number of 0 or more, found {weight}")
        if not 0 < temperature < math.inf:
            raise SetupError(f"G2D(temperature): expected a positive number, found {temperature}")
        self.gating = checked_window(gating, "G2D", "gating")
        selector(parameters)  # refuses an unknown name
        self.logits = logits
        self.features = features
        self.temperature = temperature
        self.selection = parameters

    def objective(self, step: Step) -> dict[str, Tensor]:
        _, has_label = class_labels(step, "G2D")
        counts, logits = counted(step, has_label), step.logits.to(step.shapes.dtype)
        among = labelled_among(counts, has_label)
        terms = {}
        for name, answer in self.answers(step).items():
            rows = None if counts is None else counts[step.names.index(name)]
            divergence = logit_divergence(logits, answer.logits, self.temperature, rows, among)
            student = feature_vectors(step.features[name]).to(logits.dtype)
            distance = feature_distance(student, answer.feature, rows, among)
            terms[f"{name} logits"] = self.logits * divergence
            terms[f"{name} features"] = self.features * distance
        return terms

    def measure(self, step: Step) -> dict[str, Tensor]:
        assert self.gating is not None
        first, last = self.gating
        if not first <= step.epoch <= last:
            return {}
        labels, has_label = class_labels(step, "G2D")
        counts = counted(step, has_label)
        answers = self.answers(step)
        dtype, device = step.shapes.dtype, step.logits.device  # half precision cannot count
        scores = torch.zeros(len(self.names), dtype=dtype, device=device)
        samples = torch.zeros_like(scores)
        for index, name in enumerate(self.names):
            if name in answers:
                probability = answers[name].logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
                rows = torch.ones_like(probability) if counts is None else counts[index]
                scores[index] = (probability * rows).sum()
                samples[index] = rows.sum()
        phase = (step.epoch - first) * (len(self.names) - 1) // (last - first + 1)
        parts = torch.ones((), device=device)
        return {"scores": scores, "samples": samples, "phase": phase * parts, "parts": parts}

    def coefficients(self, evidence: Evidence) -> Tensor | None:
        measured = evidence.measured
        if "scores" not in measured:
            return None
        # Micro-batches and ranks were added up, of the phase too; 0 / 0 marks an absent modality.
        return prioritised(
            measured["scores"] / measured["samples"], measured["phase"] / measured["parts"]
        )
