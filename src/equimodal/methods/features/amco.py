"""Adaptive mask co-optimisation: who is leant on is masked, and keeps a loss of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.amco import mask_rate, reliance, unmasked
from equimodal.method import Capabilities, Method
from equimodal.noise import mix
from equimodal.planning import share
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step


class AMCo(Method):
    r"""Mask part of the feature of modalities that the model leans on (Zhou et al., ICASSP 2023).

    .. math::
        L = \ell\bigl(f(b_1 \odot z_1, \dots, b_M \odot z_M), y\bigr) + \sum_m \ell(u_m, y), \quad
        u_m = W_m z_m + c_m

    A modality is dependent in a step if its share of the softmax over the unimodal logits of all
    modalities was above a limit in the step before. The mask :math:`b_m` of a dependent modality
    has :math:`\lfloor p U \rfloor` zeros among its U units, at random and the same for all samples
    of a step; p grows from 0 in the first epoch to 1. The losses of the modalities alone, by linear
    classifiers of the method's own and without masks, preserve what a masked modality can do.

    **Not verified against the paper**, of which only the abstract was at hand: see its card.

    Args:
        limit: share above which a modality is dependent, above 0 and below 1; None for one over the
            number of modalities.
        ramp: epochs until p is 1, above 0; by default 3 in 30 of the training.

    Raises:
        SetupError: an argument is out of its range, or the logits are no scores of classes.
    """

    name = "amco"
    source = "Zhou et al., ICASSP 2023 (abstract)"
    replaces_joint = True
    modulates = False
    capabilities = Capabilities(order="drawn")
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"ramp": share(3, of=30)}

    def __init__(self, limit: float | None = None, ramp: float | None = None) -> None:
        super().__init__()
        if limit is not None and not 0 < limit < 1:
            raise SetupError(f"AMCo(limit): expected above 0 and below 1, or None, found {limit}")
        if ramp is not None and not (ramp > 0 and math.isfinite(ramp)):
            raise SetupError(f"AMCo(ramp): expected a number of epochs above 0, found {ramp}")
        self.limit = limit
        self.ramp = ramp
        self.readouts = Readouts()
        self._steps = 0  # on the host: it seeds the masks, and a tensor would be waited for
        self._proposed: Tensor | None = None

    dependent: Tensor

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        self.register_buffer("dependent", torch.zeros(len(names), dtype=torch.bool))

    def build(self, shapes: Shapes) -> None:
        if math.prod(shapes.logits) < 2:
            raise SetupError(
                "AMCo compares the scores of classes: expected logits of shape (B, C) with two "
                f"classes or more, found {('B', *shapes.logits)}"
            )
        self.readouts.build(shapes, mix(self.seed, 1))

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        alone = {name: step.loss(logits[name], modality=name) for name in self.names}
        assert self.ramp is not None
        rate = mask_rate(step.epoch, self.ramp)
        if rate == 0:
            return {"joint": step.joint, **alone}
        features = {
            name: self._masked(step.gated[name], index, rate)
            for index, name in enumerate(self.names)
        }
        return {"joint": step.loss(step.head(features)), **alone}

    @torch.no_grad()
    def measure(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        shares = reliance(torch.stack([logits[name].flatten(1) for name in self.names]))
        complete = torch.ones_like(shares[0], dtype=torch.bool)
        for present in step.present.values():
            complete &= present.to(complete.device)
        return {"share": (shares * complete).sum(dim=1), "samples": complete.sum().to(shares)}

    def coefficients(self, evidence: Evidence) -> None:
        """Take note of who is leant on; no gradient is scaled."""
        samples = evidence.measured["samples"]
        share = evidence.measured["share"] / samples.clamp(min=1)
        limit = 1 / len(self.names) if self.limit is None else self.limit
        self._proposed = torch.where(samples > 0, share > limit, self.dependent)

    def commit(self) -> None:
        self._steps += 1
        if self._proposed is not None:
            self.dependent, self._proposed = self._proposed, None

    def get_extra_state(self) -> int:
        return self._steps

    def set_extra_state(self, state: int) -> None:
        self._steps = state

    def _masked(self, feature: Tensor, index: int, rate: float) -> Tensor:
        """Mask units (channels of maps, or values) of a feature of a dependent modality."""
        if feature.ndim < 2:
            return feature  # a single unit, and one always stays
        dim = 1 if feature.ndim >= 4 else feature.ndim - 1
        generator = torch.Generator(feature.device)
        generator.manual_seed(mix(self.seed, 2, self._steps, index))
        units = torch.rand(feature.shape[dim], generator=generator, device=feature.device)
        keep = unmasked(units, rate) | ~self.dependent[index]
        return feature * keep.to(feature.dtype).view(-1, *[1] * (feature.ndim - 1 - dim))
