"""How far the predictions of single modalities are apart, and how LFM weighs that."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def late_average(logits: Tensor, present: Tensor | None = None) -> Tensor:
    r"""Mean of unimodal logits over the modalities that a sample has.

    .. math:: f = \frac{1}{M} \sum_m u_m

    Args:
        logits: shape ``(M, B, ...)``.
        present: which samples have a modality, shape ``(M, B)``, bool; all by default. Without any
            modality the mean is 0.

    Returns:
        Shape ``(B, ...)``.

    >>> late_average(torch.tensor([[[1.0]], [[3.0]]]))
    tensor([[2.]])
    """
    if present is None:
        return logits.mean(dim=0)
    counted = present.to(logits.dtype).view(*present.shape, *[1] * (logits.ndim - 2))
    total = logits.masked_fill(counted == 0, 0).sum(dim=0)
    return total / counted.sum(dim=0).clamp(min=1)


def mixture_first_divergence(first: Tensor, second: Tensor) -> Tensor:
    r"""Divergence of two predictions from their mixture, as LFM's released code has it.

    .. math::
        A_i = \tfrac12 \bigl(\mathrm{KL}(r_i \,\|\, p_i) + \mathrm{KL}(r_i \,\|\, q_i)\bigr), \quad
        r = \tfrac12 (p + q)

    The mixture stands first, so that this is not the Jensen-Shannon divergence
    (`jensen_shannon_divergence`): it is not bounded.

    Args:
        first: logits of p, shape ``(B, C)``.
        second: logits of q, shape ``(B, C)``.

    Returns:
        Shape ``(B,)``.

    >>> mixture_first_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]]))
    tensor([0.0348])
    """
    p, q, mixture = _log_probabilities(first, second)
    return (mixture.exp() * (mixture - (p + q) / 2)).sum(dim=-1)


def jensen_shannon_divergence(first: Tensor, second: Tensor) -> Tensor:
    r"""Jensen-Shannon divergence of two predictions, at most log 2.

    .. math::
        A_i = \tfrac12 \bigl(\mathrm{KL}(p_i \,\|\, r_i) + \mathrm{KL}(q_i \,\|\, r_i)\bigr), \quad
        r = \tfrac12 (p + q)

    Args:
        first: logits of p, shape ``(B, C)``.
        second: logits of q, shape ``(B, C)``.

    Returns:
        Shape ``(B,)``.

    >>> jensen_shannon_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]]))
    tensor([0.0338])
    """
    p, q, mixture = _log_probabilities(first, second)
    return (p.exp() * (p - mixture) + q.exp() * (q - mixture)).sum(dim=-1) / 2


def weight_slope(
    alignment_weight: Tensor,
    classification: Tensor,
    alignment: Tensor,
    parameters: Sequence[Tensor],
) -> Tensor:
    r"""What LFM's learned weight follows: a second-order product on held-out data.

    .. math::
        h = \mathrm{mean}\Bigl(\bigl(\nabla_\theta^2 L\; \nabla_\theta C\bigr)_1\Bigr), \quad
        L = a_0 C + a_1 A, \quad a_0 = 1 - a_1

    The gradient of C is a constant here: its own derivative takes no part. Of the product with all
    parameters, the mean over the first tensor is read, as in the released code (Yang et al.,
    NeurIPS 2024; the paper could not be read).

    Args:
        alignment_weight: the weight a_1, shape ``()``.
        classification: the classification loss C, shape ``()``, with its graph.
        alignment: the alignment loss A, shape ``()``, with its graph.
        parameters: theta. Those that the losses do not reach are left out.

    Returns:
        Shape ``()``, without a graph; 0 if the losses reach no parameter.

    >>> x = torch.tensor([2.0], requires_grad=True)
    >>> weight_slope(torch.tensor(0.5), x.square().sum(), x.pow(3).sum(), [x])
    tensor(28.)
    """
    weight = alignment_weight.detach()
    loss = (1 - weight) * classification + weight * alignment
    of_loss = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    of_classification = torch.autograd.grad(
        classification, parameters, retain_graph=True, allow_unused=True
    )
    pairs = zip(parameters, of_loss, of_classification, strict=True)
    reached = [(p, a, b) for p, a, b in pairs if a is not None and b is not None]
    if not reached:
        return torch.zeros_like(weight)
    first, outer, inner = zip(*reached, strict=True)
    (slope,) = torch.autograd.grad(outer, [first[0]], grad_outputs=inner, materialize_grads=True)
    return slope.mean().detach()


def _log_probabilities(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    p, q = F.log_softmax(first, dim=-1), F.log_softmax(second, dim=-1)
    return p, q, torch.logaddexp(p, q) - math.log(2)
