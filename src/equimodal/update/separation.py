"""Gradients of single loss terms, for methods that combine them by a rule of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from equimodal import ranks
from equimodal.method import REST, Method
from equimodal.modalities import Modalities


class Separation:
    """Buffers the gradient of every term of the loss, and hands them to a method.

    On the encoders; on everything outside of them too, where the method declares `combines_rest`.

    The user's one backward pass still fills `.grad` with the sum of all terms, through whatever
    reducer and scaler is in use. What is computed here is buffered over micro-batches and averaged
    over ranks once; the sum of a method's terms in `.grad` is then exchanged for what the method
    makes of them.
    """

    def __init__(self, method: Method, modalities: Modalities) -> None:
        self.method = method
        self.modalities = modalities
        self._terms: dict[str, dict[nn.Parameter, Tensor]] = {}

    def _parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters that are combined, by modality and under `REST`."""
        parts = {
            name: [owned.parameter for owned in self.modalities.trainable(name)]
            for name in self.modalities.names
        }
        if self.method.combines_rest:
            parts[REST] = [p for p in self.modalities.rest if p.requires_grad]
        return parts

    def backward(
        self,
        loss: Tensor,
        records: Sequence[Mapping[str, Tensor]],
        using: Callable[[Tensor], None],
    ) -> None:
        """Backpropagate a loss, and add the gradients of its terms, scaled as it is.

        Args:
            loss: what is to be backpropagated, scaled by the user or not.
            records: the terms of each loss that it was computed from.
            using: how to backpropagate. It may scale the loss further, as Accelerate does: the
                gradient that arrives at the loss says by how much.
        """
        gradients = [self._gradients(loss, terms) for terms in records]
        arrived: list[Tensor] = []
        handle = loss.register_hook(arrived.append)  # type: ignore[no-untyped-call]
        try:
            using(loss)
        finally:
            handle.remove()
        for of_terms in gradients:
            for name, buffers in of_terms.items():
                total = self._terms.setdefault(name, {})
                for parameter, gradient in buffers.items():
                    for scale in arrived:
                        gradient = gradient * scale
                    known = total.get(parameter)
                    total[parameter] = gradient if known is None else known + gradient

    def _gradients(
        self, loss: Tensor, terms: Mapping[str, Tensor]
    ) -> dict[str, dict[nn.Parameter, Tensor]]:
        """Return the gradient of every term, by name and parameter."""
        prefix = f"{self.method.name}/"
        if not any(name.startswith(prefix) for name in terms):
            return {}  # it has no terms outside of its window
        own = {
            name.removeprefix(prefix): term
            for name, term in terms.items()
            if term.requires_grad and (name == "joint" or name.startswith(prefix))
        }
        parameters = [parameter for part in self._parts().values() for parameter in part]
        scales = torch.autograd.grad(loss, list(own.values()), retain_graph=True, allow_unused=True)
        found = {}
        for (name, term), scale in zip(own.items(), scales, strict=True):
            gradients = torch.autograd.grad(
                term, parameters, scale, retain_graph=True, allow_unused=True
            )
            found[name] = {
                parameter: gradient
                for parameter, gradient in zip(parameters, gradients, strict=True)
                if gradient is not None
            }
        return found

    def forget(self) -> None:
        """Drop what was separated for a step that was taken without it."""
        self._terms = {}

    def combine(self, scaler: torch.amp.GradScaler | None, group: dist.ProcessGroup | None) -> None:
        """Exchange the sum of the terms in `.grad` for the method's own combination."""
        terms, self._terms = self._terms, {}
        if not terms:
            return
        flat = [gradient for buffers in terms.values() for gradient in buffers.values()]
        ranks.average_(flat, group)
        if scaler is not None and flat:
            torch._foreach_div_(flat, scaler.scale(torch.ones((), device=flat[0].device)))
        for part, trainable in self._parts().items():
            parameters = [parameter for parameter in trainable if parameter.grad is not None]
            gradients = {
                name: [buffers.get(p, torch.zeros_like(p)) for p in parameters]
                for name, buffers in terms.items()
            }
            combined = self.method.combine(part, gradients) if parameters else None
            if combined is None:
                continue
            for index, parameter in enumerate(parameters):
                assert parameter.grad is not None
                for term in gradients.values():
                    parameter.grad -= term[index]
                parameter.grad += combined[index]
