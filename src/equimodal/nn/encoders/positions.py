"""Where in a sequence a step stands: added to what it holds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.refusals import refuse_sizes


class SinusoidalPositions(nn.Module):
    r"""Sines and cosines of geometrically growing wavelength (Vaswani et al., NeurIPS 2017).

    .. math::
        P_{t, 2i} = \sin(t / 10000^{2i/D}), \quad P_{t, 2i+1} = \cos(t / 10000^{2i/D})

    There is nothing to learn, and a sequence may have any length.

    >>> import torch
    >>> SinusoidalPositions()(torch.zeros(1, 1, 4))
    tensor([[[0., 1., 0., 1.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + P``, shape ``(B, T, D)`` as x."""
        steps, width = x.shape[-2:]
        precise = torch.promote_types(x.dtype, torch.float32)  # half precision cannot count far
        time = torch.arange(steps, dtype=precise, device=x.device)
        rate = torch.arange(0, width, 2, dtype=precise, device=x.device)
        angles = time[:, None] * torch.exp(rate * (-math.log(10000) / width))
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
        return x + waves.to(x.dtype)


class LearnedPositions(nn.Module):
    """A vector learned for every step of the sequence, up to a length.

    Args:
        length: the longest sequence.
        width: D, the width of a step: the `features` of the transformer.

    Raises:
        SetupError: a size is not positive, or a sequence is longer.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        refuse_sizes(self, length=length, width=width)
        self.table = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + P``, shape ``(B, T, D)`` as x."""
        length, width = self.table.shape
        if x.shape[-2] > length or x.shape[-1] != width:
            raise SetupError(
                f"LearnedPositions: expected up to {length} steps of width {width}, "
                f"found {x.shape[-2]} of width {x.shape[-1]}"
            )
        return x + self.table[: x.shape[-2]]
