"""Heads for features that modalities have already mixed into each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from equimodal.nn.heads.classifiers import Classifiers
from equimodal.nn.heads.fusion_head import FusionHead


class NamedHead(FusionHead):
    """A head that takes the features by keyword, each under the name of its modality.

    Where modalities interact before the head, a feature depends on several encoders, so that
    gradients cannot tell whose it is. The keyword does: `equimodal.Balancer` needs no
    ``features=`` then.

    Args:
        widths: for each modality the width of its features; two or more.
        classes: C, the number of logits.

    Raises:
        SetupError: an argument is out of its range, or features do not fit the widths.
    """


class BranchAverage(NamedHead):
    r"""The mean of the logits of one linear classifier per branch.

    .. math:: f = \frac{1}{M} \sum_m u_m, \quad u_m = z_m W_m^\top + b_m

    It is `LateAverage` with features by keyword.

    Args:
        widths: for each modality the width of its features; two or more.
        classes: C, the number of logits.
    """

    def __init__(self, widths: Mapping[str, int], classes: int) -> None:
        super().__init__(widths, classes)
        self.branches = Classifiers(widths, classes)

    def forward(self, **features: Tensor) -> Tensor:
        """Return logits ``(B, C)`` of the features ``(B, d_m)`` of every modality."""
        return torch.stack(list(self.unimodal_logits(features).values())).mean(dim=0)

    def unimodal_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each modality the logits of its own classifier, shape ``(B, C)``."""
        return self.branches.unimodal_logits(features)
