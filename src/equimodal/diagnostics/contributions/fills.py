"""What stands for a modality that is left out.

No fill is innocent. Zeros may be features that the head never saw. The mean over the data lies
amid the data, but may be no sample's. The features of another sample are real ones, but speak for
the class of that sample, where the others say nothing. Hence all three, side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from equimodal.attach.features import Features
from equimodal.diagnostics.contributions.moments import moments
from equimodal.diagnostics.subject import Subject
from equimodal.errors import SetupError, unknown

FILLS = ("zero", "mean", "shuffled")
DRAWS = 4


class Fill(Protocol):
    """Features in place of those of a batch."""

    @property
    def draws(self) -> int:
        """How many different ones there are, to average over."""

    def __call__(self, features: Mapping[str, Tensor], start: int, draw: int) -> Features:
        """Return other features of the same shapes.

        Args:
            features: of the batch, shapes ``(B, ...)``, by modality.
            start: how many samples of the pass were in earlier batches.
            draw: which of the draws.
        """


class Zero:
    """Zeros."""

    draws = 1

    def __call__(self, features: Mapping[str, Tensor], start: int, draw: int) -> Features:
        return {name: torch.zeros_like(feature) for name, feature in features.items()}


class Mean:
    """The mean of each feature over the data, element by element.

    Args:
        means: shapes ``(...)``, by modality.
    """

    draws = 1

    def __init__(self, means: Features) -> None:
        self.means = means

    def __call__(self, features: Mapping[str, Tensor], start: int, draw: int) -> Features:
        return {
            name: self.means[name].to(feature).expand_as(feature)
            for name, feature in features.items()
        }


class Shuffled:
    """The features of another sample: of the same one for all modalities that are left out.

    Samples are permuted without fixed points, and each has another partner in every draw. Of data
    larger than the pool, one that would meet itself is given the next. (Samples are known by their
    place: by their features, those of one class would be taken for copies of each other where an
    encoder is sure of it.)

    Args:
        pool: features of samples to draw from, shapes ``(P, ...)``, by modality.
        places: which sample of the pass each of them is, int64, shape ``(P,)``.
        draws: permutations; a power of two, such as 4, averages zeros and ones without rounding.
        seed: of the permutations.

    Raises:
        SetupError: there are fewer than two samples.
    """

    def __init__(self, pool: Features, places: Tensor, draws: int = DRAWS, seed: int = 0) -> None:
        size = len(next(iter(pool.values())))
        if size < 2:
            raise SetupError(f"fill 'shuffled': expected two samples or more, found {size}")
        self.pool = pool
        self.places = places
        self.draws = draws
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        self.partners = torch.empty(draws, size, dtype=torch.int64)
        for draw in range(draws):
            self.partners[draw, order] = order.roll(-1 - draw % (size - 1))

    def __call__(self, features: Mapping[str, Tensor], start: int, draw: int) -> Features:
        size = self.partners.shape[1]
        batch = len(next(iter(features.values())))
        own = torch.arange(start, start + batch)
        rows = self.partners[draw, own % size]
        rows = torch.where(self.places[rows] == own, (rows + 1) % size, rows)
        return {name: self.pool[name][rows.to(f.device)].to(f) for name, f in features.items()}


def make_fills(
    names: Sequence[str],
    subject: Subject,
    loader: Iterable[Any],
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Fill]:
    """Return fills by name; one pass over the data tells what they need, if they need anything.

    Args:
        names: some of "zero", "mean" and "shuffled".
        subject: the model.
        loader: where means and other samples come from.
        draws: permutations of "shuffled".
        seed: of the permutations.

    Raises:
        SetupError: a name is unknown, or a number is not positive.
    """
    if isinstance(names, str) or not names:
        raise SetupError(f"fills: expected some of {', '.join(FILLS)}, found {names!r}")
    for name in names:
        if name not in FILLS:
            raise SetupError(unknown("fill", name, FILLS))
    if draws < 1:
        raise SetupError(f"draws: expected 1 or more, found {draws}")
    if set(names) == {"zero"}:
        return {"zero": Zero()}
    known = moments(subject, loader, seed)
    made: dict[str, Fill] = {"zero": Zero(), "mean": Mean(known.means)}
    if "shuffled" in names:
        made["shuffled"] = Shuffled(known.pool, known.places, draws, seed)
    return {name: made[name] for name in names}
