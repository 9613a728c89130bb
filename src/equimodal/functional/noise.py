"""Standard deviations of the noise that generalisation enhancement adds."""

from __future__ import annotations

import torch
from torch import Tensor


def tensor_std(gradient: Tensor) -> Tensor:
    """One standard deviation for a whole gradient tensor: the published code of OGM-GE.

    Unbiased, over all elements of the tensor before modulation, plus 1e-8. A tensor of a single
    element has none, and gets 0.

    Args:
        gradient: any shape, floating point.

    Returns:
        A tensor of shape ``()``, at least in single precision.

    >>> tensor_std(torch.tensor([1.0, 2.0, 3.0]))
    tensor(1.0000)
    """
    precise = gradient if gradient.dtype in (torch.float32, torch.float64) else gradient.float()
    number = precise.numel()
    if number < 2:
        return precise.new_zeros(())
    # Two plain sums are several times as fast as torch's std, and precise enough: the mean of a
    # gradient tensor is hardly ever large beside its deviation.
    squares = torch.linalg.vector_norm(precise).square()
    variance = (squares - number * precise.mean().square()) / (number - 1)
    return variance.clamp(min=0).sqrt() + 1e-8


def element_std(deviation: Tensor, weight: Tensor) -> Tensor:
    r"""Standard deviation of every element over past step gradients, from `running_moments_`.

    .. math:: \sigma = \sqrt{d / w}

    This is the diagonal of the covariance of stochastic gradients, which the theory of OGM-GE
    speaks of (Peng et al., CVPR 2022).

    Args:
        deviation: running sum d of squared deviations, any shape.
        weight: running sum w of weights, shape ``()``; 0 before the first gradient.

    >>> element_std(torch.tensor([8.0]), torch.tensor(2.0))
    tensor([2.])
    """
    return (deviation / weight.clamp(min=torch.finfo(weight.dtype).tiny)).sqrt()


def running_moments_(
    gradient: Tensor, mean: Tensor, deviation: Tensor, weight: Tensor, decay: float
) -> None:
    r"""Add a gradient to the running first and second moments, in place.

    Past gradients lose the factor `decay` at every step:

    .. math::
        w \leftarrow \gamma w + 1 - \gamma, \quad
        m \leftarrow m + \tfrac{1 - \gamma}{w} (g - m_{old}), \quad
        d \leftarrow \gamma d + (1 - \gamma) (g - m_{old}) (g - m)

    The second moment is kept around the mean (West, 1979), because the difference of a mean square
    and a squared mean loses every digit where the gradient hardly varies. A gradient that is not
    finite changes nothing.

    Args:
        gradient: any shape.
        mean: the running mean m, same shape.
        deviation: the running sum d of squared deviations from it, same shape.
        weight: the running sum w of weights, shape ``()``.
        decay: the factor, at least 0 and below 1.
    """
    sound = torch.isfinite(gradient).all()
    share = sound.to(weight.dtype) * (1 - decay)
    weight.mul_(1 - share).add_(share)
    before = torch.where(sound, gradient - mean, 0)  # 0 * NaN would not leave the moments alone
    mean.addcmul_(before, share / weight.clamp(min=torch.finfo(weight.dtype).tiny))
    after = torch.where(sound, gradient - mean, 0)
    deviation.mul_(1 - share).addcmul_(before, after * share)
