"""Multinomial logistic regression, to convergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from equimodal.diagnostics.encoders.threads import one_thread
from equimodal.errors import StepError

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
HELD_OUT = 0.2
SMALL = 2**20  # numbers in all features, up to which one thread is fastest
NEWTON, CONJUGATE = 200, 500  # steps
CONVERGED = 1e-8  # as the norm of a gradient, where the Hessian is near 1
TINY, ROUNDING = 1e-10, 1e-13


@dataclass(frozen=True)
class Logistic:
    """A linear classifier of standardised features.

    Attributes:
        weight: shape ``(C, D)``, float64.
        bias: shape ``(C,)``, float64; -inf for a class that no training sample has.
        mean: of the training features, shape ``(D,)``.
        scale: their standard deviation, shape ``(D,)``; 1 where a feature does not vary.
        strength: of the L2 penalty that it was fitted with.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    strength: float

    def logits(self, features: Tensor) -> Tensor:
        """Return logits of shape ``(N, C)``, float64, for features of shape ``(N, D)``."""
        return F.linear((features.double() - self.mean) / self.scale, self.weight, self.bias)


@torch.no_grad()
def fit_logistic(features: Tensor, target: Tensor, classes: int, strength: float) -> Logistic:
    r"""Return the minimum of the mean cross-entropy with an L2 penalty.

    .. math:: \frac{1}{N} \sum_i -\log \mathrm{softmax}(W x_i + b)_{y_i}
        + \frac{\lambda}{2} \lVert W \rVert^2

    The features x are standardised by their own mean and standard deviation; the bias is not
    penalised. The minimum is unique but for a constant in all biases. It is found by Newton's
    method from zeros; L-BFGS does not get there where the classes are nearly separable, as training
    leaves them. Nothing is drawn at random.

    Args:
        features: shape ``(N, D)``.
        target: class numbers, shape ``(N,)``, int64.
        classes: how many there are, C.
        strength: :math:`\lambda`, positive.

    Raises:
        StepError: no convergence.
    """
    features = features.double()
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    # A feature that varies by no more than rounding would be blown up to noise.
    scale = torch.where(scale > 1e-6 * mean.abs(), scale, 1.0)
    known, labels = torch.unique(target, return_inverse=True)
    x = (features - mean) / scale
    span = None
    if x.shape[1] > x.shape[0]:  # weights outside of the span of the features are 0 at the minimum
        span = torch.linalg.qr(x.T)[0]
        x = x @ span
    with one_thread(x.numel() <= SMALL):
        weight, bias = _minimise(x, F.one_hot(labels, len(known)).double(), strength)
    weight = weight if span is None else weight @ span.T
    all_weights = weight.new_zeros(classes, features.shape[1])
    all_biases = bias.new_full((classes,), -torch.inf)
    all_weights[known], all_biases[known] = weight, bias - bias.mean()
    return Logistic(all_weights, all_biases, mean, scale, strength)


def choose_logistic(
    features: Tensor,
    target: Tensor,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> Logistic:
    """Return a classifier with the strength that is best on a part of the samples held out.

    A fifth of the samples, drawn by a seeded permutation, is held out; the strength with their
    lowest mean cross-entropy is taken, from strong to weak until it rises, and all samples are
    fitted with it. Classes that only held-out samples have do not count there.

    Args:
        features: shape ``(N, D)``.
        target: class numbers, shape ``(N,)``, int64.
        classes: how many there are.
        strengths: of the penalty, any order; a single one is taken as it is.
        seed: of the permutation.
    """
    chosen, *weaker = sorted(strengths, reverse=True)
    held_out = int(HELD_OUT * len(target))
    if not weaker or not held_out:
        return fit_logistic(features, target, classes, chosen)
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    aside, rest = order[:held_out], order[held_out:]
    aside = aside[torch.isin(target[aside], target[rest])]
    lowest = torch.inf
    for strength in (chosen, *weaker):
        fitted = fit_logistic(features[rest], target[rest], classes, strength)
        loss = float(F.cross_entropy(fitted.logits(features[aside]), target[aside]))
        if not loss < lowest:
            break
        chosen, lowest = strength, loss
    return fit_logistic(features, target, classes, chosen)


def _minimise(x: Tensor, truth: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return the weights, shape ``(C, D)``, and the biases, shape ``(C,)``, of the minimum.

    Newton's method, its linear equations solved by conjugate gradients, so that no Hessian of all
    classes is ever made.
    """
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    weight = x.new_zeros(truth.shape[1], x.shape[1])  # the last column holds the biases
    penalty = torch.full_like(weight[0], strength)
    penalty[-1] = 0
    value, shares = _loss(x, truth, penalty, weight)
    for _ in range(NEWTON):
        gradient = (shares - truth).T @ x / len(x) + penalty * weight
        # A mean over the classes of their own blocks of the Hessian.
        doubt = (shares * (1 - shares)).mean(dim=1, keepdim=True)
        near = (doubt * x).T @ x / len(x) + torch.diag(penalty.clamp(min=TINY))
        factor = torch.linalg.cholesky(near)
        slope = torch.linalg.solve_triangular(factor, gradient.T, upper=False).norm()
        if slope <= CONVERGED:
            return weight[:, :-1], weight[:, -1]
        step = _solve(x, shares, penalty, factor, gradient, tolerance=min(0.3, float(slope.sqrt())))
        promised, rate = float((gradient * step).sum()), 1.0
        while rate > TINY:
            tried = weight - rate * step
            reached, shares = _loss(x, truth, penalty, tried)
            # Where rounding hides the gain, the step is Newton's own, and right.
            if reached <= value - 1e-4 * rate * promised + ROUNDING:
                break
            rate /= 2
        weight, value = tried, reached
    raise StepError(
        f"a linear probe did not converge in {NEWTON} steps of Newton's method, its slope is still "
        f"{slope:.1e}: give a larger L2 strength than {strength}"
    )


def _loss(x: Tensor, truth: Tensor, penalty: Tensor, weight: Tensor) -> tuple[float, Tensor]:
    """Return the loss, and the probabilities, shape ``(N, C)``."""
    logs = (x @ weight.T).log_softmax(dim=1)
    squares = (penalty * weight * weight).sum() / 2
    return float(squares - (truth * logs).sum() / len(x)), logs.exp()


def _solve(
    x: Tensor, shares: Tensor, penalty: Tensor, factor: Tensor, gradient: Tensor, tolerance: float
) -> Tensor:
    """Solve Hessian times step = gradient by preconditioned conjugate gradients."""

    def curved(direction: Tensor) -> Tensor:
        moved = x @ direction.T
        moved = shares * (moved - (shares * moved).sum(dim=1, keepdim=True))
        return moved.T @ x / len(x) + penalty * direction

    def scaled(rest: Tensor) -> Tensor:
        return torch.cholesky_solve(rest.T, factor).T

    step, rest = torch.zeros_like(gradient), gradient
    direction = near = scaled(rest)
    size = start = (rest * near).sum()
    for _ in range(CONJUGATE):
        if size <= tolerance**2 * start:
            break
        image = curved(direction)
        rate = size / (direction * image).sum()
        step, rest = step + rate * direction, rest - rate * image
        near = scaled(rest)
        before, size = size, (rest * near).sum()
        direction = near + size / before * direction
    return step
