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

    .. math:: L = L(f, y) + \frac1M \sum_m L(u_m, y) + \lambda L_{mis}, \quad
        \tilde y_i = \sum_m \tilde c_i^m y_i^m, \quad
        \tilde c_i^m = \frac{p_m(y_i^m)}{\sum_l p_l(y_i^l)}

    Every sample keeps one modality and takes the others from other samples, in as many ways as
    there are modalities. The label is a mixture of the classes, by the confidence of a linear
    classifier on each modality's feature. Features that are similar to those they replace count
    more, and so does the modality that is least confident, as long as the model neglects it.

    In the warm-up only encoders and classifiers of single modalities are trained; the model's head
    is left as it is.

    Args:
        weight: weight of the loss of misaligned samples, at least 0.
        step: by how much the weight of the least confident modality moves per step, at least 0.
        warm_up: epochs of the warm-up, at least 0; by default 10 in 70 of the training.
        limit: the largest weight of the least confident modality, at least 1.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "midas"
    search = searched(weight=Log(0.1, 5.0))
    source = "Hwang et al., NeurIPS 2025"
    replaces_joint = True
    modulates = False
    capabilities = Capabilities(accumulation="per micro-batch", order="drawn")
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"warm_up": share(10, of=70)}

    def __init__(
        self,
        weight: float = 1.0,
        step: float = 0.05,
        warm_up: int | None = None,
        limit: float = math.inf,
    ) -> None:
        super().__init__()
        for what, value in {"weight": weight, "step": step, "warm_up": warm_up or 0}.items():
            if not 0 <= value < math.inf:
                raise SetupError(f"MIDAS({what}): expected a number of 0 or more, found {value}")
        if not limit >= 1:
            raise SetupError(f"MIDAS(limit): expected a number of 1 or more, found {limit}")
        self.weight = weight
        self.step = step
        self.warm_up = warm_up
        self.limit = limit
        self.readouts = Readouts()
        self.register_buffer("weak_weight", torch.ones(()))
        self._draws = 0
        self._warming = False
        self._measured: dict[str, Tensor] = {}
        self._proposed: Tensor | None = None

    weak_weight: Tensor

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        self.weak_weight = torch.ones((), dtype=shapes.dtype)

    def objective(self, step: Step) -> dict[str, Tensor]:
        assert self.warm_up is not None
        self._warming = step.epoch < self.warm_up
        unimodal: Mapping[str, Tensor] = self.readouts(step.features)
        losses = {
            name: step.loss(unimodal[name], modality=name) / len(self.names) for name in self.names
        }
        if self._warming:
            self._measured = {}
            return {"joint": step.logits.new_zeros(()), **losses}
        misaligned = self._misaligned(step, unimodal)
        return {"joint": step.joint, **losses, "misaligned": self.weight * misaligned}

    def measure(self, step: Step) -> dict[str, Tensor]:
        return self._measured

    def coefficients(self, evidence: Evidence) -> None:
        """Propose the weight of the least confident modality for the next step."""
        measured = evidence.measured
        if "samples" not in measured:
            return
        confidence, predicted = (
            (measured[of] / measured["samples"]).to(self.weak_weight)
            for of in ("confidence", "predicted")
        )
        self._proposed = midas.weak_modality_weight(
            self.weak_weight, confidence, predicted, self.step, self.limit
        )

    def commit(self) -> None:
        if self._proposed is not None:
            self.weak_weight, self._proposed = self._proposed, None

    def frozen(self) -> frozenset[str]:
        return frozenset({REST}) if self._warming else frozenset()

    def get_extra_state(self) -> dict[str, int]:
        return {"draws": self._draws}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._draws = int(state["draws"])

    # ------------------------------------------------------------------

    def _misaligned(self, step: Step, unimodal: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of misaligned samples, and note what the weight is judged by."""
        labels, labelled = class_labels(step, "MIDAS")
        usable = torch.ones_like(labels, dtype=torch.bool) if labelled is None else labelled
        for present in step.present.values():
            usable = usable & present.to(usable.device)
        sources = midas.misaligned_sources(usable, self._keys(step))
        ways, modalities, _ = sources.shape
        features, likelihoods, similarities = {}, [], []
        for place, name in enumerate(self.names):
            source = sources[:, place]
            features[name] = step.gated[name][source.flatten()]
            log_probabilities = at_least_single(unimodal[name].detach()).log_softmax(dim=1)
            likelihoods.append(log_probabilities.gather(1, labels[:, None]).squeeze(1))
            vectors = at_least_single(feature_vectors(step.features[name].detach()))
            replaced = torch.arange(ways, device=source.device)[:, None] != place
            similarities.append(midas.replaced_similarity(vectors, source) * replaced)
        classes = labels[sources].transpose(0, 1).flatten(1)
        logits = at_least_single(step.head(features))
        log_predicted = logits.log_softmax(dim=1).gather(1, classes.T).T
        mixed = [likely[sources[:, place]] for place, likely in enumerate(likelihoods)]
        confidence = torch.stack([each.flatten() for each in mixed]).softmax(dim=0)
        similarity = torch.stack(similarities).sum(dim=0).flatten() / (modalities - 1)
        alone = self._totals(torch.stack(likelihoods).exp(), usable)
        predicted = log_predicted.detach().exp().view(modalities, ways, -1).transpose(0, 1)
        self._measured = {
            "confidence": alone,
            "predicted": self._totals(predicted, usable),
            "samples": usable.sum().to(alone.dtype),
        }
        weakest = torch.arange(modalities, device=alone.device) == alone.argmin()
        weights = torch.where(weakest, self.weak_weight.to(log_predicted), 1.0)
        return midas.misaligned_loss(
            log_predicted, confidence, weights, similarity, usable.repeat(ways)
        )

    @staticmethod
    def _totals(values: Tensor, usable: Tensor) -> Tensor:
        return torch.where(usable, values, 0).sum(dim=-1)

    def _keys(self, step: Step) -> Tensor:
        """Return uniform numbers for this micro-batch, shape ``(M - 1, B)``."""
        generator = torch.Generator().manual_seed(mix(self.seed, self._draws))
        self._draws += 1
        keys = torch.rand(len(self.names) - 1, step.size, generator=generator)
        return keys.to(step.logits.device)
