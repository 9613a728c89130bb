"""Decimal numbers as pairs of integers, so that a file holds exactly what its source wrote."""

from __future__ import annotations

import torch
from torch import Tensor

# Powers of ten up to 10**22 are exact in float64, so the quotient is the float64 nearest to the
# decimal: the very number that Python reads from its digits.
_POWERS = tuple(10.0**place for place in range(23))


def numbers(digits: Tensor, places: Tensor) -> Tensor:
    """Return ``digits / 10**places`` as float64.

    Args:
        digits: all digits as one integer, int64, magnitudes below 2**53.
        places: how many of them stand behind the point, int64, 0 to 22; of a shape that broadcasts
            to that of the digits.

    >>> numbers(torch.tensor([13115, -25]), torch.tensor([2, 1])).tolist()
    [131.15, -2.5]
    """
    return digits.double() / torch.tensor(_POWERS, dtype=torch.float64)[places]
