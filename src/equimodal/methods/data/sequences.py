"""Orders of samples from the easy to the hard."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.bss import easy_part, weighted_order
from equimodal.planning import required, share


class SampleSequence:
    """Puts an epoch together from how hard the samples are.

    Attributes:
        once: whether the samples are judged once, and not after every epoch.
    """

    once: bool = False

    def over(self, epochs: int | None) -> SampleSequence:
        """Return the same for a training of so many epochs, None where nobody knows.

        Raises:
            SetupError: it follows the length of training, which is not known.
        """
        return self

    def __call__(self, difficulty: Tensor, epoch: int, generator: torch.Generator) -> Tensor:
        """Return the samples of an epoch in order.

        Args:
            difficulty: -1 to 1, shape ``(N,)``.
            epoch: counted from 0.
            generator: for what is left to chance.

        Returns:
            Positions in the data set, int64, shape ``(K,)``.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


class WeightedSequence(SampleSequence):
    """All samples in a random order in which easy ones tend to come first.

    Each next one is drawn with a probability in proportion to 1 - difficulty + `floor`. Samples are
    judged anew after every epoch.

    Args:
        floor: keeps the hardest in the draw, above 0.

    Raises:
        SetupError: `floor` is out of its range.
    """

    def __init__(self, floor: float = 0.01) -> None:
        if not 0 < floor < math.inf:
            raise SetupError(f"WeightedSequence(floor): expected a number above 0, found {floor}")
        self.floor = floor

    def __call__(self, difficulty: Tensor, epoch: int, generator: torch.Generator) -> Tensor:
        return weighted_order(1 - difficulty + self.floor, generator)


class Curriculum(SampleSequence):
    r"""The easiest samples alone, shuffled; more of them every epoch.

    .. math:: K = \Big\lfloor N \min\Big(1,
        \sqrt{(1 - \lambda_0^2) (e + 1) / T + \lambda_0^2}\Big) \Big\rfloor

    Samples are judged once, at the end of the warm-up.

    Args:
        start: :math:`\lambda_0`, 0 to 1.
        epochs: T, from which epoch on all samples take part, 1 or more; by default 40 in 120 of the
            training, as in the released code.

    Raises:
        SetupError: an argument is out of its range.
    """

    once = True

    def __init__(self, start: float = 0.1, epochs: int | None = None) -> None:
        if not 0 <= start <= 1:
            raise SetupError(f"Curriculum(start): expected a number from 0 to 1, found {start}")
        if not (epochs is None or (type(epochs) is int and epochs >= 1)):
            raise SetupError(
                f"Curriculum(epochs): expected a whole number of 1 or more, found {epochs}"
            )
        self.start = start
        self.epochs = epochs

    def over(self, epochs: int | None) -> Curriculum:
        if self.epochs is not None:
            return self
        return Curriculum(self.start, share(40, of=120)(required(epochs, "Curriculum", "epochs")))

    def __call__(self, difficulty: Tensor, epoch: int, generator: torch.Generator) -> Tensor:
        assert self.epochs is not None
        count = int(len(difficulty) * easy_part(epoch, self.start, self.epochs))
        easiest = difficulty.argsort(stable=True)[: max(count, 1)]
        return easiest[torch.randperm(len(easiest), generator=generator)]
