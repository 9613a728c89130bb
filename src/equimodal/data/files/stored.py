"""Arrays of a file by name and split, whatever the format of the file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equimodal.errors import SetupError, unknown

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

SHOWN = 6  # arrays that a message lists
SPLITS = ("train", "val", "test")
SPELT = {"valid": "val", "validation": "val", **{split: split for split in SPLITS}}


@dataclass(frozen=True)
class Stored:
    """What a file holds, before anything is chosen of it.

    Args:
        path: of the file.
        arrays: for each name and split an array with one entry per sample, ``(N, ...)``.
        names: what the integers of an array stand for, by its name, where the file says so.
        listed: the modalities, in the order that the file lists them, if it does.
        about: what the file says about itself, such as ``source`` and ``licence``.
        channels: which axis of a modality holds channels, where its layout says so.
    """

    path: Path
    arrays: dict[str, dict[str, Array]]
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    listed: tuple[str, ...] | None = None
    about: dict[str, str] = field(default_factory=dict)
    channels: dict[str, int | None] = field(default_factory=dict)

    def modalities(self, target: str) -> tuple[str, ...]:
        """Return the arrays that are modalities: those listed, else those of two axes or more."""
        if self.listed is not None:
            return self.listed
        of_samples = {name: next(iter(parts.values())) for name, parts in self.arrays.items()}
        return tuple(
            name
            for name, array in of_samples.items()
            if array.ndim > 1 and array.dtype.kind in "biuf" and name != target
        )

    def columns(self, target: str) -> tuple[str, ...]:
        """Return the arrays of one value per sample that are no modalities."""
        modalities = self.modalities(target)
        return tuple(
            name
            for name, parts in self.arrays.items()
            if name not in modalities and next(iter(parts.values())).ndim == 1
        )

    def names_of(self, name: str, target: str) -> tuple[str, ...] | None:
        """Return what the integers of an array stand for; ``class_names`` is about the target."""
        other = name != target or (target != "y" and "y" in self.arrays)
        return self.names.get(name, None if other else self.names.get("class"))

    def column(self, what: str, name: str, target: str) -> dict[str, Array]:
        """Return an array of one value per sample, by split.

        Args:
            what: the option that asks for it, for the error.
            name: of the array.
            target: of the target.

        Raises:
            SetupError: there is none of this name, or not in every split.
        """
        if name not in self.columns(target):
            raise SetupError(
                f"{self.path}: {what}: " + unknown("column", name, self.columns(target))
            )
        self.refuse_incomplete(name, target)
        return self.arrays[name]

    def splits(self, target: str) -> tuple[str, ...]:
        """Return the splits that there are.

        Raises:
            SetupError: there is no training or no test split.
        """
        found = self.arrays.get(target, {})
        for split in ("train", "test"):
            if split not in found:
                raise SetupError(f"{self.path}: {self._without(target, split)}")
        return tuple(split for split in SPLITS if split in found)

    def _without(self, target: str, split: str) -> str:
        """Say what was looked for in vain, and what there is instead."""
        there = [f"{name}_{of}" for name, parts in self.arrays.items() for of in parts]
        found = ", ".join(there[:SHOWN]) + (", ..." if len(there) > SHOWN else "")
        if not there:
            return (
                f"expected arrays named by modality and split, such as audio_{split} and "
                f"{target}_{split}, found none of train, val or test"
            )
        if not any(split in parts for parts in self.arrays.values()):
            return (
                f"expected a {split} split: arrays such as {target}_{split}, found {found}: part "
                "the samples into train and test, and save both"
            )
        return (
            f"expected the target of the {split} split as {target}_{split}, found {found}: name "
            "the target with target=..."
        )

    def refuse_incomplete(self, name: str, target: str) -> None:
        """Refuse an array that is not there for every sample of every split.

        Raises:
            SetupError: it is not.
        """
        for split in self.splits(target):
            samples = len(self.arrays[target][split])
            array = self.arrays[name].get(split)
            if array is None or array.ndim == 0 or len(array) != samples:
                found = "none" if array is None else f"shape {array.shape}"
                raise SetupError(
                    f"{self.path}: {name}_{split}: expected {samples} samples as in "
                    f"{target}_{split}, found {found}"
                )


def digest_of_numbers(arrays: Mapping[str, Mapping[str, Array]]) -> str:
    """Return the SHA-256 of arrays by name and split, in hex: of their numbers as float32.

    Neither the format of the file counts, nor the order of its arrays, nor their type.

    >>> import numpy as np
    >>> one = {"audio": {"train": np.ones((2, 3))}}
    >>> digest_of_numbers(one) == digest_of_numbers({"audio": {"train": np.ones((2, 3), "int8")}})
    True
    """
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(arrays):
        for split in SPLITS:
            if split in arrays[name]:
                array = arrays[name][split]
                digest.update(json.dumps([name, split, array.shape]).encode())
                digest.update(np.ascontiguousarray(array, "<f4").data)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def split_name(key: str) -> tuple[str, str] | None:
    """Return name and split of an array such as ``audio_train``; None if it has no split.

    >>> split_name("lips_front_validation")
    ('lips_front', 'val')
    """
    found = re.fullmatch(rf"(.+)_({'|'.join(SPELT)})", key)
    return None if found is None else (found[1], SPELT[found[2]])


def told(text: str) -> dict[str, str]:
    """Return what a file says about itself: the entries of a JSON object, or all as ``source``."""
    try:
        about = json.loads(text)
    except ValueError:
        about = text
    if not isinstance(about, dict):
        return {"source": str(about)}
    return {key: value for key, value in about.items() if isinstance(value, str)}
