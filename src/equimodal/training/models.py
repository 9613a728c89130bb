"""A model that suits a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

from equimodal import nn
from equimodal.data import Samples, Splits
from equimodal.errors import SetupError

Fusion = Literal["concat", "sum", "late-average", "film", "gated"]
HEADS: dict[Fusion, type[nn.FusionHead]] = {
    "concat": nn.Concat,
    "sum": nn.Sum,
    "late-average": nn.LateAverage,
    "film": nn.FiLM,
    "gated": nn.Gated,
}
FEATURES = 64
PLAIN = "without normalisation"
BINS = 4  # parts of time that "ordered" keeps


def model_for(
    splits: Splits[Samples], fusion: Fusion = "concat", seed: int = 0, encoder: Encoder = "small"
) -> nn.Multimodal:
    """Return a model for the modalities of a data set.

    Args:
        splits: the data.
        fusion: how the features are fused.
        seed: of the initial values; the global random state is left alone.
        encoder: "small": an MLP for vectors, a small CNN for signals, images and clips; "plain":
            the same without normalisation, which lets weak inputs starve; "ordered": the small one,
            which keeps four parts of the time of signals and clips in order; "resnet18": that of
            OGM-GE for spectrograms, images and clips.

    Raises:
        SetupError: there is no such encoder for a modality.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders: dict[str, torch.nn.Module] = {}
        widths: dict[str, int] = {}
        for name, shape in splits.train.shapes.items():
            made = ENCODERS[encoder](name, shape)
            encoders[name], widths[name] = made, made.features
        return nn.Multimodal(encoders, HEADS[fusion](widths, len(splits.classes)))


def describe(model: nn.Multimodal) -> dict[str, Any]:
    """Return the classes of a model's parts and how many parameters it has, as JSON values."""
    return {
        "head": type(model.head).__name__,
        **{name: _spelt(encoder) for name, encoder in model.encoders.items()},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _spelt(encoder: torch.nn.Module) -> str:
    name = type(encoder).__name__
    if not isinstance(encoder, nn.CNN1d | nn.CNN2d | nn.CNN3d):
        return name
    normalised = any("Norm" in type(module).__name__ for module in encoder.modules())
    return name if normalised else f"{name} {PLAIN}"


def _small(name: str, shape: tuple[int, ...], norm: Literal["batch", "none"] = "batch") -> Any:
    if len(shape) == 1:
        return nn.MLP(shape[0], hidden=(128,), features=FEATURES)
    kind = {2: nn.CNN1d, 3: nn.CNN2d, 4: nn.CNN3d}[len(shape)]
    return kind(shape[0], FEATURES, norm=norm)


def _plain(name: str, shape: tuple[int, ...]) -> Any:
    return _small(name, shape, "none")


def _resnet18(name: str, shape: tuple[int, ...]) -> nn.ResNet18:
    if len(shape) not in (3, 4):
        raise SetupError(
            f"{name}: resnet18 takes spectrograms and images (C, H, W) or clips (C, T, H, W), "
            f'found samples of shape {shape}: use "small"'
        )
    return nn.ResNet18(shape[0])


def _ordered(name: str, shape: tuple[int, ...]) -> Any:
    if len(shape) not in (2, 4):
        return _small(name, shape)
    return {2: nn.CNN1d, 4: nn.CNN3d}[len(shape)](shape[0], FEATURES, bins=BINS)


Encoder = Literal["small", "plain", "ordered", "resnet18"]
ENCODERS: dict[Encoder, Callable[[str, tuple[int, ...]], Any]] = {
    "small": _small,
    "plain": _plain,
    "ordered": _ordered,
    "resnet18": _resnet18,
}
