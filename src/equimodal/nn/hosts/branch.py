"""An encoder taken apart into stages, for hosts that let modalities meet between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.nn.encoders import MLP, CNN1d, CNN2d, CNN3d, ResNet18
from equimodal.nn.refusals import refuse_names, refuse_sizes


class Branch(nn.Module):
    """The stages of one modality, run one after the other.

    Args:
        stages: each takes what the one before returns: maps ``(B, C, ...)``.
        channels: C after each stage.

    Attributes:
        stages: an `nn.ModuleList`.
        channels: as given.

    Raises:
        SetupError: there is no stage, or not as many channels as stages.

    >>> from equimodal.nn import CNN2d
    >>> branch_of(CNN2d(1, features=64, width=16, depth=3), "audio").channels
    (16, 32, 64)
    """

    def __init__(self, stages: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        if not stages or len(stages) != len(channels):
            raise SetupError(
                "Branch: expected one or more stages and the channels after each, found "
                f"{len(stages)} stages and {len(channels)} channels"
            )
        refuse_sizes(self, **{f"channels[{i}]": size for i, size in enumerate(channels)})
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map after the last stage, as if nothing stood between them."""
        for stage in self.stages:
            x = stage(x)
        return x


def branch_of(encoder: nn.Module, name: str) -> Branch:
    """Return the stages of an encoder of `equimodal.nn`, or a `Branch` as it is.

    The stem of a ResNet-18 is part of its first stage; a layer is a stage of the others.

    Raises:
        SetupError: it is another module.
    """
    if isinstance(encoder, Branch):
        return encoder
    if isinstance(encoder, CNN1d | CNN2d | CNN3d):
        return Branch(list(encoder.layers), [_outputs(layer) for layer in encoder.layers])
    if isinstance(encoder, ResNet18):
        first, *rest = encoder.stages
        stages = [nn.Sequential(encoder.stem, first), *rest]
        return Branch(stages, [encoder.features // 2**i for i in reversed(range(len(stages)))])
    if isinstance(encoder, MLP):
        first, *rest = encoder.layers
        stages = [nn.Sequential(nn.Flatten(), first), *rest]
        return Branch(stages, [_outputs(layer) for layer in encoder.layers])
    raise SetupError(
        f"branches[{name!r}]: expected CNN1d, CNN2d, CNN3d, ResNet18, MLP or Branch(stages, "
        f"channels) for a network of your own, found {type(encoder).__name__}"
    )


def branches_of(owner: nn.Module, encoders: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Return the branches of two or more modalities.

    Raises:
        SetupError: there are fewer, a name cannot name a submodule, or two share a module.
    """
    if not isinstance(encoders, Mapping) or len(encoders) < 2:
        raise SetupError(
            f"{type(owner).__name__}(branches): expected a dict of two or more modalities and "
            f'their encoders, such as {{"audio": CNN2d(1), "visual": CNN2d(3)}}, found {encoders}'
        )
    refuse_names(owner, "branches", encoders)
    for (one, first), (other, second) in itertools.combinations(encoders.items(), 2):
        if set(first.parameters()) & set(second.parameters()):
            raise SetupError(
                f"{type(owner).__name__}(branches): {one} and {other} share parameters: give each "
                "modality an encoder of its own"
            )
    return nn.ModuleDict({name: branch_of(each, name) for name, each in encoders.items()})


def stages_of(branches: nn.ModuleDict) -> dict[str, list[nn.Module]]:
    """Return the stages of every branch: the modules that belong to one modality alone."""
    return {name: list(branch.stages) for name, branch in items_of(branches)}


def items_of(branches: nn.ModuleDict) -> list[tuple[str, Branch]]:
    """Return the branches by name."""
    return [(name, each) for name, each in branches.items() if isinstance(each, Branch)]


def pooled(maps: Tensor) -> Tensor:
    """Return maps ``(B, C, ...)`` averaged over all positions, shape ``(B, C)``."""
    return maps.flatten(2).mean(dim=2) if maps.ndim > 2 else maps


def _outputs(layer: nn.Module) -> int:
    """Return the channels of the first layer with weights in it."""
    for part in layer.modules():
        for attribute in ("out_channels", "out_features"):
            size = getattr(part, attribute, None)
            if isinstance(size, int):
                return size
    raise AssertionError(layer)
