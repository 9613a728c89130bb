"""One's own clips, listed in a CSV or Parquet file."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from equimodal.data.layouts.class_lists import from_file
from equimodal.data.layouts.clip import Clip, Frames, Listing, Sound
from equimodal.data.layouts.collected import Collected, some
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import inside, is_file
from equimodal.data.layouts.splits import SPLITS
from equimodal.data.layouts.tables import Row, headed, parquet
from equimodal.errors import SetupError, unknown

REQUIRED = ("path", "label", "split")
OPTIONAL = ("audio", "start", "end", "id", "group")
RESERVED = ("visual",)  # names of columns in the prepared data set
# Other names under which people have these columns, and those of time that are no second.
SYNONYMS = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "video_path", "clip"),
    "label": ("class", "target", "category", "emotion"),
    "split": ("fold_name", "subset", "partition"),
    "audio": ("audio_path", "wav", "wav_path"),
    "start": ("start_time", "onset", "begin", "start_s", "start_sec", "offset", "time_start"),
    "end": ("end_time", "stop", "end_s", "end_sec", "stop_time", "time_end"),
    "duration": ("length_s", "duration_s", "dur"),
    "id": ("clip_id", "utterance_id", "utt_id", "uid"),
}
NOT_SECONDS = (
    "start_frame", "end_frame", "frame_start", "frame_end", "num_frames", "start_ms", "end_ms",
    "duration_ms", "start_sample", "end_sample",
)  # fmt: skip
# Columns that say what clips have in common.
TOGETHER = (
    "speaker", "speaker_id", "actor", "talker", "subject", "subject_id", "participant", "video",
    "video_id", "youtube_id", "session", "dialogue", "dialogue_id", "recording",
)  # fmt: skip
READ = (*REQUIRED, *OPTIONAL, "duration")
INTEGER = re.compile(r"[+-]?\d+")
WHOLE = re.compile(r"[+-]?\d+\.0+")
ABOUT = {
    "title": "clips of a manifest",
    "authors": "not stated",
    "licence": "not stated",
    "citation": "not stated",
}


@dataclass(frozen=True)
class Manifest(Layout):
    """Clips of one's own: a CSV or Parquet file with the columns path, label and split.

    ``path`` is a video file, relative to the root. Optional: ``audio``, a file with its sound, if
    that is not in the video; ``start`` and ``end``, or ``start`` and ``duration``, in seconds;
    ``id``; ``group``, what clips have in common that must not be in train and val, the path if left
    out; a column such as ``speaker`` or ``video`` is taken for it. Names may be in any case, and
    some others are known. Further columns are kept as text.

    Args:
        source: the manifest.
        root: the folder that paths are relative to; that of the manifest if left out.
        classes: a file with one class a line, in the order of their numbers; the labels of the
            manifest in alphabetical order, or in that of numbers, if left out.
        groups: the column that says which clips belong together, where several could.
        validation: share of the training clips to validate on, if no row is of the split val.
    """

    root: Path | None = None
    classes: Path | None = None
    groups: str | None = None
    validation: float = 0.1

    name: ClassVar[str] = "manifest"

    def listing(self) -> Listing:
        rows = self._rows()
        group = _grouped(self.source, rows[0], self.groups)
        labels = {row.filled("label"): row["label"] for row in rows}
        classes = in_order(self.source, labels) if self.classes is None else from_file(self.classes)
        root = self.root or self.source.parent
        collected = Collected(self.name, root)
        for row in rows:
            row.one_of("label", "class", dict.fromkeys(classes))
            path = inside(root, row.filled("path"), row.place)
            sound = row.values.get("audio", "")
            audio = inside(root, sound, row.place) if sound else path
            clip = _clip(row, path, audio, group)
            absent = [file for file in (path, audio) if not is_file(root, file)]
            if absent:
                collected.miss(clip, absent[0], row.place)
            else:
                collected.add(clip, row.place)
        validated = collected.validated(self.validation, "groups")
        protocol = f"splits as listed in {self.source.name}; {validated}"
        if (both := collected.shared("train", "val")) and self._named(rows[0]):
            raise SetupError(
                f"{self.source}: group: expected no group in train and val, found {len(both)}, "
                f"such as {both[0]!r}: leave out the column, or mend it"
            )
        if shared := collected.shared("train", "val", "test"):
            protocol += f"; groups with clips in two splits ({len(shared)}): {some(shared)}"
        return collected.listing(classes, protocol, {**ABOUT, "source": self.source.name})

    def _named(self, row: Row) -> bool:
        """Return whether the user has said what a group is."""
        return self.groups is not None or "group" in row.values

    def _rows(self) -> list[Row]:
        readers = {".csv": headed, ".tsv": headed, ".parquet": parquet}
        kind = self.source.suffix.lower()
        if kind not in readers or not self.source.is_file():
            raise SetupError(
                f"{self.source}: expected a manifest, a .csv, .tsv or .parquet file with the "
                f"columns {', '.join(REQUIRED)}, found "
                f"{'another' if self.source.exists() else 'no'} file"
            )
        rows = readers[kind](self.source, ())
        if not rows:
            raise SetupError(f"{self.source}: expected rows, found none")
        names = _understood(self.source, tuple(rows[0].values), self.groups)
        rows = [
            replace(row, values={names[name]: value for name, value in row.values.items()})
            for row in rows
        ]
        return _whole_labels(rows)


def in_order(path: Path, labels: Iterable[str]) -> list[str]:
    """Return classes in the order of their numbers: integers as numbers, as of arrays.

    Raises:
        SetupError: two differ by case alone.

    >>> in_order(Path("clips.csv"), ["10", "2", "1"]), in_order(Path("clips.csv"), ["b", "10", "a"])
    (['1', '2', '10'], ['10', 'a', 'b'])
    """
    classes = sorted(labels)
    spelt: dict[str, str] = {}
    for name in classes:
        if (other := spelt.setdefault(name.casefold(), name)) != name:
            raise SetupError(
                f"{path}: label: expected classes that differ by more than case, found {other!r} "
                f"and {name!r}: spell them alike, or name all classes in a file, with classes"
            )
    if all(INTEGER.fullmatch(name) for name in classes):
        return sorted(classes, key=int)
    return classes


def _whole_labels(rows: list[Row]) -> list[Row]:
    """Return rows in which classes that pandas has made 0.0, 1.0, ... are integers again."""
    if not all(WHOLE.fullmatch(row["label"]) for row in rows if row["label"]):
        return rows
    return [
        replace(row, values={**row.values, "label": row["label"].split(".")[0]}) for row in rows
    ]


def _understood(path: Path, names: Sequence[str], groups: str | None) -> dict[str, str]:
    """Return for each column what it is read as.

    Raises:
        SetupError: one is missing, has a name that is taken, was probably meant to be read and is
            not, or two mean the same.
    """
    known = {
        **{name: name for name in (*REQUIRED, *OPTIONAL, "duration")},
        **{other: name for name, others in SYNONYMS.items() for other in others},
    }
    plain = {name: name.strip().lower().replace(" ", "_") for name in names}
    exact = {name for name in plain.values() if name in (*REQUIRED, *OPTIONAL, "duration")}
    read: dict[str, str] = {}
    for name, spelt in plain.items():
        if spelt in RESERVED:
            raise SetupError(f"{path}: the column {name} has a name that is taken: rename it")
        if spelt in NOT_SECONDS:
            raise SetupError(
                f"{path}: the column {name} is not in seconds: expected start and end in seconds"
            )
        meant = known.get(spelt)
        # A column such as "class" beside "label" is only kept.
        kept = meant in exact and meant != spelt and meant in (*REQUIRED, "id")
        read[name] = meant if meant and not kept else name
    if groups is not None:
        if groups not in names:
            raise SetupError(f"{path}: groups: {unknown('column', groups, names)}")
        if "group" in read.values():
            raise SetupError(f"{path}: expected a column group or groups={groups}, found both")
    for what, count in Counter(read.values()).items():
        if count > 1:
            both = [name for name, meant in read.items() if meant == what]
            raise SetupError(f"{path}: expected one column for {what}, found {', '.join(both)}")
    if missing := [name for name in REQUIRED if name not in read.values()]:
        raise SetupError(
            f"{path}: expected the columns {', '.join(REQUIRED)}, found "
            f"{', '.join(names)}: {', '.join(missing)} missing"
        )
    if "end" in read.values() and "duration" in read.values():
        raise SetupError(f"{path}: expected end or duration, found both: leave one out")
    for name, meant in read.items():
        near = difflib.get_close_matches(plain[name], OPTIONAL, n=1)
        if meant == name and plain[name] not in (*TOGETHER, *known) and near:
            raise SetupError(f"{path}: {unknown('column', name, OPTIONAL)}")
    return read


def _grouped(path: Path, row: Row, groups: str | None) -> str:
    """Return the column that says which clips belong together, empty if none does.

    Raises:
        SetupError: several could.
    """
    if "group" in row.values:
        return "group"
    if groups is not None:
        return groups
    could = [name for name in row.values if name.strip().lower().replace(" ", "_") in TOGETHER]
    if len(could) > 1:
        raise SetupError(
            f"{path}: expected one column that says which clips belong together, found "
            f"{', '.join(could)}: name one with groups, or call it group"
        )
    return could[0] if could else ""


def _clip(row: Row, path: str, audio: str, group: str) -> Clip:
    start, end = row.seconds("start") or 0.0, row.seconds("end")
    if (lasts := row.seconds("duration")) is not None:
        end = start + lasts
    if end is not None and end <= start:
        raise SetupError(f"{row.place}: expected an end after {start} s, found {end} s")
    whole = start == 0 and end is None
    span = "" if whole else f"@{start:g}-{'' if end is None else format(end, 'g')}"
    return Clip(
        row.values.get("id", "") or f"{path}{span}",
        row["label"],
        replace(row, values={**row.values, "split": row["split"].lower()}).one_of(
            "split", "split", SPLITS
        ),
        {"audio": Sound(audio, start, end), "visual": Frames(path, start, end)},
        (row.values.get(group, "") if group else "") or path,
        {name: text for name, text in row.values.items() if name not in READ},
    )
