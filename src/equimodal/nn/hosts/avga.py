"""Audio-guided visual attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.nn.hosts.named import NamedHead
from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_shape, refuse_sizes

NAMES = ("audio", "visual")


class GuidedAttention(nn.Module):
    r"""Attention over the cells of a map, guided by another modality (Tian et al., ECCV 2018).

    .. math::
        x = W_f \tanh(W_v U_v(V) + W_a U_a(a) \mathbf 1^\top), \quad
        w = \operatorname{softmax}(x), \quad
        v = \sum_p w_p V_p

    U is a linear layer with ReLU, W are linear layers without bias.

    Args:
        guide: width of the guiding vectors a.
        cells: width of the cells V.
        hidden: width of U.
        scored: width of W_v and W_a.

    Attributes:
        guide: from a to :math:`W_a U_a(a)`: of the guiding modality alone.
        cells: from V to :math:`W_v U_v(V)`: of the attended modality alone.
        score: :math:`W_f`, shared by both.
    """

    def __init__(self, guide: int, cells: int, hidden: int = 512, scored: int = 49) -> None:
        super().__init__()
        refuse_sizes(self, guide=guide, cells=cells, hidden=hidden, scored=scored)
        self.guide = _projection(guide, hidden, scored)
        self.cells = _projection(cells, hidden, scored)
        self.score = nn.Linear(scored, 1, bias=False)
        initialise(self)

    def forward(self, guide: Tensor, cells: Tensor) -> Tensor:
        """Return attended vectors ``(B, T, cells)``.

        Args:
            guide: shape ``(B, T, guide)``.
            cells: shape ``(B, T, P, cells)``.
        """
        scored = torch.tanh(self.cells(cells) + self.guide(guide).unsqueeze(2))
        weights = self.score(scored).softmax(dim=2)
        attended: Tensor = (weights * cells).sum(dim=2)
        return attended


class SegmentHead(NamedHead):
    r"""A classifier of every segment, with one hidden layer on the concatenated features.

    .. math:: f = W_2 \operatorname{relu}(W_1 \operatorname{relu}([z_1, \dots, z_M]) + b_1) + b_2

    Args:
        widths: for each modality the width of its features; two or more.
        classes: C, the number of logits.
        hidden: width of the hidden layer.
    """

    def __init__(self, widths: Mapping[str, int], classes: int, hidden: int = 64) -> None:
        super().__init__(widths, classes)
        refuse_sizes(self, hidden=hidden)
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Linear(sum(self.widths.values()), hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )
        initialise(self)

    def forward(self, **features: Tensor) -> Tensor:
        """Return logits ``(B, T, C)`` of the features ``(B, T, d_m)`` of every modality."""
        logits: Tensor = self.layers(torch.cat(list(self.ordered(features).values()), dim=-1))
        return logits


class AVGA(nn.Module):
    """Audio-visual event localisation with audio-guided attention (Tian et al., ECCV 2018).

    Audio chooses where to look in every segment (`GuidedAttention`), a bidirectional LSTM per
    modality runs over the segments, and every segment is classified. Train it with
    `segment_cross_entropy` as the criterion.

    Args:
        classes: C, event categories with the background.
        audio: width of the audio features, 128 for VGGish.
        visual: width of a cell of the visual maps, 512 for VGG-19.
        hidden: width of an LSTM, in each direction.
        attention: width of the hidden layer of the attention.

    Attributes:
        attention: only its `score` belongs to no modality.
        head: takes ``audio=`` and ``visual=``, each ``(B, T, 2 * hidden)``.

    Raises:
        SetupError: a size is not positive, or an input has another shape.

    >>> import torch
    >>> model = AVGA(classes=29)
    >>> model(torch.randn(2, 10, 128), torch.randn(2, 10, 7, 7, 512)).shape
    torch.Size([2, 10, 29])
    """

    def __init__(
        self,
        classes: int,
        *,
        audio: int = 128,
        visual: int = 512,
        hidden: int = 128,
        attention: int = 512,
    ) -> None:
        super().__init__()
        refuse_sizes(self, audio=audio, visual=visual, hidden=hidden, attention=attention)
        self.widths = (audio, visual)
        self.attention = GuidedAttention(audio, visual, attention)
        self.audio = nn.LSTM(audio, hidden, batch_first=True, bidirectional=True)
        self.visual = nn.LSTM(visual, hidden, batch_first=True, bidirectional=True)
        self.head = SegmentHead(dict.fromkeys(NAMES, 2 * hidden), classes)

    @property
    def encoders(self) -> dict[str, list[nn.Module]]:
        """The modules that belong to one modality alone, as `equimodal.Balancer` takes them."""
        return {
            "audio": [self.attention.guide, self.audio],
            "visual": [self.attention.cells, self.visual],
        }

    def encode(self, audio: Tensor, visual: Tensor) -> dict[str, Tensor]:
        """Return the features of every segment, ``(B, T, 2 * hidden)`` for each modality.

        Args:
            audio: shape ``(B, T, audio)``.
            visual: maps ``(B, T, P, visual)`` of P cells, or ``(B, T, H, W, visual)``.
        """
        cells = cells_of(self, audio, visual, self.widths)
        attended = self.attention(audio, cells)
        return {"audio": self.audio(audio)[0], "visual": self.visual(attended)[0]}

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Return logits ``(B, T, C)``; the arguments are those of `encode`."""
        logits: Tensor = self.head(**self.encode(audio, visual))
        return logits


def cells_of(owner: nn.Module, audio: Tensor, visual: Tensor, widths: tuple[int, int]) -> Tensor:
    """Return visual maps as cells ``(B, T, P, visual)``, or refuse what does not fit."""
    refuse_shape(owner, audio, ("B", "T", widths[0]))
    batch, steps = audio.shape[:2]
    maps = (batch, steps, "P", widths[1]), (batch, steps, "H", "W", widths[1])
    refuse_shape(owner, visual, *maps)
    return visual.flatten(2, -2)


def _projection(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs, bias=False)
    )
