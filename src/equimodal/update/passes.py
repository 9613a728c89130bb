"""Backward passes of single loss terms, beside the user's one of their sum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.errors import StepError
from equimodal.method import Method
from equimodal.update.reach import crosses_sink, hides

Buffers = dict[str, dict[nn.Parameter, Tensor]]  # by term and parameter
DONATED = "donated buffers"  # torch's own words for what it frees in a compiled backward pass


class Passes:
    """Takes the gradient of each term, and refuses graphs in which that is not the term's.

    Args:
        method: whose terms they are.
        static: whether the model is wrapped by DistributedDataParallel with a static graph, whose
            sink counts backward passes.
    """

    def __init__(self, method: Method, static: bool = False) -> None:
        self.method = method
        self.static = static
        self._walked: set[str] = set()  # terms whose graph is known to hide nothing

    def gradients(
        self, loss: Tensor, terms: Mapping[str, Tensor], parameters: list[nn.Parameter]
    ) -> Buffers:
        """Return the gradients of terms, as they are scaled in a loss; the graph is kept.

        Args:
            loss: that was computed from the terms.
            terms: by name, each shape ``()``, with its graph.
            parameters: those that a term does not lead to have no entry.

        Raises:
            StepError: a pass would not give the gradient of the term in this graph.
        """
        self._refuse_unfit(terms)
        scales = torch.autograd.grad(
            loss, list(terms.values()), retain_graph=True, allow_unused=True
        )
        found: Buffers = {}
        for (name, term), scale in zip(terms.items(), scales, strict=True):
            try:
                gradients = torch.autograd.grad(
                    term, parameters, scale, retain_graph=True, allow_unused=True
                )
            except RuntimeError as error:
                raise self._said(error) from error
            found[name] = {
                parameter: gradient
                for parameter, gradient in zip(parameters, gradients, strict=True)
                if gradient is not None
            }
        return found

    def _refuse_unfit(self, terms: Mapping[str, Tensor]) -> None:
        if self.static and any(crosses_sink(term) for term in terms.values()):
            raise StepError(
                f"separate passes of {type(self.method).__name__} cross DDP's static graph, which "
                "counts them: make it DistributedDataParallel(..., static_graph=False)"
                + (
                    ", or say eq.Balancer(..., micro_batches=1) if every optimizer step has one"
                    if self.method.single_pass
                    else ""
                )
            )
        for name in terms.keys() - self._walked:
            if hides(terms[name]):
                raise StepError(self._reentrant())
            self._walked.add(name)

    def _said(self, error: RuntimeError) -> Exception:
        """Return an error in words of the user's loop, where torch's own are about its inside."""
        if DONATED in str(error):
            return StepError(
                f"a separate pass of {type(self.method).__name__} needs a compiled graph twice: "
                "set torch._functorch.config.donated_buffer = False before compiling"
            )
        return StepError(self._reentrant()) if "use_reentrant" in str(error) else error

    def _reentrant(self) -> str:
        return (
            f"separate passes of {type(self.method).__name__} do not come to what reentrant "
            "checkpointing recomputes: checkpoint with use_reentrant=False "
            "(gradient_checkpointing_kwargs={'use_reentrant': False} in transformers)"
        )
