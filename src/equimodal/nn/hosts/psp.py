"""Positive sample propagation between the segments of two modalities."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.hosts.avga import NAMES, GuidedAttention, cells_of
from equimodal.nn.hosts.named import NamedHead
from equimodal.nn.initialisation import initialise
from equimodal.nn.refusals import refuse_dropout, refuse_sizes

TINY = 1e-8


class Propagation(nn.Module):
    r"""Exchange of features between segments that are alike (Zhou et al., CVPR 2021).

    With four projections :math:`x_i = D(\operatorname{relu}(x W^x_i))`, x being audio a or visual
    v, i 1 or 2, and D dropout:

    .. math::
        \beta^{va} = \nu(\operatorname{relu}(v_2 a_1^\top / \sqrt d)), \quad
        \beta^{av} = \nu(\operatorname{relu}(v_2 a_1^\top / \sqrt d)^\top), \quad
        \gamma = \nu(\beta \odot [\beta > \tau])

    .. math::
        v' = \operatorname{LN}(D(\operatorname{relu}((v + \gamma^{va} a_2) W^v_3))), \quad
        a' = \operatorname{LN}(D(\operatorname{relu}((a + \gamma^{av} v_1) W^a_3)))

    where :math:`\nu` divides a row by its sum. Both modalities share the layer normalisation.

    Args:
        width: d, the width of the features of both modalities.
        threshold: tau, at least 0 and below 1. Without any structure an entry is 1/T.
        dropout: probability of dropout in training.
    """

    def __init__(self, width: int, threshold: float = 0.099, dropout: float = 0.1) -> None:
        super().__init__()
        refuse_sizes(self, width=width)
        refuse_dropout(self, dropout)
        if not 0 <= threshold < 1:
            raise SetupError(
                f"Propagation(threshold): expected at least 0 and below 1, found {threshold!r}"
            )
        self.threshold = threshold
        self.visual = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
        self.audio = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        initialise(self)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return :math:`a'` and :math:`v'`, shape ``(B, T, d)`` as the arguments."""
        v1, v2 = (self._projected(layer, visual) for layer in self.visual[:2])
        a1, a2 = (self._projected(layer, audio) for layer in self.audio[:2])
        alike = (v2 @ a1.transpose(1, 2) / math.sqrt(v2.shape[-1])).relu()
        visual = visual + self._positive(alike) @ a2
        audio = audio + self._positive(alike.transpose(1, 2)) @ v1
        return (
            self.norm(self._projected(self.audio[2], audio)),
            self.norm(self._projected(self.visual[2], visual)),
        )

    def _projected(self, layer: nn.Module, x: Tensor) -> Tensor:
        projected: Tensor = self.dropout(layer(x).relu())
        return projected

    def _positive(self, alike: Tensor) -> Tensor:
        shares = _normalised(alike)
        return _normalised(shares * (shares > self.threshold))


class PropagationHead(NamedHead):
    r"""From the features before the propagation to the logits of every segment.

    .. math:: f = W_2 \operatorname{relu}(W_1 \tfrac{1}{2} (a' + v'))

    The propagation lies inside the head, so that a modality is scored by what it says without the
    other, and so that OGM-GE leaves it alone.

    Args:
        width: of the features of both modalities.
        classes: C, the number of logits.
        threshold: see `Propagation`.
        dropout: see `Propagation`.
        hidden: width of the hidden layer.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        threshold: float = 0.099,
        dropout: float = 0.1,
        hidden: int = 64,
    ) -> None:
        super().__init__(dict.fromkeys(NAMES, width), classes)
        refuse_sizes(self, hidden=hidden)
        self.propagation = Propagation(width, threshold, dropout)
        self.classifier = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, classes, bias=False)
        )
        initialise(self.classifier)

    def forward(self, **features: Tensor) -> Tensor:
        """Return logits ``(B, T, C)`` of ``audio=`` and ``visual=``, each ``(B, T, width)``."""
        audio, visual = self.propagation(**self.ordered(features))
        logits: Tensor = self.classifier((audio + visual) / 2)
        return logits

    def similarity(self, **features: Tensor) -> Tensor:
        r"""Return :math:`\cos(a'_t, v'_t)`, shape ``(B, T)``, for `pair_similarity_loss`.

        It propagates once more: in training the dropout differs from that behind the logits.
        """
        audio, visual = self.propagation(**self.ordered(features))
        return F.cosine_similarity(audio, visual, dim=-1)


class PSP(nn.Module):
    """Audio-visual event localisation by positive sample propagation (Zhou et al., CVPR 2021).

    Two linear layers for audio, `GuidedAttention` guided by what they return, two linear layers
    for the attended maps, and a bidirectional LSTM per modality; then `PropagationHead`. Train it
    with `segment_cross_entropy` as the criterion.

    Args:
        classes: C, event categories with the background.
        audio: width of the audio features, 128 for VGGish.
        visual: width of a cell of the visual maps, 512 for VGG-19.
        hidden: width of the LSTMs, in each direction, and of what they are given.
        attention: width of the hidden layer of the attention.
        threshold: see `Propagation`.
        dropout: see `Propagation`.

    Attributes:
        attention: only its `score` belongs to no modality.
        head: the propagation and the classifier; takes ``audio=`` and ``visual=``, each
            ``(B, T, 2 * hidden)``.

    Raises:
        SetupError: an argument is out of its range, or an input has another shape.

    >>> import torch
    >>> model = PSP(classes=29)
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
        threshold: float = 0.099,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        refuse_sizes(self, audio=audio, visual=visual, hidden=hidden, attention=attention)
        self.widths = (audio, visual)
        self.audio_layers = _two_layers(audio, hidden)
        self.attention = GuidedAttention(hidden, visual, attention)
        self.visual_layers = _two_layers(visual, hidden)
        self.audio = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.visual = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.head = PropagationHead(2 * hidden, classes, threshold, dropout)

    @property
    def encoders(self) -> dict[str, list[nn.Module]]:
        """The modules that belong to one modality alone, all before the propagation."""
        return {
            "audio": [self.audio_layers, self.attention.guide, self.audio],
            "visual": [self.attention.cells, self.visual_layers, self.visual],
        }

    def encode(self, audio: Tensor, visual: Tensor) -> dict[str, Tensor]:
        """Return the features before the propagation, ``(B, T, 2 * hidden)`` for each modality.

        Args:
            audio: shape ``(B, T, audio)``.
            visual: maps ``(B, T, P, visual)`` of P cells, or ``(B, T, H, W, visual)``.
        """
        cells = cells_of(self, audio, visual, self.widths)
        heard = self.audio_layers(audio)
        seen = self.visual_layers(self.attention(heard, cells))
        return {"audio": self.audio(heard)[0], "visual": self.visual(seen)[0]}

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Return logits ``(B, T, C)``; the arguments are those of `encode`."""
        logits: Tensor = self.head(**self.encode(audio, visual))
        return logits


def pair_similarity_loss(similarity: Tensor, event: Tensor) -> Tensor:
    r"""Return the audio-visual pair similarity loss (Zhou et al., CVPR 2021), shape ``()``.

    .. math::
        L = \frac{1}{BT} \sum_{b,t} (\nu(\operatorname{relu}(s_b))_t - \nu(e_b)_t)^2

    The published code adds it to the cross-entropy with the weight 100.

    Args:
        similarity: s, of audio and visual features of the same segment, shape ``(B, T)``.
        event: e, whether a segment shows an event, shape ``(B, T)``, bool or 0 and 1.

    Raises:
        SetupError: the shapes differ.

    >>> import torch
    >>> event = torch.tensor([[True, True, False, False]])
    >>> pair_similarity_loss(torch.tensor([[0.5, 0.5, -1.0, 0.0]]), event)
    tensor(0.)
    """
    if similarity.shape != event.shape:
        raise SetupError(
            "pair_similarity_loss: expected similarity and event of one shape (B, T), found "
            f"{tuple(similarity.shape)} and {tuple(event.shape)}"
        )
    target = _normalised(event.to(similarity.dtype))
    return F.mse_loss(_normalised(similarity.relu()), target)


def _normalised(rows: Tensor) -> Tensor:
    return rows / (rows.sum(dim=-1, keepdim=True) + TINY)


def _two_layers(inputs: int, outputs: int) -> nn.Sequential:
    """Two linear layers without bias and, as published, without anything between them."""
    layers = nn.Sequential(
        nn.Linear(inputs, 2 * outputs, bias=False), nn.Linear(2 * outputs, outputs, bias=False)
    )
    initialise(layers)
    return layers
