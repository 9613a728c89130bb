"""How a discrepancy ratio becomes a coefficient: the choices of OGM and its successors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from equimodal import functional
from equimodal.errors import SetupError


class Coefficient:
    """Maps discrepancy ratios to coefficients of the same shape, NaN to 1.

    Attributes:
        negative: whether one may fall below 0.
    """

    negative = True

    def __call__(self, ratio: Tensor, alpha: float) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Thresholded(Coefficient):
    """1 - tanh(alpha * ratio) above 1, else 1 (Peng et al., CVPR 2022)."""

    negative = False

    def __call__(self, ratio: Tensor, alpha: float) -> Tensor:
        return functional.thresholded_coefficient(ratio, alpha)


@dataclass(frozen=True)
class Continuous(Coefficient):
    """1 - alpha * tanh(ratio - 1) above 1, never below 0, else 1 (Wei et al., TPAMI 2024)."""

    negative = False

    def __call__(self, ratio: Tensor, alpha: float) -> Tensor:
        return functional.continuous_coefficient(ratio, alpha)


@dataclass(frozen=True)
class TwoSided(Coefficient):
    """Slows the leader and speeds up those behind (Kontras et al., BMVC 2024).

    Args:
        beta: the largest coefficient, at least 1.
        damping: in place of ``beta - 1`` on the side of the leader; 1 in the released code. Above
            1, as with a beta above 2 and none given, the formula falls below 0 for a leader that
            is far ahead; OGM stops at its floor.
    """

    beta: float = 2.0
    damping: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.beta < math.inf:
            raise SetupError(f"TwoSided(beta): expected at least 1, found {self.beta}")
        if self.damping is not None and not 0 <= self.damping < math.inf:
            raise SetupError(f"TwoSided(damping): expected 0 or more, found {self.damping}")

    def __call__(self, ratio: Tensor, alpha: float) -> Tensor:
        return functional.two_sided_coefficient(ratio, alpha, self.beta, self.damping)
