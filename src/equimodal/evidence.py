"""The evidence of one optimizer step, over all its micro-batches and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from equimodal import functional, ranks

Measured = dict[str, Tensor]


@dataclass
class Evidence:
    """What was measured over all micro-batches and ranks of one optimizer step.

    Attributes:
        names: the modalities, in the order of the tensors.
        log_scores: logarithm of the summed scores, shape ``(M,)``.
        counts: number of samples that had the modality, shape ``(M,)``.
        measured: what the method's own `measure` returned, summed.
    """

    names: tuple[str, ...]
    log_scores: Tensor
    counts: Tensor
    measured: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def ratios(self) -> Tensor:
        """Discrepancy ratios, shape ``(M,)``; NaN where one is not defined."""
        return functional.discrepancy_ratio(self.log_scores, self.counts)


class EvidenceSum:
    """Adds up the evidence of micro-batches, and then of ranks.

    Scores are added as logarithms, so that huge losses do not underflow.
    """

    def __init__(self) -> None:
        self.micro_batches = 0
        self.log_scores: Tensor | None = None
        self.counts: Tensor | None = None
        self.measured: dict[str, Measured] = {}

    def add(self, scores: tuple[Tensor, Tensor] | None, measured: dict[str, Measured]) -> None:
        """Add one micro-batch: log scores and counts of shape ``(M,)``, and sums by method."""
        self.micro_batches += 1
        if scores is not None:
            log_scores, counts = scores
            if self.log_scores is None or self.counts is None:
                self.log_scores, self.counts = log_scores, counts
            else:
                self.log_scores = torch.logaddexp(self.log_scores, log_scores)
                self.counts = self.counts + counts
        for method, sums in measured.items():
            known = self.measured.setdefault(method, {})
            for name, value in sums.items():
                known[name] = known[name] + value if name in known else value

    def reduce(
        self, names: tuple[str, ...], group: dist.ProcessGroup | None
    ) -> dict[str, Evidence]:
        """Return the evidence of all ranks for each method, under "" what all of them share.

        One collective carries everything. Scores that were not taken are NaN.
        """
        log_scores, counts = self.log_scores, self.counts
        flat = [value for sums in self.measured.values() for value in sums.values()]
        measured = log_scores is not None or bool(flat)
        if log_scores is None or counts is None:
            like = flat[0] if flat else torch.empty(())
            log_scores, counts = like.new_full((2, len(names)), torch.nan).unbind()
        if measured and ranks.world_size(group) > 1:
            wide = torch.float32 if log_scores.device.type == "mps" else torch.float64
            packed = torch.cat([v.reshape(-1).to(wide) for v in (log_scores, counts, *flat)])
            gathered = ranks.gather(packed, group)
            sizes = [v.numel() for v in (log_scores, counts, *flat)]
            scores, numbers, *rest = torch.split(gathered, sizes, dim=1)
            log_scores = scores.logsumexp(dim=0).to(log_scores.dtype)
            counts = numbers.sum(dim=0).to(counts.dtype)
            flat = [r.sum(0).view_as(v).to(v.dtype) for r, v in zip(rest, flat, strict=True)]
        values = iter(flat)
        evidence = {
            method: Evidence(names, log_scores, counts, {name: next(values) for name in sums})
            for method, sums in self.measured.items()
        }
        return {"": Evidence(names, log_scores, counts), **evidence}

    def state_dict(self) -> dict[str, object]:
        """Return what has been added since the last step, for a restart in between."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` returned."""
        vars(self).update(state)
