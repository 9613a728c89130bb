"""Fusion by gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.heads.fusion_head import FusionHead
from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_sizes


class Gated(FusionHead):
    r"""Sigmoid gates of some modalities on the others (Kiela et al., AAAI 2018).

    Every modality is projected to a common width. Those in G gate the sum of the rest:

    .. math::
        p_m = z_m V_m^\top + v_m, \quad
        h = \prod_{m \in G} \sigma(p_m) \odot \sum_{m \notin G} p_m, \quad
        f = h W^\top + b

    For two modalities that is :math:`h = \sigma(p_1) \odot p_2`, as in OGM-GE (Peng et al., CVPR
    2022). The logits do not split into modalities, and zeros in place of the others say nothing
    about one that gates before biases are trained: ``scores="auto"`` puts their mean there, and
    `equimodal.Probe` needs no ablation.

    Args:
        widths: for each modality the width of its features, in order; two or more.
        classes: C, the number of logits.
        gates: the modality, or modalities, that gate; the first by default.
        hidden: the common width; by default that of the widest features.

    Raises:
        SetupError: an argument is out of its range, no modality is left to be gated, or features
            do not fit the widths.

    >>> import torch
    >>> head = Gated({"audio": 8, "visual": 16, "text": 12}, classes=6, gates="text")
    >>> head(torch.randn(2, 8), torch.randn(2, 16), torch.randn(2, 12)).shape
    torch.Size([2, 6])
    """

    # Its biases start at 0, and nothing of a gate is heard through them at first.
    ablation_fill = "mean"

    def __init__(
        self,
        widths: Mapping[str, int],
        classes: int,
        gates: str | Sequence[str] | None = None,
        hidden: int | None = None,
    ) -> None:
        super().__init__(widths, classes)
        gates = next(iter(self.widths)) if gates is None else gates
        chosen = {self._known("gates", g) for g in ([gates] if isinstance(gates, str) else gates)}
        if not 0 < len(chosen) < len(self.widths):
            raise SetupError(
                f"Gated(gates): expected some of {', '.join(self.widths)}, but not all: what gates "
                f"is not gated, found {gates}"
            )
        hidden = max(self.widths.values()) if hidden is None else hidden
        refuse_sizes(self, hidden=hidden)
        self.gates = tuple(name for name in self.widths if name in chosen)
        self.projections = nn.ModuleDict(
            {name: nn.Linear(width, hidden) for name, width in self.widths.items()}
        )
        self.linear = nn.Linear(hidden, classes)
        initialise(self)

    def forward(self, *features: Tensor) -> Tensor:
        """Return logits ``(B, ..., C)`` of the features ``(B, ..., d_m)`` of every modality."""
        projected = {
            name: self.projections[name](feature) for name, feature in self.named(features).items()
        }
        fused = torch.stack([p for name, p in projected.items() if name not in self.gates]).sum(0)
        for name in self.gates:
            fused = projected[name].sigmoid() * fused
        logits: Tensor = self.linear(fused)
        return logits
