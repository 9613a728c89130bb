"""What the splits of a listing share, and which published lists they are."""

from __future__ import annotations

from equimodal.data.known_lists import recognised
from equimodal.data.layouts.clip import Clip, Failure, Listing
from equimodal.data.leaking import Group, leakage

# Columns by which clips belong together, whatever the list calls them.
TOGETHER = (
    "actor", "speaker", "talker", "subject", "singer", "sentence", "dialogue", "episode", "session",
    "video", "recording",
)  # fmt: skip
WHO = ("actor", "speaker", "talker", "subject")


def shared(listing: Listing) -> list[str]:
    """Return in sentences what val and test share with train, and val with test."""
    first = listing.clips[0]
    columns = [name for name in first.columns if name.lower() in TOGETHER]
    groups: list[Group] = ["group", *columns]
    who = next((name for name in columns if name.lower() in WHO), None)
    if who is not None and "sentence" in columns:
        groups.append((who, "sentence"))
    rows = {
        split: [
            {"id": c.id, "label": c.label, "group": c.group, **{n: c.columns[n] for n in columns}}
            for c in listing.clips
            if c.split == split
        ]
        for split in ("train", "val", "test")
    }
    same = [name for name in columns if all(c.columns[name] == c.group for c in listing.clips)]
    groups = [group for group in groups if group not in same]
    lines = []
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        for line in leakage(rows[one], rows[other], groups).lines():
            line = line.replace("in test are in training", f"in {other} are in {one}")
            lines.append(line.replace("test clips", f"{other} clips"))
    return lines


def published(listing: Listing) -> list[str]:
    """Return in words which published lists the splits are."""
    members: dict[str, list[str]] = {}
    planned: tuple[Clip | Failure, ...] = (*listing.clips, *listing.failures)
    for each in planned:
        members.setdefault(each.split, []).append(each.id)
    return [
        f"{split}: {' and '.join(map(str, lists))}" for split, lists in recognised(members).items()
    ]
