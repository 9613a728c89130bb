"""Fusion by conditioning."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from equimodal.nn.heads.fusion_head import FusionHead
from equimodal.nn.initialisation import initialise


class FiLM(FusionHead):
    r"""Feature-wise linear modulation (Perez et al., AAAI 2018), then a linear layer.

    The other modalities, each by an affine generator of its own, scale and shift the features of
    the conditioned one c, one after the other in the order of the widths:

    .. math::
        h \leftarrow z_c, \quad
        [\gamma_m, \beta_m] = z_m A_m^\top + a_m, \quad
        h \leftarrow \gamma_m \odot h + \beta_m \;\; (m \ne c), \quad
        f = h W^\top + b

    The logits do not split into modalities. The bias of every scale starts at 1, so that the
    conditioned features pass at first, however many modalities modulate them; `initialise` sets
    it to 0, as the published code of OGM-GE starts.

    Args:
        widths: for each modality the width of its features, in order; two or more.
        classes: C, the number of logits.
        conditioned: the modality that is modulated, the last by default. Of two modalities, the
            first then conditions the second, as in OGM-GE (Peng et al., CVPR 2022).

    Raises:
        SetupError: an argument is out of its range, or features do not fit the widths.

    >>> import torch
    >>> head = FiLM({"audio": 8, "visual": 16}, classes=6, conditioned="visual")
    >>> head(torch.randn(2, 8), torch.randn(2, 16)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self, widths: Mapping[str, int], classes: int, conditioned: str | None = None
    ) -> None:
        super().__init__(widths, classes)
        last = list(self.widths)[-1]
        self.conditioned = last if conditioned is None else self._known("conditioned", conditioned)
        modulated = self.widths[self.conditioned]
        self.generators = nn.ModuleDict(
            {
                name: nn.Linear(width, 2 * modulated)
                for name, width in self.widths.items()
                if name != self.conditioned
            }
        )
        self.linear = nn.Linear(modulated, classes)
        initialise(self)
        for generator in self.generators.values():
            assert isinstance(generator, nn.Linear)
            nn.init.ones_(generator.bias[:modulated])

    def forward(self, *features: Tensor) -> Tensor:
        """Return logits ``(B, ..., C)`` of the features ``(B, ..., d_m)`` of every modality."""
        named = self.named(features)
        modulated = named[self.conditioned]
        for name, generator in self.generators.items():
            scale, shift = generator(named[name]).chunk(2, dim=-1)
            modulated = scale * modulated + shift
        logits: Tensor = self.linear(modulated)
        return logits
