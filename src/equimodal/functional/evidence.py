"""How well a modality does alone, and how far it is ahead of the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_score(losses: Tensor, ignored: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    r"""Logarithm of the score of one modality over a batch.

    .. math:: \log s = \log \sum_i \exp(-\ell_i / \tau)

    For the cross-entropy of unimodal logits u this is the evidence of OGM,
    :math:`s = \sum_i \mathrm{softmax}(u_i)_{y_i}` (Peng et al., CVPR 2022). It is kept as a
    logarithm because exp(-loss) underflows for large losses, and 0/0 is no ratio.

    Args:
        losses: per-sample losses, shape ``(..., B)``, floating point.
        ignored: which samples do not count, bool, of a shape that broadcasts to that of the
            losses. None of them by default.
        temperature: divides the losses; a scale for losses that are no log-likelihood.

    Returns:
        A tensor of shape ``(...)``: ``-inf`` where no sample counts, and NaN where the loss of a
        counted sample is NaN or infinite, so that the caller can tell.

    >>> log_score(torch.tensor([0.0, math.log(2.0)])).exp()  # two samples, probabilities 1 and 1/2
    tensor(1.5000)
    """
    # 0 times an infinite loss is NaN, and stays so; the exponential of its negative would be 0
    exponents = torch.sub(losses * 0, losses, alpha=1 / temperature)
    if ignored is not None:
        exponents = exponents.masked_fill(ignored, -math.inf)
    return torch.logsumexp(exponents, dim=-1)


def log_sum(losses: Tensor, ignored: Tensor | None = None) -> Tensor:
    r"""Logarithm of a sum of losses, which adds up over micro-batches as scores do.

    .. math:: \log \sum_i \ell_i

    Args:
        losses: per-sample losses, shape ``(..., B)``, floating point, at least 0.
        ignored: see `log_score`.

    Returns:
        A tensor of shape ``(...)``: ``-inf`` where no sample counts or the sum is 0, and NaN where
        it is below 0.

    >>> log_sum(torch.tensor([1.0, 3.0])).exp()
    tensor(4.)
    """
    counted = losses if ignored is None else losses.masked_fill(ignored, 0)
    return counted.sum(dim=-1).log()


def discrepancy_ratio(log_scores: Tensor, counts: Tensor | None = None) -> Tensor:
    r"""How many times better each modality does than the others do on average.

    .. math:: \rho_m = \frac{s_m}{\frac{1}{M-1} \sum_{j \ne m} s_j}

    With two modalities this is the discrepancy ratio of the paper (Peng et al., CVPR 2022).
    Where modalities were present in different numbers of samples, scores per sample are compared.

    Args:
        log_scores: logarithms of the summed scores, shape ``(M,)``.
        counts: in how many samples each modality was present, shape ``(M,)``. A modality with
            count 0 leaves the ratios of the others as if it did not exist.

    Returns:
        Ratios of shape ``(M,)``. NaN where they are not defined: the modality is absent, nothing
        is there to compare it with, or a score involved is NaN. Without counts also where its own
        score is 0 and another is.

    >>> discrepancy_ratio(torch.tensor([6.0, 3.0]).log())
    tensor([2.0000, 0.5000])
    """
    modalities = log_scores.shape[0]
    if modalities == 2 and counts is None:
        return (log_scores - log_scores.flip(0)).exp()
    if counts is None:
        # Exponentials of differences, not a difference of logarithms: equal scores then give
        # exactly 1, where the coefficient of the paper jumps.
        others = log_scores.repeat(2).as_strided((modalities - 1, modalities), (1, 1), 1)
        return (others - log_scores).exp().mean(dim=0).reciprocal()
    means = log_scores - counts.clamp(min=1).log()
    ignored = torch.eye(modalities, dtype=torch.bool, device=log_scores.device)
    ignored = ignored | (counts <= 0)  # (M, M): row m, those that m is not compared with
    others = means.expand(modalities, modalities).masked_fill(ignored, -math.inf)
    # Of means the largest may be that of nobody: relative to the maximum, 0/0 where none is left.
    peak = others.amax(dim=1).clamp(min=torch.finfo(means.dtype).min)
    mean = (others - peak[:, None]).exp().sum(dim=1) / (modalities - ignored.sum(dim=1))
    return ((means - peak).exp() / mean).masked_fill(counts <= 0, math.nan)
