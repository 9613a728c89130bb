"""What is compared between a unimodal classifier and the fusion: the choices of CGGM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.errors import MatchError
from equimodal.readout import feature_vectors
from equimodal.scores import find_linear, weight_slices
from equimodal.step import Step


class Direction:
    """Compares the output layer of every unimodal classifier with that of the fusion."""

    def __call__(
        self, step: Step, logits: Mapping[str, Tensor], layers: Mapping[str, nn.Linear]
    ) -> Tensor:
        """Return a cosine for every modality, shape ``(M,)``, with its graph.

        Args:
            step: the micro-batch.
            logits: what the classifiers returned on features without a graph.
            layers: the classifiers.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class GradientCosine(Direction):
    r"""Cosine between the gradients of output layers (Guo et al., NeurIPS 2024).

    .. math:: \cos\left( \sum_i \frac{\partial L_m}{\partial u_{m,i}} z_{m,i}^\top,\;
        \sum_i \frac{\partial L}{\partial f_i} z_{m,i}^\top \right)

    The first is the gradient of the classifier's weight. The second is what the same layer would
    get from the joint loss: for a linear head on concatenated features, exactly the gradient of its
    weight on this modality. It is defined for every head, and its graph reaches the encoders.
    """

    def __call__(
        self, step: Step, logits: Mapping[str, Tensor], layers: Mapping[str, nn.Linear]
    ) -> Tensor:
        given, joint = step.logits, step.joint
        if step.criterion.outputs.kind != "logits":  # the loss was not computed from the logits
            given = step.logits.clone()
            joint = step.loss(given)
        (fused,) = torch.autograd.grad(joint, given, create_graph=True)
        cosines = []
        for name in step.names:
            vectors = feature_vectors(step.features[name]).detach()
            entered = feature_vectors(step.gated[name])
            loss = step.loss(logits[name], modality=name)
            (own,) = torch.autograd.grad(loss, logits[name], retain_graph=True)
            first = own.reshape(step.size, -1).T.to(vectors.dtype) @ vectors
            second = fused.reshape(step.size, -1).T.to(vectors.dtype) @ entered
            cosines.append(F.cosine_similarity(first.flatten(), second.flatten(), dim=0))
        return torch.stack(cosines)


class WeightCosine(Direction):
    """Cosine between the weights themselves, as the released code has it.

    Its graph reaches these weights alone. For linear heads on concatenated features.
    """

    def __init__(self) -> None:
        self._boundary: nn.Module | None = None
        self._found: tuple[nn.Linear, tuple[str, ...]] | None = None  # in this boundary

    def __repr__(self) -> str:
        return "WeightCosine()"

    def __call__(
        self, step: Step, logits: Mapping[str, Tensor], layers: Mapping[str, nn.Linear]
    ) -> Tensor:
        if self._boundary is not step.boundary:
            self._boundary, self._found = step.boundary, find_linear(step.boundary, step)
        if self._found is None:
            raise MatchError(
                f"WeightCosine: the head {type(step.boundary).__name__} is no linear layer on "
                "concatenated features: use eq.GradientCosine(), the default"
            )
        slices = weight_slices(*self._found, step.features)
        return torch.stack(
            [
                F.cosine_similarity(layers[name].weight.flatten(), slices[name].flatten(), dim=0)
                for name in step.names
            ]
        )
