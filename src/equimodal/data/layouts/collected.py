"""Clips on their way to a listing: unique, in order, with a validation split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from equimodal.data.layouts.clip import Clip, Failure, Listing, paths_of
from equimodal.data.layouts.paths import is_there
from equimodal.data.layouts.splits import held_out
from equimodal.errors import SetupError, unknown

SHOWN = 5  # names that a text lists
SPLITS = ("train", "val", "test")
APART = ("listed", "videos")


@dataclass(frozen=True)
class Entry:
    """A clip, where it was found or named, and what keeps it out, if anything does."""

    clip: Clip
    place: str
    missing: str = ""
    reason: str = ""


class Collected:
    """Clips by id.

    Clips without a file are kept to the end: which clips are held out shall not depend on which
    files someone has.

    Args:
        name: of the data set.
        root: the source folder.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self._entries: dict[str, Entry] = {}

    def add(self, clip: Clip, place: str) -> None:
        """Add a clip that is there.

        Args:
            clip: its split may change from train to val later.
            place: where it was found or named, for errors.

        Raises:
            SetupError: there is one of its id.
        """
        self._add(Entry(clip, place))

    def miss(self, clip: Clip, path: str, place: str, reason: str = "no such file") -> None:
        """Add a clip that is left out because of a file; see `add`.

        Args:
            clip: as it would be.
            path: of the file, relative to the source folder.
            place: where it was found or named.
            reason: see `Failure`.
        """
        self._add(Entry(clip, place, path, reason))

    def _add(self, entry: Entry) -> None:
        there = self._entries.setdefault(entry.clip.id, entry)
        if there is not entry:
            raise SetupError(
                f"{entry.place}: expected an id of its own, found {entry.clip.id}, which is at "
                f"{there.place} too"
            )

    @property
    def clips(self) -> list[Clip]:
        """All clips, also those without files, in the order of their ids."""
        return [self._entries[key].clip for key in sorted(self._entries)]

    def shared(self, *splits: str) -> list[str]:
        """Return the groups that have clips in more than one of these splits."""
        found: dict[str, set[str]] = {}
        for clip in self.clips:
            if clip.split in splits:
                found.setdefault(clip.group, set()).add(clip.split)
        return sorted(group for group, those in found.items() if len(those) > 1)

    def hold_out(
        self, split: str, share: float, group: Callable[[Clip], str] = attrgetter("group")
    ) -> None:
        """Move training clips to another split.

        Args:
            split: "val" or "test".
            share: of the training clips.
            group: what of a clip may not be on both sides; see `held_out`.

        Raises:
            SetupError: the share is out of range, or there are too few groups.
        """
        training = [clip for clip in self.clips if clip.split == "train"]
        moved = held_out(((group(clip), clip.label) for clip in training), share, split)
        for clip in training:
            if group(clip) in moved:
                entry = self._entries[clip.id]
                self._entries[clip.id] = replace(entry, clip=replace(clip, split=split))

    def apart(self, protocol: str) -> str:
        """Leave out of training what shares a group with test, if the protocol is "videos".

        Returns:
            What was done, to be put behind how the splits were made.

        Raises:
            SetupError: there is no such protocol.
        """
        if protocol not in APART:
            raise SetupError(unknown("protocol", protocol, APART))
        if protocol == "listed":
            return ""
        tested = {clip.group for clip in self.clips if clip.split == "test"}
        those = [c.id for c in self.clips if c.split != "test" and c.group in tested]
        for each in those:
            del self._entries[each]
        return f" but for {len(those)} clips of videos of test, which are not trained on"

    def validated(self, share: float, groups: str) -> str:
        """Hold out a validation split if there is none yet, and say how it was made.

        Args:
            share: of the training clips.
            groups: what a group is, in the plural.

        Raises:
            SetupError: see `hold_out`.
        """
        if any(clip.split == "val" for clip in self.clips):
            return "val: as listed"
        self.hold_out("val", share)
        return f"val: {share:.3g} of the training clips, whole {groups}, by a hash of their names"

    def listing(
        self,
        classes: Sequence[str],
        protocol: str,
        about: Mapping[str, str],
        unlisted: Sequence[str] = (),
    ) -> Listing:
        """Return what was collected.

        Args:
            classes: names in order.
            protocol: how the splits were made.
            about: source, authors, licence, citation, caution.
            unlisted: files that belong to no clip, which are counted in ``about``.

        Raises:
            SetupError: a split has no clip.
        """
        entries = [self._entries[key] for key in sorted(self._entries)]
        clips = tuple(entry.clip for entry in entries if not entry.reason)
        failures = tuple(
            Failure(entry.clip.id, entry.missing, entry.clip.split, entry.reason)
            for entry in entries
            if entry.reason
        )
        for split in SPLITS:
            if not any(clip.split == split for clip in clips):
                raise SetupError(f"{self.root}: {self._nothing(split, failures, unlisted)}")
        trained = {clip.label for clip in clips if clip.split == "train"}
        if untrained := [label for label in classes if label not in trained]:
            protocol += f"; classes without a training clip ({len(untrained)}): {some(untrained)}"
        more = {"unlisted": f"files that belong to no clip ({len(unlisted)}): {some(unlisted)}"}
        return Listing(
            self.name,
            self.root,
            clips,
            tuple(classes),
            protocol,
            failures,
            {**about, **(more if unlisted else {})},
            tuple(e.clip for e in entries if e.reason and self._some_of(e.clip)),
        )

    def _some_of(self, clip: Clip) -> bool:
        """Return whether some modalities of a clip, but not all, have their files."""
        there = [
            all(is_there(self.root, path) for path in paths_of(piece))
            for piece in clip.pieces.values()
        ]
        return any(there) and not all(there)

    def _nothing(self, split: str, failures: Sequence[Failure], unlisted: Sequence[str]) -> str:
        lost = [failure for failure in failures if failure.split == split]
        if not lost:
            return f"expected clips of the {split} split, found none"
        others = f"; there are others: {some(unlisted)}" if unlisted else ""
        reasons = sorted({failure.reason.partition(":")[0] for failure in lost})
        return (
            f"expected clips of the {split} split, but all {len(lost)} are left out "
            f"({', '.join(reasons)}), such as {lost[0].path}{others}"
        )


def some(names: Sequence[str]) -> str:
    """Return the first few of many names, for a text.

    >>> some(["a", "b"]), some("abcdefg")
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
