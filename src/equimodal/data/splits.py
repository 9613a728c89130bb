"""A data set in three splits: one to train on, one to choose by, one to report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic

from torch import Tensor
from typing_extensions import TypeVar  # comes with torch; the standard one has no default yet

from equimodal.data.arrays import Arrays
from equimodal.data.card import Card
from equimodal.data.fingerprint import fingerprint
from equimodal.data.samples import Samples
from equimodal.data.scaling import standardised

# How a packed file and `partition` name the splits.
TRAIN, VAL, TEST = range(3)


S = TypeVar("S", bound=Samples, default=Arrays, covariant=True)


@dataclass(frozen=True)
class Splits(Generic[S]):
    """The training, validation and test samples of a data set.

    Args:
        train: to train on.
        val: to choose epochs and settings by.
        test: to report, once.
        classes: the name of each target value.
        card: source, licence, citation, and what was done.
        digest: of the numbers of a file of the user's, whose samples have no names.
    """

    train: S
    val: S
    test: S
    classes: tuple[str, ...]
    card: Card
    digest: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of a sample."""
        return self.train.modalities

    @property
    def fingerprint(self) -> str:
        """12 hex digits over which sample is in which split with which label.

        Where samples have no names of their own, as in a file of arrays, their numbers stand for
        them: those of all modalities as float32, whatever the format of the file.

        To be printed beside results: the same fingerprint means the same task, whichever
        modalities were chosen.
        """
        members = {
            split: zip(samples.names, samples.target.tolist(), strict=True)
            for split, samples in (("train", self.train), ("val", self.val), ("test", self.test))
        }
        return fingerprint(self.card.name, self.classes, members, self.digest)

    def refitted(self) -> Splits[S]:
        """Return the splits with validation samples among those to train on, as these are.

        `val` stays what it is, but is not held out any more: nothing may be chosen by it.
        """
        return replace(self, train=self.train.joined(self.val))

    def __str__(self) -> str:
        sizes = f"train {len(self.train)}, val {len(self.val)}, test {len(self.test)}"
        return f"{self.card.name} {self.fingerprint}: {sizes}; {', '.join(self.modalities)}"


def partition(
    features: Mapping[str, Tensor],
    target: Tensor,
    split: Tensor,
    *,
    classes: tuple[str, ...],
    card: Card,
    groups: Tensor | None = None,
    ids: Tensor | None = None,
) -> Splits:
    """Part the samples, standardised with the mean and standard deviation of the training split.

    Args:
        features: for each modality ``(N, C, ...)``, standardised per channel C.
        target: int64, shape ``(N,)``.
        split: `TRAIN`, `VAL` or `TEST` for each sample, int64, shape ``(N,)``.
        classes: the name of each target value.
        card: about the data set.
        groups: int64, shape ``(N,)``, or None.
        ids: int64, shape ``(N,)``: which sample of its source each one is; the positions if left
            out.
    """
    whole = Arrays(
        {name: standardised(feature, split == TRAIN) for name, feature in features.items()},
        target,
        groups,
        ids,
    )

    train, val, test = (whole.part((split == n).nonzero().flatten()) for n in (TRAIN, VAL, TEST))
    return Splits(train, val, test, classes, card)
