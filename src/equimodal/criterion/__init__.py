"""The user's loss: as a whole, for every sample, and what it takes and counts."""

from equimodal.criterion.criterion import Criterion
from equimodal.criterion.kind import Kind, Outputs
from equimodal.criterion.tokens import TokenLoss
from equimodal.criterion.unreduced import Loss

__all__ = ["Criterion", "Kind", "Loss", "Outputs", "TokenLoss"]
