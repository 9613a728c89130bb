"""What LFM aligns predictions by, and how it weighs that: the choices of paper and code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.lfm import jensen_shannon_divergence, mixture_first_divergence
from equimodal.method import Need

LEAST, MOST = 0.05, 0.95


class Divergence:
    """Maps the logits of two modalities, shape ``(B, C)``, to how far they are apart, ``(B,)``."""

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class MixtureFirst(Divergence):
    """Half the sum of KL(mixture, prediction): the released code of LFM."""

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        return mixture_first_divergence(first, second)


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """Half the sum of KL(prediction, mixture)."""

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        return jensen_shannon_divergence(first, second)


class AlignmentWeight:
    """The weight of the alignment loss in every epoch; that of classification is 1 minus it.

    Attributes:
        needs: what it must be given.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def first(self) -> float:
        """Return the weight in epoch 0."""
        raise NotImplementedError

    def following(self, weight: Tensor, epoch: int, slope: Callable[[], Tensor]) -> Tensor:
        """Return the weight in an epoch, shape ``()``.

        Args:
            weight: that of the epoch before.
            epoch: counted from 0.
            slope: computes `equimodal.functional.lfm.weight_slope` on held-out data.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LearnedWeight(AlignmentWeight):
    """Follows a second-order product on one held-out batch, at the end of every epoch.

    Args:
        rate: how far it follows, 0 or more.
        start: the weight in epoch 0, from 0.05 to 0.95.
        halving: after so many epochs, every time, the rate is halved.
    """

    needs = frozenset({"held-out data"})

    rate: float = 1e-4
    start: float = MOST
    halving: int = 20

    def __post_init__(self) -> None:
        for what, holds, expected, value in (
            ("rate", 0 <= self.rate < math.inf, "0 or more", self.rate),
            ("start", LEAST <= self.start <= MOST, f"{LEAST} to {MOST}", self.start),
            ("halving", self.halving >= 1, "1 or more", self.halving),
        ):
            if not holds:
                raise SetupError(f"LearnedWeight({what}): expected {expected}, found {value}")

    def first(self) -> float:
        return self.start

    def following(self, weight: Tensor, epoch: int, slope: Callable[[], Tensor]) -> Tensor:
        rate = self.rate * 0.5 ** (epoch // self.halving)
        return (weight - rate * slope()).clamp(LEAST, MOST)


@dataclass(frozen=True)
class FittedWeight(AlignmentWeight):
    """A polynomial of the epoch is the weight of classification, kept within 0.05 and 0.95.

    Args:
        coefficients: of rising powers of the epoch, counted from 0. The released polynomial has
            degree 5 and starts at 0.2046; its other coefficients are not known to us.
    """

    coefficients: Sequence[float]

    def __post_init__(self) -> None:
        if not self.coefficients or not all(map(math.isfinite, self.coefficients)):
            raise SetupError(
                "FittedWeight(coefficients): expected one or more finite numbers, found "
                f"{self.coefficients!r}"
            )

    def first(self) -> float:
        return self._alignment(0)

    def following(self, weight: Tensor, epoch: int, slope: Callable[[], Tensor]) -> Tensor:
        return torch.full_like(weight, self._alignment(epoch))

    def _alignment(self, epoch: int) -> float:
        powers = (c * float(epoch) ** power for power, c in enumerate(self.coefficients))
        return 1 - min(max(math.fsum(powers), LEAST), MOST)
