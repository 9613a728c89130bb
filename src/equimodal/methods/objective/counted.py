"""Which samples count for which modality."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.step import Step


def counted(step: Step, has_label: Tensor | None = None) -> Tensor | None:
    """Return which samples have a label and the modality, shape ``(M, B)``, bool; None if all do.

    Args:
        step: one micro-batch.
        has_label: which samples have a label, shape ``(B,)``; all by default.
    """
    if has_label is None and not step.present:
        return None
    everyone = torch.ones(step.size, dtype=torch.bool, device=step.logits.device)
    of_all = everyone if has_label is None else has_label
    return torch.stack(
        [of_all & step.present.get(name, everyone).to(of_all.device) for name in step.names]
    )


def labelled_among(counts: Tensor | None, has_label: Tensor | None) -> Tensor | None:
    """Return the samples that means are over: those with a label, whatever modalities they lack.

    Args:
        counts: as from `counted`.
        has_label: which samples have a label, shape ``(B,)``; all by default.
    """
    if counts is None or has_label is not None:
        return has_label
    return torch.ones_like(counts[0])
