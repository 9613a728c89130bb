"""The modality that lags gets more classifiers, each fitted to what the others leave over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.aug import confidence_gaps, residual_loss
from equimodal.functional.means import mean_counted
from equimodal.functional.precision import at_least_single
from equimodal.method import REST, Method
from equimodal.methods.labels import class_labels, refuse_numbers
from equimodal.methods.objective.growing import GrowingClassifiers, HiddenLayer
from equimodal.methods.schedule.fusions import FixedWeights, Fusion
from equimodal.noise import mix
from equimodal.step import Shapes, Step


def tenth(epochs: int) -> int:
    """Return a tenth of the epochs, at least one: how often the released code checks."""
    return max(1, epochs // 10)


class AUG(Method):
    r"""Sustained boosting with adaptive classifier assignment (Jiang et al., NeurIPS 2025).

    .. math::
        L = \sum_m L(u_m^{n_m}, y) + L(u_m^{n_m - 1}, y) + \ell(\delta_m^{n_m}, \hat y_m), \quad
        u_m^n = \sum_{j \le n} \delta_m^j, \quad
        \hat y_m = y - \lambda\, y \odot p(u_m^{n_m - 1})

    A modality m has :math:`n_m` classifiers :math:`\delta_m^j` on its feature, two layers each, the
    last of which all of them share. All together, all but the newest, and the newest on what the
    others leave over are trained at once; a modality with a single classifier has the first term
    alone. After every so many epochs, a modality gets one more if its probability of the true
    class is lower than that of the others:

    .. math:: \frac{1}{M - 1} \sum_{j \ne m} s_j - \sigma s_m > \tau

    Prediction is a weighted mean of the :math:`u_m`. The model's own head is neither trained nor
    used.

    Args:
        every: epochs between two checks, 1 or more; by default a tenth of the training, as in the
            released code.
        softening: :math:`\lambda`, 0 to 1.
        coefficient: :math:`\sigma`, above 0.
        dead_zone: :math:`\tau`, 0 or more.
        closing: what share of the gap may be left since a modality last got a classifier, for it to
            get one more, 0 or more. One that the last classifier did not help would else get one
            at every check. ``math.inf`` never asks, as the paper.
        most: how many classifiers a modality may have, 1 or more.
        width: of the hidden layer of a classifier.
        added: how the hidden layers of added classifiers are used: `HiddenLayer()`, or
            `FixedHiddenLayer()` (the released code).
        fusion: how the logits of the modalities become a prediction: `FixedWeights()` by default.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "aug"
    source = "Jiang et al., NeurIPS 2025"
    replaces_joint = True
    modulates = False
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"every": tenth}

    def __init__(
        self,
        *,
        every: int | None = None,
        softening: float = 0.5,
        coefficient: float = 1.0,
        dead_zone: float = 0.01,
        closing: float = 0.5,
        most: int = 12,
        width: int = 256,
        added: HiddenLayer | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        super().__init__()
        for what, whole in {
            "every": 1 if every is None else every,
            "most": most,
            "width": width,
        }.items():
            if not (type(whole) is int and whole >= 1):
                raise SetupError(
                    f"AUG({what}): expected a whole number of 1 or more, found {whole}"
                )
        if not 0 <= softening <= 1:
            raise SetupError(
                "AUG(softening): expected a number from 0 to 1, so that no label is negative, "
                f"found {softening}"
            )
        if not 0 < coefficient < math.inf:
            raise SetupError(f"AUG(coefficient): expected a number above 0, found {coefficient}")
        if not 0 <= dead_zone < math.inf:
            raise SetupError(f"AUG(dead_zone): expected a number of 0 or more, found {dead_zone}")
        if not closing >= 0:
            raise SetupError(f"AUG(closing): expected a number of 0 or more, found {closing}")
        self.every = every
        self.softening = softening
        self.coefficient = coefficient
        self.dead_zone = dead_zone
        self.closing = closing
        self.fusion = fusion or FixedWeights()
        self.classifiers = GrowingClassifiers(most, width, added or HiddenLayer())
        self.register_buffer("gaps", torch.empty(0))  # when each last got a classifier, (M,)
        self.register_buffer("true_class", torch.empty(0))  # summed over this epoch, (M,)
        self.register_buffer("samples", torch.empty(0))  # that it is summed over, (M,)
        self._growing: tuple[str, ...] = ()  # at the next step: whom nobody trains must not vote
        self._measured: dict[str, Tensor] = {}
        self._proposed: dict[str, Tensor] = {}

    gaps: Tensor
    true_class: Tensor
    samples: Tensor

    @property
    def counts(self) -> dict[str, int]:
        """How many classifiers each modality has in the next step; a new one waits for that."""
        most = self.classifiers.most
        found = self.classifiers.counts.items()
        return {name: min(most, count + (name in self._growing)) for name, count in found}

    def build(self, shapes: Shapes) -> None:
        refuse_numbers(shapes, "AUG")
        self.fusion.check(self.names, shapes.logits)
        self.classifiers.build(shapes, mix(self.seed, 1))
        self.gaps = torch.full((len(self.names),), math.inf, dtype=shapes.dtype)
        self.true_class = torch.zeros(len(self.names), dtype=shapes.dtype)
        self.samples = torch.zeros(len(self.names), dtype=shapes.dtype)

    def objective(self, step: Step) -> dict[str, Tensor]:
        for name in self._growing:
            self.classifiers.grow(name)
        self._growing = ()
        target, labelled = class_labels(step, "AUG")
        everyone = torch.ones_like(target, dtype=torch.bool) if labelled is None else labelled
        terms, true_class, samples = {"joint": step.logits.new_zeros(())}, [], []
        for name, logits in self.classifiers(step.features).items():
            present = step.present.get(name)
            counted = everyone if present is None else everyone & present.to(everyone.device)
            *before, newest = logits
            boosted = torch.stack(logits).sum(dim=0)
            loss = step.loss(boosted, modality=name)
            if before:
                others = torch.stack(before).sum(dim=0)
                losses = residual_loss(
                    at_least_single(newest), at_least_single(others), target, self.softening
                )
                loss = (
                    loss
                    + step.loss(others, modality=name)
                    + mean_counted(losses, counted, everyone)
                )
            terms[name] = loss
            sure = at_least_single(boosted.detach()).softmax(dim=1).gather(1, target[:, None])[:, 0]
            true_class.append(torch.where(counted, sure, 0).sum())
            samples.append(counted.sum().to(sure.dtype))
        self._measured = {
            "true_class": torch.stack(true_class),
            "samples": torch.stack(samples),
        }
        return terms

    def measure(self, step: Step) -> dict[str, Tensor]:
        return self._measured

    def coefficients(self, evidence: Evidence) -> None:
        """Take note of the probabilities of the true class in this step."""
        self._proposed = evidence.measured

    def commit(self) -> None:
        if self._proposed:
            self.true_class += self._proposed["true_class"].to(self.true_class)
            self.samples += self._proposed["samples"].to(self.samples)
            self._proposed = {}

    def frozen(self) -> frozenset[str]:
        return frozenset({REST})

    def end_epoch(self, run: Run) -> None:
        assert self.every is not None
        if (run.epoch + 1) % self.every == 0:
            confidence = self.true_class / self.samples  # NaN where there were none
            gaps = confidence_gaps(confidence, self.coefficient)
            weak = (gaps > self.dead_zone) & (gaps <= self.closing * self.gaps)
            self.gaps = torch.where(weak, gaps, self.gaps)
            flags = zip(self.names, weak.tolist(), strict=True)
            self._growing = tuple(name for name, grows in flags if grows)
        self.true_class.zero_()
        self.samples.zero_()

    def get_extra_state(self) -> list[str]:
        return list(self._growing)

    def set_extra_state(self, state: list[str]) -> None:
        self._growing = tuple(state)

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return for every modality the sum of the logits of its classifiers."""
        logits: dict[str, list[Tensor]] = self.classifiers(step.features)
        return {name: torch.stack(each).sum(dim=0) for name, each in logits.items()}

    def predict(self, step: Step) -> Tensor:
        """Return the weighted mean of the modalities' logits."""
        return self.fusion(torch.stack(list(self.predict_unimodal(step).values())), self.names)
