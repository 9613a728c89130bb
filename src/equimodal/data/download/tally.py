"""How many bytes of how many are here, over many files."""

from __future__ import annotations

from collections.abc import Callable

Show = Callable[[float, float, str], None]  # bytes done, bytes in all, what is at work


class Tally:
    """Adds up files of which sizes become known one by one.

    Sums are kept, not made: there may be thousands of files, and many calls for each.

    Args:
        show: called with bytes done, bytes in all, and what is at work.
    """

    def __init__(self, show: Show | None) -> None:
        self.show = show
        self.done = self.total = 0
        self._here: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def expect(self, name: str, size: int) -> None:
        """Take a file to be so large, instead of what was said before."""
        size = max(size, self._here.get(name, 0), 1)
        self.total += size - self._sizes.get(name, 0)
        self._sizes[name] = size

    def at(self, name: str, here: int, text: str) -> None:
        """Note and show how much of a file is here."""
        self.done += here - self._here.get(name, 0)
        self._here[name] = here
        self.expect(name, self._sizes.get(name, 0))
        if self.show is not None:
            self.show(self.done, self.total, text)

    def whole(self, name: str, text: str) -> None:
        """Note and show that a file is here."""
        self.at(name, self._sizes[name], text)
