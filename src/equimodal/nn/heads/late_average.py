"""Late fusion: the mean of classifiers."""

from __future__ import annotations

from torch import Tensor

from equimodal.nn.heads.classifiers import Classifiers


class LateAverage(Classifiers):
    r"""The mean of the logits of one linear classifier per modality.

    .. math:: f = \frac{1}{M} \sum_m u_m, \quad u_m = z_m W_m^\top + b_m

    The unimodal logits are those of a modality's own classifier: the logits are their mean, not
    their sum.

    Args:
        widths: for each modality the width of its features, in order; two or more.
        classes: C, the number of logits.

    Raises:
        SetupError: an argument is out of its range, or features do not fit the widths.
    """

    def forward(self, *features: Tensor) -> Tensor:
        """Return logits ``(B, ..., C)`` of the features ``(B, ..., d_m)`` of every modality."""
        return self._stacked(features).mean(dim=0)
