"""Low-rank adapters, found by the name that PEFT knows them by."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import nn

from equimodal.errors import SetupError, unknown


@dataclass(frozen=True)
class Adapter:
    """Low-rank adapters of PEFT by their name: ``{"image": [model.vision, eq.Adapter("vision")]}``.

    All parameters ``lora_*.NAME`` of the model belong to the modality, wherever they are.

    Args:
        name: as PEFT knows the adapter, "default" where none was given.
    """

    name: str

    def parameters(self, model: nn.Module, where: str) -> list[nn.Parameter]:
        """Return the parameters of the adapter in a model.

        Args:
            model: to look in.
            where: who names it, for the message.

        Raises:
            SetupError: no adapter has this name.
        """
        found: dict[str, list[nn.Parameter]] = {}
        for path, parameter in model.named_parameters():
            for kind, adapter in itertools.pairwise(path.split(".")):
                if kind.startswith("lora_"):
                    found.setdefault(adapter, []).append(parameter)
        if self.name not in found:
            raise SetupError(f"{where}: " + unknown("adapter", self.name, found))
        return found[self.name]
