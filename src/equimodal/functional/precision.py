"""Half precision raised to single, where sums and logarithms need the digits."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_single(values: Tensor) -> Tensor:
    """Return values in single precision if they are in half precision, else as they are.

    >>> at_least_single(torch.zeros(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
