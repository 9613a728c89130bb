"""Loaders that come to an end: one without would be passed over for ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from equimodal.errors import SetupError

MOST = 10_000  # batches of a loader that does not say how many it has


class Finite:
    """A loader that is refused when it does not end.

    Args:
        loader: may draw from a generator. One with a length is taken to keep to it.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.generator = getattr(loader, "generator", None)  # to be put back after the pass
        self.sampler = getattr(loader, "sampler", None)

    def __iter__(self) -> Iterator[Any]:
        """Pass over the batches.

        Raises:
            SetupError: there are more than `MOST`, and the loader does not say how many.
        """
        most = MOST if length(self.loader) is None else float("inf")
        for number, batch in enumerate(self.loader):
            if number >= most:
                raise SetupError(
                    f"a loader ({type(self.loader).__name__}) has no length and has not ended "
                    f"after {MOST} batches: give one that passes over its samples once. If it "
                    "does and is that long, let its data set have a __len__"
                )
            yield batch


def length(loader: Iterable[Any]) -> int | None:
    """Return how many batches a loader has, where it says so: one over a stream may not know."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None
