"""What LFM aligns predictions by, and how it weighs that: the choices of paper and code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.lfm import jensen_shannon_divergence, mixture_first_divergence
from equimodal.method import Need
from equimodal.planning import required, share

LEAST, MOST = 0.05, 0.95
RELEASED = (  # rising powers of the epoch, of 200
    2.04623704e-01,
    3.35472727e-03,
    1.22989557e-04,
    -2.92947416e-06,
    2.23835486e-08,
    -5.39717505e-11,
)


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

    def over(self, epochs: int | None) -> AlignmentWeight:
        """Return the same for a training of so many epochs, None where nobody knows.

        Raises:
            SetupError: it follows the length of training, which is not known.
        """
        return self

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
        halving: after so many epochs, every time, the rate is halved; by default 20 in 200 of the
            training, as in the released code.
    """

    needs = frozenset({"held-out data"})

    rate: float = 1e-4
    start: float = MOST
    halving: int | None = None

    def __post_init__(self) -> None:
        for what, holds, expected, value in (
            ("rate", 0 <= self.rate < math.inf, "0 or more", self.rate),
            ("start", LEAST <= self.start <= MOST, f"{LEAST} to {MOST}", self.start),
            ("halving", self.halving is None or self.halving >= 1, "1 or more", self.halving),
        ):
            if not holds:
                raise SetupError(f"LearnedWeight({what}): expected {expected}, found {value}")

    def over(self, epochs: int | None) -> LearnedWeight:
        if self.halving is not None:
            return self
        length = required(epochs, "LearnedWeight", "halving")
        return replace(self, halving=share(20, of=200)(length))

    def first(self) -> float:
        return self.start

    def following(self, weight: Tensor, epoch: int, slope: Callable[[], Tensor]) -> Tensor:
        assert self.halving is not None
        rate = self.rate * 0.5 ** (epoch // self.halving)
        return (weight - rate * slope()).clamp(LEAST, MOST)


@dataclass(frozen=True)
class FittedWeight(AlignmentWeight):
    """A polynomial of the epoch is the weight of classification, kept within 0.05 and 0.95.

    Args:
        coefficients: of rising powers of the epoch, counted from 0; by default those of the
            released code, which were fitted to a run of the learned weight over 200 epochs.
        of: how many epochs the polynomial is made for: it is stretched to the length of training.
            None takes epochs as they are. By default 200 for the released coefficients, None for
            others.
    """

    coefficients: Sequence[float] = RELEASED
    of: int | None = None
    scale: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        if self.coefficients is RELEASED and self.of is None:
            object.__setattr__(self, "of", 200)
        if self.of is not None and self.of < 1:
            raise SetupError(f"FittedWeight(of): expected 1 epoch or more, found {self.of}")
        if not self.coefficients or not all(map(math.isfinite, self.coefficients)):
            raise SetupError(
                "FittedWeight(coefficients): expected one or more finite numbers, found "
                f"{self.coefficients!r}"
            )

    def over(self, epochs: int | None) -> FittedWeight:
        if self.of is None:
            return self
        stretched = replace(self)
        length = required(epochs, "FittedWeight", "of")
        object.__setattr__(stretched, "scale", self.of / length)
        return stretched

    def first(self) -> float:
        return self._alignment(0)

    def following(self, weight: Tensor, epoch: int, slope: Callable[[], Tensor]) -> Tensor:
        return torch.full_like(weight, self._alignment(epoch))

    def _alignment(self, epoch: int) -> float:
        powers = (c * (epoch * self.scale) ** power for power, c in enumerate(self.coefficients))
        return 1 - min(max(math.fsum(powers), LEAST), MOST)
