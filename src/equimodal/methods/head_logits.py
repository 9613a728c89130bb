"""The model's logits as its head gives them, whatever the user's loop made of them."""

from __future__ import annotations

from torch import Tensor

from equimodal.step import Step


def head_logits(step: Step) -> Tensor:
    """Return logits of a step to be compared with others of the head, shape ``(B, ...)``.

    Where the loop passes log-probabilities or probabilities, the head runs once more: what it gives
    on other features is not turned into those.
    """
    return step.logits if step.shapes.outputs == "logits" else step.head(step.gated)
