"""The sum of the terms of a loss, on a node of the graph of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from equimodal import ranks
from equimodal.step import Step


def summed(
    terms: Mapping[str, Tensor], step: Step, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the sum of all terms, shape ``()``, and what was added to it for the reducer alone.

    DistributedDataParallel waits for every parameter: one that a replaced joint loss leaves out
    gets a gradient of zero. What leads to that zero trains nothing.
    """
    values = list(terms.values())
    replaced = terms["joint"] is not step.__dict__.get("joint")
    zero = None
    if replaced and ranks.world_size(group) > 1:
        nowhere = torch.ones_like(step.logits, dtype=torch.bool)
        zero = step.logits.masked_fill(nowhere, 0).sum()
        values.append(zero)
    # A node of its own also for a single term: the record that it carries holds the terms.
    return values[0].clone() if len(values) == 1 else torch.stack(values).sum(), zero
