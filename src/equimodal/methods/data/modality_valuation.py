"""Valuation of a modality over a part of the data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.valuation import resampling_rate
from equimodal.methods.data.valuation import SUBSET, Correct, Valuation, checked_samples
from equimodal.noise import mix
from equimodal.search import Log, searched


class ModalityValuation(Valuation):
    r"""Let some samples come again with the modality alone that contributes little on average.

    .. math:: r_m = \min\left(1, \tfrac{2}{3}\, \alpha\,
        (\max_j \bar\phi_j - \bar\phi_m) \right)

    At the end of an epoch the contributions :math:`\phi` of `SampleValuation` are averaged over a
    random part of the training data; in the next a share :math:`r_m` of all samples, chosen at
    random, comes once more with modality m alone (Wei et al., CVPR 2024).

    Args:
        alpha: how strongly a gap between modalities counts, at least 0.
        part: share of the training samples that are valued, drawn with replacement, above 0 and up
            to 1.
        warm_up: epochs before the first that is resampled; by default 5 in 60 of the training, as
            in the released code.
        correct: from logits and target to whether each sample is right, bool, shape ``(B,)``; by
            default whether the largest logit is that of the class.
    """

    name = "modality-valuation"
    search = searched(alpha=Log(0.3, 3.0))

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        part: float = 0.2,
        warm_up: int | None = None,
        correct: Correct | None = None,
    ) -> None:
        super().__init__(warm_up, correct)
        if not 0 <= alpha < math.inf:
            raise SetupError(f"ModalityValuation(alpha): expected 0 or more, found {alpha}")
        if not 0 < part <= 1:
            raise SetupError(
                f"ModalityValuation(part): expected a share above 0 and up to 1, found {part}"
            )
        self.alpha = alpha
        self.part = part
        self.register_buffer("contributions", torch.empty(0))
        self.register_buffer("samples", torch.zeros((), dtype=torch.int64))

    contributions: Tensor
    samples: Tensor

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        self.contributions = torch.full((len(names),), torch.nan)

    def again(self, samples: int, generator: torch.Generator) -> dict[str, Tensor]:
        means = self.contributions.cpu()
        if means.isnan().any():  # nothing was valued yet, or nothing that counts
            return {}
        checked_samples(type(self).__name__, int(self.samples), samples)
        counts = (resampling_rate(means, self.alpha) * samples).round().long()
        return {
            name: torch.randperm(samples, generator=generator)[:count]
            for name, count in zip(self.names, counts, strict=True)
        }

    def end_epoch(self, run: Run) -> None:
        assert self.warm_up is not None
        if run.epoch + 1 < self.warm_up:
            return
        samples = len(run.train_loader.dataset)  # type: ignore[union-attr]
        generator = torch.Generator().manual_seed(mix(self.seed, SUBSET, run.epoch))
        size = max(1, round(self.part * samples))
        chosen = torch.randint(samples, (size,), generator=generator)
        means = self.value(run, chosen.tolist()).nanmean(dim=1)
        self.contributions.copy_(means)
        self.samples.fill_(samples)
