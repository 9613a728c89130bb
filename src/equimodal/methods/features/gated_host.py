"""A host model with gates between its branches: what carries which information."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.functional.greedy import learning_speed
from equimodal.modalities import Modalities


@dataclass(frozen=True)
class Gate:
    """A module whose output multiplies the channels of one modality, and its place among all."""

    module: nn.Module
    modality: int
    place: slice


class GatedHost:
    """The gates of a model such as `equimodal.nn.MMTM`, and the parameters on either way.

    A block is any module with `gates`, an `nn.ModuleDict` by modality, and `channels`, the width of
    each gate. What the gates of a modality and all that its block shares hold is the bypass, by
    which it learns from the others. Its encoder, and what stands under its name in any other
    `nn.ModuleDict`, such as the classifiers of the branches, is its own branch.

    Args:
        model: the user's.
        modalities: the encoders.

    Attributes:
        gates: one for each block and modality.
        size: number of values of all gates of one sample.

    Raises:
        SetupError: the model has no such block.
    """

    def __init__(self, model: nn.Module, modalities: Modalities) -> None:
        names = modalities.names
        blocks: list[Any] = [
            block
            for block in model.modules()
            if isinstance(gates := getattr(block, "gates", None), nn.ModuleDict)
            and hasattr(block, "channels")
            and set(names) <= set(gates)
        ]
        if not blocks:
            raise SetupError(
                "expected a model with MMTM gates, such as equimodal.nn.MMTM: modules with `gates`"
                f", an nn.ModuleDict by modality ({', '.join(names)}), and `channels`. Found "
                f"{type(model).__name__} without"
            )
        self.gates: list[Gate] = []
        self.size = 0
        crossing: dict[nn.Parameter, None] = {}
        bypass: list[dict[nn.Parameter, None]] = [{} for _ in names]
        for block in blocks:
            of_one = set(block.gates.parameters())
            crossing.update(dict.fromkeys(block.parameters()))
            shared = [parameter for parameter in block.parameters() if parameter not in of_one]
            for index, name in enumerate(names):
                end = self.size + block.channels[name]
                self.gates.append(Gate(block.gates[name], index, slice(self.size, end)))
                self.size = end
                bypass[index].update(dict.fromkeys([*block.gates[name].parameters(), *shared]))
        self._bypass = [list(of) for of in bypass]
        self._main = [
            [p for p in dict.fromkeys(_branch(model, modalities, name)) if p not in crossing]
            for name in names
        ]

    def speeds(self) -> tuple[Tensor, Tensor]:
        """Return the speeds of this step by the bypass and in the branches, shape ``(M,)`` each."""
        return _speeds(self._bypass), _speeds(self._main)


def _branch(model: nn.Module, modalities: Modalities, name: str) -> Iterator[nn.Parameter]:
    yield from (owned.parameter for owned in modalities.owned[name])
    for module in model.modules():
        if isinstance(module, nn.ModuleDict) and set(modalities.names) <= set(module):
            yield from module[name].parameters()


def _speeds(parts: Sequence[Sequence[nn.Parameter]]) -> Tensor:
    speeds = []
    for parameters in parts:
        moved = [p for p in parameters if p.grad is not None]
        gradients = [p.grad for p in moved if p.grad is not None]
        still = parameters[0].detach().new_zeros(())
        speeds.append(learning_speed(gradients, moved) if moved else still)
    return torch.stack(speeds)
