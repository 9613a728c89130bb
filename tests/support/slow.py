"""Slow twins, written straight from the papers: plain Python and NumPy, one sample at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max())
    result: Array = shifted / shifted.sum()
    return result


def score(unimodal_logits: Array, target: Sequence[int]) -> float:
    """Sum over the batch of the probability of the true class."""
    return sum(float(softmax(u)[y]) for u, y in zip(unimodal_logits, target, strict=True))


def ratios(scores: Sequence[float]) -> list[float]:
    """One's own score over the mean of the others'."""
    return [
        own / (sum(other for j, other in enumerate(scores) if j != m) / (len(scores) - 1))
        for m, own in enumerate(scores)
    ]


def thresholded(ratio: float, alpha: float) -> float:
    return 1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0


def continuous(ratio: float, alpha: float) -> float:
    return max(0.0, 1 - alpha * math.tanh(ratio - 1)) if ratio > 1 else 1.0


def two_sided(ratio: float, alpha: float, beta: float) -> float:
    """With the ratio of that paper: the others' score over one's own."""
    return 1 + (beta - 1) * math.tanh(alpha * (1 / ratio - 1))


def scale_matrices(modules: Iterable[nn.Module], factor: float) -> None:
    """Multiply the gradients of what has two dimensions or more, as OGM does by default."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.ndim >= 2 and parameter.grad is not None:
                parameter.grad *= factor


def standard_deviation(values: Array) -> float:
    """Unbiased, over all elements."""
    flat = values.reshape(-1)
    mean = sum(flat) / len(flat)
    return math.sqrt(sum((x - mean) ** 2 for x in flat) / (len(flat) - 1))


def splitmix(*numbers: int) -> int:
    """The generator's seed for a step and a parameter."""
    mask = (1 << 64) - 1
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state = state ^ (state >> 31)
    return state >> 32


def noise(shape: torch.Size, dtype: torch.dtype, seed: int, step: int, number: int) -> Tensor:
    """In pieces of 32,768, each with a generator of its own."""
    pieces, left = [], shape.numel()
    for piece in itertools.count():
        generator = torch.Generator().manual_seed(splitmix(seed, step, number, piece))
        pieces.append(torch.randn(min(left, 32768), dtype=dtype, generator=generator))
        left -= len(pieces[-1])
        if not left:
            return torch.cat(pieces).view(shape)
    raise AssertionError


def hand_written_ogm(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[tuple[Tensor, ...]],
    coefficient: Callable[[float], float],
    enhanced: bool = False,
    seed: int = 0,
    chosen: Callable[[nn.Parameter], bool] = lambda parameter: parameter.ndim >= 2,
) -> list[list[float]]:
    """Train a `worlds.Net` with a linear head as a user would write it down, and return all k."""
    encoders: Mapping[str, nn.Module] = dict(model.encoders.items())
    history = []
    for step, (*inputs, target) in enumerate(batches):
        features = [enc(x) for enc, x in zip(encoders.values(), inputs, strict=True)]
        logits = model.head(torch.cat(features, dim=1))
        loss = nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        weight, bias = model.head.weight.detach().numpy(), model.head.bias.detach().numpy()
        scores, start = [], 0
        for feature in features:
            width = feature.shape[1]
            unimodal = feature.detach().numpy() @ weight[:, start : start + width].T
            scores.append(score(unimodal + bias / len(features), target.tolist()))
            start += width
        ks = [coefficient(ratio) for ratio in ratios(scores)]
        history.append(ks)
        number = 0
        for k, encoder in zip(ks, encoders.values(), strict=True):
            for parameter in encoder.parameters():
                if chosen(parameter) and parameter.grad is not None:
                    gradient = parameter.grad
                    parameter.grad = k * gradient
                    if enhanced:
                        sigma = standard_deviation(gradient.numpy()) + 1e-8
                        drawn = noise(gradient.shape, gradient.dtype, seed, step, number)
                        parameter.grad = parameter.grad + sigma * drawn
                number += 1
        optimizer.step()
    return history
