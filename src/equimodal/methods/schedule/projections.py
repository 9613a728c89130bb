"""What keeps a shared head from unlearning one modality while it learns another."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.mla import recursive_least_squares, unit_norm


class Projection:
    """Changes a projection with every mean feature; the head's gradient is multiplied by it."""

    def __call__(self, projection: Tensor, mean: Tensor) -> Tensor:
        """Return the next projection.

        Args:
            projection: shape ``(D, D)``, the identity at the start.
            mean: mean feature of a modality over the batch, shape ``(D,)``.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LeastSquares(Projection):
    """Recursive least squares: directions of mean features fade out (Zhang et al., CVPR 2024).

    Args:
        ridge: a, above 0; the smaller, the faster they fade.
    """

    ridge: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.ridge < float("inf"):
            raise SetupError(
                f"{type(self).__name__}(ridge): expected a number above 0, found {self.ridge}"
            )

    def __call__(self, projection: Tensor, mean: Tensor) -> Tensor:
        return recursive_least_squares(projection, mean, self.ridge)


@dataclass(frozen=True)
class UnitLeastSquares(LeastSquares):
    """Recursive least squares, divided by the Frobenius norm after every call.

    Args:
        ridge: see `LeastSquares`.
    """

    def __call__(self, projection: Tensor, mean: Tensor) -> Tensor:
        return unit_norm(super().__call__(projection, mean))


@dataclass(frozen=True)
class Unprojected(Projection):
    """The gradient as it is: what the released code of MLA does, whose projection never acts."""

    def __call__(self, projection: Tensor, mean: Tensor) -> Tensor:
        return projection
