"""The part of a file that is wanted, and how much of it may be missing."""

from __future__ import annotations

from dataclasses import dataclass

from equimodal.data.media.refusal import Undecodable

MOST = 60.0  # seconds that may be missing of anything, however long


def spare(wanted: float) -> float:
    """Return how many of the wanted seconds may be missing.

    A tenth, at most a minute. A tenth of a second always may: sound and pictures of a file rarely
    end together, and the clip of a word is short.

    >>> spare(10.0), spare(0.3), spare(3600.0)
    (1.0, 0.1, 60.0)
    """
    return max(0.1, min(wanted / 10, MOST))


@dataclass(frozen=True)
class Span:
    """The part of a file from start to end, in seconds; None is the end of the file.

    Raises:
        Undecodable: it holds nothing.
    """

    start: float
    end: float | None

    def __post_init__(self) -> None:
        if not 0 <= self.start < float("inf"):
            raise Undecodable(f"starts before 0: start {self.start:.2f} s")
        if self.end is not None:
            self.refuse_empty(self.end)

    def refuse_empty(self, end: float) -> None:
        """Refuse a span that starts at an end or after it.

        Raises:
            Undecodable: it does.
        """
        if not self.start < end:
            raise Undecodable(f"starts after its end: start {self.start:.2f} s, end {end:.2f} s")

    def refuse_short(self, found: float, until: float) -> None:
        """Refuse a span of which too much is missing.

        Args:
            found: seconds of it that were decoded.
            until: where it should end, in seconds, or where the file does.

        Raises:
            Undecodable: nothing was found, or more is missing than may be.
        """
        self.refuse_empty(until)
        wanted = until - self.start
        if found <= 0 or wanted - found > spare(wanted):
            raise Undecodable(f"truncated: {max(found, 0.0):.2f} s of {wanted:.2f} s")
