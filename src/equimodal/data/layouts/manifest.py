"""One's own clips, listed in a CSV or Parquet file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
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
    that is not in the video; ``start`` and ``end`` in seconds; ``id``; ``group``, what clips have
    in common that must not be in train and val, the path if left out. Further columns are kept as
    text.

    Args:
        source: the manifest.
        root: the folder that paths are relative to; that of the manifest if left out.
        classes: a file with one class a line, in the order of their numbers; the labels of the
            manifest in alphabetical order if left out.
        validation: share of the training clips to validate on, if no row is of the split val.
    """

    root: Path | None = None
    classes: Path | None = None
    validation: float = 0.1

    name: ClassVar[str] = "manifest"

    def listing(self) -> Listing:
        rows = self._rows()
        labels = {row.filled("label"): row["label"] for row in rows}
        classes = sorted(labels) if self.classes is None else from_file(self.classes)
        root = self.root or self.source.parent
        collected = Collected(self.name, root)
        for row in rows:
            row.one_of("label", "class", dict.fromkeys(classes))
            path = inside(root, row.filled("path"), row.place)
            sound = row.values.get("audio", "")
            audio = inside(root, sound, row.place) if sound else path
            clip = _clip(row, path, audio)
            absent = [file for file in (path, audio) if not is_file(root, file)]
            if absent:
                collected.miss(clip, absent[0], row.place)
            else:
                collected.add(clip, row.place)
        validated = collected.validated(self.validation, "groups")
        protocol = f"splits as listed in {self.source.name}; {validated}"
        if (both := collected.shared("train", "val")) and "group" in rows[0].values:
            raise SetupError(
                f"{self.source}: group: expected no group in train and val, found {len(both)}, "
                f"such as {both[0]!r}: leave out the column, or mend it"
            )
        if shared := collected.shared("train", "val", "test"):
            protocol += f"; groups with clips in two splits ({len(shared)}): {some(shared)}"
        return collected.listing(classes, protocol, {**ABOUT, "source": self.source.name})

    def _rows(self) -> list[Row]:
        readers = {".csv": headed, ".parquet": parquet}
        if self.source.suffix.lower() not in readers or not self.source.is_file():
            raise SetupError(
                f"{self.source}: expected a manifest, a .csv or .parquet file with the columns "
                f"{', '.join(REQUIRED)}, found {'another' if self.source.exists() else 'no'} file"
            )
        rows = readers[self.source.suffix.lower()](self.source, REQUIRED)
        if not rows:
            raise SetupError(f"{self.source}: expected rows, found none")
        _refuse_misspelt(self.source, tuple(rows[0].values))
        return rows


def _refuse_misspelt(path: Path, names: Sequence[str]) -> None:
    """Refuse columns that were probably meant to be read, and those that would hide others."""
    for name in names:
        if name in RESERVED:
            raise SetupError(f"{path}: the column {name} has a name that is taken: rename it")
        if name not in (*REQUIRED, *OPTIONAL) and difflib.get_close_matches(name, OPTIONAL, n=1):
            raise SetupError(f"{path}: {unknown('column', name, OPTIONAL)}")


def _clip(row: Row, path: str, audio: str) -> Clip:
    start, end = row.seconds("start") or 0.0, row.seconds("end")
    if end is not None and end <= start:
        raise SetupError(f"{row.place}: expected an end after {start} s, found {end} s")
    whole = start == 0 and end is None
    span = "" if whole else f"@{start:g}-{'' if end is None else format(end, 'g')}"
    return Clip(
        row.values.get("id", "") or f"{path}{span}",
        row["label"],
        row.one_of("split", "split", SPLITS),
        {"audio": Sound(audio, start, end), "visual": Frames(path, start, end)},
        row.values.get("group", "") or path,
        {name: text for name, text in row.values.items() if name not in (*REQUIRED, *OPTIONAL)},
    )
