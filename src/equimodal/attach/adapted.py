"""Encoders that PEFT has replaced, named before it did."""

from __future__ import annotations

from torch import nn

from equimodal.errors import SetupError
from equimodal.modalities import Modalities

# Where PEFT keeps what it has replaced, and what it trains in its place, in the same module.
REPLACED = {"original_module": "modules_to_save", "base_layer": "lora_A"}


def refuse_replaced(model: nn.Module, modalities: Modalities) -> None:
    """Refuse encoders that stand frozen beside what is trained in their place.

    Raises:
        SetupError: one was named before ``get_peft_model`` replaced it.
    """
    named = {module: name for name, module in model.named_modules()}
    for modality, encoder in modalities.encoder_modules():
        parent, _, last = named[encoder].rpartition(".")
        instead = REPLACED.get(last)
        if instead is not None and hasattr(model.get_submodule(parent), instead):
            raise SetupError(
                f"encoders['{modality}'] is the {type(encoder).__name__} that PEFT has replaced by "
                f"{parent!r} and keeps frozen there, while {parent}.{instead} is trained: name "
                f"encoders after get_peft_model, here {parent!r}"
            )
