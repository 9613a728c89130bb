"""Evidence from losses that the user hands over, one per sample and modality."""

from __future__ import annotations

from torch import Tensor

from equimodal import functional
from equimodal.errors import MatchError
from equimodal.scores.base import Scores
from equimodal.step import Step


class Given(Scores):
    r"""Evidence from the losses of ``balancer.loss(losses={"audio": ..., "video": ...})``.

    .. math:: s_m = \sum_i \exp(-\ell_{m,i} / \tau)

    For models without logits: denoisers, reconstruction, several objectives. Losses that are no
    log-likelihood need a temperature, such as the loss that you would call about right.

    Args:
        temperature: see `Scores`.
    """

    cost = "nothing: the losses are given"

    def added(self, losses: Tensor, ignored: Tensor | None) -> Tensor:
        """Return the logarithm of what a micro-batch adds, shape ``(M,)``.

        Args:
            losses: of each sample, shape ``(M, B)``, floating point.
            ignored: which of them do not count, shape ``(M, B)``, bool; None for none.
        """
        return functional.log_score(losses, ignored, self.temperature)

    def logits(self, step: Step) -> dict[str, Tensor]:
        raise MatchError(
            f"scores=eq.{type(self).__name__}() takes evidence from losses that are given: write "
            "balancer.loss(losses={...}), with one loss per sample for each modality. For "
            "balancer.loss(logits, target) take other scores, such as eq.Probe()"
        )
