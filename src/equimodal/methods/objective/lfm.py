"""Classification by the mean of unimodal predictions, and their alignment, dynamically weighted."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.lfm import late_average, weight_slope
from equimodal.functional.means import mean_counted
from equimodal.method import REST, Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.alignment import (
    AlignmentWeight,
    Divergence,
    FittedWeight,
    MixtureFirst,
)
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step


class LFM(Method):
    r"""Align the predictions of the modalities while they learn (Yang et al., NeurIPS 2024).

    .. math::
        L = 2 \Bigl( a_0\, L\bigl(\tfrac1M \textstyle\sum_m u_m,\, y\bigr)
        + a_1\, \tfrac{2}{M (M-1)} \sum_{m<n} A(u_m, u_n) \Bigr), \quad a_0 + a_1 = 1

    Each modality has a linear classifier that belongs to the method. Their mean is the prediction;
    the model's own head is neither trained nor used. At first alignment has nearly all the weight,
    and at the end of every epoch the weight is set anew.

    For classification with one class per sample. The equations are those of the released code; the
    paper could not be read.

    Args:
        weighting: `FittedWeight()`, a polynomial of the epoch, stretched from 200 epochs to the
            length of training (what the README of the released code runs), or `LearnedWeight()`,
            from one batch of held-out data.
        divergence: A: `MixtureFirst()` (the released code) or `JensenShannon()`.
    """

    name = "lfm"
    source = "Yang et al., NeurIPS 2024"
    replaces_joint = True
    capabilities = Capabilities()

    def __init__(
        self, weighting: AlignmentWeight | None = None, divergence: Divergence | None = None
    ) -> None:
        super().__init__()
        self._given = weighting or FittedWeight()
        self.weighting = self._given
        self.divergence = divergence or MixtureFirst()
        self.needs = self.weighting.needs  # type: ignore[misc] # a polynomial needs no data
        self.readouts = Readouts()

    alignment: Tensor

    def plan(self, epochs: int | None) -> None:
        super().plan(epochs)
        self.weighting = self._given.over(epochs)

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        start = torch.tensor(self.weighting.first(), dtype=shapes.dtype)
        self.register_buffer("alignment", start)

    def objective(self, step: Step) -> dict[str, Tensor]:
        classification, alignment = self._losses(step)
        return {
            "joint": 2 * (1 - self.alignment) * classification,
            "alignment": 2 * self.alignment * alignment,
        }

    def frozen(self) -> frozenset[str]:
        return frozenset({REST})

    def end_epoch(self, run: Run) -> None:
        """Set the weight of the next epoch."""
        if self.readouts.names:
            weight = self.weighting.following(
                self.alignment, run.epoch + 1, lambda: self._slope(run)
            )
            self.alignment.copy_(weight)

    def predict(self, step: Step) -> Tensor:
        """Return the mean of the unimodal logits."""
        return late_average(torch.stack(list(self.predict_unimodal(step).values())))

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of the method's own classifiers."""
        return self.readouts(step.features)  # type: ignore[no-any-return]

    def _losses(self, step: Step) -> tuple[Tensor, Tensor]:
        """Return the classification loss and the alignment loss, shape ``()`` each."""
        _, labelled = class_labels(step, "LFM")
        logits: Mapping[str, Tensor] = self.readouts(step.features)
        device = step.logits.device
        everyone = torch.ones(step.size, dtype=torch.bool, device=device)
        has = {name: step.present.get(name, everyone).to(device) for name in self.names}
        stacked = torch.stack([has[name] for name in self.names])
        mean = late_average(torch.stack([logits[name] for name in self.names]), stacked)
        someone = stacked.any(dim=0) if step.present else None
        labelled = everyone if labelled is None else labelled
        alignments, pairs = [], []
        for first, second in itertools.combinations(self.names, 2):
            both = has[first] & has[second]
            apart = self.divergence(logits[first], logits[second])
            alignments.append(torch.where(both, apart, 0))
            pairs.append(both)
        # Over the pairs that a sample has: an absent modality is as if it did not exist.
        apart = torch.stack(alignments).sum(dim=0) / torch.stack(pairs).sum(dim=0).clamp(min=1)
        return step.loss(mean, present=someone), mean_counted(apart, labelled)

    def _slope(self, run: Run) -> Tensor:
        """Return what the weight follows, from the first batch of held-out data."""
        assert run.val_loader is not None
        owned = [owned.parameter for name in self.names for owned in run.parameters(name)]
        parameters = [p for p in (*owned, *self.readouts.parameters()) if p.requires_grad]
        with _twice_differentiable():
            for step in run.steps(run.val_loader, graph=True):
                slope = weight_slope(self.alignment, *self._losses(step), parameters)
                sums = run.summed(torch.stack([slope, torch.ones_like(slope)]))
                return sums[0] / sums[1]
        raise SetupError("LFM: val_loader is empty: its weight is learned from one held-out batch")


@contextlib.contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Run models without what has no second derivative: fused attention, compiled code."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if "torch._dynamo" in sys.modules:  # it takes seconds to import, and who compiles has it
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
