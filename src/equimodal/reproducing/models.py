"""The models of the articles, on what the data sets give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.data import Splits
from equimodal.errors import SetupError
from equimodal.nn import AVGA, MMTM, PSP, TSN, Multimodal, ResNet18
from equimodal.nn.hosts.branch import Branch, branch_of
from equimodal.training.models import HEADS, Fusion

WIDTH = 64  # channels of the first stage: ResNet-18 itself
SNIPPETS = 3  # of sound, as many as the frames of the articles
NAMES = ("audio", "visual")


def model_of(splits: Splits[Any], seed: int, model: str, width: int = WIDTH) -> Any:
    """Return a model of `MODELS` from scratch; the global random state is left alone.

    Args:
        splits: the data.
        seed: of the initial values.
        model: its name.
        width: channels of ResNet-18's first stage; of AVGA and PSP twice that is their LSTMs' width
            in each direction.

    Raises:
        SetupError: the data has other modalities than audio and visual, or of other shapes.
    """
    if splits.modalities != NAMES:
        found = ", ".join(splits.modalities)
        raise SetupError(
            f"{splits.card.name}: expected the modalities audio, visual, found {found}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[model](splits.train.shapes, len(splits.classes), width)


class SnippetTSN(TSN):
    """A TSN on a spectrogram and frames: equal parts of the one, every frame of the other.

    Args:
        encoders: see `TSN`.
        classes: see `TSN`.
    """

    def forward(self, *inputs: Any) -> Tensor:
        """Return logits ``(B, C)``.

        Args:
            inputs: spectrograms ``(B, 1, F, T)`` and frames ``(B, 3, T, H, W)``.
        """
        sound, frames = inputs
        length = sound.shape[-1] // SNIPPETS
        parts = sound.unfold(-1, length, length)[..., :SNIPPETS, :]
        return super().forward(parts.movedim(-2, 1), frames.movedim(2, 1))


Shapes = Mapping[str, tuple[int, ...]]


def _encoders(shapes: Shapes, width: int) -> dict[str, nn.Module]:
    for name, shape in shapes.items():
        if len(shape) not in (3, 4):
            raise SetupError(
                f"{name}: expected spectrograms (C, H, W) or frames (C, T, H, W), found {shape}"
            )
    return {name: ResNet18(shape[0], width) for name, shape in shapes.items()}


def _fused(fusion: Fusion) -> Callable[[Shapes, int, int], nn.Module]:
    def make(shapes: Shapes, classes: int, width: int) -> nn.Module:
        head = HEADS[fusion](dict.fromkeys(shapes, 8 * width), classes)
        return Multimodal(_encoders(shapes, width), head)

    return make


def _tsn(shapes: Shapes, classes: int, width: int) -> nn.Module:
    return SnippetTSN(_encoders(shapes, width), classes)


class Framewise(nn.Module):
    """A stage of a network for pictures, on every frame of a clip.

    Args:
        stage: from ``(N, C, H, W)`` to ``(N, D, I, J)``.
    """

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        """Return maps ``(B, D, T, I, J)`` of ``(B, C, T, H, W)``."""
        frames = x.transpose(1, 2)
        maps: Tensor = self.stage(frames.flatten(0, 1))
        return maps.view(*frames.shape[:2], *maps.shape[1:]).transpose(1, 2)


def _mmtm(shapes: Shapes, classes: int, width: int) -> nn.Module:
    branches: dict[str, nn.Module] = {}
    for name, encoder in _encoders(shapes, width).items():
        branch = branch_of(encoder, name)
        framed = len(shapes[name]) == 4
        stages = [Framewise(stage) if framed else stage for stage in branch.stages]
        branches[name] = Branch(stages, branch.channels)
    return MMTM(branches, classes)


def _segmented(host: type[AVGA] | type[PSP]) -> Callable[[Shapes, int, int], nn.Module]:
    def make(shapes: Shapes, classes: int, width: int) -> nn.Module:
        audio, visual = (shapes[name][-1] for name in NAMES)
        return host(classes, audio=audio, visual=visual, hidden=2 * width)

    return make


MODELS: Mapping[str, Callable[[Shapes, int, int], nn.Module]] = {
    "concat": _fused("concat"),
    "sum": _fused("sum"),
    "film": _fused("film"),
    "gated": _fused("gated"),
    "tsn": _tsn,
    "mmtm": _mmtm,
    "avga": _segmented(AVGA),
    "psp": _segmented(PSP),
}
