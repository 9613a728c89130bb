"""Samples in order of how hard and how imbalanced they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.bss import agreement, difficulty
from equimodal.functional.precision import at_least_single
from equimodal.method import Method, Order
from equimodal.methods.data.sequences import SampleSequence, WeightedSequence
from equimodal.methods.data.valuation import checked_samples
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step

SEQUENCE = 105  # so that draws for different purposes have different seeds


class BSS(Method):
    r"""Balance-aware sequence sampling (Guan et al., IJCAI 2025).

    .. math::
        L = w_0 L(f, y) + w \sum_m L(u_m, y), \quad
        d_i = \mathrm{scaled}(L_i) - \mathrm{scaled}\Big(
            \frac{2}{M (M - 1)} \sum_{a < b} \cos(p_{a,i}, p_{b,i})\Big)

    A sample is hard if its loss is large and the modalities predict different things of it:
    :math:`p_m` are the probabilities of linear classifiers u of the method's own. Over all samples
    both terms are scaled to 0 to 1. A pass over the training data finds d at the end of an epoch;
    the next is put together from it, easy samples first.

    Prediction is :math:`v f + \sum_m u_m`. Equations from the released code: not verified against
    the paper.

    Args:
        sequence: how samples are ordered: `WeightedSequence()` by default, or `Curriculum()`.
        joint: weight w_0 of the joint loss, 0 or more.
        unimodal: weight w of the unimodal losses, 0 or more.
        vote: weight v of the model's own logits in the prediction, 0 or more.
        warm_up: epochs in the loader's own order before the first that is sequenced, at least 1.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "bss"
    search = searched(unimodal=Log(0.3, 3.0))
    source = "Guan et al., IJCAI 2025"
    needs = frozenset({"training data", "sample identities"})
    replaces_joint = True

    def __init__(
        self,
        sequence: SampleSequence | None = None,
        *,
        joint: float = 1.0,
        unimodal: float = 1.0,
        vote: float = 1.0,
        warm_up: int = 1,
    ) -> None:
        super().__init__()
        for what, weight in {"joint": joint, "unimodal": unimodal, "vote": vote}.items():
            if not 0 <= weight < math.inf:
                raise SetupError(f"BSS({what}): expected a number of 0 or more, found {weight}")
        if not (type(warm_up) is int and warm_up >= 1):
            raise SetupError(
                f"BSS(warm_up): expected a whole number of 1 or more, found {warm_up}: samples are "
                "judged by classifiers that have to be trained first"
            )
        self._given = sequence or WeightedSequence()
        self.sequence = self._given
        self.joint = joint
        self.unimodal = unimodal
        self.vote = vote
        self.warm_up = warm_up
        self.readouts = Readouts()
        self._difficulty: Tensor | None = None

    def plan(self, epochs: int | None) -> None:
        super().plan(epochs)
        self.sequence = self._given.over(epochs)

    @property
    def difficulty(self) -> Tensor | None:
        """How hard every sample is, -1 to 1, shape ``(N,)``; None before the first pass."""
        return self._difficulty

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))

    def order(self, samples: int, epoch: int) -> Order | None:
        """Return the samples that the sequence wants, in its order."""
        if epoch < self.warm_up or self._difficulty is None:
            return None
        checked_samples("BSS", len(self._difficulty), samples)
        generator = torch.Generator().manual_seed(mix(self.seed, SEQUENCE, epoch))
        return Order(self.sequence(self._difficulty, epoch, generator).tolist())

    def objective(self, step: Step) -> dict[str, Tensor]:
        class_labels(step, "BSS")
        logits = self.readouts(step.features)
        terms = {
            name: self.unimodal * step.loss(logits[name], modality=name) for name in self.names
        }
        return {"joint": self.joint * step.joint, **terms}

    def end_epoch(self, run: Run) -> None:
        """Judge the samples for the next epoch."""
        judged = self._difficulty is not None and self.sequence.once
        if run.epoch + 1 < self.warm_up or judged:
            return
        assert run.train_loader is not None
        found = [self._judge(step) for step in run.steps(run.train_loader, identify=True)]
        losses, similarities = run.shared(torch.cat(found, dim=1)).cpu()
        self._difficulty = difficulty(losses, similarities)

    def predict(self, step: Step) -> Tensor:
        """Return the sum of the classifiers' logits and of the model's own."""
        alone = torch.stack(list(self.readouts(step.features).values()))
        return alone.sum(dim=0) + self.vote * step.logits

    def get_extra_state(self) -> dict[str, Tensor | None]:
        return {"difficulty": self._difficulty}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._difficulty = state["difficulty"]

    # ------------------------------------------------------------------

    def _judge(self, step: Step) -> Tensor:
        """Return the loss of every sample, and how alike the modalities predict, shape ``(2, B)``.

        NaN where a sample has no label, and no two modalities.
        """
        logits: Mapping[str, Tensor] = self.readouts(step.features)
        unimodal = [logits[name] for name in self.names]
        losses = step.criterion.each_per_sample(unimodal, step.target)
        present = counted(step) if step.present else None
        # The mean of those that a sample has, in place of each that it lacks.
        here = losses if present is None else losses.masked_fill(~present, torch.nan)
        total = self.unimodal * len(self.names) * here.nanmean(dim=0)
        total = total + self.joint * step.criterion.per_sample(step.logits, step.target)
        ignored = step.criterion.ignored(step.target)
        if ignored is not None:
            total = total.masked_fill(ignored, torch.nan)
        alike = agreement(at_least_single(torch.stack(unimodal)), present)
        return torch.stack([total, alike.to(total)])
