"""A validation split out of the training samples, the same wherever it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equimodal.errors import SetupError


def held_out(
    target: Tensor, share: float, seed: int = 0, groups: Sequence[Any] | None = None
) -> Tensor:
    """Choose samples to validate on.

    Samples, or groups of them, are taken in the order of a hash of the seed and their number (or
    the group's own value): the choice depends on no random generator, and hardly changes when
    samples are added. Without groups every class gives its share; with them whole groups are taken
    until the share is reached.

    Args:
        target: classes, int64, shape ``(N,)``.
        share: of the samples, above 0 and below 1.
        seed: another one, another choice.
        groups: what samples have in common that must not be on both sides, N values; or None.

    Returns:
        Which samples are held out, bool, shape ``(N,)``.

    Raises:
        SetupError: there are too few samples or groups to have both sides.

    >>> held_out(torch.tensor([0, 0, 0, 1, 1, 1]), share=1 / 3).sum()
    tensor(2)
    >>> chosen = held_out(torch.zeros(6), share=0.4, groups=["a", "a", "b", "b", "c", "c"])
    >>> chosen.view(3, 2).all(dim=1).sum(), chosen.view(3, 2).any(dim=1).sum()
    (tensor(2), tensor(2))
    """
    chosen = torch.zeros(len(target), dtype=torch.bool)
    if groups is None:
        members: dict[Any, list[int]] = {}
        for number, label in enumerate(target.tolist()):
            members.setdefault(label, []).append(number)
        for of_class in members.values():
            count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
            ranked = sorted(of_class, key=lambda number: rank(seed, number))
            chosen[ranked[:count]] = True
    else:
        members = {}
        for number, group in enumerate(groups):
            members.setdefault(group, []).append(number)
        ranked = sorted(members, key=lambda group: rank(seed, group))
        for group in ranked[:-1]:
            if chosen.sum() >= share * len(target):
                break
            chosen[members[group]] = True
    if not chosen.any():
        what = "samples of a class" if groups is None else "groups"
        raise SetupError(
            f"expected two {what} or more to hold some out for validation, found fewer: add samples"
            ", or a val split"
        )
    return chosen


def rank(seed: int, key: Any) -> bytes:
    """Return a hash by which keys have an order that depends on no random generator."""
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()
