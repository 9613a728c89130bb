"""Clips that are left out: listed by name, counted, and refused when they are too many."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from equimodal.data.layouts.clip import Failure
from equimodal.data.preparing.folder import FAILURES
from equimodal.data.preparing.plan import SPLITS, Plan
from equimodal.data.preparing.record import Record
from equimodal.data.preparing.tables import first_words, write_table

COLUMNS = ("id", "path", "split", "reason")
EXAMPLES = 3


class MissingClipsError(RuntimeError):
    """More clips are missing than is allowed, or all of a class or split."""


def in_order(plan: Plan, records: Iterable[Record]) -> list[Failure]:
    """Return all failures by split: first those without a file, then as planned."""
    found = [*plan.listing.failures, *(f for record in records for f in record.failures)]
    return [failure for split in SPLITS for failure in found if failure.split == split]


def write(folder: Path, failures: Iterable[Failure]) -> None:
    """Write failures.csv."""
    write_table(folder / FAILURES, COLUMNS, failures)


def reasons(failures: Iterable[Failure]) -> Counter[str]:
    """Count failures by their first words.

    >>> reasons([Failure("a", "a.mp4", "train", "truncated: 1.20 s of 3.00 s")])
    Counter({'truncated': 1})
    """
    return first_words(failure.reason for failure in failures)


def judge(folder: Path, plan: Plan, failures: Sequence[Failure], allowed: float) -> None:
    """Refuse what is too incomplete to be used.

    Args:
        folder: that failures.csv is in.
        plan: of all clips.
        failures: so far.
        allowed: the share of all clips that may be missing.

    Raises:
        MissingClipsError: more are, a split is empty, or a class has no clip to train on.
    """
    missing = {failure.id for failure in failures}
    kept = [clip for clip in plan.listing.clips if clip.id not in missing]
    splits = {clip.split for clip in kept}
    for split in SPLITS:
        if split not in splits:
            raise MissingClipsError(
                f"{folder}: no clip is left in the {split} split of {plan.planned(split):,}"
                f"{_named(failures)}"
            )
    trained = {clip.label for clip in kept if clip.split == "train"}
    if lost := [name for name in plan.listing.classes if name not in trained]:
        more = ", ..." if len(lost) > EXAMPLES else ""
        raise MissingClipsError(
            f"{folder}: {len(lost)} of {len(plan.listing.classes)} classes have no clip to train "
            f"on: {', '.join(lost[:EXAMPLES])}{more}{_named(failures)}"
        )
    total = sum(plan.planned(split) for split in SPLITS)
    share = len(failures) / total
    if share > allowed:
        enough = math.ceil(share * 1000) / 1000
        raise MissingClipsError(
            f"{folder}: {len(failures):,} of {total:,} clips ({100 * share:.1f}%) are missing, "
            f"{100 * allowed:g}% are allowed{_named(failures)}. To do without them give the same "
            f"command with --allow-missing {enough:g}: what is decoded stays"
        )


def spelt(counts: Counter[str]) -> str:
    """Return reasons with their numbers, the commonest first.

    >>> spelt(Counter({"no sound": 2, "truncated": 5}))
    '5 truncated, 2 no sound'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())


def _named(failures: Sequence[Failure]) -> str:
    return f": {spelt(reasons(failures))}; {FAILURES} names them" if failures else ""
