"""The exact split of a head that is affine in its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equimodal import functional
from equimodal.attach.handed import TRANSFORMED
from equimodal.errors import MatchError
from equimodal.scores.base import Scores
from equimodal.scores.generic import Structure, ask
from equimodal.step import Step
from equimodal.system.modes import evaluation


class Split(Scores):
    r"""The exact split of a head that is affine in its features (Peng et al., CVPR 2022).

    .. math:: u_m = z_m W_m^\top + b/M = H(z_m, 0) - (1 - 1/M)\, H(0, 0)

    By the first form where one linear layer is given the features side by side and makes the
    logits; by the second for any other affine head, such as a sum of layers. Also for heads that
    give unimodal logits themselves through a method `unimodal_logits(features)`. The user may have
    squeezed or flattened what the head returned: unimodal logits are then, too.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        self._linear: tuple[nn.Linear, ...] = ()  # in a tuple: not a submodule of this one
        self._order: tuple[str, ...] = ()
        self._structure: Structure | None = None
        self._compared = False

    @property
    def cost(self) -> str:  # type: ignore[override]
        if self._structure is not None and not self._linear:
            return "a forward of the head per modality, and one without any"
        return "one product with the head's weight"

    def bind(self, names: tuple[str, ...], head: nn.Module | None) -> None:
        super().bind(names, head)  # what was found is of another model
        self._linear, self._order, self._structure, self._compared = (), (), None, False

    def structure(self, step: Step) -> Structure:
        """Return what the head is, which is asked once."""
        if self._structure is None:
            if step.question is None:
                raise MatchError("scores: this step was not made by a forward, and has no head")
            self._structure = ask(step.question())
            if self._structure.linear is not None:
                layer, self._order = self._structure.linear
                self._linear = (layer,)
        return self._structure

    def finds(self, step: Step) -> bool:
        """Whether the head has an exact split."""
        if self._linear or hasattr(self.head, "unimodal_logits"):
            return True
        return self.structure(step).affine

    def logits(self, step: Step) -> dict[str, Tensor]:
        if not self.finds(step):
            raise MatchError(
                f"scores: the head {type(step.boundary).__name__} is no linear layer on "
                "concatenated features, nor otherwise affine in them: use eq.Ablation() or "
                "eq.Probe(), or give the head a method unimodal_logits(features)"
            )
        if not step.handed_on:
            raise MatchError(TRANSFORMED)
        if hasattr(self.head, "unimodal_logits"):
            return _shaped(self._given(step), step)
        if not self._linear:
            return self._differences(step)
        (linear,) = self._linear
        features = {name: step.features[name] for name in self._order}
        if not torch.is_autocast_enabled(linear.weight.device.type):  # a head may cast by itself
            features = {name: z.to(linear.weight.dtype) for name, z in features.items()}
        return _shaped(functional.split_columns(features, linear.weight, linear.bias), step)

    def _differences(self, step: Step) -> dict[str, Tensor]:
        zeros = {name: torch.zeros_like(feature) for name, feature in step.features.items()}
        with evaluation(step.boundary):
            nothing = step.head(zeros)
            alone = {n: step.head({**zeros, n: z}) for n, z in step.features.items()}
        return functional.split_affine(alone, nothing)

    def _given(self, step: Step) -> dict[str, Tensor]:
        """Return what the head's own method gives, if the user's logits are in the same order."""
        assert self.head is not None
        unimodal: dict[str, Tensor] = dict(self.head.unimodal_logits(step.features))  # type: ignore[operator]
        if not self._compared:
            same = all(logits.shape == step.logits.shape for logits in unimodal.values())
            if step.logits.ndim > 2 or not same:  # classes and positions may have changed places
                with torch.no_grad(), evaluation(self.head):
                    step.head(step.features)  # refuses logits that are not what the head returned
            self._compared = True
        return unimodal


def _shaped(unimodal: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
    shape = step.logits.shape
    return {n: u if u.shape == shape else u.reshape(shape) for n, u in unimodal.items()}


def find_linear(head: nn.Module | None, step: Step) -> tuple[nn.Linear, tuple[str, ...]] | None:
    """Find a linear layer of the head that maps the concatenated features to the logits.

    Returns:
        The layer and the order in which the features are concatenated, or None.
    """
    return None if head is None or step.question is None else ask(step.question()).linear


def weight_slices(
    linear: nn.Linear, order: Sequence[str], features: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the part of a linear layer's weight that belongs to each modality, shape ``(C, d_m)``.

    Args:
        linear: as from `find_linear`.
        order: in which it takes the features side by side, as from there.
        features: for each modality its feature, shape ``(B, ..., d_m)``.
    """
    widths = [features[name].shape[-1] for name in order]
    return dict(zip(order, torch.split(linear.weight, widths, dim=1), strict=True))
