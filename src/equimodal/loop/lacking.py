"""Modalities that a whole step lacks: nothing of theirs may move."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from equimodal.loop.parts import Parts
from equimodal.system import ranks


def leave_alone(parts: Parts) -> None:
    """Take away the gradients of modalities that no micro-batch of any rank has.

    A gradient of zero would let weight decay and momentum move them, and what a model was fed in
    place of a modality would train its encoder. Only where losses were handed over by modality:
    there a missing entry says so.
    """
    lacking = absent(parts.ledger.lacking, parts.evidence.micro_batches)
    if lacking is None:
        return
    names = parts.names
    if ranks.world_size(parts.process_group) > 1:
        device = next(parts.attached.bare_model.parameters()).device
        flags = torch.tensor([float(name in lacking) for name in names], device=device)
        everywhere = ranks.gather(flags, parts.process_group).amin(dim=0)
        if lacking:  # a rank that has all of them knows, and does not wait for the device
            found = zip(names, everywhere.tolist(), strict=True)
            lacking = frozenset(name for name, flag in found if flag)
    for name in lacking:
        for owned in parts.attached.modalities.owned[name]:
            owned.parameter.grad = None


def absent(of: Sequence[frozenset[str] | None], micro_batches: int) -> frozenset[str] | None:
    """Return what all micro-batches of a step lack; None where they came with logits.

    Args:
        of: what each of them lacks; nothing is known of those before a restart.
        micro_batches: how many there were.
    """
    told = [names for names in of if names is not None]
    if not told:
        return None
    return frozenset.intersection(*told) if len(told) == micro_batches else frozenset()
