"""Encoders that start anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError


@torch.no_grad()
def reinitialise(encoders: Mapping[str, Sequence[nn.Module]]) -> None:
    """Draw the trainable parameters of encoders anew, as the modules' own `reset_parameters` does.

    Inner modules come before the modules that hold them, which may overrule them. Running
    statistics of normalisation are reset with its parameters; other buffers and frozen parameters
    stay as they are. What a model's constructor made of the defaults is not known here.

    Args:
        encoders: modules by modality, changed in place. Draws are from the global generator.

    Raises:
        SetupError: trainable parameters that no module resets; the encoders are spoilt then.
    """
    left = []
    for name, modules in encoders.items():
        for encoder in modules:
            frozen = _keep_frozen(encoder)
            trainable = [(n, p) for n, p in encoder.named_parameters() if p.requires_grad]
            for _, parameter in trainable:
                parameter.fill_(torch.nan)  # what is still NaN afterwards nobody has reset
            for module in reversed(list(encoder.modules())):
                # nn.MultiheadAttention hides its own behind an underscore.
                reset = getattr(module, "reset_parameters", None)
                reset = reset or getattr(module, "_reset_parameters", None)
                if callable(reset):
                    reset()
            for parameter, before in frozen:
                parameter.copy_(before)
            left += [f"{name}: {n}" for n, parameter in trainable if parameter.isnan().any()]
    if left:
        shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        raise SetupError(
            f"cannot start the encoders anew: no module has a reset_parameters() for {shown}. Give "
            "fresh=, a function without arguments that makes a new model like this one"
        )


def _keep_frozen(encoder: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    return [(p, p.clone()) for p in encoder.parameters() if not p.requires_grad]
