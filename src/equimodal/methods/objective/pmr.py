"""Prototypical modal rebalance: the weaker modality is drawn towards its class prototypes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.means import mean_counted
from equimodal.functional.pmr import (
    class_sums,
    dominance,
    prototype_entropy,
    prototype_logits,
    prototype_losses,
)
from equimodal.method import Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.stimulation import (
    GradedStimulation,
    PrototypicalEntropy,
    Stimulation,
)
from equimodal.methods.window import checked_window
from equimodal.readout import feature_vectors
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class PMR(Method):
    r"""Draw the features of whoever is behind towards prototypes (Fan et al., CVPR 2023).

    .. math::
        L = L(f, y) + \alpha \sum_m w_m \frac{1}{B} \sum_i -\log \mathrm{softmax}(d^m_i)_{y_i},
        \quad d^m_{ik} = -\lVert z^m_i - c^m_k \rVert_2

    A prototype c is the mean feature of a class. The scores
    :math:`s_m = \sum_i \mathrm{softmax}(d^m_i)_{y_i}` say who is behind; they are taken from
    features alone, so that any fusion will do. Prototypes are made at the end of every epoch, by a
    pass over training data; until the first are there, training is as it was.

    For classification with one class per sample. A class that no sample of the pass had keeps the
    prototype that it has; without one, it is left out.

    Args:
        alpha: weight of the prototype terms, 0 or more.
        momentum: weight of the past in a prototype, at least 0 and below 1.
        stimulation: how scores become weights: `GradedStimulation()` (the paper, from memory) or
            `SwitchedStimulation()` (the released code).
        entropy: the paper's regulariser of the leader, None for none; see `PrototypicalEntropy`.
        share: the share of the batches of the training data that prototypes are made from, above
            0 and at most 1. The released code takes 0.1.
        window: first and last epoch in which it acts, counted from 0, both included; always by
            default.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "pmr"
    search = searched(alpha=Log(0.1, 3.0))
    source = "Fan et al., CVPR 2023"
    needs = frozenset({"training data"})
    capabilities = Capabilities(accumulation="per micro-batch")

    def __init__(
        self,
        alpha: float = 1.0,
        momentum: float = 0.2,
        *,
        stimulation: Stimulation | None = None,
        entropy: PrototypicalEntropy | None = None,
        share: float = 1.0,
        window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        for what, holds, expected, value in (
            ("alpha", 0 <= alpha < math.inf, "0 or more", alpha),
            ("momentum", 0 <= momentum < 1, "at least 0 and below 1", momentum),
            ("share", 0 < share <= 1, "above 0 and at most 1", share),
        ):
            if not holds:
                raise SetupError(f"PMR({what}): expected {expected}, found {value}")
        self.alpha = alpha
        self.momentum = momentum
        self.stimulation = stimulation or GradedStimulation()
        self.entropy = entropy
        self.share = share
        self.window = checked_window(window, "PMR")
        self.estimated = False  # a number of the host: asking a tensor would wait for the device

    known: Tensor

    def build(self, shapes: Shapes) -> None:
        if hasattr(self, "known"):
            return
        classes = shapes.logits[0] if shapes.logits else 0
        self.register_buffer("known", torch.zeros(classes, dtype=torch.bool))
        for index, shape in enumerate(shapes.features.values()):
            width = feature_vectors(torch.zeros(1, *shape)).shape[1]
            zeros = torch.zeros(classes, width, dtype=shapes.dtype)
            self.register_buffer(f"prototypes_{index}", zeros)

    def objective(self, step: Step) -> dict[str, Tensor]:
        target = _classes(step)
        if not self.estimated:
            return {}
        logits, losses, counted = {}, {}, {}
        for index, name in enumerate(self.names):
            prototypes = self.get_buffer(f"prototypes_{index}")
            vectors = feature_vectors(step.features[name]).to(prototypes.dtype)
            logits[name] = prototype_logits(vectors, prototypes, self.known)
            losses[name], counts = prototype_losses(logits[name], target)
            counted[name] = counts & step.present.get(name, counts).to(counts.device)
        scores = self._scores(step, losses, counted)
        weights = self.alpha * self.stimulation(scores)
        terms = {
            name: weights[index] * mean_counted(losses[name], counted[name])
            for index, name in enumerate(self.names)
        }
        if self.entropy is not None and step.epoch <= self.entropy.until:
            lead = self.entropy.weight * dominance(scores)
            for index, name in enumerate(self.names):
                entropy = mean_counted(prototype_entropy(logits[name]), counted[name])
                terms[f"{name}/entropy"] = -lead[index] * entropy
        return terms

    def end_epoch(self, run: Run) -> None:
        """Make the prototypes anew."""
        assert run.train_loader is not None
        sums: list[Tensor] = []
        for step in run.steps(self._part(run.train_loader)):
            target = _classes(step)
            found: list[Tensor] = []
            for index, name in enumerate(self.names):
                dtype = self.get_buffer(f"prototypes_{index}").dtype
                vectors = feature_vectors(step.features[name]).to(dtype)
                there = step.present.get(name)
                of = target if there is None else target.masked_fill(~there.to(target.device), -1)
                found += class_sums(vectors, of, len(self.known))
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        if not sums:
            raise SetupError("PMR: train_loader is empty: prototypes are means over its samples")
        sums = [run.summed(each) for each in sums]
        for index in range(len(self.names)):
            total, count = sums[2 * index], sums[2 * index + 1]
            self._renew(self.get_buffer(f"prototypes_{index}"), total, count)
        self.known |= (torch.stack(sums[1::2]) > 0).all(dim=0)
        self.estimated = True

    def get_extra_state(self) -> dict[str, bool]:
        return {"estimated": self.estimated}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        self.estimated = state["estimated"]

    def _scores(self, step: Step, losses: dict[str, Tensor], counted: dict[str, Tensor]) -> Tensor:
        """Return mean scores over the micro-batch of all ranks, shape ``(M,)``."""
        sums = [
            torch.stack(
                [(torch.exp(-losses[n]) * counted[n]).sum(), counted[n].to(losses[n]).sum()]
            )
            for n in self.names
        ]
        scores, counts = step.summed(torch.stack(sums)).unbind(dim=1)
        return scores / counts

    def _renew(self, prototypes: Tensor, total: Tensor, count: Tensor) -> None:
        means = total / count.clamp(min=1)[:, None]
        mixed = (1 - self.momentum) * means + self.momentum * prototypes
        fresh = torch.where(self.known[:, None], mixed, means)
        prototypes.copy_(torch.where(count[:, None] > 0, fresh, prototypes))

    def _part(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield the first batches; nothing is drawn before one is asked for, within the pass."""
        if self.share == 1:
            yield from loader
            return
        if not isinstance(loader, Sized):
            raise SetupError(
                f"PMR(share={self.share}): train_loader does not say how many batches it has "
                f"({type(loader).__name__}): give share=1, or a loader with a length"
            )
        yield from itertools.islice(loader, max(1, math.floor(self.share * len(loader) + 1e-9)))


def _classes(step: Step) -> Tensor:
    """Return the class of every sample, -1 for those without one."""
    labels, labelled = class_labels(step, "PMR")
    return labels if labelled is None else labels.masked_fill(~labelled, -1)
