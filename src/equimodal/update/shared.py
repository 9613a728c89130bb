"""A trunk that modalities share: made from what the user says, or refused."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from equimodal.attach.sharding import Sharding
from equimodal.attach.tokens import Tokens
from equimodal.errors import SetupError
from equimodal.method import Method
from equimodal.modalities import Modalities
from equimodal.noise import NoiseSource
from equimodal.update.trunk import Trunk


def shared(
    tokens: Tokens | None,
    model: nn.Module,
    modalities: Modalities,
    methods: Sequence[Method],
    source: NoiseSource,
    handles: list[RemovableHandle],
    sharding: Sharding | None,
) -> Trunk | None:
    """Return the trunk that the user says, None without one; arguments are those of `Trunk`.

    Raises:
        SetupError: it cannot be separated; the hooks that were noted are taken off then.
    """
    if tokens is None:
        return None
    try:
        if sharding is not None:
            raise SetupError(
                "eq.Tokens needs whole gradients, and the model is sharded: use "
                "DistributedDataParallel, or leave tokens= out"
            )
        if not isinstance(tokens, Tokens):
            raise SetupError(f"tokens: expected eq.Tokens(trunk, which), found {tokens!r}")
        _refuse_methods(methods)
        return Trunk(tokens, model, modalities, methods, source, handles)
    except SetupError:
        for handle in handles:
            handle.remove()
        raise


def _refuse_methods(methods: Sequence[Method]) -> None:
    """Refuse methods that make something else of gradients than a factor and noise.

    Raises:
        SetupError: there is one.
    """
    for method in methods:
        kind = type(method).__name__
        if method.overrides("combine") or method.overrides("perturb"):
            raise SetupError(
                f"{kind} runs backward passes of its own, and eq.Tokens separates the gradients of "
                "one: leave out tokens=, or use a method that goes by coefficients, such as eq.OGM"
            )
        if method.noise is not None and method.noise.state(torch.zeros(1)):
            raise SetupError(
                f"{method.noise} keeps running moments for every parameter, and with eq.Tokens a "
                "parameter has several gradients: use eq.TensorNoise()"
            )
