"""Gradients of single loss terms, for methods that combine them by a rule of their own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from equimodal import ranks
from equimodal.method import Method
from equimodal.modalities import Modalities


class Separation:
    """Buffers the gradient of every term of the loss on the encoders, and hands them to a method.

    The user's one backward pass still fills `.grad` with the sum of all terms, through whatever
    reducer and scaler is in use. What is computed here is buffered over micro-batches and averaged
    over ranks once; the sum of a method's terms in `.grad` is then exchanged for what the method
    makes of them.
    """

    def __init__(self, method: Method, modalities: Modalities) -> None:
        self.method = method
        self.modalities = modalities
        self._terms: dict[str, dict[nn.Parameter, Tensor]] = {}

    def add(self, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Add the gradients of one loss, scaled as the loss is (by a scaler, or by 1/N).

        Args:
            loss: what is about to be backpropagated.
            terms: the terms it was computed from.
        """
        prefix = f"{self.method.name}/"
        own = {
            name.removeprefix(prefix): term
            for name, term in terms.items()
            if term.requires_grad and (name == "joint" or name.startswith(prefix))
        }
        parameters = [
            owned.parameter
            for name in self.modalities.names
            for owned in self.modalities.trainable(name)
        ]
        scales = torch.autograd.grad(loss, list(own.values()), retain_graph=True, allow_unused=True)
        for (name, term), scale in zip(own.items(), scales, strict=True):
            gradients = torch.autograd.grad(
                term, parameters, scale, retain_graph=True, allow_unused=True
            )
            buffers = self._terms.setdefault(name, {})
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    known = buffers.get(parameter)
                    buffers[parameter] = gradient if known is None else known + gradient

    def combine(self, scaler: torch.amp.GradScaler | None, group: dist.ProcessGroup | None) -> None:
        """Exchange the sum of the terms in `.grad` for the method's own combination."""
        terms, self._terms = self._terms, {}
        flat = [gradient for buffers in terms.values() for gradient in buffers.values()]
        ranks.average_(flat, group)
        if scaler is not None and flat:
            torch._foreach_div_(flat, scaler.scale(torch.ones((), device=flat[0].device)))
        for modality in self.modalities.names:
            parameters = [
                owned.parameter
                for owned in self.modalities.trainable(modality)
                if owned.parameter.grad is not None
            ]
            gradients = {
                name: [buffers.get(p, torch.zeros_like(p)) for p in parameters]
                for name, buffers in terms.items()
            }
            combined = self.method.combine(modality, gradients) if parameters else None
            if combined is None:
                continue
            for index, parameter in enumerate(parameters):
                assert parameter.grad is not None
                for term in gradients.values():
                    parameter.grad -= term[index]
                parameter.grad += combined[index]
