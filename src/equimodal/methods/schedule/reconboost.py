"""One modality at a time learns what the others leave over, then all are put right together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.means import mean_counted
from equimodal.functional.reconboost import agreement, boosting_loss
from equimodal.method import REST, Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


@dataclass(frozen=True)
class Consolidation:
    """Draws a learner to the probabilities of the learner of the stage before.

    Args:
        weight: of the squared distance in the loss, 0 or more.
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise SetupError(
                f"{type(self).__name__}(weight): expected a number of 0 or more, "
                f"found {self.weight}"
            )

    def __call__(self, logits: Tensor, previous: Tensor) -> Tensor:
        """Return a term of the loss for each sample, shape ``(B,)``."""
        return self.weight * agreement(logits, previous)


@dataclass(frozen=True)
class DetachedConsolidation(Consolidation):
    """The same number without a gradient: what the released code computes.

    Args:
        weight: see `Consolidation`.
    """

    def __call__(self, logits: Tensor, previous: Tensor) -> Tensor:
        return super().__call__(logits.detach(), previous)


def phase(epochs: int) -> int:
    """Return the length of a phase, 4 in the released code, so that there are 20 stages of two.

    The released code has up to 1,001 stages, which no share of a shorter run can give.

    >>> phase(160), phase(40), phase(10)
    (4, 1, 1)
    """
    return max(1, min(4, epochs // 40))


class ReconBoost(Method):
    r"""Boosting with modalities as learners (Hua et al., ICML 2024).

    Stages of two phases each, one modality m per stage, in turn:

    .. math::
        \text{boosting: } -\frac{1}{C} \big(w_1 - w_2\, p(J)_y\big) \log p(u_m)_y
            + \lambda \frac{1}{C} \|p(u_m) - p(u_{prev})\|^2,
            \quad J = \beta \sum_{j \ne m} u_j

        \text{rectifying: } L\Big(\beta \sum_j u_j, y\Big)

    In boosting, the encoder m and its classifier are trained, and nothing else; J, and the learner
    of the stage before, are fixed. In rectifying, all learners and the rate beta are. Modalities
    that have not had their first stage take no part yet. Every phase starts with a fresh optimizer
    state. The classifiers are linear layers of the method's own; the model's own head is neither
    trained nor used. Prediction is :math:`\beta \sum_j u_j`.

    Args:
        boosting_epochs: length of the first phase, 1 or more; by default 4, as in the released
            code, or less, so that a run has 20 stages where it is long enough.
        rectifying_epochs: length of the second phase, 0 or more; by default as the first.
        own: w_1, weight of the learner's cross-entropy.
        residual: w_2, how much less a sample counts that the others are sure of; below `own`.
        rate: initial value of the learned boosting rate beta, above 0.
        consolidation: `Consolidation()`, `DetachedConsolidation()` (the released code), or one of
            weight 0 for none.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "reconboost"
    search = searched(own=Log(1.5, 10.0))
    source = "Hua et al., ICML 2024"
    replaces_joint = True
    capabilities = Capabilities(order="matters")
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {
        "boosting_epochs": phase,
        "rectifying_epochs": phase,
    }

    def __init__(
        self,
        *,
        boosting_epochs: int | None = None,
        rectifying_epochs: int | None = None,
        own: float = 5.0,
        residual: float = 1.0,
        rate: float = 1.0,
        consolidation: Consolidation | None = None,
    ) -> None:
        super().__init__()
        for what, epochs, least in (
            ("boosting_epochs", boosting_epochs, 1),
            ("rectifying_epochs", rectifying_epochs, 0),
        ):
            if epochs is not None and epochs < least:
                raise SetupError(f"ReconBoost({what}): expected {least} or more, found {epochs}")
        if not 0 <= residual < own < math.inf:
            raise SetupError(
                "ReconBoost(own, residual): expected 0 <= residual < own, so that no sample is "
                f"unlearned, found own={own}, residual={residual}"
            )
        if not 0 < rate < math.inf:
            raise SetupError(f"ReconBoost(rate): expected a number above 0, found {rate}")
        self.boosting_epochs = boosting_epochs
        self.rectifying_epochs = rectifying_epochs
        self.own = own
        self.residual = residual
        self.consolidation = consolidation or Consolidation()
        self.rate = nn.Parameter(torch.tensor(float(rate)))
        self.readouts = Readouts()
        self._epochs = 0  # ended so far

    @property
    def stage(self) -> int:
        """Number of the stage, from 0."""
        return self._epochs // self._length

    @property
    def boosting(self) -> bool:
        """Whether a single modality is trained now."""
        assert self.boosting_epochs is not None
        return self._epochs % self._length < self.boosting_epochs

    @property
    def _length(self) -> int:
        """Epochs of a stage."""
        assert self.boosting_epochs is not None
        assert self.rectifying_epochs is not None
        return self.boosting_epochs + self.rectifying_epochs

    @property
    def turn(self) -> str:
        """The modality of this stage."""
        return self.names[self.stage % len(self.names)]

    @property
    def learners(self) -> tuple[str, ...]:
        """The modalities that have ended a boosting phase."""
        return self.names[: self.stage + (0 if self.boosting else 1)]

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        self.rate.data = self.rate.data.to(shapes.dtype)

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self._logits(step)
        if not self.boosting:
            return {"joint": step.loss(self._boosted(logits, self.learners))}
        return {"joint": self._boosting(step, logits)}

    def frozen(self) -> frozenset[str]:
        trained = {self.turn} if self.boosting else set(self.learners)
        return frozenset({REST, *self.names} - trained)

    def end_epoch(self, run: Run) -> None:
        before = self.stage, self.boosting
        self._epochs += 1
        if (self.stage, self.boosting) != before:
            for name in run.names:
                run.reset_optimizer(name)
            run.forget(self.parameters())

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of every modality's own classifier."""
        return self.readouts(step.features)  # type: ignore[no-any-return]

    def predict(self, step: Step) -> Tensor:
        """Return the boosted sum of all learners; that of the first one before it is ready."""
        return self._boosted(self._logits(step), self.learners or (self.turn,))

    def get_extra_state(self) -> int:
        return self._epochs

    def set_extra_state(self, state: int) -> None:
        self._epochs = state

    def _logits(self, step: Step) -> dict[str, Tensor]:
        """Return unimodal logits; a learner says nothing of a sample that lacks its modality."""
        logits: dict[str, Tensor] = dict(self.readouts(step.features))
        for name, present in step.present.items():
            logits[name] = torch.where(present.to(logits[name].device)[:, None], logits[name], 0)
        return logits

    def _boosted(self, logits: dict[str, Tensor], learners: tuple[str, ...]) -> Tensor:
        return self.rate * torch.stack([logits[name] for name in learners]).sum(dim=0)

    def _boosting(self, step: Step, logits: dict[str, Tensor]) -> Tensor:
        """Return the mean loss of this stage's learner over the samples that have its modality."""
        target, labelled = class_labels(step, "ReconBoost")
        own = logits[self.turn]
        among = torch.ones_like(target, dtype=torch.bool) if labelled is None else labelled
        counted = among
        if self.turn in step.present:
            counted = counted & step.present[self.turn].to(counted.device)
        others = tuple(name for name in self.learners if name != self.turn)
        ensemble = self._boosted(logits, others).detach() if others else torch.zeros_like(own)
        losses = boosting_loss(own, ensemble, target, self.own, self.residual)
        if self.stage:
            previous = self.names[(self.stage - 1) % len(self.names)]
            drawn = self.consolidation(own, logits[previous])
            if previous in step.present:
                drawn = torch.where(step.present[previous].to(drawn.device), drawn, 0)
            losses = losses + drawn
        return mean_counted(losses, counted, among)
