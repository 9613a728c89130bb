"""MELD: utterances of Friends, with the emotion of who speaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Frames, Listing, Sound
from equimodal.data.layouts.collected import Collected, some
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import found
from equimodal.data.layouts.tables import Row, headed
from equimodal.errors import SetupError, unknown

COLUMNS = (
    "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season",
    "Episode", "StartTime", "EndTime",
)  # fmt: skip
# By what the published archives call lists and folders of videos.
SPLITS = {"train": "train", "dev": "val", "test": "test"}
CLASSES = {
    "emotion": ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),
    "sentiment": ("neutral", "positive", "negative"),
}
ABOUT = {
    "title": "MELD, Multimodal EmotionLines Dataset",
    "source": "https://github.com/declare-lab/MELD",
    "authors": "S. Poria, D. Hazarika, N. Majumder, G. Naik, E. Cambria, R. Mihalcea",
    "licence": "GPL-3.0 for the annotations; the videos belong to those who made the series",
    "citation": "Poria et al., MELD, ACL 2019",
    "caution": (
        "All splits are of the same series: nearly every episode of test is in training, and "
        "speakers are. Numbers of dialogues begin anew in each split."
    ),
}


@dataclass(frozen=True)
class MELD(Layout):
    """MELD, emotions in dialogues: train_sent_emo.csv, train_splits/dia0_utt0.mp4 and others.

    Folders may have any names that hold train, dev and test, as those of the archives do:
    train_splits, dev_splits_complete, output_repeated_splits_test.

    Args:
        source: the folder that holds the three lists and the videos, at any depth.
        target: "emotion", of seven, or "sentiment", of three.
    """

    target: Literal["emotion", "sentiment"] = "emotion"

    name: ClassVar[str] = "meld"
    # Ours: an utterance lasts 3 s on average.
    view: ClassVar[View] = View(seconds=3.0, n_fft=512, hop=160, spectrogram="log-mel", frames=3)

    def listing(self) -> Listing:
        if self.target not in CLASSES:
            raise SetupError(unknown("target", self.target, CLASSES))
        videos, unlisted = self._videos()
        collected = Collected(self.name, self.source)
        odd = []
        for part, split in SPLITS.items():
            for row in headed(self._list(part), COLUMNS):
                stem = f"dia{row.filled('Dialogue_ID')}_utt{row.filled('Utterance_ID')}"
                path = videos.pop((split, stem), None)
                clip = _clip(row, split, stem, path or f"{part}/{stem}.mp4", self.target)
                if path:
                    collected.add(clip, row.place)
                else:
                    collected.miss(clip, f"{part}/{stem}.mp4", row.place)
                if row["StartTime"] == row["EndTime"]:
                    odd.append(clip.id)
        about = dict(ABOUT)
        if odd:
            about["utterances without a length in the list"] = some(odd)
        left = sorted([*unlisted, *videos.values()])
        return collected.listing(
            CLASSES[self.target], "train, dev (as val) and test as listed", about, left
        )

    def _list(self, part: str) -> Path:
        name = f"{part}_sent_emo.csv"
        paths = found(self.source, name.replace(".", r"\."))
        if len(paths) != 1:
            raise SetupError(
                f"{self.source}: expected one {name}, found {' and '.join(paths) or 'none'}"
            )
        return self.source / paths[0]

    def _videos(self) -> tuple[dict[tuple[str, str], str], list[str]]:
        """Return videos by split and name, and those of other names or in no split's folder."""
        videos: dict[tuple[str, str], str] = {}
        others = []
        for path in found(self.source, r".+\.mp4"):
            stem, folders = PurePosixPath(path).stem, PurePosixPath(path).parts[:-1]
            named = [part for part in SPLITS for folder in folders[-1:] if part in folder.lower()]
            key = (SPLITS[named[0]], stem) if len(named) == 1 else ("", stem)
            if not key[0] or not stem.startswith("dia"):
                others.append(path)
            elif key in videos:
                raise SetupError(
                    f"{self.source}: expected one video of {key[0]}/{stem}, found {videos[key]} "
                    f"and {path}: remove one"
                )
            else:
                videos[key] = path
        return videos, others


def _clip(row: Row, split: str, stem: str, path: str, target: str) -> Clip:
    column = target.capitalize()
    classes = dict.fromkeys(CLASSES[target])
    row.one_of(column, target, classes)
    return Clip(
        f"{split}/{stem}",
        row[column],
        split,
        {"audio": Sound(path), "visual": Frames(path)},
        f"{split}/dia{row['Dialogue_ID']}",
        {
            "speaker": row["Speaker"],
            "episode": f"{row['Season']}x{row['Episode']}",
            "text": row["Utterance"],
        },
    )
