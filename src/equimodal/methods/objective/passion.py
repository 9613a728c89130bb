"""Modalities that are missing at unlike rates learn from the model, the laggards more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.means import mean_counted
from equimodal.functional.passion import (
    lagging,
    prototype_similarity,
    similarity_gap,
    softened_divergence,
    updated_factors,
)
from equimodal.functional.precision import at_least_single
from equimodal.method import Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.noise import mix
from equimodal.readout import Readouts, feature_vectors
from equimodal.search import Choice, Log, searched
from equimodal.step import Shapes, Step


class PASSION(Method):
    r"""Preference-aware self-distillation (Shi et al., ACM MM 2024).

    .. math::
        L = \ell(f, y) + \sum_m r_m\, \beta_m\, w_m\, \ell(u_m, y)
        + \lambda_1 \beta_m w_m\, D_\tau(u_m, f) + \lambda_2\, r_m w_m\, p_m

    For modalities that are missing at unlike rates. The classifiers u of the single modalities
    belong to the method, and are taught by the model's own logits, which are held fixed. p is the
    squared difference between a modality's cosines to the mean features of the classes in the batch
    and those of all features side by side; the same without the square is its distance. A modality
    that lies further away than the others in a batch has r = 1 and its own losses, any other
    r = 0. :math:`w` is one over the share of the samples so far that have the modality, and
    :math:`\beta` grows from epoch to epoch where the distance is large.

    The equations are those of the released code, with the batch in place of a volume.

    Args:
        distillation: :math:`\lambda_1`, 0 or more.
        prototypes: :math:`\lambda_2`, 0 or more.
        temperature: :math:`\tau`, above 0.
        rate: of the factors :math:`\beta` per epoch, 0 or more; by default 0.015 in 300 epochs, and
            the same way in a shorter training. It is 1.5 times as large in the second third of the
            epochs, and again in the last, where their number is known.

    Attributes:
        factors: :math:`\beta`, by position of the modality.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "passion"
    search = searched(distillation=Log(0.05, 2.0), temperature=Choice(1.0, 2.0, 4.0))
    source = "Shi et al., ACM MM 2024"
    modulates = False
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {
        "rate": lambda epochs: 0.015 * 300 / epochs
    }
    capabilities = Capabilities(accumulation="per micro-batch")

    def __init__(
        self,
        distillation: float = 0.5,
        *,
        prototypes: float = 0.1,
        temperature: float = 4.0,
        rate: float | None = None,
    ) -> None:
        super().__init__()
        for what, value in {
            "distillation": distillation,
            "prototypes": prototypes,
            "rate": 0.0 if rate is None else rate,
        }.items():
            if not 0 <= value < math.inf:
                raise SetupError(f"PASSION({what}): expected a number of 0 or more, found {value}")
        if not 0 < temperature < math.inf:
            raise SetupError(
                f"PASSION(temperature): expected a number above 0, found {temperature}"
            )
        self.distillation, self.prototypes = distillation, prototypes
        self.temperature, self.rate = temperature, rate
        self.readouts = Readouts()
        for name in ("factors", "seen", "samples", "distances", "counts"):
            self.register_buffer(name, torch.empty(0))
        self._measured: dict[str, Tensor] = {}
        self._proposed: dict[str, Tensor] = {}

    factors: Tensor
    seen: Tensor
    samples: Tensor
    distances: Tensor
    counts: Tensor

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        zeros = torch.zeros(len(self.names), dtype=shapes.dtype)
        self.factors = torch.ones_like(zeros)
        self.seen, self.distances, self.counts = zeros, zeros.clone(), zeros.clone()  # so far
        self.samples = torch.zeros((), dtype=shapes.dtype)

    def objective(self, step: Step) -> dict[str, Tensor]:
        labels, has_label = class_labels(step, "PASSION")
        everyone = torch.ones(step.size, dtype=torch.bool, device=step.logits.device)
        labelled = everyone if has_label is None else has_label
        counts = counted(step, has_label)
        rows = labelled.expand(len(self.names), -1) if counts is None else counts
        classes = step.logits.shape[1]
        teacher = at_least_single(step.logits.detach())
        vectors = [at_least_single(feature_vectors(step.features[n])) for n in self.names]
        there = [
            torch.where(row[:, None], vector, 0.0)
            for row, vector in zip(rows, vectors, strict=True)
        ]
        fused, _ = prototype_similarity(
            torch.cat(there, dim=1).detach(), labels.where(labelled, -1), classes
        )
        gaps = []
        for row, vector in zip(rows, there, strict=True):
            own, known = prototype_similarity(vector, labels.where(row, -1), classes)
            gaps.append(similarity_gap(own, fused, known))
        away = torch.stack([distance.detach() for _, distance in gaps])
        behind = lagging(away, rows)
        often = torch.where(self.seen > 0, self.samples / self.seen, 1.0)
        own_weight = behind * self.factors * often
        logits = self.readouts(step.features)
        terms = {}
        for index, name in enumerate(self.names):
            row = rows[index]
            divergence = softened_divergence(
                at_least_single(logits[name]), teacher, self.temperature
            )
            distilled = self.factors[index] * mean_counted(divergence, row, labelled)
            drawn = behind[index] * mean_counted(gaps[index][0], row, labelled)
            aside = self.distillation * distilled + self.prototypes * drawn
            alone = own_weight[index] * step.loss(logits[name], modality=name)
            terms[name] = alone + often[index] * aside
        total = torch.where(rows, away, 0.0).sum(dim=1).to(self.seen)
        number = labelled.sum().to(self.seen)
        self._measured = {"distance": total, "rows": rows.sum(1).to(self.seen), "samples": number}
        return terms

    def measure(self, step: Step) -> dict[str, Tensor]:
        return self._measured

    def coefficients(self, evidence: Evidence) -> None:
        """Propose what is known of the epoch after this step."""
        found = evidence.measured
        self._proposed = {
            "distances": self.distances + found["distance"],
            "counts": self.counts + found["rows"],
            "seen": self.seen + found["rows"],
            "samples": self.samples + found["samples"],
        }

    def commit(self) -> None:
        for name, value in self._proposed.items():
            setattr(self, name, value)
        self._proposed = {}

    def end_epoch(self, run: Run) -> None:
        """Change the factors by the distances of this epoch."""
        if not self.counts.numel() or not bool((self.counts > 0).all()):
            return  # nothing to compare with
        assert self.rate is not None
        third = 0 if self.planned is None else 3 * run.epoch // self.planned
        self.factors = updated_factors(
            self.factors, self.distances / self.counts, self.rate * 1.5 ** min(third, 2)
        )
        self.distances, self.counts = (torch.zeros_like(self.counts) for _ in range(2))
