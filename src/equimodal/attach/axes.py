"""Along which dimension of a feature the samples lie: sequences may come first, ``(T, B, D)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from equimodal.attach.features import Features
from equimodal.errors import MatchError


class Axes:
    """Brings the samples of every feature to the front, and back.

    Lengths do not tell: a sequence may be as long as the batch is large. A sample's logits depend
    on its own part of a feature alone, so their gradient does: it is asked once, wherever a length
    leaves a doubt, on the head in evaluation mode.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._asked: dict[str, int] = {}  # how often in vain: a dead unit may speak another time

    def front(self, features: Mapping[str, Tensor]) -> Features:
        """Return the features with the samples along their first dimension."""
        return {name: self._moved(name, f, back=False) for name, f in features.items()}

    def back(self, features: Mapping[str, Tensor]) -> Features:
        """Return features as the head takes them."""
        return {name: self._moved(name, f, back=True) for name, f in features.items()}

    def _moved(self, name: str, feature: Tensor, back: bool) -> Tensor:
        axis = self._known.get(name, 0)
        if axis == 0:
            return feature
        return feature.movedim(0, axis) if back else feature.movedim(axis, 0)

    def doubtful(self, features: Mapping[str, Tensor], size: int) -> list[str]:
        """Return the modalities of which it is not known yet, and lengths do not tell."""
        return [
            name
            for name, feature in features.items()
            if name not in self._known
            and self._asked.get(name, 0) < 3
            and feature.is_floating_point()
            and (feature.ndim == 0 or feature.shape[0] != size or size in feature.shape[1:])
        ]

    def learn(
        self, features: Mapping[str, Tensor], size: int, run: Callable[[Features], Tensor]
    ) -> None:
        """Find out along which dimension the samples of the doubtful features lie.

        Args:
            features: as the head takes them.
            size: how many samples there are.
            run: from such features to logits, in evaluation mode.
        """
        names = self.doubtful(features, size)
        if not names or size < 2:  # one sample is alike along every dimension of length 1
            return
        for name in names:
            self._asked[name] = self._asked.get(name, 0) + 1
        leaves = {name: f.detach().clone() for name, f in features.items()}
        with torch.enable_grad():
            for name in names:
                leaves[name].requires_grad_()
            logits = run(leaves).reshape(size, -1)
        if not logits.requires_grad:
            return
        views = [logits, logits.t()] if logits.shape[1] == size else [logits]
        weights = torch.arange(1, logits.shape[1] + 1, device=logits.device).cos()
        found: dict[str, list[set[int]]] = {name: [] for name in names}
        for view in views:
            axes = {name: set(range(leaves[name].ndim)) for name in names}
            for sample in (0, size - 1):
                gradients = _gradients((view[sample] * weights).sum(), [leaves[n] for n in names])
                for name, gradient in zip(names, gradients, strict=True):
                    axes[name] &= _holding(sample, size, gradient)
            for name in names:
                found[name].append(axes[name])
        for name in names:
            told = next((axes for axes in found[name] if len(axes) == 1), None)
            if told is not None:
                self._known[name] = next(iter(told))

    def refuse_gated(self, gates: Mapping[str, Tensor], size: int) -> None:
        """Refuse gates that were laid along another dimension before it was known which it is.

        Raises:
            MatchError: they were.
        """
        for name in gates:
            if self._known.get(name, 0) != 0:
                raise MatchError(
                    f"the samples of {name} lie along dimension {self._known[name]} of its "
                    "feature, which became known only after a method had dropped or scaled samples "
                    "along the first: call balancer.check(batch) before the first step"
                )

    def refuse(self, features: Mapping[str, Tensor], size: int) -> None:
        """Refuse features that do not have the samples along the first dimension.

        Raises:
            MatchError: one has not.
        """
        for name, feature in features.items():
            if feature.ndim == 0 or feature.shape[0] != size:
                raise MatchError(
                    f"the feature of {name} has shape {tuple(feature.shape)}, and none of its "
                    f"dimensions is that of the {size} samples: where frames or segments are "
                    "folded into the batch, name a module that returns one feature per sample, "
                    "such as one that holds what unfolds or pools them"
                )


def _holding(sample: int, size: int, gradient: Tensor | None) -> set[int]:
    """Return the dimensions along which a gradient is nonzero at the place of a sample alone."""
    if gradient is None:
        return set()
    nonzero = gradient.ne(0)
    if not bool(nonzero.any()):
        return set(range(gradient.ndim))  # a dead unit says nothing
    held = set()
    for dim in range(gradient.ndim):
        if gradient.shape[dim] == size:
            others = [other for other in range(gradient.ndim) if other != dim]
            along = nonzero.any(dim=others) if others else nonzero
            if bool(along[sample]) and int(along.sum()) == 1:
                held.add(dim)
    return held


def _gradients(number: Tensor, leaves: list[Tensor]) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(number, leaves, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise MatchError(
            "the head is checkpointed reentrantly, which hides what its outputs depend on: "
            "checkpoint with use_reentrant=False, or leave the head out"
        ) from error
