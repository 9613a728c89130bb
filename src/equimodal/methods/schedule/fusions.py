"""How the logits of single modalities become a prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equimodal.errors import SetupError, unknown
from equimodal.functional.mla import entropy_weights


class Fusion:
    """Maps the logits of all modalities, shape ``(M, B, ...)``, to the prediction's logits."""

    def check(self, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """Refuse modalities or logits that this rule is not made for.

        Args:
            names: the modalities.
            shape: of one sample of the logits.
        """

    def __call__(self, logits: Tensor, names: tuple[str, ...]) -> Tensor:
        """Return logits of shape ``(B, ...)``."""
        raise NotImplementedError


@dataclass(frozen=True)
class EntropyWeighted(Fusion):
    """Weigh the modalities by how sure they are of each sample (Zhang et al., CVPR 2024)."""

    def check(self, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
        if len(shape) != 1 or shape[0] < 2:
            raise SetupError(
                f"EntropyWeighted: expected logits of two or more classes, shape (B, C), found "
                f"(B, {', '.join(map(str, shape))}): use eq.FixedWeights()"
            )

    def __call__(self, logits: Tensor, names: tuple[str, ...]) -> Tensor:
        return (entropy_weights(logits)[..., None] * logits).sum(dim=0)


@dataclass(frozen=True)
class FixedWeights(Fusion):
    """Weigh the modalities alike for all samples.

    Args:
        weights: of every modality by name, 0 or more, summing to 1; equal ones by default.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    def check(self, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
        for name, weight in self.weights.items():
            if name not in names:
                raise SetupError("FixedWeights: " + unknown("modality", name, names))
            if not weight >= 0:
                raise SetupError(
                    f"FixedWeights: expected a weight of 0 or more for {name}, found {weight}"
                )
        missing = [name for name in names if name not in self.weights]
        total = sum(self.weights.values())
        if self.weights and (missing or not math.isclose(total, 1, abs_tol=1e-6)):
            raise SetupError(
                f"FixedWeights: expected a weight for each of {list(names)}, summing to 1, found "
                f"{dict(self.weights)}"
            )

    def __call__(self, logits: Tensor, names: tuple[str, ...]) -> Tensor:
        given = [self.weights.get(name, 1 / len(names)) for name in names]
        weights = torch.tensor(given, dtype=logits.dtype, device=logits.device)
        fused: Tensor = torch.tensordot(weights, logits, dims=1)
        return fused
