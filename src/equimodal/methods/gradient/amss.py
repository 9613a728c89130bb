"""Gradients of some filters only: fewer, the more the modality says already."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.amss import drawn_filters, label_information, updated_shares
from equimodal.functional.precision import at_least_single
from equimodal.method import Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.modalities import OwnedParameter, Selection, Selector, selector
from equimodal.noise import mix
from equimodal.readout import feature_vectors
from equimodal.step import Step


@dataclass(frozen=True)
class FilterScaling:
    """Leaves the gradients of the filters that are kept as they are: AMSS."""

    def __call__(self, importance: Tensor) -> Tensor:
        """Return factors on the gradients of kept filters, shape ``(n,)``.

        Args:
            importance: squared norms of the gradients of the filters, shape ``(n,)``.
        """
        return torch.ones_like(importance)


@dataclass(frozen=True)
class InverseProbability(FilterScaling):
    r"""Multiplies them by :math:`1 / (q_j + 1/n)`: AMSS+, which makes up for what is left out."""

    def __call__(self, importance: Tensor) -> Tensor:
        total = importance.sum()
        shares = importance / torch.where(total > 0, total, 1)
        return 1 / (shares + 1 / len(importance))


class AMSS(Method):
    r"""Adaptively mask subnetworks, by the significance of modalities (Yang et al., TPAMI 2025).

    .. math::
        g_{m,j} \leftarrow \mathbb 1[j \in S_m]\, g_{m,j}, \quad
        |S_m| = \lceil c_m n \rceil, \quad
        c_m = 1 - \mathrm{softmax}_m(r / T), \quad r_m = \frac{H_Y - \ell_m + o}{H_m}

    Of every weight of an encoder some filters keep their gradient. A modality that says much of the
    labels (its loss :math:`\ell_m` alone is small) for the entropy of its features (:math:`H_m`, of
    their softmax) keeps few. The filters are drawn without replacement, in proportion to the
    squared norms of their gradients.

    For classification with one class per sample. The equations are those of the released code; of
    the paper, the abstract was read.

    Args:
        temperature: T, above 0.
        offset: o; the released code has 0.5 for audio and video, 3 for three modalities.
        bounds: smallest and largest share of filters, from 0 to 1.
        scaling: what becomes of the gradients that are kept: `FilterScaling()` leaves them (None
            stands for it), `InverseProbability()` is AMSS+.
        parameters: which parameters of an encoder: "weights" with two or more dimensions,
            "convolutions" (the released code), or a function. Filters lie along their first one.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "amss"
    source = "Yang et al., TPAMI 2025"
    needs = frozenset({"scores"})
    modulates = False

    def __init__(
        self,
        temperature: float = 0.2,
        *,
        offset: float = 0.5,
        bounds: tuple[float, float] = (0.1, 0.9),
        scaling: FilterScaling | None = None,
        parameters: Selection | Selector = "weights",
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise SetupError(f"AMSS(temperature): expected a number above 0, found {temperature}")
        if not math.isfinite(offset):
            raise SetupError(f"AMSS(offset): expected a number, found {offset}")
        if not 0 <= bounds[0] <= bounds[1] <= 1:
            raise SetupError(
                f"AMSS(bounds): expected (smallest, largest) from 0 to 1, found {bounds}"
            )
        self.temperature = temperature
        self.offset = offset
        self.bounds = (bounds[0], bounds[1])
        self.scaling = scaling or FilterScaling()
        self.chosen = selector(parameters)  # refuses an unknown name
        self._steps = 0  # on the host: it seeds the draws
        self._shares: Tensor | None = None  # of the step that is being judged

    def measure(self, step: Step) -> Mapping[str, Tensor]:
        labels, labelled = class_labels(step, "AMSS")
        everyone = torch.ones_like(labels, dtype=torch.bool) if labelled is None else labelled
        rows = counted(step, labelled)
        if rows is None:
            rows = torch.ones(len(self.names), step.size, dtype=torch.bool, device=labels.device)
        losses = step.criterion.each_per_sample(
            [step.unimodal[name] for name in self.names], step.target
        )
        entropies = []
        for name in self.names:
            vectors = at_least_single(feature_vectors(step.features[name].detach()))
            logs = vectors.log_softmax(dim=1)
            entropies.append(-(logs.exp() * logs).sum(dim=1))
        classes = torch.nn.functional.one_hot(labels, step.logits.shape[1]).to(losses.dtype)
        return {
            "losses": torch.where(rows, losses, 0).sum(dim=1),
            "entropies": torch.where(rows, torch.stack(entropies), 0).sum(dim=1),
            "counts": rows.sum(dim=1).to(losses.dtype),
            "labels": (classes * everyone[:, None]).sum(dim=0),
        }

    def coefficients(self, evidence: Evidence) -> None:
        """Take note of how large a part of each encoder is updated."""
        measured = evidence.measured
        counts = measured["counts"]
        losses = torch.where(counts > 0, measured["losses"] / counts, math.nan)
        self._shares = updated_shares(
            losses,
            measured["entropies"] / counts.clamp(min=1),
            label_information(measured["labels"]),
            self.temperature,
            self.offset,
            self.bounds,
        )

    def adjust(
        self, modality: str, parameters: Sequence[OwnedParameter], evidence: Evidence
    ) -> None:
        assert self._shares is not None
        share = self._shares[self.names.index(modality)]
        for owned in parameters:
            gradient = owned.parameter.grad
            if gradient is None or not self.chosen(owned):
                continue
            importance = at_least_single(gradient).flatten(1).square().sum(dim=1)
            generator = torch.Generator(gradient.device)
            number = zlib.crc32(owned.name.encode())
            generator.manual_seed(mix(self.seed, 3, self._steps, number))
            numbers = torch.rand(
                len(importance), generator=generator, device=gradient.device, dtype=torch.float32
            )
            kept = drawn_filters(importance, share, numbers)
            factors = torch.where(kept, self.scaling(importance), 0).to(gradient.dtype)
            gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))

    def commit(self) -> None:
        self._steps += 1

    def get_extra_state(self) -> int:
        return self._steps

    def set_extra_state(self, state: int) -> None:
        self._steps = state
