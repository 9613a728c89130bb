"""Kinetics-Sounds: the classes of Kinetics that can be heard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from equimodal.data.batches.view import View
from equimodal.data.layouts.class_lists import kinetics_sounds
from equimodal.data.layouts.clip import Clip, Frames, Listing, Sound
from equimodal.data.layouts.collected import Collected, some
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import Stems, found
from equimodal.data.layouts.splits import SPLITS
from equimodal.data.layouts.tables import Row, headed, header, misspelt
from equimodal.errors import SetupError

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
UNLABELLED = {*COLUMNS[1:], "is_cc"}  # of the test list in the first release
ABOUT = {
    "title": "Kinetics-Sounds, a subset of Kinetics",
    "source": "https://github.com/cvdfoundation/kinetics-dataset",
    "authors": "R. Arandjelovic, A. Zisserman (the subset); W. Kay et al. (Kinetics)",
    "licence": (
        "annotations: Creative Commons Attribution 4.0 (Google); the videos belong to those who "
        "put them on YouTube"
    ),
    "citation": (
        "Arandjelovic and Zisserman, Look, Listen and Learn, ICCV 2017; Kay et al., The Kinetics "
        "Human Action Video Dataset, 2017"
    ),
    "caution": (
        "Lists of 31, 32, 33 and 34 classes are in use, and everyone has other videos, as many "
        "were taken down: compare numbers of the same fingerprint only."
    ),
}


@dataclass(frozen=True)
class KineticsSounds(Layout):
    """Kinetics-Sounds: ID_000010_000020.mp4 in any folders, and annotations of Kinetics (CSV).

    Args:
        source: the folder that holds the videos.
        classes: which list: "31" (of AdaMML), "32" (of CrissCross), or the path of a file with one
            class a line. There is no default: papers differ.
        annotations: a CSV file of Kinetics or a folder of them, with the columns label, youtube_id,
            time_start, time_end and split; all those below the source folder if left out.
        validation: share of the training clips to validate on, if the annotations have no test
            clips; their validation clips then are for test, as in the papers.
    """

    classes: str | None = None
    annotations: Path | None = None
    validation: float = 0.1

    name: ClassVar[str] = "kinetics-sounds"
    # OGM-GE's script for the data set: Kaldi's filter banks, 128 bands, 10 s, which it pads with
    # zeros to 1,024 frames of 10 ms; its loaders take three frames of those stored once a second.
    view: ClassVar[View] = View(seconds=10.0, spectrogram="fbank", mels=128, frames=3)

    def listing(self) -> Listing:
        classes = kinetics_sounds(self.classes)
        rows, unlabelled = self._rows()
        labels = {row["label"] for row in rows}
        if absent := [label for label in classes if label not in labels]:
            raise SetupError(
                f"classes: {len(absent)} of {len(classes)} are not in the annotations: "
                f"{some(absent)}: {misspelt('class', absent[0], labels)}"
            )
        wanted = frozenset(classes)
        chosen = [row for row in rows if row["label"] in wanted]
        splits, protocol = _splits({row.one_of("split", "split", SPLITS) for row in chosen})
        videos = Stems(found(self.source, r".+\.(mp4|mkv|webm|avi)"))
        collected = Collected(self.name, self.source)
        for row in chosen:
            times = f"{row.stamp('time_start')}_{row.stamp('time_end')}"
            name = f"{row.filled('youtube_id')}_{times}"
            path = videos.path(name)
            clip = _clip(name, row, splits[SPLITS[row["split"]]], path or f"{name}.mp4")
            if path:
                collected.add(clip, row.place)
            else:
                collected.miss(clip, f"{name}.mp4", row.place)
        protocol = (
            f"{len(classes)} classes ({self.classes}); {protocol}; "
            f"{collected.validated(self.validation, 'source videos')}"
        )
        if unlabelled:
            protocol += f"; lists without labels, not used: {', '.join(unlabelled)}"
        return collected.listing(classes, protocol, ABOUT, videos.left())

    def _rows(self) -> tuple[list[Row], list[str]]:
        """Return the rows of all annotations, of whatever class, and the names of useless lists."""
        if self.annotations is not None and self.annotations.is_file():
            return headed(self.annotations, COLUMNS), []
        folder = self.annotations or self.source
        files = [folder / path for path in found(folder, r".+\.csv")]
        names = {path: set(header(path)) for path in files}
        kinetics = [path for path in files if {"youtube_id", "time_start"} <= names[path]]
        if not kinetics:
            raise SetupError(
                f"{folder}: expected a CSV file of Kinetics with the columns {', '.join(COLUMNS)}, "
                f"found {some([str(path) for path in files]) or 'no CSV file'}: name it with "
                "annotations"
            )
        labelled = [path for path in kinetics if not names[path] <= UNLABELLED] or kinetics
        rows = [row for path in labelled for row in headed(path, COLUMNS)]
        return rows, [path.name for path in kinetics if path not in labelled]


def _splits(there: set[str]) -> tuple[dict[str, str], str]:
    """Return what the splits of the annotations are used as, and that in words."""
    if there == {"train", "val", "test"}:
        return {split: split for split in there}, "train, val and test as annotated"
    if len(there) == 2 and "train" in there:
        (other,) = there - {"train"}
        return {"train": "train", other: "test"}, f"test: the clips annotated as {other}"
    raise SetupError(
        "annotations: expected clips of train, and of validate or test or both, found "
        f"{', '.join(sorted(there)) or 'none'}"
    )


def _clip(name: str, row: Row, split: str, path: str) -> Clip:
    return Clip(
        name,
        row["label"],
        split,
        {"audio": Sound(path), "visual": Frames(path)},
        group=row["youtube_id"],
    )
