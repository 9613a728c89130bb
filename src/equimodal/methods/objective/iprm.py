"""Features mixed on a sphere, by weights that a probe finds in the same step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.iprm import divergence, geodesic_mixture, probed_weight
from equimodal.method import REST, Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.noise import mix
from equimodal.readout import Readouts, feature_vectors, vector_width
from equimodal.search import Linear, searched
from equimodal.step import Shapes, Step


class IPRM(Method):
    r"""Instantaneous probe and rebalance (Yang et al., IJCAI 2025).

    .. math::
        L = \sum_m L(u_m, y) + \sum_{a < b} L\big(u_{ab}(\hat\lambda_{ab}), y\big), \quad
        \hat\lambda_{ab} = \frac{K_b}{K_a + K_b}, \quad
        K_m = \mathrm{KL}\big(p(u_m) \,\Vert\, p(u_{ab}(\lambda_{ab}))\big)

    :math:`u_m` and :math:`u_{ab}` are linear classifiers of the method's own, on the feature of a
    modality and on the mixture of those of two, which lies on the arc between their directions. The
    probe mixes them by :math:`\lambda_{ab}`, without a gradient, and finds the weight
    :math:`\hat\lambda_{ab}` of the first that the same step is trained with. From step to step

    .. math:: \lambda_{ab} \leftarrow \alpha \lambda_{ab} + (1 - \alpha) \hat\lambda_{ab}

    Prediction is the sum of the :math:`u_m` and the mean of the :math:`u_{ab}(\lambda_{ab})`. The
    model's own head is neither trained nor used. Equations from the released code: not verified
    against the paper.

    Args:
        alpha: how much of :math:`\lambda` stays, 0 to 1.

    Raises:
        SetupError: `alpha` is out of its range, or the features are not of one width.
    """

    name = "iprm"
    search = searched(alpha=Linear(0.2, 1.0))
    source = "Yang et al., IJCAI 2025"
    replaces_joint = True
    modulates = False
    capabilities = Capabilities(accumulation="per micro-batch")

    def __init__(self, alpha: float = 0.8) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise SetupError(f"IPRM(alpha): expected a number from 0 to 1, found {alpha}")
        self.alpha = alpha
        self.readouts = Readouts()
        self.mixtures = Readouts()
        self.register_buffer("weights", torch.empty(0))  # of the first, as last probed with, (P,)
        self.register_buffer("probed", torch.empty(0))  # what that probe found, (P,)
        self._measured: dict[str, Tensor] = {}
        self._proposed: Tensor | None = None

    weights: Tensor
    probed: Tensor

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The modalities of each mixture, in the order of `weights`."""
        return list(itertools.combinations(self.names, 2))

    def build(self, shapes: Shapes) -> None:
        widths = {name: vector_width(shape) for name, shape in shapes.features.items()}
        if len(set(widths.values())) > 1:
            raise SetupError(
                f"IPRM: expected features of one width, to be mixed with each other, found "
                f"{widths}: let the encoders end in layers of the same width"
            )
        width = widths[self.names[0]]
        mixed = Shapes(
            {"+".join(sorted(pair)): (width,) for pair in self.pairs},
            shapes.logits,
            shapes.device,
            shapes.dtype,
        )
        self.readouts.build(shapes, mix(self.seed, 1))
        self.mixtures.build(mixed, mix(self.seed, 2))
        self.weights = torch.full((len(self.pairs),), 0.5, dtype=shapes.dtype)
        self.probed = self.weights.clone()

    def objective(self, step: Step) -> dict[str, Tensor]:
        _, labelled = class_labels(step, "IPRM")
        usable = counted(step, labelled)
        both = None
        if usable is not None:
            of = dict(zip(step.names, usable, strict=True))
            both = torch.stack([of[first] & of[second] for first, second in self.pairs])
        unimodal: Mapping[str, Tensor] = self.readouts(step.features)
        with torch.no_grad():
            divergences = self._probe(step, unimodal, both)
        self._measured = {"divergences": divergences}
        probed = probed_weight(step.summed(divergences))
        terms = {"joint": step.logits.new_zeros(())}
        for name in self.names:
            terms[name] = step.loss(unimodal[name], modality=name)
        for at, (name, logits) in enumerate(self._mixed(step, probed).items()):
            terms[name] = step.loss(logits, None if both is None else both[at])
        return terms

    def measure(self, step: Step) -> dict[str, Tensor]:
        return self._measured

    def coefficients(self, evidence: Evidence) -> None:
        """Take note of what the probe found."""
        if "divergences" in evidence.measured:
            self._proposed = probed_weight(evidence.measured["divergences"])

    def commit(self) -> None:
        if self._proposed is not None:
            self.weights = self._next()
            self.probed = self._proposed.to(self.weights)
            self._proposed = None

    def frozen(self) -> frozenset[str]:
        return frozenset({REST})

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of the classifier of every modality."""
        logits: dict[str, Tensor] = self.readouts(step.features)
        return logits

    def predict(self, step: Step) -> Tensor:
        """Return the sum of the modalities' logits and the mean of the mixtures'."""
        unimodal = torch.stack(list(self.predict_unimodal(step).values()))
        mixed = torch.stack(list(self._mixed(step, self.weights).values()))
        return unimodal.sum(dim=0) + mixed.mean(dim=0)

    # ------------------------------------------------------------------

    def _next(self) -> Tensor:
        """Return the weights to probe with, shape ``(P,)``."""
        return self.alpha * self.weights + (1 - self.alpha) * self.probed

    def _mixed(self, step: Step, weights: Tensor) -> dict[str, Tensor]:
        """Return the logits of the mixture of every pair, shape ``(B, C)`` each."""
        vectors = {name: feature_vectors(step.features[name]) for name in self.names}
        weights = weights.to(step.logits.device)
        mixtures = [
            geodesic_mixture(vectors[first], vectors[second], weight)
            for (first, second), weight in zip(self.pairs, weights, strict=True)
        ]
        logits: dict[str, Tensor] = self.mixtures(
            dict(zip(self.mixtures.names, mixtures, strict=True))
        )
        return logits

    def _probe(self, step: Step, unimodal: Mapping[str, Tensor], both: Tensor | None) -> Tensor:
        """Return the divergences of both modalities of every pair, summed, shape ``(P, 2)``.

        Args:
            step: the micro-batch.
            unimodal: logits of every modality.
            both: which samples count for a pair, shape ``(P, B)``, bool; all where None.
        """
        found = []
        mixed = self._mixed(step, self._next()).values()
        for at, (pair, logits) in enumerate(zip(self.pairs, mixed, strict=True)):
            each = torch.stack([divergence(unimodal[name], logits) for name in pair])
            found.append((each if both is None else torch.where(both[at], each, 0)).sum(dim=1))
        return torch.stack(found)
