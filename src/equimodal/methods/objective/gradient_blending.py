"""Losses weighted by how well each head generalises, and how little it overfits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.gradient_blending import blending_weights
from equimodal.method import Capabilities, Method
from equimodal.methods.objective.blending_schedule import BlendingSchedule, OnlineBlending
from equimodal.methods.objective.joint import Joint
from equimodal.methods.objective.unimodal import Unimodal
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step

JOINT = "joint"


class GradientBlending(Method):
    r"""Weigh the losses by gain over overfitting (Wang, Tran and Feiszli, CVPR 2020).

    .. math::
        L = w_0 L(f, y) + \sum_m w_m L(u_m, y), \quad
        w_i \propto \frac{\Delta G_i}{\Delta O_i^2}, \quad \sum_i w_i = 1

    For each of the M + 1 heads a copy of the model, its classifiers and its optimizer is trained
    on that head's loss alone. From the mean losses per sample on training and held-out data, before
    and after: the gain is by how much the held-out loss fell, the overfitting by how much the gap
    between the two grew. Until the first estimate the weights are equal.

    For weights that are known, such as published ones, use `MultiLoss(unimodal={...}, joint=...)`.

    Args:
        schedule: `OnlineBlending(epochs)`, or `OfflineBlending(epochs, after)` for a single
            estimate.
        floor: the smallest overfitting that is divided by, in units of the loss, above 0.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "gradient-blending"
    source = "Wang, Tran and Feiszli, CVPR 2020"
    replaces_joint = True
    needs = frozenset({"training data", "held-out data"})
    capabilities = Capabilities()

    def __init__(self, schedule: BlendingSchedule | None = None, floor: float = 1e-4) -> None:
        super().__init__()
        if not 0 < floor < math.inf:
            raise SetupError(f"GradientBlending(floor): expected above 0, found {floor}")
        self._given = schedule or OnlineBlending()
        self.schedule = self._given
        self.floor = floor
        self.readouts = Readouts()

    weights: Tensor

    def plan(self, epochs: int | None) -> None:
        super().plan(epochs)
        self.schedule = self._given.over(epochs)

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        heads = len(self.names) + 1
        equal = torch.full((heads,), 1 / heads, dtype=shapes.dtype)
        self.register_buffer("weights", equal)  # of the modalities in order, then the joint head

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        losses = {name: step.loss(logits[name], modality=name) for name in self.names}
        terms = {**losses, JOINT: step.joint}
        return {n: w * loss for (n, loss), w in zip(terms.items(), self.weights, strict=True)}

    def end_epoch(self, run: Run) -> None:
        """Estimate the weights, if the schedule says so."""
        if self.readouts.names and self.schedule.due(run.epoch) and not self.ends(run.epoch):
            self.weights.copy_(self._estimate(run))

    def _estimate(self, run: Run) -> Tensor:
        assert run.train_loader is not None
        assert run.val_loader is not None
        loaders = (run.train_loader, run.val_loader)
        heads = (*self.names, JOINT)
        before = [self._losses(run, run.steps(of), self.readouts, heads) for of in loaders]
        after: list[list[Tensor]] = [[], []]
        for head in heads:
            method: Joint | Unimodal = Joint()
            readouts = self.readouts
            if head != JOINT:
                method = Unimodal(head)
                # Each copy goes on from the classifiers as they are.
                readouts = method.readouts = copy.deepcopy(self.readouts)
            fork = run.fork(method)
            assert self.schedule.epochs is not None
            fork.train(run.train_loader, self.schedule.epochs)
            for found, loader in zip(after, loaders, strict=True):
                found.append(self._losses(run, fork.steps(loader), readouts, (head,))[0])
        train, held_out = (torch.stack(of) for of in after)
        return blending_weights(before[0], before[1], train, held_out, self.floor)

    def _losses(
        self,
        run: Run,
        steps: Iterable[Step],
        readouts: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
        heads: tuple[str, ...],
    ) -> Tensor:
        """Return the mean loss per sample of each head over the data of all ranks."""
        device = self.weights.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        total = torch.zeros(2, len(heads), dtype=wide, device=device)
        for step in steps:
            ignored = step.criterion.ignored(step.target)
            joint = step.logits.reshape(step.size, *self.readouts.shape)  # the user may squeeze it
            logits = {**readouts(step.features), JOINT: joint}
            each = step.criterion.each_per_sample([logits[head] for head in heads], step.target)
            counted = torch.ones_like(each, dtype=torch.bool)
            if ignored is not None:
                counted &= ~ignored
            for at, head in enumerate(heads):
                if head in step.present:
                    counted[at] &= step.present[head].to(counted.device)
            losses = torch.where(counted, each, 0).sum(dim=1)
            total += torch.stack([losses.to(total), counted.sum(dim=1).to(total)])
        total = run.summed(total)
        return total[0] / total[1]
