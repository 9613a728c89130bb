"""Random numbers for the samples of a run, in the order in which they come."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equimodal.noise import mix
from equimodal.system import ranks

BLOCK = 64  # samples whose numbers are drawn at once, from one seed


class Draws(nn.Module):
    """Uniform numbers between 0 and 1 for every sample of this rank.

    The numbers of a sample follow from the seed, the rank and how many samples came before it, so
    that N micro-batches get those of the one large batch, and a resumed run those of an
    uninterrupted one. The count is kept on the host: a tensor would have to be waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def take(self, samples: int, numbers: int, seed: int, device: torch.device) -> Tensor:
        """Return numbers for the next samples, shape ``(samples, numbers)``, single precision."""
        first, end = self.count // BLOCK, -(-(self.count + samples) // BLOCK)
        skipped = self.count - first * BLOCK
        self.count += samples
        generator = torch.Generator(device)
        blocks = [torch.empty(0, numbers, device=device)]
        for block in range(first, end):
            generator.manual_seed(mix(seed, ranks.rank(), block))
            blocks.append(torch.rand(BLOCK, numbers, generator=generator, device=device))
        return torch.cat(blocks)[skipped : skipped + samples]

    def get_extra_state(self) -> int:
        return self.count

    def set_extra_state(self, state: int) -> None:
        self.count = state
