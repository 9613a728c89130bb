r"""What scores are, whatever they read.

The evidence of a modality is its score :math:`s_m = \sum_i \exp(-\ell_i(u_m, y_i))`, with the
user's loss and the unimodal logits u. For cross-entropy this is the paper's sum of true-class
probabilities; for any other per-sample loss it is the same code.
"""

from __future__ import annotations

from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.step import Shapes, Step


class Scores(nn.Module):
    """How well each modality does alone: unimodal logits for one micro-batch.

    Args:
        temperature: divides the per-sample losses before they become scores,
            exp(-loss/temperature): a scale for losses that are no log-likelihood, such as a
            squared error.
    """

    cost = "nothing"
    unusable = "infinite"  # losses, beside those that are NaN, from which nothing follows

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise SetupError(f"temperature: expected a positive number, found {temperature}")
        self.temperature = temperature
        self.names: tuple[str, ...] = ()
        self._head: tuple[nn.Module | None] = (None,)  # in a tuple: not a submodule of this one

    @property
    def head(self) -> nn.Module | None:
        """The user's fusion head."""
        return self._head[0]

    def bind(self, names: tuple[str, ...], head: nn.Module | None) -> None:
        """Learn the modalities and the head, once, before the first step."""
        self.names = names
        self._head = (head,)

    def build(self, shapes: Shapes, seed: int) -> None:
        """Make modules whose sizes depend on the features, once shapes are known."""

    def logits(self, step: Step) -> dict[str, Tensor]:
        """Return for each modality its unimodal logits, shaped like the step's logits."""
        raise NotImplementedError

    def objective(self, step: Step) -> Tensor | None:
        """Return a loss that trains modules of its own, or None."""
        return None

    def judged(self, evidence: dict[str, Evidence]) -> dict[str, Evidence]:
        """Return the evidence of a whole step, by method, as methods are to see it."""
        return evidence

    def commit(self) -> None:
        """Keep what the last `judged` proposed: the optimizer has stepped."""
