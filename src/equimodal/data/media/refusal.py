"""What is raised when a clip cannot be had from its file."""

from __future__ import annotations


class Undecodable(Exception):  # noqa: N818, it is an outcome that is listed, not a mistake
    """A clip cannot be had from its file.

    Args:
        reason: a few words that are the same for all failures of a kind, then details after a
            colon; `equimodal.data.media` lists them.

    >>> Undecodable("truncated: 1.20 s of 3.00 s").reason
    'truncated: 1.20 s of 3.00 s'
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
