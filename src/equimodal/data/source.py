"""Which data set, and what of it: what can be loaded again, in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equimodal.data.loading import load
from equimodal.data.splits import Splits


@dataclass(frozen=True)
class Source:
    """A data set that is not loaded yet.

    Args:
        name: see `equimodal.data.load`.
        options: of `equimodal.data.load`, those that are given.

    >>> Source("mfeat", {"modalities": ("pix", "mor")}).load().modalities
    ('pix', 'mor')
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Splits[Any]:
        """Load it."""
        return load(self.name, **self.options)
