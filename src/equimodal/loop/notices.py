"""What goes wrong without an error of its own: noticed, and said once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from equimodal.errors import StepError, warn
from equimodal.evidence import Evidence
from equimodal.modalities import Modalities
from equimodal.update.optimizers import Optimizer, held
from equimodal.update.wrappers import innermost


class Notices:
    """Warnings about a training loop, each given once, and what they are told from.

    Args:
        modalities: the encoders.
        optimizers: those that the balancer was given.
    """

    def __init__(self, modalities: Modalities, optimizers: Sequence[Optimizer]) -> None:
        self.modalities = modalities
        self.optimizers = optimizers
        self._said: set[str] = set()
        self._other: str | None = None
        self.waiting: Callable[[], bool] = lambda: True  # whether judged gradients are there still

    def once(self, message: str) -> None:
        """Warn, unless the same was said before."""
        if message not in self._said:
            self._said.add(message)
            warn(message)

    def forgotten(self, closure: bool) -> None:
        """The optimizer has stepped, and `modulate` had not been called."""
        self.once(
            "optimizer.step() ran on gradients that balancer.modulate() has not seen"
            + (": call it within the closure, after balancer.backward" if closure else "")
            + ". Write balancer.backward(loss); balancer.modulate(); optimizer.step()"
        )

    def unsound(self, log_scores: Tensor, unusable: str) -> None:
        """Look for evidence that is NaN, where looking does not make the device wait.

        `unusable` says which losses, but for those that are NaN, make it so.
        """
        if log_scores.device.type != "cpu" or torch.compiler.is_compiling():
            return
        values = log_scores.tolist()
        names = [n for n, v in zip(self.modalities.names, values, strict=True) if v != v]
        if names:
            self.once(
                f"the unimodal loss of {', '.join(names)} is NaN or {unusable}: coefficients "
                "that depend on it are 1 in such steps"
            )

    def untouched(self, names: Sequence[str], evidence: Evidence | None = None) -> None:
        """Modalities had samples in this step, but no gradient to modulate.

        Args:
            names: the modalities.
            evidence: whose counts tell whether they had samples; None where that is known.
        """
        if torch.compiler.is_compiling():
            return
        messages = {
            name: f"no gradient reached encoders['{name}'], so that nothing of it was modulated: "
            "was its feature detached, were its layers replaced after the balancer was made, or "
            "was zero_grad() called before modulate()?"
            for name in names
        }
        if self._said.issuperset(messages.values()):
            return  # looking at the counts would make the device wait
        counts = {}
        if evidence is not None:
            counts = dict(zip(evidence.names, evidence.counts.tolist(), strict=True))
        for name, message in messages.items():
            if evidence is None or counts[name] > 0:
                self.once(message)

    def unseparated(self, names: Sequence[str]) -> None:
        """Parameters of a shared trunk have a gradient, and their layers were not called."""
        if names:
            self.once(
                f"eq.Tokens: {', '.join(names[:3])}{', ...' if names[3:] else ''} have gradients "
                "that did not come through a call of their layer, and are left as they are: layers "
                "whose weight something else takes, such as nn.MultiheadAttention, cannot be "
                "separated by tokens"
            )

    def evaluating(self, model: nn.Module) -> None:
        """A loss is about to be trained on: look whether the model is in evaluation mode."""
        if not model.training:
            self.once(
                f"{type(model).__name__} is trained in evaluation mode, without dropout and with "
                "BatchNorm's running statistics: call model.train() after every evaluation"
            )

    def unordered(self) -> None:
        """A method decides which samples an epoch has, but nobody asks it."""
        self.once(
            "a method decides which samples an epoch has, but the loop does not ask it: write "
            "for batch in balancer.batches(loader)"
        )

    def refuse_replaced(self) -> None:
        """Refuse to go on where another optimizer has taken the step of a known one.

        Raises:
            StepError: it was replaced after the balancer was attached.
        """
        if self._other is not None:
            known = ", ".join(type(optimizer).__name__ for optimizer in self.optimizers)
            raise StepError(
                f"the encoders were stepped by another optimizer ({self._other}) than the one that "
                f"the balancer was given ({known}), which has not stepped: was it replaced? Make "
                "the balancer after the last optimizer, eq.Balancer(..., optimizer=optimizer)"
            )

    def stepped(self) -> None:
        """A known optimizer has stepped: it may have called another one to do so."""
        self._other = None

    def other_stepped(self, optimizer: Optimizer) -> None:
        """Note where an optimizer that is not known has stepped the encoders."""
        if any(optimizer is known for known in self.optimizers) or not self.waiting():
            return
        if any(innermost(optimizer) is known for known in self.optimizers):
            return  # wrapped around one, which has stepped within
        ours = held(optimizer)
        for name in self.modalities.names:
            if any(owned.parameter in ours for owned in self.modalities.owned[name]):
                self._other = type(optimizer).__name__
