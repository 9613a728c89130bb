"""The modalities compete for their influence on the prediction."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.functional.mcr import supervised_contrast
from equimodal.functional.means import mean_counted
from equimodal.functional.precision import at_least_single
from equimodal.method import Capabilities, Method
from equimodal.methods.head_logits import head_logits
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.methods.objective.influence import Influences
from equimodal.methods.objective.reconstruction import Reconstruction
from equimodal.noise import mix
from equimodal.readout import Readouts, feature_vectors, vector_width
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class MCR(Method):
    r"""Multimodal competition regularizer (Kontras et al., NeurIPS 2025).

    .. math::
        L = L(f, y) + \lambda_u \sum_m L(u_m, y) + \lambda_C L_{Con} + \lambda_R L_{CEB}
            + \lambda_M \sum_S L_S, \quad
        L_S = -\mathrm{JSD}\big(p(f(z)), p(f(\tilde z^S))\big)

    In :math:`\tilde z^S` the features of the modalities in S come from other samples of the batch;
    S is any set of some modalities, not all of them. How much that changes the prediction is the
    influence of S. Each encoder plays for itself:

    .. math:: \nabla_{\theta_m} = \lambda_M \Big(\sum_{S \ni m} \nabla_{\theta_m} L_S
        + k \sum_{S \not\ni m} \nabla_{\theta_m} L_S\Big)

    With k = -1 it lessens the influence of the others, with 0 it ignores it, with 1 all raise all.
    The head takes sides with k = 1 alone. :math:`L_{Con}` draws features of one class together,
    across modalities; :math:`L_{CEB}` makes features such that the prediction says what they are.

    For classification with one class per sample. Prediction is the model's own.

    Args:
        importance: weight :math:`\lambda_M` of the influences, 0 or more.
        strategy: k: -1 (greedy), 0 (independent) or 1 (collaborative).
        permutations: of the batch per step, 1 or more. Up to six modalities all sets S have them
            all; above, four sets are drawn for each, whose mean stands for that of all.
        contrast: weight :math:`\lambda_C`, 0 or more. Above 0 all features must have one width.
        temperature: of the contrast, above 0.
        unimodal: weight :math:`\lambda_u` of the losses of a linear classifier per modality, 0 or
            more.
        reconstruction: weight :math:`\lambda_R`, 0 or more.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "mcr"
    search = searched(importance=Log(0.01, 1.0), contrast=Log(0.1, 3.0))
    source = "Kontras et al., NeurIPS 2025"
    capabilities = Capabilities(accumulation="per micro-batch", order="drawn")

    def __init__(
        self,
        *,
        importance: float = 0.1,
        strategy: int = -1,
        permutations: int = 32,
        contrast: float = 1.0,
        temperature: float = 0.5,
        unimodal: float = 0.01,
        reconstruction: float = 0.0,
    ) -> None:
        super().__init__()
        for what, weight in {
            "importance": importance,
            "contrast": contrast,
            "unimodal": unimodal,
            "reconstruction": reconstruction,
        }.items():
            if not 0 <= weight < math.inf:
                raise SetupError(f"MCR({what}): expected a number of 0 or more, found {weight}")
        if strategy not in (-1, 0, 1):
            raise SetupError(
                f"MCR(strategy): expected -1 (greedy), 0 (independent) or 1 (collaborative), found "
                f"{strategy}"
            )
        if not (type(permutations) is int and permutations >= 1):
            raise SetupError(
                f"MCR(permutations): expected a whole number of 1 or more, found {permutations}"
            )
        if not 0 < temperature < math.inf:
            raise SetupError(f"MCR(temperature): expected a number above 0, found {temperature}")
        self.importance = importance
        self.strategy = strategy
        self.permutations = permutations
        self.contrast = contrast
        self.temperature = temperature
        self.unimodal = unimodal
        self.reconstruction = reconstruction
        self.readouts = Readouts()
        self.reconstructions = nn.ModuleList()  # holds one, where it has a weight
        self._draws = 0
        self._influence = Influences(strategy)

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        self._influence = Influences(self.strategy)  # what was found is of another model

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        widths = {name: vector_width(shape) for name, shape in shapes.features.items()}
        if self.contrast and len(set(widths.values())) > 1:
            raise SetupError(
                f"MCR: expected features of one width for the contrast between modalities, found "
                f"{widths}: let the encoders end in layers of the same width, or set contrast=0"
            )
        if self.reconstruction:
            network = Reconstruction(shapes, list(widths.values()), mix(self.seed, 2))
            self.reconstructions.append(network)

    def objective(self, step: Step) -> dict[str, Tensor]:
        target, labelled = class_labels(step, "MCR")
        usable = counted(step, labelled)
        terms = {}
        if self.unimodal:
            logits = self.readouts(step.features)
            losses = [step.loss(logits[name], modality=name) for name in self.names]
            terms["unimodal"] = self.unimodal * torch.stack(losses).sum()
        if self.importance:
            terms["importance"] = self.importance * self._influences(step, usable)
        if self.contrast:
            vectors = torch.stack([_vectors(step, name) for name in self.names])
            terms["contrast"] = self.contrast * supervised_contrast(
                vectors, target, usable, self.temperature
            )
        for network in self.reconstructions:
            vectors = torch.cat([_vectors(step, name) for name in self.names], dim=1)
            complete = None if usable is None else usable.all(dim=0)
            losses = network(at_least_single(head_logits(step).detach()), vectors)
            terms["reconstruction"] = self.reconstruction * mean_counted(losses, complete)
        return terms

    def get_extra_state(self) -> dict[str, int]:
        return {"draws": self._draws}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._draws = int(state["draws"])

    # ------------------------------------------------------------------

    def _influences(self, step: Step, usable: Tensor | None) -> Tensor:
        """Return the sum of the losses L_S, with a graph in which every encoder takes its side."""
        generator = torch.Generator().manual_seed(mix(self.seed, self._draws))
        self._draws += 1
        shape = len(self.names), self.permutations, step.size
        orders = torch.rand(shape, generator=generator).argsort(dim=2)
        complete = None if usable is None else usable.all(dim=0)
        return self._influence.of(step, orders.to(step.logits.device), complete, generator)


def _vectors(step: Step, name: str) -> Tensor:
    return at_least_single(feature_vectors(step.features[name]))
