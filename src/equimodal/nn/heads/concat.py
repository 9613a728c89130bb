"""Fusion by concatenation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal import functional
from equimodal.nn.heads.fusion_head import FusionHead
from equimodal.nn.initialisation import initialise


class Concat(FusionHead):
    r"""One linear layer on the concatenated features: the baseline of the field.

    .. math:: f = [z_1, \dots, z_M] W^\top + b

    Args:
        widths: for each modality the width of its features, in order; two or more.
        classes: C, the number of logits.

    Raises:
        SetupError: an argument is out of its range, or features do not fit the widths.

    >>> import torch
    >>> head = Concat({"audio": 512, "visual": 512}, classes=6)
    >>> head(torch.randn(2, 512), torch.randn(2, 512)).shape
    torch.Size([2, 6])
    """

    def __init__(self, widths: Mapping[str, int], classes: int) -> None:
        super().__init__(widths, classes)
        self.linear = nn.Linear(sum(self.widths.values()), classes)
        initialise(self)

    def forward(self, *features: Tensor) -> Tensor:
        """Return logits ``(B, ..., C)`` of the features ``(B, ..., d_m)`` of every modality."""
        logits: Tensor = self.linear(torch.cat(list(self.named(features).values()), dim=-1))
        return logits

    def unimodal_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        r"""Return for each modality :math:`u_m = z_m W_m^\top + b/M`; they add up to the logits.

        The split is that of OGM-GE (Peng et al., CVPR 2022), with the bias shared equally.
        """
        return functional.split_columns(
            self.ordered(features), self.linear.weight, self.linear.bias
        )
