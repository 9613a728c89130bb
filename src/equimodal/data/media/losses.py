"""Which stretches of a stream were lost to damage: a pause is none."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

STILL = 1.0  # seconds that a picture covers, and sound may be late, where bytes were skipped
SKIPPED = 4096  # bytes between two packets that are more than a container's own
SAME = 1e-6  # seconds by which equal times may differ


class Losses:
    """What a demuxer and a decoder passed over, in seconds from the beginning of the file.

    A stretch without pictures, or without sound, is lost where bytes were skipped to get beyond
    it, where a packet of it could not be decoded, or where two packets or more in a row came to
    nothing. Else nothing was there: it is a pause, and in no container a fault.
    """

    def __init__(self) -> None:
        self._latest = 0.0
        self._skipped = False
        self._refused = False
        self._largest = 0
        self._end: int | None = None  # of the last packet in the file, in bytes
        self._holes: list[tuple[float, float]] = []
        self._waiting: list[float] = []  # packets of which nothing has come yet

    def passed(self, packet: Any) -> None:
        """Note a packet of any stream, in the order of the file."""
        if packet.pos is None or packet.pos < 0:
            return
        if self._end is not None and packet.pos > self._end:
            self._skipped = True
        self._largest = max(self._largest, packet.size)
        # One of a program stream is known to be over when the next of its stream begins.
        self._end = packet.pos + packet.size + SKIPPED + 2 * self._largest

    def corrupt(self) -> None:
        """Note that the demuxer has found out by itself that something is missing."""
        self._skipped = True

    def expect(self, since: float) -> None:
        """Note when a packet of pictures begins."""
        self.heard(since)
        insort(self._waiting, since)

    def heard(self, since: float) -> None:
        """Note when a packet of sound begins: decoders of it put out at once what they can."""
        if self._skipped and since - self._latest > STILL:
            self._holes.append((self._latest + STILL, since))
        self._skipped = False
        self._latest = max(self._latest, since)

    def refused(self, since: float | None, lasts: float) -> None:
        """Note a packet that the decoder refused, and how long it says that it lasts."""
        self._refused = True
        if since is not None and lasts > 0:
            self._holes.append((since, since + lasts))

    def came(self, since: float | None) -> None:
        """Note a decoded picture: what was expected before it and has not come, never will."""
        if since is None:  # as many packets as pictures, then
            del self._waiting[:1]
            return
        before = bisect_left(self._waiting, since - SAME)
        if before > 1 or (before and self._refused):
            self._holes.append((self._waiting[0], since))
            self._refused = False
        del self._waiting[: bisect_left(self._waiting, since + SAME)]

    def ended(self) -> None:
        """Note that no more pictures come."""
        if len(self._waiting) > 1:
            self._holes.append((self._waiting[0], self._waiting[-1]))
        self._waiting.clear()

    def within(self, start: float, end: float) -> float:
        """Return how many seconds of a stretch were lost."""
        lost, reached = 0.0, start
        for begin, until in sorted(self._holes):
            begin, until = max(begin, reached), min(until, end)
            if until > begin:
                lost += until - begin
                reached = until
        return lost
