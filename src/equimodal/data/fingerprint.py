"""Which task a result is about, in twelve digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

Member = tuple[int | str, int]


def fingerprint(
    name: str,
    classes: Sequence[str],
    members: Mapping[str, Iterable[Member]],
    digest: str = "",
) -> str:
    """Return 12 hex digits over which sample is in which split with which label.

    Args:
        name: of the data set.
        classes: the names of the labels, in order.
        members: for train, val and test the name and the label of every sample, in order.
        digest: of the numbers of the samples, if these have no names of their own.

    >>> parts = {"train": [("a", 0), ("b", 1)], "val": [("c", 1)], "test": [("d", 0)]}
    >>> fingerprint("mine", ["no", "yes"], parts)
    '4678c672ade1'
    """
    of_file = [digest] if digest else []
    found = hashlib.sha256(json.dumps([name, list(classes), *of_file]).encode())
    for split in ("train", "val", "test"):
        rows = list(members[split])
        part = [split, [each for each, _ in rows], [label for _, label in rows]]
        found.update(json.dumps(part).encode())
    return found.hexdigest()[:12]
