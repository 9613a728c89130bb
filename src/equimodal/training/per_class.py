"""How each class fared on the test split, as two files beside the result."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from equimodal.system.files import csv_of, write_whole

CLASSES, CONFUSION = "classes.csv", "confusion.csv"
HEADER = ["class", "precision", "recall", "f1", "samples"]


@dataclass(frozen=True)
class PerClass:
    """Counts of answers.

    Attributes:
        classes: their names.
        counts: of samples of a class (row) for which a class was found (column), int64, shape
            ``(C, C)``.
    """

    classes: tuple[str, ...]
    counts: Tensor

    @classmethod
    def of(cls, found: Tensor, target: Tensor, classes: Sequence[str]) -> PerClass:
        """Count answers.

        Args:
            found: int64, shape ``(N,)``.
            target: int64, shape ``(N,)``; what is below 0 does not count.
            classes: their names.

        >>> PerClass.of(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), "ab").counts.tolist()
        [[1, 1], [0, 1]]
        """
        many, known = len(classes), target >= 0
        pairs = target[known] * many + found[known]
        return cls(tuple(classes), pairs.bincount(minlength=many * many).view(many, many))

    @property
    def rows(self) -> list[tuple[str, float, float, float, int]]:
        """For each class precision, recall, F1 (shares; 0 where not defined) and samples."""
        right, found = self.counts.diagonal().double(), self.counts.sum(dim=0)
        samples = self.counts.sum(dim=1)
        precision, recall = right / found.clamp(min=1), right / samples.clamp(min=1)
        f1 = 2 * right / (found + samples).clamp(min=1)
        columns = (precision.tolist(), recall.tolist(), f1.tolist(), samples.tolist())
        return list(zip(self.classes, *columns, strict=True))

    def write(self, folder: Path) -> None:
        """Write both files, each whole or not at all."""
        shares = [[name, *(f"{x:.4f}" for x in of), n] for name, *of, n in self.rows]
        write_whole(folder / CLASSES, csv_of([HEADER, *shares]))
        counts = [
            [name, *row] for name, row in zip(self.classes, self.counts.tolist(), strict=True)
        ]
        write_whole(folder / CONFUSION, csv_of([["class", *self.classes], *counts]))

    @classmethod
    def read(cls, folder: Path) -> PerClass | None:
        """Return what was written; None where it was not, or is something else."""
        try:
            (_, *classes), *rows = csv.reader((folder / CONFUSION).read_text("utf-8").splitlines())
            counts = torch.tensor([[int(count) for count in row[1:]] for row in rows])
        except (OSError, ValueError):
            return None
        square = counts.shape == (len(classes), len(classes))
        return cls(tuple(classes), counts) if square and classes else None
