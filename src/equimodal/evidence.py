"""The evidence of one optimizer step, over all its micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from equimodal import functional
from equimodal.system import ranks
from equimodal.system.once import once

Measured = dict[str, Tensor]
Scored = tuple[Tensor, Tensor | int]


@dataclass
class Evidence:
    """What was measured over all micro-batches and ranks of one optimizer step.

    Attributes:
        names: the modalities, in the order of the tensors.
        log_scores: logarithm of the summed scores, shape ``(M,)``; NaN where none were taken.
        samples: what the scores are of, for each micro-batch: see `Step.log_scores`.
        measured: what the method's own `measure` returned, summed.
    """

    names: tuple[str, ...]
    log_scores: Tensor
    samples: Sequence[Tensor | int]
    measured: dict[str, Tensor] = field(default_factory=dict)

    @once
    def counts(self) -> Tensor:
        """Number of samples that had each modality, shape ``(M,)``."""
        total = torch.zeros_like(self.log_scores)
        for samples in self.samples:
            total += samples if isinstance(samples, int) else samples.sum(dim=-1)
        return total

    @once
    def ratios(self) -> Tensor:
        """Discrepancy ratios, shape ``(M,)``; NaN where one is not defined."""
        apart = any(isinstance(of, Tensor) and of.ndim == 2 for of in self.samples)
        return functional.discrepancy_ratio(self.log_scores, self.counts if apart else None)

    @once
    def log_means(self) -> Tensor:
        """Logarithm of the mean score per sample, shape ``(M,)``."""
        return self.log_scores - self.counts.log()


class EvidenceSum:
    """Adds up the evidence of micro-batches, and then of ranks.

    Scores are added as logarithms, so that huge losses do not underflow.
    """

    def __init__(self) -> None:
        self.micro_batches = 0
        self.log_scores: Tensor | None = None
        self.samples: list[Tensor | int] = []
        self.measured: dict[str, Measured] = {}

    def add(self, scores: Scored | None, measured: dict[str, Measured]) -> None:
        """Add one micro-batch: what `Step.log_scores` returned, and sums by method."""
        self.micro_batches += 1
        if scores is not None:
            log_scores, samples = scores
            self.samples.append(samples)
            self.log_scores = (
                log_scores
                if self.log_scores is None
                else torch.logaddexp(self.log_scores, log_scores)
            )
        for method, sums in measured.items():
            known = self.measured.setdefault(method, {})
            for name, value in sums.items():
                known[name] = known[name] + value if name in known else value

    def reduce(
        self, names: tuple[str, ...], group: dist.ProcessGroup | None
    ) -> dict[str, Evidence]:
        """Return the evidence of all ranks for each method, under "" what all of them share.

        One collective carries everything.
        """
        log_scores, samples = self.log_scores, self.samples
        flat = [value for sums in self.measured.values() for value in sums.values()]
        if log_scores is None:
            log_scores = (flat[0] if flat else torch.empty(())).new_full((len(names),), torch.nan)
        if (samples or flat) and ranks.world_size(group) > 1:
            counts = Evidence(names, log_scores, samples).counts
            parts = [log_scores, counts, *flat]
            wide = torch.float32 if log_scores.device.type == "mps" else torch.float64
            packed = torch.cat([part.reshape(-1).to(wide) for part in parts])
            gathered = ranks.gather(packed, group)
            scores, numbers, *rest = torch.split(gathered, [p.numel() for p in parts], dim=1)
            log_scores = scores.logsumexp(dim=0).to(log_scores.dtype)
            samples = [numbers.sum(dim=0)[:, None].to(counts.dtype)]
            flat = [r.sum(0).view_as(v).to(v.dtype) for r, v in zip(rest, flat, strict=True)]
        values = iter(flat)
        evidence = {
            method: Evidence(names, log_scores, samples, {name: next(values) for name in sums})
            for method, sums in self.measured.items()
        }
        return {"": Evidence(names, log_scores, samples), **evidence}

    def state_dict(self) -> dict[str, Any]:
        """Return what has been added since the last step, for a restart in between."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        vars(self).update(state)
