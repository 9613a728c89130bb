"""Samples whose modalities belong to different classes, as training signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional import midas
from equimodal.functional.precision import at_least_single
from equimodal.method import REST, Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.noise import mix
from equimodal.planning import share
from equimodal.readout import Readouts, feature_vectors
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class MIDAS(Method):
    r"""Train on samples put together from several classes (Hwang et al., NeurIPS 2025).

    .. math:: L = L(f, y) + \sum_m L(u_m, y) + \lambda L_{mis}, \quad
        \tilde y_i = \sum_m \tilde c_i^m y_i^m, \quad
        \tilde c_i^m = \frac{p_m(y_i^m)}{\sum_l p_l(y_i^l)}

    Every sample keeps one modality and takes the others from samples of another class. The label is
    a mixture of the classes, by the confidence of a linear classifier on each modality's feature.
    Features that are similar to those they replace count more, and so does the modality that is
    least confident, as long as the model neglects it.

    In the warm-up only encoders and classifiers of single modalities are trained; the model's head
    is left as it is.

    Args:
        weight: weight of the loss of misaligned samples, at least 0.
        step: by how much the weight of the least confident modality moves per step, at least 0.
        warm_up: epochs of the warm-up, at least 0; by default 5 in 70 of the training.
        signal: from the difference between the confidence of a modality and what the model
            predicts in its place, shape ``(M,)``, to what moves the weight: the difference itself
            by default, or ``torch.sign``.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "midas"
    search = searched(weight=Log(0.1, 3.0))
    source = "Hwang et al., NeurIPS 2025"
    replaces_joint = True
    modulates = False
    capabilities = Capabilities(accumulation="per micro-batch", order="drawn")
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"warm_up": share(5, of=70)}

    def __init__(
        self,
        weight: float = 1.0,
        step: float = 0.05,
        warm_up: int | None = None,
        signal: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        for what, value in {"weight": weight, "step": step, "warm_up": warm_up or 0}.items():
            if not 0 <= value < math.inf:
                raise SetupError(f"MIDAS({what}): expected a number of 0 or more, found {value}")
        self.weight = weight
        self.step = step
        self.warm_up = warm_up
        self.signal = signal
        self.readouts = Readouts()
        self.register_buffer("modality_weights", torch.empty(0))
        self._draws = 0
        self._warming = False
        self._measured: dict[str, Tensor] = {}
        self._proposed: Tensor | None = None

    modality_weights: Tensor

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        self.modality_weights = torch.ones(len(self.names), dtype=shapes.dtype)

    def objective(self, step: Step) -> dict[str, Tensor]:
        assert self.warm_up is not None
        self._warming = step.epoch < self.warm_up
        unimodal: Mapping[str, Tensor] = self.readouts(step.features)
        losses = {name: step.loss(unimodal[name], modality=name) for name in self.names}
        if self._warming:
            self._measured = {}
            return {"joint": step.logits.new_zeros(()), **losses}
        misaligned = self._misaligned(step, unimodal)
        return {"joint": step.joint, **losses, "misaligned": self.weight * misaligned}

    def measure(self, step: Step) -> dict[str, Tensor]:
        return self._measured

    def coefficients(self, evidence: Evidence) -> None:
        """Propose the weights of the modalities for the next step."""
        measured = evidence.measured
        if "samples" not in measured:
            return
        target, predicted = (measured[of] / measured["samples"] for of in ("target", "predicted"))
        difference = target - predicted
        signal = difference if self.signal is None else self.signal(difference)
        weights = self.modality_weights
        target, signal = target.to(weights), signal.to(weights)
        self._proposed = midas.weak_modality_weight(weights, target, signal, self.step)

    def commit(self) -> None:
        if self._proposed is not None:
            self.modality_weights, self._proposed = self._proposed, None

    def frozen(self) -> frozenset[str]:
        return frozenset({REST}) if self._warming else frozenset()

    def get_extra_state(self) -> dict[str, int]:
        return {"draws": self._draws}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._draws = int(state["draws"])

    # ------------------------------------------------------------------

    def _misaligned(self, step: Step, unimodal: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of misaligned samples, and note what the weights are judged by."""
        labels, labelled = class_labels(step, "MIDAS")
        usable = torch.ones_like(labels, dtype=torch.bool) if labelled is None else labelled
        for present in step.present.values():
            usable = usable & present.to(usable.device)
        sources, valid = midas.misaligned_sources(labels, usable, self._numbers(step))
        classes = labels[sources]
        features, confidences, similarities = {}, [], []
        for name, source in zip(self.names, sources, strict=True):
            features[name] = step.gated[name][source]
            log_probabilities = at_least_single(unimodal[name].detach()).log_softmax(dim=1)
            confidences.append(log_probabilities.gather(1, labels[:, None]).squeeze(1)[source])
            vectors = at_least_single(feature_vectors(step.features[name].detach()))
            similarities.append(midas.replaced_similarity(vectors, source))
        confidence = torch.stack(confidences).softmax(dim=0)
        replaced = (sources != torch.arange(step.size, device=sources.device)).sum(dim=0)
        similarity = torch.stack(similarities).sum(dim=0) / replaced.clamp(min=1)
        log_predicted = (
            at_least_single(step.head(features)).log_softmax(dim=1).gather(1, classes.T).T
        )
        predicted = log_predicted.detach().softmax(dim=0)
        self._measured = {
            "target": torch.where(valid, confidence, 0).sum(dim=1),
            "predicted": torch.where(valid, predicted, 0).sum(dim=1),
            "samples": valid.sum().to(confidence.dtype),
        }
        weights = self.modality_weights.to(log_predicted)
        return midas.misaligned_loss(log_predicted, confidence, weights, similarity, valid)

    def _numbers(self, step: Step) -> Tensor:
        """Return uniform numbers for this micro-batch, shape ``(2 M - 1, B)``."""
        generator = torch.Generator().manual_seed(mix(self.seed, self._draws))
        self._draws += 1
        numbers = torch.rand(2 * len(self.names) - 1, step.size, generator=generator)
        return numbers.to(step.logits.device)
