"""The contract of a layout: a dataclass whose fields are what a user may choose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Listing
from equimodal.data.preparing.recipe import Recipe


@dataclass(frozen=True)
class Layout(ABC):
    """How the download of a data set looks.

    Subclasses are dataclasses; each field has a default and is an option of `equimodal prepare`,
    described under ``Args``.

    Args:
        source: the folder that holds the download, or for a manifest its file.

    Attributes:
        name: what the command calls it.
        recipe: how its clips are decoded, unless said otherwise.
        view: how its samples look in batches, unless said otherwise.
    """

    source: Path

    name: ClassVar[str]
    recipe: ClassVar[Recipe] = Recipe()
    view: ClassVar[View] = View()

    @abstractmethod
    def listing(self) -> Listing:
        """Return all clips; only names of files and small lists are read, nothing is decoded.

        Raises:
            SetupError: the folder does not look like this data set; the message says which file
                or folder was expected where.
        """
