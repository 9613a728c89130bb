"""MCR: supervised contrast between modalities, and gradients that take sides."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from equimodal.functional.precision import at_least_single


def supervised_contrast(
    vectors: Tensor,
    target: Tensor,
    counted: Tensor | None = None,
    temperature: float = 0.5,
) -> Tensor:
    r"""Draw together what belongs to one class, from all modalities, and push the rest apart.

    .. math::
        L = \frac{1}{|P|} \sum_{(a, b) \in P} -\log
            \frac{e^{s_{ab} / \tau}}{e^{s_{ab} / \tau} + \sum_{n: y_n \ne y_a} e^{s_{an} / \tau}}

    P holds all ordered pairs of two different vectors of one class, of the same modality or not; s
    is their cosine. The released form of equation 9 of Kontras et al. (NeurIPS 2025).

    Args:
        vectors: features of every modality, all of one width, shape ``(M, B, D)``.
        target: classes, shape ``(B,)``, int64.
        counted: which of them count, shape ``(M, B)``, bool; all by default.
        temperature: :math:`\tau`, above 0.

    Returns:
        Shape ``()``; 0 where no two vectors are of one class, or all are.

    >>> near, apart = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([0, 1])
    >>> supervised_contrast(near.repeat(2, 1, 1), apart)
    tensor(0.2395)
    """
    flat = torch.nn.functional.normalize(vectors.flatten(0, 1), dim=1)
    classes = target.repeat(len(vectors))
    similarity = at_least_single(flat @ flat.T) / temperature
    alike = classes[:, None] == classes
    of_two = torch.ones_like(alike)
    if counted is not None:
        of_two = counted.flatten()[:, None] & counted.flatten()
    positive = alike & of_two & ~torch.eye(len(flat), dtype=torch.bool, device=alike.device)
    # Not minus infinity: a row of it alone has no gradient.
    least = torch.finfo(similarity.dtype).min / 4
    negatives = similarity.masked_fill(alike | ~of_two, least).logsumexp(dim=1, keepdim=True)
    losses = torch.nn.functional.softplus(negatives - similarity, threshold=50.0)
    return torch.where(positive, losses, 0).sum() / positive.sum().clamp(min=1)


def changed_prediction(logits: Tensor, changed: Tensor) -> Tensor:
    r"""Jensen-Shannon divergence of predictions from those on changed features.

    It is `jensen_shannon_divergence` with its first derivative written out, and no second one: a
    third of the passes over numbers of which there are many.

    .. math:: \frac{\partial A}{\partial f_c} = \frac{p_c}{2}
        \Big( \log \frac{p_c}{r_c} - \sum_k p_k \log \frac{p_k}{r_k} \Big), \quad
        r = \tfrac12 (p + q)

    Args:
        logits: f, of p, shape ``(J, 1, B, C)`` or ``(J, P, B, C)``.
        changed: of q, shape ``(J, P, B, C)``.

    Returns:
        Shape ``(J, P, B)``.

    >>> changed_prediction(torch.zeros(1, 1, 1, 2), torch.tensor([[[[math.log(3.0), 0.0]]]]))
    tensor([[[0.0338]]])
    """
    found: Tensor = _Divergence.apply(logits, changed)  # type: ignore[no-untyped-call]
    return found


class _Divergence(torch.autograd.Function):
    """See `changed_prediction`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, changed: Tensor) -> Tensor:
        p, q = (torch.log_softmax(of, dim=-1) for of in (logits, changed))
        first, second = p.exp(), q.exp()
        # Where both are 0 any finite number will do: it is weighted with them.
        mixture = (first + second).clamp_(min=torch.finfo(p.dtype).tiny).log_().sub_(math.log(2))
        of_first, of_second = p - mixture, q.sub_(mixture)
        halves = [
            (first * of_first).sum(-1, keepdim=True),
            (second * of_second).sum(-1, keepdim=True),
        ]
        ctx.save_for_backward(first, of_first, second, of_second, *halves)
        return (halves[0] + halves[1]).squeeze(-1) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arrived: Tensor) -> tuple[Tensor, Tensor]:
        first, of_first, second, of_second, *halves = ctx.saved_tensors
        arrived = arrived[..., None] / 2
        of_logits = (of_first - halves[0]) * arrived
        if first.shape[1] < of_logits.shape[1]:
            of_logits = of_logits.sum(dim=1, keepdim=True)
        return of_logits * first, (of_second - halves[1]).mul_(second).mul_(arrived)


def scaled_gradient(values: Tensor, factor: int) -> Tensor:
    """Return the same values, any shape, with a graph that multiplies the gradient by -1, 0 or 1.

    >>> x = torch.tensor([1.5], requires_grad=True)
    >>> torch.autograd.grad(scaled_gradient(x, -1).square().sum(), x)
    (tensor([-3.]),)
    """
    if factor == 1:
        return values
    fixed = values.detach()
    return fixed if factor == 0 else 2 * fixed - values  # exact: doubling does not round
