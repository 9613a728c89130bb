"""Fusion by summation."""

from __future__ import annotations

from torch import Tensor

from equimodal.nn.heads.classifiers import Classifiers


class Sum(Classifiers):
    r"""The sum of one linear layer per modality, as in OGM-GE (Peng et al., CVPR 2022).

    .. math:: f = \sum_m u_m, \quad u_m = z_m W_m^\top + b_m

    It is `Concat` with a bias for every modality. The unimodal logits have the whole bias of
    their layer and add up to the logits.

    Args:
        widths: for each modality the width of its features, in order; two or more.
        classes: C, the number of logits.

    Raises:
        SetupError: an argument is out of its range, or features do not fit the widths.
    """

    def forward(self, *features: Tensor) -> Tensor:
        """Return logits ``(B, ..., C)`` of the features ``(B, ..., d_m)`` of every modality."""
        return self._stacked(features).sum(dim=0)
