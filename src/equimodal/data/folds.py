"""Folds of training and validation samples together: each is held out once, groups as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equimodal.data.arrays import Arrays
from equimodal.data.files.holdout import rank
from equimodal.data.splits import Splits

FOLDS = 5


def folds_of(splits: Splits[Any]) -> int:
    """Return into how many folds training and validation samples can be parted; 0 if into none.

    Only samples in memory can. There are no more folds than groups, or than samples of a class.
    """
    if not (isinstance(splits.train, Arrays) and isinstance(splits.val, Arrays)):
        return 0
    groups = [split.groups for split in (splits.train, splits.val) if split.groups is not None]
    if len(groups) == 2:
        most = len(set(torch.cat(groups).tolist()))
    else:
        counts = torch.cat([splits.train.target, splits.val.target]).bincount()
        most = int(counts[counts > 0].min())
    return min(FOLDS, most) if most > 1 else 0


def folded(splits: Splits[Arrays], fold: int, folds: int) -> Splits[Arrays]:
    """Return the splits with one fold to validate on, and the others to train on.

    Features are scaled as they were. The test split stays what it is.

    Args:
        splits: of samples in memory.
        fold: from 0 on.
        folds: how many there are.
    """
    whole = splits.train.joined(splits.val)
    of = assigned(whole.target, folds, None if whole.groups is None else whole.groups.tolist())
    train, val = ((of != fold).nonzero().flatten(), (of == fold).nonzero().flatten())
    return replace(splits, train=whole.part(train), val=whole.part(val))


def assigned(target: Tensor, folds: int, groups: Sequence[Any] | None = None) -> Tensor:
    """Return the fold of each sample: of every class a share, or whole groups of about equal size.

    It follows from the samples' numbers, or from the groups' own values, and from nothing random.

    Args:
        target: classes, int64, shape ``(N,)``.
        folds: how many.
        groups: what samples have in common that must not be on both sides, N values; or None.

    Returns:
        int64, shape ``(N,)``.

    >>> assigned(torch.tensor([0, 0, 1, 1]), 2).view(2, 2).sum(dim=1)
    tensor([1, 1])
    >>> assigned(torch.zeros(6), 3, ["a", "a", "b", "b", "c", "c"]).view(3, 2).sort(dim=0).values
    tensor([[0, 0],
            [1, 1],
            [2, 2]])
    """
    members: dict[Any, list[int]] = {}
    for number, key in enumerate(target.tolist() if groups is None else groups):
        members.setdefault(key, []).append(number)
    found = torch.zeros(len(target), dtype=torch.int64)
    if groups is None:
        place = 0
        for key in sorted(members):
            for number in sorted(members[key], key=lambda number: rank(0, number)):
                found[number] = place % folds
                place += 1
        return found
    sizes = [0] * folds
    for key in sorted(members, key=lambda key: (-len(members[key]), rank(0, key))):
        smallest = sizes.index(min(sizes))
        found[members[key]] = smallest
        sizes[smallest] += len(members[key])
    return found
