"""What methods know of a head that they run on many sets of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equimodal import functional
from equimodal.errors import MatchError
from equimodal.scores.generic import Structure, ask, by_rows
from equimodal.scores.split import weight_slices
from equimodal.step import Step


class Head:
    """What a head is, and whether many sets of features may run through it in one call.

    BatchNorm in training mode, attention over the batch and an input beside the features that has
    an entry for every sample make a row depend on others or on its place. So the head is asked, in
    generic position and once for each mode, and the sets run one by one where they do.
    """

    def __init__(self) -> None:
        self._structure: Structure | None = None
        self._by_rows: dict[bool, bool] = {}

    def structure(self, step: Step) -> Structure:
        """Return what the head is; that it is nothing in particular where it cannot be asked."""
        if self._structure is None:
            if torch.compiler.is_compiling() or step.question is None or not step.handed_on:
                return Structure(False)
            try:
                self._structure = ask(step.question())
            except MatchError:  # of scores; a method that runs the head needs no answer
                self._structure = Structure(False)
        return self._structure

    def takes_rows(self, step: Step) -> bool:
        """Whether each row of its answer follows from the same row of the features alone.

        In the mode that it is in. One sample tells nothing, and many sets of it are run one by one.
        """
        training = step.boundary.training
        if step.size < 2 or torch.compiler.is_compiling():
            return False
        if training not in self._by_rows:
            if step.question is None or not step.handed_on:
                return False
            try:
                question = step.question()
            except MatchError:
                return False
            given = question.layout.read(question.inputs)
            first = all(given[n].shape[:1] == step.logits.shape[:1] for n in step.names)
            self._by_rows[training] = first and by_rows(question, training)
        return self._by_rows[training]


def products(step: Step, layer: nn.Linear, order: Sequence[str], fixed: bool = False) -> Tensor:
    """Return what each modality contributes to the logits of a linear layer on the features.

    They are of the features as they entered the head, and add up to its logits.

    Args:
        step: the micro-batch.
        layer: as from `Structure.linear`.
        order: in which it takes the features side by side, as from there.
        fixed: whether the layer itself has no part in the graph.

    Returns:
        Shape ``(M, *logits)``.
    """
    features = step.gated
    if not torch.is_autocast_enabled(layer.weight.device.type):  # a head may cast by itself
        features = {name: z.to(layer.weight.dtype) for name, z in features.items()}
    weight: Tensor = layer.weight
    bias: Tensor | None = layer.bias
    if fixed:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    if len({feature.shape for feature in features.values()}) == 1 and step.logits.ndim == 2:
        beside = torch.stack([features[name] for name in order])
        if beside.ndim == 3:
            parts = torch.bmm(beside, weight.view(len(weight), len(order), -1).permute(1, 2, 0))
            parts = parts if bias is None else parts + bias / len(order)
            return (
                parts if step.names == tuple(order) else parts[[order.index(n) for n in step.names]]
            )
    slices = weight_slices(layer, order, features)
    if fixed:
        slices = {name: of.detach() for name, of in slices.items()}
    by_name = functional.split_linear(features, slices, bias)
    return torch.stack([by_name[name].reshape(step.logits.shape) for name in step.names])
