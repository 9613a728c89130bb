"""One linear classifier per modality, for heads that add or average them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.nn.heads.fusion_head import FusionHead
from equimodal.nn.initialisation import initialise


class Classifiers(FusionHead):
    """A head with a linear classifier for every modality: what `Sum` and `LateAverage` share.

    Args:
        widths: for each modality the width of its features, in order; two or more.
        classes: C, the number of logits.
    """

    def __init__(self, widths: Mapping[str, int], classes: int) -> None:
        super().__init__(widths, classes)
        self.classifiers = nn.ModuleDict(
            {name: nn.Linear(width, classes) for name, width in self.widths.items()}
        )
        initialise(self)

    def unimodal_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        r"""Return for each modality :math:`u_m = z_m W_m^\top + b_m`, with its own classifier."""
        return self._classified(self.ordered(features))

    def _stacked(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return the logits of all classifiers, shape ``(M, B, ..., C)``."""
        return torch.stack(list(self._classified(self.named(features)).values()))

    def _classified(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.classifiers[name](feature) for name, feature in features.items()}
