"""Samples that have nothing left once modalities were dropped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def anything_left(kept: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
    """Return which samples keep a modality that they have, shape ``(B,)``, bool.

    Args:
        kept: which samples keep each modality, shape ``(B,)``, bool.
        present: which samples have it, as in `Step.present`: no entry where all do.

    >>> kept = {"audio": torch.tensor([True, False]), "text": torch.tensor([True, True])}
    >>> anything_left(kept, {"text": torch.tensor([False, False])})
    tensor([ True, False])
    """
    had = [
        keep & present[name].to(keep.device) if name in present else keep
        for name, keep in kept.items()
    ]
    return torch.stack(had).any(dim=0)
