"""Temporal segment networks on several modalities."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.heads import Concat
from equimodal.nn.model import Multimodal
from equimodal.nn.refusals import refuse_shape


class TSN(Multimodal):
    r"""Temporal segment network (Wang et al., ECCV 2016), one per modality, fused late.

    A few snippets stand for a whole recording. One encoder reads every snippet of a modality, the
    segmental consensus is their mean, and a linear layer classifies the concatenated means:

    .. math::
        z_m = \frac{1}{S_m} \sum_{s=1}^{S_m} \phi_m(x_{m,s}), \quad
        f = [z_1, \dots, z_M] W^\top + b

    As the classifier is linear, the mean of the features is the paper's mean of the snippets'
    class scores. Modalities do not interact before the head.

    Args:
        encoders: for each modality a module from snippets ``(N, ...)`` to features
            ``(N, features)``, with the attribute `features`.
        classes: C, the number of logits.

    Attributes:
        encoders: for each modality a `Consensus` of its encoder.
        head: a `Concat`.

    Raises:
        SetupError: fewer than two modalities, an encoder without the attribute `features`, or an
            input without segments.

    >>> import torch
    >>> from equimodal.nn import CNN2d
    >>> model = TSN({"audio": CNN2d(1, 32), "visual": CNN2d(4, 32)}, classes=25)
    >>> model(torch.randn(2, 3, 1, 48, 13), torch.randn(2, 3, 4, 24, 36)).shape
    torch.Size([2, 25])
    """

    def __init__(self, encoders: Mapping[str, nn.Module], classes: int) -> None:
        if not isinstance(encoders, Mapping | nn.ModuleDict):
            raise SetupError(
                "TSN(encoders): expected a dict of modalities and their encoders, such as "
                f'{{"audio": CNN2d(1), "visual": CNN2d(3)}}, found {encoders!r}'
            )
        wrapped = {name: Consensus(encoder, name) for name, encoder in encoders.items()}
        head = Concat({name: each.features for name, each in wrapped.items()}, classes)
        super().__init__(wrapped, head)


class Consensus(nn.Module):
    """One encoder on every segment, and the mean of what it returns.

    BatchNorm in the encoder sees all segments of all samples.

    Args:
        encoder: from snippets ``(N, ...)`` to features ``(N, features)``.
        name: of the modality, for errors.

    Attributes:
        features: width of the output.

    Raises:
        SetupError: the encoder does not say how wide its features are.
    """

    def __init__(self, encoder: nn.Module, name: str = "encoder") -> None:
        super().__init__()
        features = getattr(encoder, "features", None)
        if not isinstance(features, int):
            raise SetupError(
                f"TSN(encoders[{name!r}]): expected a module with the width of its output as "
                f"attribute features, such as CNN2d(1, features=64), found {encoder!r}"
            )
        self.encoder = encoder
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, features)`` of segments ``(B, S, ...)``."""
        if x.ndim < 3 or not x.shape[1]:
            refuse_shape(self, x, ("B", "S (1 or more)", "..."))
        encoded: Tensor = self.encoder(x.flatten(0, 1))
        return encoded.view(*x.shape[:2], self.features).mean(dim=1)


def sample_segments(
    x: Tensor, segments: int, length: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Cut a recording into equal segments, and take one snippet of each.

    Args:
        x: recordings, shape ``(B, T, ...)``, time second.
        segments: S, how many segments. Segment s starts at step ``s * T // S``.
        length: L, steps of a snippet; no longer than the shortest segment.
        generator: draws where in its segment a snippet starts, one place for the whole batch; a
            CPU generator, for training. Without it a snippet lies in the middle of its segment.

    Returns:
        Snippets, shape ``(B, S, L, ...)``.

    Raises:
        SetupError: a segment is shorter than a snippet.

    >>> import torch
    >>> sample_segments(torch.arange(12).view(1, 12), segments=3, length=2)
    tensor([[[ 1,  2],
             [ 5,  6],
             [ 9, 10]]])
    """
    steps = x.shape[1] if x.ndim > 1 else 0
    if segments < 1 or length < 1 or steps // segments < length:
        raise SetupError(
            f"sample_segments: expected a tensor (B, T, ...) with {segments} segments of "
            f"{length} steps or more, found shape {tuple(x.shape)}"
        )
    edges = [segment * steps // segments for segment in range(segments + 1)]
    snippets = []
    for start, end in itertools.pairwise(edges):
        room = end - start - length
        offset = room // 2
        if generator is not None:
            offset = int(torch.randint(room + 1, (), generator=generator))
        snippets.append(x.narrow(1, start + offset, length))
    return torch.stack(snippets, dim=1)
