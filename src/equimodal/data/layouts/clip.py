"""What a layout finds in a user's download: clips, each a few pieces of files with a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Sound:
    """Sound in an audio or a video file.

    Args:
        path: of the file, relative to the source folder, with "/" between folders.
        start: where the clip begins, in seconds.
        end: where it ends, in seconds; None for the end of the file.
    """

    path: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Frames:
    """The pictures of a video file.

    Args:
        path: of the file, relative to the source folder, with "/" between folders.
        start: where the clip begins, in seconds.
        end: where it ends, in seconds; None for the end of the file.
    """

    path: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Picture:
    """One image of an IDX file (the format of MNIST), which may be compressed by gzip.

    Args:
        path: of the file, relative to the source folder.
        index: which image, counted from 0.
    """

    path: str
    index: int


@dataclass(frozen=True)
class Stills:
    """The pictures in a folder, one after the other by their names.

    Args:
        path: of the folder, relative to the source folder.
        rate: how many of them are a second.
    """

    path: str
    rate: float


@dataclass(frozen=True)
class Flow:
    """Optical flow as grey pictures, 128 where nothing moves, in two folders.

    Args:
        path: of the folder with what moves across, relative to the source folder.
        down: of the folder with what moves down.
        rate: how many of them are a second.
    """

    path: str
    down: str
    rate: float


@dataclass(frozen=True)
class Text:
    """Words.

    Args:
        path: of the list that they are in, relative to the source folder.
        text: the words.
    """

    path: str
    text: str


Piece = Sound | Frames | Picture | Stills | Flow | Text


def paths_of(piece: Piece) -> tuple[str, ...]:
    """Return the files or folders that a piece is in, relative to the source folder."""
    return (piece.path, piece.down) if isinstance(piece, Flow) else (piece.path,)


@dataclass(frozen=True)
class Clip:
    """One sample, before anything is decoded.

    Args:
        id: unique in its data set; what failures and predictions are listed by.
        label: name of its class.
        split: "train", "val" or "test".
        pieces: for each modality the piece of a file that holds it.
        group: what samples have in common that must not be in train and val: a speaker, a source
            video. The id where there is none.
        columns: more to keep about it, such as the boundaries of an event, in seconds. The same
            names in every clip of a data set.
    """

    id: str
    label: str
    split: str
    pieces: Mapping[str, Piece]
    group: str
    columns: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A clip that is left out, and why.

    Args:
        id: of the clip.
        path: of the file, relative to the source folder.
        split: that the clip would be in.
        reason: a few words that are the same for all failures of a kind, then details after a
            colon: ``"truncated: 1.20 s of 3.00 s"``.
    """

    id: str
    path: str
    split: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """All that a source folder holds of a data set.

    Args:
        name: of the data set, such as "crema-d".
        root: the source folder.
        clips: in a fixed order, whatever order the file system lists files in. Clips whose files
            are missing are not among them, but among the failures.
        classes: names in order; a target is the place of its name here.
        protocol: how the splits were made, in words.
        failures: clips that a list names but no file is there for.
        about: source, authors, licence, citation, caution: for the card.
        partial: clips that are among the failures, but of which some modalities have their files.
    """

    name: str
    root: Path
    clips: tuple[Clip, ...]
    classes: tuple[str, ...]
    protocol: str
    failures: tuple[Failure, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    partial: tuple[Clip, ...] = ()

    def with_partial(self) -> Listing:
        """Return the listing with its partial clips among the others, and not the failures."""
        kept = {clip.id for clip in self.partial}
        clips = sorted((*self.clips, *self.partial), key=lambda clip: clip.id)
        failures = tuple(failure for failure in self.failures if failure.id not in kept)
        return replace(self, clips=tuple(clips), failures=failures, partial=())

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of a sample."""
        return tuple(self.clips[0].pieces) if self.clips else ()
