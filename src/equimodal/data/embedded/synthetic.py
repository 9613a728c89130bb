"""A data set of which the truth is known: what each modality, and all together, can tell."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from equimodal.data.arrays import Arrays
from equimodal.data.card import Card
from equimodal.data.splits import Splits
from equimodal.errors import SetupError, unknown

JITTER = 0.5  # of prototypes of signs: symbols stay apart, so that no information is lost


@dataclass(frozen=True)
class Synthetic:
    r"""Modalities with dials for what they know, how fast they are learned, and what they share.

    The label y is one of C, uniformly. Every modality m shows a symbol :math:`a_m`, one of C, or
    nothing, which is a symbol as well.

    - With probability `synergy` the symbols say it together and no fewer than all of them do:
      :math:`\sum_m a_m \equiv y \pmod C`, uniformly otherwise.
    - Else modality m is informed with probability :math:`p_m`, its informativeness. An informed
      one shows y, another nothing. With probability `redundancy` a sample is as hard for all: m is
      informed if a number that they share is below :math:`p_m`. Otherwise they are informed
      independently.

    Nobody sees which case it is. So the posterior is a finite sum, and `optimal` the accuracy of
    the best classifier that there can be. A symbol is shown as a pattern of signs with a jitter too
    small to confuse two of them, times the `speed` of the modality: with smaller inputs a network
    without normalisation learns slower, and knows as much in the end.

    Args:
        informativeness: for each modality p, 0 to 1.
        speed: for each modality the scale of its features; 1 for those that are not named.
        redundancy: 0 to 1.
        synergy: 0 to 1.
        classes: C.
        sizes: samples in train, val and test.
        dimensions: of the features of a modality.
        seed: of patterns and samples.

    Raises:
        SetupError: a number is out of its range, or a modality unknown.

    >>> pair = Synthetic({"sound": 0.9, "lips": 0.5}, classes=4)
    >>> round(pair.optimal(["sound"]), 3), round(pair.optimal(["lips"]), 3)
    (0.925, 0.625)
    >>> both = Synthetic({"a": 0.0, "b": 0.0}, synergy=1.0, classes=4)
    >>> both.optimal(["a"]), both.optimal(["a", "b"])
    (0.25, 1.0)
    """

    informativeness: Mapping[str, float]
    speed: Mapping[str, float] = field(default_factory=dict)
    redundancy: float = 0.0
    synergy: float = 0.0
    classes: int = 6
    sizes: tuple[int, int, int] = (1200, 600, 1200)
    dimensions: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.informativeness) < 1:
            raise SetupError("informativeness: expected at least one modality, found none")
        shares = {f"informativeness[{n!r}]": p for n, p in self.informativeness.items()}
        for name, share in {
            **shares,
            "redundancy": self.redundancy,
            "synergy": self.synergy,
        }.items():
            if not 0 <= share <= 1:
                raise SetupError(f"{name}: expected 0 to 1, found {share}")
        for name, scale in self.speed.items():
            if name not in self.informativeness:
                raise SetupError("speed: " + unknown("modality", name, self.informativeness))
            if not 0 < scale < float("inf"):
                raise SetupError(f"speed[{name!r}]: expected a number above 0, found {scale}")
        if self.classes < 2:
            raise SetupError(f"classes: expected 2 or more, found {self.classes}")
        if 2**self.dimensions <= 2 * self.classes:
            least = (2 * self.classes).bit_length()
            raise SetupError(f"dimensions: expected {least} or more, found {self.dimensions}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities."""
        return tuple(self.informativeness)

    def optimal(self, modalities: Collection[str] | None = None) -> float:
        """Return the accuracy of the best classifier of some modalities; all by default.

        Raises:
            SetupError: a modality is unknown.
        """
        chosen = self.modalities if modalities is None else modalities
        for name in chosen:
            if name not in self.modalities:
                raise SetupError(unknown("modality", name, self.modalities))
        hidden = [1 + at for at, name in enumerate(self.modalities) if name not in chosen]
        likelihood = self.likelihood()
        if hidden:
            likelihood = likelihood.sum(dim=hidden)
        return float(likelihood.amax(dim=0).sum() / self.classes)

    def likelihood(self) -> Tensor:
        """Return :math:`P(a_1, ..., a_M | y)`, float64, shape ``(C, C + 1, ..., C + 1)``.

        The first dimension is y; the last of a modality's symbols is that it shows nothing.
        """
        modalities, classes = len(self.modalities), self.classes
        axes = torch.meshgrid(
            torch.arange(classes), *[torch.arange(classes + 1)] * modalities, indexing="ij"
        )
        label, symbols = axes[0], torch.stack(axes[1:])
        shown = symbols < classes
        together = shown.all(dim=0) & (symbols.sum(dim=0) % classes == label)
        total: Tensor = self.synergy * together.double() / classes ** (modalities - 1)
        for informed, share in self._informed():
            knows = torch.tensor(informed).view(-1, *[1] * label.ndim)
            fits = torch.where(knows, symbols == label, ~shown).all(dim=0).double()
            total += (1 - self.synergy) * share * fits
        return total

    def _informed(self) -> list[tuple[tuple[bool, ...], float]]:
        """Return which modalities may be informed, and how probable that is, without synergy."""
        shares = list(self.informativeness.values())
        found = []
        for informed in itertools.product([False, True], repeat=len(shares)):
            alone = 1.0
            for share, knows in zip(shares, informed, strict=True):
                alone *= share if knows else 1 - share
            # Of a shared number below the shares of those that know, and not of the others.
            least = min((p for p, knows in zip(shares, informed, strict=True) if knows), default=1)
            most = max((p for p, k in zip(shares, informed, strict=True) if not k), default=0)
            shared = max(0.0, least - most)
            found.append((informed, self.redundancy * shared + (1 - self.redundancy) * alone))
        return found

    def splits(self, modalities: Collection[str] | None = None) -> Splits:
        """Draw the samples; the same every time.

        Args:
            modalities: those that a sample has, in order; all by default.
        """
        generator = torch.Generator().manual_seed(self.seed)
        patterns = {name: self._patterns(generator) for name in self.modalities}
        starts = itertools.accumulate(self.sizes, initial=0)
        chosen = self.modalities if modalities is None else modalities

        def drawn(size: int, first: int) -> Arrays:
            features, target = self._draw(size, patterns, generator)
            ids = torch.arange(first, first + size)
            return Arrays({name: features[name] for name in chosen}, target, ids=ids)

        train, val, test = map(drawn, self.sizes, starts)
        names = tuple(str(each) for each in range(self.classes))
        return Splits(train, val, test, names, self._card())

    def _patterns(self, generator: torch.Generator) -> Tensor:
        """Return different patterns of signs, one for every symbol, shape ``(C + 1, D)``."""
        found: list[list[int]] = []
        while len(found) <= self.classes:
            pattern = torch.randint(2, (self.dimensions,), generator=generator).mul(2).sub(1)
            if pattern.tolist() not in found:
                found.append(pattern.tolist())
        return torch.tensor(found, dtype=torch.float32)

    def _draw(
        self, size: int, patterns: Mapping[str, Tensor], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        def uniform() -> Tensor:
            return torch.rand(size, generator=generator, dtype=torch.float64)

        def symbols() -> Tensor:
            return torch.randint(self.classes, (size,), generator=generator)

        target = symbols()
        shared, number = uniform() < self.redundancy, uniform()
        together = uniform() < self.synergy
        drawn = {name: symbols() for name in self.modalities}
        features, rest = {}, target.clone()
        for at, (name, share) in enumerate(self.informativeness.items()):
            informed = torch.where(shared, number, uniform()) < share
            apart = torch.where(informed, target, self.classes)
            last = at == len(self.modalities) - 1
            joint = rest % self.classes if last else drawn[name]
            rest = rest - joint
            symbol = torch.where(together, joint, apart)
            jitter = torch.rand((size, self.dimensions), generator=generator).mul(2).sub(1)
            shown = patterns[name][symbol] + JITTER * jitter
            features[name] = shown * self.speed.get(name, 1.0)
        return features, target

    def _card(self) -> Card:
        dials = ", ".join(
            f"{name} {share:g}{f' at speed {self.speed[name]:g}' if name in self.speed else ''}"
            for name, share in self.informativeness.items()
        )
        best = ", ".join(f"{name} {100 * self.optimal([name]):.1f}%" for name in self.modalities)
        return Card(
            name="synthetic",
            title="a controlled data set, of which the best accuracies are known",
            content=(
                f"{dials}; redundancy {self.redundancy:g}, synergy {self.synergy:g}; "
                f"{self.classes} classes, {self.dimensions} dimensions, seed {self.seed}."
            ),
            splits="train {}, val {}, test {}: drawn alike.".format(*self.sizes),
            source="drawn by equimodal.data.Synthetic.",
            authors="the equimodal developers.",
            licence="MIT.",
            citation="none needed.",
            changes=f"best possible: {best}, together {100 * self.optimal():.1f}%.",
            caution="made so that one thing can be seen at a time; real data are not like it.",
        )


DEFAULT = Synthetic({"fast": 0.8, "slow": 0.8}, speed={"slow": 0.02})


def read(modalities: tuple[str, ...]) -> Splits:
    """Return the data set with the default dials; `equimodal.data.load` checks the names before."""
    return DEFAULT.splits(modalities)
