"""The joint loss and a smooth maximum of the unimodal ones: the worst modality comes first."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.mimo import smooth_maximum
from equimodal.method import Capabilities, Method
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class MIMO(Method):
    r"""Add a smooth maximum of the unimodal losses to the joint loss (Fernando et al., 2025).

    .. math:: L = L(f, y) + \lambda\, \mu \log \frac{1}{M} \sum_m \exp(L(u_m, y) / \mu)

    The gradient is that of the unimodal losses weighted by softmax over the modalities of L/mu: the
    modality that does worst is trained most. The abstract (arXiv 2511.06686) tells no more than
    that the worst unimodal objective is given priority through a smooth penalty, so this is our
    reading of it, not verified against the paper; the defaults are ours.

    Args:
        weight: lambda, weight of the smooth maximum, 0 or more.
        smoothing: mu, positive, in units of the loss: how far apart losses must be for the larger
            one to count alone.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "mimo"
    search = searched(weight=Log(0.2, 3.0))
    source = "Fernando et al., 2025"
    capabilities = Capabilities(accumulation="per micro-batch")

    def __init__(self, weight: float = 1.0, smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise SetupError(f"MIMO(weight): expected 0 or more, found {weight}")
        if not 0 < smoothing < math.inf:
            raise SetupError(f"MIMO(smoothing): expected a positive number, found {smoothing}")
        self.weight = weight
        self.smoothing = smoothing
        self.readouts = Readouts()

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        losses = torch.stack([step.loss(logits[name], modality=name) for name in self.names])
        overall, factors = self._over_ranks(step, losses)
        shares = torch.softmax(overall / self.smoothing, dim=0).nan_to_num()  # nobody has any
        # The gradient through detached weights is that of the smooth maximum; its value is added.
        own = (shares * factors * losses).sum()
        return {"worst": self.weight * (own + (self._value(overall) - own).detach())}

    def _over_ranks(self, step: Step, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean losses over all ranks, and what each is of that over all samples.

        The means are over the samples that have the modality, so that one that is often missing is
        not taken for a good one; minus infinity for a modality nobody has.
        """
        counts = torch.stack(
            [
                losses.new_tensor(float(step.size))
                if name not in step.present
                else step.present[name].to(losses).sum()
                for name in self.names
            ]
        )
        sizes = torch.full_like(counts, step.size)
        sums, numbers, everyone = step.summed(torch.stack([losses * sizes, counts, sizes]))
        means: Tensor = sums / numbers
        factors = everyone / numbers.clamp(min=1)
        return means.masked_fill(numbers == 0, -math.inf), factors

    def _value(self, losses: Tensor) -> Tensor:
        # Modalities that nobody has count neither in the sum nor in M.
        there = losses > -math.inf
        gap = math.log(len(self.names)) - there.sum().clamp(min=1).to(losses).log()
        value = smooth_maximum(losses, self.smoothing) + self.smoothing * gap
        return torch.where(there.any(), value, 0)
