"""Clips held out of a split: whole groups, of every class alike, the same wherever it is done."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from equimodal.data.files.stored import SPELT
from equimodal.errors import SetupError

# How lists spell the splits; "validate" is Kinetics's, "dev" that of speech.
SPLITS: Mapping[str, str] = {
    **SPELT,
    "validate": "val",
    "dev": "val",
    "training": "train",
    "testing": "test",
}


def held_out(members: Iterable[tuple[str, str]], share: float, salt: str) -> set[str]:
    """Choose groups to hold out.

    Groups are taken in the order of a hash of their names, which depends neither on the machine nor
    on the order of files. A group is passed over while most of its clips are of classes that have
    their share already, so that every class gives about its share where groups allow it; and always
    where it holds the last training clips of a class. `equimodal.data.files.holdout` differs: it
    ranks samples by their numbers, which here would change with every file that is missing.

    Args:
        members: group and label of every clip.
        share: of the clips, above 0 and below 1.
        salt: another one, another choice.

    Returns:
        Names of groups.

    Raises:
        SetupError: the share is out of range, or there are too few groups.

    >>> sorted(held_out([(f"speaker{i % 5}", "ab"[i // 5 % 2]) for i in range(20)], 0.4, "test"))
    ['speaker2', 'speaker3']
    """
    if not 0 < share < 1:
        raise SetupError(f"{salt}: expected a share above 0 and below 1, found {share}")
    groups: dict[str, Counter[str]] = {}
    clips: Counter[str] = Counter()
    for group, label in members:
        groups.setdefault(group, Counter())[label] += 1
        clips[label] += 1
    left = Counter(label for labels in groups.values() for label in labels)  # groups per class
    wanted = max(1, round(share * clips.total()))
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{salt}:{group}".encode()).digest())
    count, held = 0, Counter[str]()
    chosen: set[str] = set()
    quotas = [
        {label: math.floor(share * n) for label, n in clips.items()},
        {label: math.ceil(share * n) for label, n in clips.items()},
        dict(clips),
    ]
    for quota in quotas:
        for group in order:
            labels = groups[group]
            size = labels.total()
            short = sum(n for label, n in labels.items() if held[label] < quota[label])
            nearer = abs(count + size - wanted) < wanted - count
            if group in chosen or 2 * short < size or not (nearer or not chosen):
                continue
            if any(left[label] == 1 for label in labels):
                continue
            chosen.add(group)
            count += size
            held.update(labels)
            left.subtract(set(labels))
    if not chosen:
        raise SetupError(
            f"{salt}: nothing can be held out: expected two groups of clips or more in a class, "
            f"found {len(groups)} in all"
        )
    return chosen
