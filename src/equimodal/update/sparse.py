"""Sparse gradients, as of nn.Embedding(sparse=True): refused where whole ones are needed."""

from __future__ import annotations

from equimodal.errors import StepError
from equimodal.modalities import OwnedParameter


def refuse_sparse(owned: OwnedParameter, reason: str) -> None:
    """Refuse a sparse gradient.

    Args:
        owned: the parameter.
        reason: what needs whole gradients, and why, as the beginning of a sentence.

    Raises:
        StepError: the gradient of the parameter is sparse.
    """
    gradient = owned.parameter.grad
    if gradient is not None and gradient.is_sparse:
        raise StepError(
            f"{reason}, and that of {owned.name} is sparse: make its module with sparse=False, or "
            "leave its modality out of the method, modalities=(...), where it takes them"
        )
