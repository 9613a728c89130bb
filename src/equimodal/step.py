"""What a method sees of one micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from equimodal import functional
from equimodal.attach.features import Features, Inputs, scaled
from equimodal.criterion import Criterion, Kind
from equimodal.functional.remaining import anything_left
from equimodal.system import ranks
from equimodal.system.once import once

if TYPE_CHECKING:
    from equimodal.scores.question import Question


@dataclass(frozen=True)
class Shapes:
    """What a method needs to make modules of its own.

    Attributes:
        features: shape of one sample of every feature, without the batch dimension.
        logits: shape of one sample of the logits.
        device: where they are.
        dtype: for parameters: double precision for a model in double precision, else single.
        outputs: what the criterion takes. Modules of a method give logits in any case: they become
            what the criterion takes in `Step.loss`, and what the user's model returns where the
            method predicts.
    """

    features: dict[str, tuple[int, ...]]
    logits: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype = torch.float32
    outputs: Kind = "logits"


@dataclass
class Step:
    """One micro-batch, from the features to the loss.

    Attributes:
        names: the modalities, in order.
        features: for each modality what the head was given, shape ``(B, ...)``, with its graph.
        logits: of the user's model, shape ``(B, ...)``, with their graph: what was passed to
            `Balancer.loss`, or the logarithm or log-odds of it where that is probabilities.
        target: what the user passed to `Balancer.loss`.
        present: which samples have the modality, shape ``(B,)``, bool; no entry where all have it.
        indices: position of each sample in the data set, shape ``(B,)``, where it is known.
        criterion: the user's loss, readable as a whole or per sample.
        epoch: counted from 0.
        encoders: for each modality what its encoder was given and what it returned, for methods
            that need "encoder inputs".
        boundary: the module that `head` runs: the user's head, or the whole model without one.
        gates: what methods multiplied the features by on their way into the head, shape ``(B,)``,
            by modality; None where the head ran without asking them.
        temperature: of the chosen scores.
        process_group: ranks that train together; torch.distributed's default group by default.
        thinned: whether gates may have taken all the modalities that a sample has.
        autocast: whether the head ran under autocast.
        compiled: whether the head ran in compiled code.
        single: whether this is the only micro-batch of its optimizer step, as the user said.
        handed_on: whether the logits are what the head returned, reshaped or cast at most.
        question: gives what is needed to ask the head, or the model without one, what it is.
        outputs: what the user passed to `Balancer.loss`, which the criterion takes; the logits by
            default.
    """

    names: tuple[str, ...]
    features: Features
    logits: Tensor
    target: Any
    criterion: Criterion
    run_head: Callable[[Mapping[str, Tensor]], Tensor]
    run_scores: Callable[[Step], dict[str, Tensor]]
    boundary: nn.Module
    present: Mapping[str, Tensor] = field(default_factory=dict)
    indices: Tensor | None = None
    epoch: int = 0
    encoders: Mapping[str, tuple[Inputs, Any]] = field(default_factory=dict)
    gates: Mapping[str, Tensor] | None = None
    temperature: float = 1.0
    process_group: dist.ProcessGroup | None = None
    thinned: bool = False
    autocast: bool = False
    compiled: bool = False
    single: bool = False
    handed_on: bool = True
    question: Callable[[], Question] | None = None
    outputs: Tensor | None = None

    def __post_init__(self) -> None:
        given = self.logits if self.outputs is None else self.outputs
        self.criterion = self.criterion.at(given, self.target)

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.logits.shape[0]

    @property
    def shapes(self) -> Shapes:
        """Shapes of one sample."""
        features = {name: tuple(feature.shape[1:]) for name, feature in self.features.items()}
        dtype = torch.float64 if self.logits.dtype == torch.float64 else torch.float32
        logits, kind = tuple(self.logits.shape[1:]), self.criterion.outputs.kind
        return Shapes(features, logits, self.logits.device, dtype, kind)

    @once
    def gated(self) -> Features:
        """The features as they entered the head: multiplied by the gates, if any."""
        return scaled(self.features, self.gates or {})

    @once
    def joint(self) -> Tensor:
        """The user's loss on the logits, shape ``()``, with its graph.

        A sample that lost to the gates all modalities it has adds nothing to it.
        """
        if not self.thinned:
            given = self.logits if self.outputs is None else self.outputs
            return self.criterion.whole(given, self.target)
        gates = self.gates or {}
        everyone = torch.ones(self.size, dtype=torch.bool, device=self.logits.device)
        kept = {name: gates[name] != 0 if name in gates else everyone for name in self.names}
        left = anything_left(kept, self.present)
        return self.criterion.weighted(self.logits, self.target, left, torch.ones_like(left))

    @once
    def unimodal(self) -> dict[str, Tensor]:
        """Unimodal logits of every modality by the chosen scores, with their graph."""
        return self.run_scores(self)

    def head(self, features: Mapping[str, Tensor]) -> Tensor:
        """Run the user's head on other features, of any number of samples, and return its logits.

        Running statistics of BatchNorm and dropout behave as they do in training, under a graph
        when gradients are enabled.
        """
        return self.run_head(features)

    def loss(
        self,
        logits: Tensor,
        weight: Tensor | None = None,
        modality: str | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Return the user's loss on other logits, shape ``()``.

        Samples that lack a modality add nothing to a mean over all: as in the joint loss, every
        sample counts alike. A mean over those that have it would let one sample of a batch count
        for all, and would differ between one batch and several micro-batches or ranks, which have
        it unlike often.

        Args:
            logits: shaped like the step's.
            weight: weights of the samples, shape ``(B,)``: 0 drops a sample from the mean.
            modality: the samples that do not have this modality add nothing.
            present: those that are not marked add nothing, shape ``(B,)``, bool.
        """
        if modality is not None and modality in self.present:
            there = self.present[modality].to(logits.device)
            present = there if present is None else present & there
        if present is not None:
            among = torch.ones_like(present) if weight is None else weight
            return self.criterion.weighted(logits, self.target, among * present, among)
        if weight is None:
            return self.criterion.of(logits, self.target)
        return self.criterion.weighted(logits, self.target, weight)

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum of a value over the ranks, without a graph: what a loss is judged by.

        Every rank must ask for it in every micro-batch, or the others wait for it.
        """
        return ranks.gather(value.detach(), self.process_group).sum(dim=0)

    def log_scores(self, temperature: float | None = None) -> tuple[Tensor, Tensor | int]:
        """Return the evidence of this micro-batch.

        Args:
            temperature: divides the losses; that of the chosen scores by default.

        Returns:
            Logarithms of the scores, shape ``(M,)``, and how many samples they are of: a number; a
            mask of those that count, shape ``(B,)``; or one for each modality, shape ``(M, B)``.
        """
        with torch.no_grad():  # a decorator would hide this method from the compiler
            known = self.__dict__.get("unimodal")
            logits = known if known is not None else self.run_scores(self)
            alone = [logits[name] for name in self.names]
            losses, ignored, each = self.criterion.scored(alone, self.target)
            if self.present:
                nobody = torch.zeros_like(losses[0], dtype=torch.bool)
                absent = [
                    ~self.present[name].to(losses.device).repeat_interleave(each)
                    if name in self.present
                    else nobody
                    for name in self.names
                ]
                ignored = torch.stack(absent) | (nobody if ignored is None else ignored)
            divisor = self.temperature if temperature is None else temperature
            scores = functional.log_score(losses, ignored, divisor)
            return scores, self.size if ignored is None else ~ignored
