"""Valuation of every sample by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.functional.valuation import repetitions
from equimodal.methods.data.valuation import Correct, Valuation, checked_samples


class SampleValuation(Valuation):
    r"""Let a sample come again with the modality alone that contributes little to it.

    .. math:: \phi_m = \sum_{S \not\ni m} \frac{|S|! \, (M - |S| - 1)!}{M!}
        \left( v(S \cup \{m\}) - v(S) \right), \quad
        v(S) = |S| \cdot \mathbb 1[\text{the prediction from } S \text{ is right}]

    At the end of an epoch every training sample is valued; in the next it comes once more for each
    modality with a contribution below 1, twice or three times the lower it is, with that modality
    alone (Wei et al., CVPR 2024). An epoch may grow to 1 + 3 M times its samples.

    Args:
        warm_up: epochs before the first that is resampled; by default 5 in 60 of the training, as
            in the released code.
        correct: from logits and target to whether each sample is right, bool, shape ``(B,)``; by
            default whether the largest logit is that of the class.
    """

    name = "sample-valuation"

    def __init__(self, warm_up: int | None = None, *, correct: Correct | None = None) -> None:
        super().__init__(warm_up, correct)
        self._contributions = torch.empty(0, 0)

    @property
    def contributions(self) -> Tensor:
        """Contribution of each modality to each sample, shape ``(M, N)``; empty before the first.

        NaN for samples that the criterion ignores.
        """
        return self._contributions

    def again(self, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        if not self._contributions.numel():  # warm_up=0, and no epoch has ended yet
            return {}
        checked_samples(type(self).__name__, self._contributions.shape[1], samples)
        times = repetitions(self._contributions)
        positions = torch.arange(samples)
        return {
            name: positions.repeat_interleave(of)
            for name, of in zip(self.names, times, strict=True)
        }

    def end_epoch(self, run: Run) -> None:
        assert self.warm_up is not None
        if run.epoch + 1 >= self.warm_up:
            self._contributions = self.value(run)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the contributions: they have as many columns as there are samples."""
        return {"contributions": self._contributions}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` returned."""
        self._contributions = state["contributions"]
