"""Standard deviations of the noise that generalisation enhancement adds."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def as_real(tensor: Tensor) -> Tensor:
    """Return a view of a complex tensor as pairs of real numbers; any other as it is."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def tensor_std(gradient: Tensor) -> Tensor:
    """One standard deviation for a whole gradient tensor: the published code of OGM-GE.

    Unbiased, over all elements of the tensor before modulation, plus 1e-8. A tensor of a single
    element has none, and gets 0.

    Args:
        gradient: any shape, floating point or complex: a complex number is two real ones.

    Returns:
        A tensor of shape ``()``, real, at least in single precision.

    >>> tensor_std(torch.tensor([1.0, 2.0, 3.0]))
    tensor(1.0000)
    """
    gradient = as_real(gradient)
    precise = gradient if gradient.dtype in (torch.float32, torch.float64) else gradient.float()
    number = precise.numel()
    if number < 2:
        return precise.new_zeros(())
    # Two plain sums are several times as fast as torch's std, and precise enough: the mean of a
    # gradient tensor is hardly ever large beside its deviation.
    squares: Tensor = torch.linalg.vector_norm(precise).square()
    variance = (squares - number * precise.mean().square()) / (number - 1)
    return variance.clamp(min=0).sqrt() + 1e-8


def std_of_sums(norms: Tensor, sums: Tensor, sizes: Tensor) -> Tensor:
    """Return what `tensor_std` does, of tensors of which two sums are known.

    Args:
        norms: the Euclidean norm of each tensor, shape ``(N,)``.
        sums: the sum of its elements, same shape.
        sizes: how many they are, 2 or more, same shape and dtype.

    Returns:
        Shape ``(N,)``.

    >>> std_of_sums(torch.tensor([14.0]).sqrt(), torch.tensor([6.0]), torch.tensor([3.0]))
    tensor([1.0000])
    """
    squares = torch.addcdiv(norms.square(), sums.square(), sizes, value=-1)
    return (squares / (sizes - 1)).clamp(min=0).sqrt() + 1e-8


def slice_moments(part: Tensor) -> Tensor:
    """Describe a slice of a tensor, for `sliced_std` to put together with the others.

    Args:
        part: any shape, also empty, floating point or complex.

    Returns:
        Number of elements, their mean, and the sum of squared deviations from it: shape ``(3,)``,
        in double precision where the device has it.
    """
    part = as_real(part)
    wide = torch.float32 if part.device.type == "mps" else torch.float64
    precise = part if part.dtype in (torch.float32, torch.float64) else part.float()
    number = part.numel()
    mean = precise.sum(dtype=wide) / max(number, 1)
    squares = torch.linalg.vector_norm(precise - mean.to(precise.dtype)).to(wide).square()
    return torch.stack([torch.full_like(mean, number), mean, squares])


def sliced_std(moments: Tensor) -> Tensor:
    r"""Standard deviations as `tensor_std` gives them, of tensors that were cut into slices.

    .. math::
        d = \sum_r d_r + \sum_r n_r (\bar x_r - \bar x)^2

    Deviations are combined around the mean of all (Chan, Golub and LeVeque, 1979).

    Args:
        moments: what `slice_moments` returned for each slice and tensor, shape ``(R, N, 3)``.

    Returns:
        Shape ``(N,)``, in the dtype of the moments.

    >>> parts = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    >>> sliced_std(torch.stack([slice_moments(part) for part in parts])[:, None])
    tensor([1.0000], dtype=torch.float64)
    """
    numbers, means, squares = moments.unbind(dim=-1)
    total = numbers.sum(dim=0)
    mean = (numbers * means).sum(dim=0) / total.clamp(min=1)
    deviation = squares.sum(dim=0) + (numbers * (means - mean).square()).sum(dim=0)
    std = (deviation / (total - 1).clamp(min=1)).sqrt() + 1e-8
    return torch.where(total < 2, 0, std)


def element_std(deviation: Tensor, count: Tensor, decay: float) -> Tensor:
    r"""Standard deviation of every element over past step gradients, from `running_moments_`.

    .. math:: \sigma = \sqrt{d / (1 - \gamma^n)}

    This is the diagonal of the covariance of stochastic gradients, which the theory of OGM-GE
    speaks of (Peng et al., CVPR 2022).

    Args:
        deviation: running mean d of squared deviations, any shape.
        count: how many gradients n it is of, shape ``()``, int64.
        decay: the factor by which past gradients lose weight.

    >>> element_std(torch.tensor([0.5]), torch.tensor(1), decay=0.5)
    tensor([1.])
    """
    return (deviation / _weight(count, decay).to(deviation.dtype)).sqrt_()


def running_moments_(
    gradient: Tensor,
    mean: Tensor,
    deviation: Tensor,
    count: Tensor,
    decay: float,
    sound: Tensor | None = None,
) -> None:
    r"""Add a gradient to the running first and second moments, in place.

    Past gradients lose the factor `decay` at every step, and the weights of n gradients add up to
    :math:`w = 1 - \gamma^n`:

    .. math::
        n \leftarrow n + 1, \quad
        m \leftarrow m + \tfrac{1 - \gamma}{w} (g - m_{old}), \quad
        d \leftarrow \gamma d + (1 - \gamma) (g - m_{old}) (g - m)

    The second moment is kept around the mean (West, 1979), because the difference of a mean square
    and a squared mean loses every digit where the gradient hardly varies. A gradient that is not
    finite changes nothing.

    Args:
        gradient: any shape.
        mean: the running mean m, same shape.
        deviation: the running mean d of squared deviations from it, same shape, of weight w.
        count: the number n of gradients, shape ``()``, int64: a running sum of weights would not
            do, because the compiler of torch 2.13 loses what is added in place to a double of
            this shape.
        decay: the factor, at least 0 and below 1.
        sound: whether the gradient is finite, shape ``()``, where this is a slice of it.
    """
    sound = _finite(gradient) if sound is None else sound
    share = sound.to(mean.dtype) * (1 - decay)
    count.add_(sound)
    step = ((1 - decay) / _weight(count, decay)).to(mean.dtype)
    for g, m, d in _pieces(gradient, mean, deviation):
        taken = torch.where(sound, g, m)  # 0 * NaN would not leave the moments alone
        before = taken - m
        m.addcmul_(before, step)
        d.mul_(1 - share).addcmul_(before, taken.sub_(m).mul_(share))


def _finite(tensor: Tensor) -> Tensor:
    """Whether all elements are finite, shape ``()``: 0 times anything else is NaN."""
    sums = [(piece * 0).sum() for (piece,) in _pieces(tensor)]
    return (sums[0] if len(sums) == 1 else torch.stack(sums).sum()) == 0


PIECE = 2**15  # of a large tensor on a CPU: what is computed in between stays in its cache


def _pieces(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Yield tensors of one shape in pieces that fit into a cache, where they are in one order."""
    first = tensors[0]
    alike = first.device.type == "cpu" and all(tensor.is_contiguous() for tensor in tensors)
    if torch.compiler.is_compiling() or not alike or first.numel() <= PIECE:
        return [tensors]
    return zip(*(torch.split(tensor.view(-1), PIECE) for tensor in tensors), strict=True)


def _weight(count: Tensor, decay: float) -> Tensor:
    """Sum of the weights of so many gradients, shape ``()``; that of one before the first.

    In double precision where the device has it, so that the first gradient is taken as it is.
    """
    wide = torch.float32 if count.device.type == "mps" else torch.float64
    return 1 - torch.pow(decay, count.clamp(min=1).to(wide))
