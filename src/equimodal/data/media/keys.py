"""Which packets of a video have to be decoded for the pictures at some moments."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

TIE = 1e-3  # FLV and Matroska round times to milliseconds


def wanted(
    index: Sequence[tuple[float | None, bool]], moments: Sequence[float]
) -> list[range] | None:
    """Return runs of packets, each from a key picture to one that is wanted.

    A picture is decoded from the latest key picture that is not shown after it: one that comes in
    the file after a later key picture, and is shown before that, may need what went before.

    Args:
        index: of each packet in the order of the file, when its picture begins, None if unsaid,
            and whether it is a key picture.
        moments: in seconds, in order.

    Returns:
        Places of packets; None where a packet has no time, or nothing is a key picture.

    >>> wanted([(0.0, True), (0.1, False), (0.2, True), (0.3, False)], [0.05, 0.35])
    [range(0, 1), range(2, 4)]
    """
    if not index or any(since is None for since, _ in index):
        return None
    order = sorted(range(len(index)), key=lambda place: index[place][0] or 0.0)
    times = [index[place][0] or 0.0 for place in order]
    keys = [place for place in order if index[place][1]]
    begins = [index[place][0] or 0.0 for place in keys]
    runs: list[range] = []
    for moment in moments:
        place = order[max(0, bisect_right(times, moment + TIE) - 1)]
        key = bisect_right(begins, index[place][0] or 0.0) - 1
        if key < 0 or keys[key] > place:
            return None
        run = range(keys[key], place + 1)
        if runs and run.start < runs[-1].stop:  # the same, or from the same key picture
            run = range(min(run.start, runs[-1].start), max(run.stop, runs[-1].stop))
            runs.pop()
        runs.append(run)
    return runs
