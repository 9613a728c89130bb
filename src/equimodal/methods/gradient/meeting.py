"""Two gradients that are combined where they meet: at a feature, on the way to its encoder."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from equimodal.attach.graph import ancestors
from equimodal.errors import StepError
from equimodal.functional.precision import at_least_single
from equimodal.methods.gradient.apart import source
from equimodal.step import Step
from equimodal.system.nodes import Node

Combine = Callable[[Tensor, Tensor], Tensor]


def behind_joint(step: Step) -> set[Node]:
    """Return the nodes that the user's loss was computed by."""
    return ancestors([step.joint])


def met(
    name: str, feature: Tensor, combine: Combine, joint: Collection[Node], method: str
) -> Tensor:
    """Return a feature for a loss of its own, and combine both gradients in the backward pass.

    That of this loss arrives at what is returned; what arrives at the feature is the sum of both,
    of whatever else was added to the loss too. No pass is added.

    Args:
        name: its modality, for messages.
        feature: with its graph; one without is returned as it is.
        combine: from the gradient of all else and that of the own loss to what goes on to the
            encoder, all of the shape of the feature.
        joint: as from `behind_joint`.
        method: for messages.

    Raises:
        StepError: the user's loss does not go through this feature.
    """
    if not feature.requires_grad or feature.grad_fn is None:
        return feature
    node, output = source((feature.grad_fn, feature.output_nr))
    if node not in joint:
        raise StepError(
            f"{method}(at='features'): the loss does not go through the feature of {name} that the "
            "head was given, as where features are cut out of what has been computed from their "
            "join, or the forward is compiled: use at='parameters'"
        )
    own: list[Tensor] = []
    alias = feature.view_as(feature)
    alias.register_hook(own.append)  # type: ignore[no-untyped-call]

    def before(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
        total = gradients[output]
        if total is None or not own:
            return None
        alone = own.pop()
        with torch.no_grad():
            whole, part = at_least_single(total), at_least_single(alone)
            combined = combine(whole - part, part).to(total.dtype)
        return *gradients[:output], combined, *gradients[output + 1 :]

    node.register_prehook(before)
    return alias
