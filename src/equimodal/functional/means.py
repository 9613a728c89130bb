"""Means over the samples that count."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_counted(
    values: Tensor, counted: Tensor | None = None, among: Tensor | None = None
) -> Tensor:
    """Return the mean over the elements that count, shape ``()``; 0 where none does.

    A product with the mask would carry the NaN of an element that does not count.

    Args:
        values: any shape.
        counted: which elements count, bool, of the shape of the values; all by default.
        among: which elements the mean is over; those that count by default. With others, what does
            not count adds nothing, so that micro-batches add up to the one batch.

    >>> mean_counted(torch.tensor([1.0, torch.nan, 3.0]), torch.tensor([True, False, True]))
    tensor(2.)
    >>> mean_counted(torch.tensor([1.0, 5.0]), torch.tensor([True, False]), torch.ones(2))
    tensor(0.5000)
    """
    if counted is None:
        return values.mean()
    whole = counted if among is None else among
    return torch.where(counted, values, 0).sum() / whole.sum().clamp(min=1)
