"""Rules that weigh losses by themselves alone: no logits, no features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError


class LossRule(nn.Module):
    """Weighs the losses of the modalities, from what it has seen of them in steps before.

    Without a method, for models that have losses and no logits::

        rule = eq.RunningMagnitude()
        loss = rule.weigh({"audio": audio_loss, "video": video_loss})
    """

    names: tuple[str, ...] = ()

    def start(self, names: tuple[str, ...], like: Tensor) -> None:
        """Make the state for these losses, once.

        Args:
            names: of the losses.
            like: a tensor of the dtype and on the device of the state.
        """
        if not self.names:
            self.names = names
            self.build(len(names), like)

    def build(self, size: int, like: Tensor) -> None:
        """Register what is remembered of so many losses, of the dtype and device of `like`."""

    def weights(self) -> Tensor:
        """Return the weights of this step, shape ``(M,)``."""
        raise NotImplementedError

    def term(self, losses: Tensor) -> Tensor:
        """Return the weighted sum of losses of shape ``(M,)``."""
        return (self.weights().to(losses) * losses).sum()

    def observe(self, losses: Tensor, counts: Tensor, samples: Tensor) -> None:
        """Take note of a step that has been taken.

        Args:
            losses: mean losses over the samples that have each modality, shape ``(M,)``.
            counts: how many have it, shape ``(M,)``.
            samples: how many there were, shape ``()``.
        """

    def weigh(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of losses of shape ``()`` each, and take note of them.

        For loops without a method. A modality that is missing from a batch has no entry.

        Raises:
            SetupError: there is a loss of a name that the first call did not have.
        """
        like = next(iter(losses.values())).detach()
        self.start(tuple(losses), like)
        for name in losses:
            if name not in self.names:
                raise SetupError(
                    f"{type(self).__name__}: no loss {name!r} in the first step, there were "
                    f"{list(self.names)}: give all names once, in the first"
                )
        nothing = torch.zeros_like(like)
        values = torch.stack([losses.get(name, nothing) for name in self.names])
        there = torch.tensor([float(name in losses) for name in self.names]).to(like)
        total = self.term(values)
        with torch.no_grad():
            self.observe(values.detach(), there, torch.ones_like(like))
        return total


class InverseFrequency(LossRule):
    r"""Weighs a modality by the inverse of how often it is there; the weights have mean 1.

    .. math:: w_m = \frac{1 / f_m}{\mathrm{mean}_j\, 1 / f_j}

    with f the share of all samples so far that have the modality.
    """

    counts: Tensor
    samples: Tensor

    def build(self, size: int, like: Tensor) -> None:
        self.register_buffer("counts", like.new_zeros(size))
        self.register_buffer("samples", like.new_zeros(()))

    def weights(self) -> Tensor:
        rare = self.samples.clamp(min=1) / self.counts.clamp(min=1)
        return rare / rare.mean()

    def observe(self, losses: Tensor, counts: Tensor, samples: Tensor) -> None:
        self.counts = self.counts + counts.to(self.counts)
        self.samples = self.samples + samples.to(self.samples)


class RunningMagnitude(LossRule):
    r"""Weighs a modality by the inverse of its running mean loss: all terms are alike large.

    .. math:: w_m = \frac{\mathrm{mean}_j\, \mu_j}{\mu_m}, \quad
        \mu \leftarrow \gamma \mu + (1 - \gamma) \ell

    The first loss starts the mean.

    Args:
        decay: :math:`\gamma`, at least 0 and below 1.

    Raises:
        SetupError: `decay` is out of its range.
    """

    means: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise SetupError(
                f"RunningMagnitude(decay): expected 0 or more and below 1, found {decay}"
            )
        self.decay = decay

    def build(self, size: int, like: Tensor) -> None:
        self.register_buffer("means", like.new_full((size,), torch.nan))

    def weights(self) -> Tensor:
        tiny = torch.finfo(self.means.dtype).tiny ** 0.5
        return (self.means.nanmean() / self.means.clamp(min=tiny)).nan_to_num(1.0)

    def observe(self, losses: Tensor, counts: Tensor, samples: Tensor) -> None:
        losses = losses.to(self.means)
        now = torch.where(self.means.isnan(), losses, torch.lerp(losses, self.means, self.decay))
        self.means = torch.where(counts.to(self.means) > 0, now, self.means)


class Uncertainty(LossRule):
    r"""Learns the uncertainty of every loss with the model (Kendall, Gal, Cipolla, CVPR 2018).

    .. math:: \sum_m e^{-s_m} \ell_m + \tfrac12 s_m, \quad s_m = \log \sigma_m^2

    The form of classification; with half of squared errors it is that of regression. The s are
    parameters: give them to the optimizer, as the balancer does for a method's.
    """

    def build(self, size: int, like: Tensor) -> None:
        self.log_variances = nn.Parameter(like.new_zeros(size))

    def weights(self) -> Tensor:
        return (-self.log_variances).exp()

    def term(self, losses: Tensor) -> Tensor:
        return super().term(losses) + 0.5 * self.log_variances.to(losses).sum()
