"""AVE: events that are seen and heard, with their boundaries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Frames, Listing, Sound
from equimodal.data.layouts.collected import Collected, some
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import Stems, found
from equimodal.data.layouts.tables import Row, misspelt, parted
from equimodal.errors import SetupError

COLUMNS = ("Category", "VideoID", "Quality", "StartTime", "EndTime")
LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
ANNOTATIONS = "Annotations.txt"
ABOUT = {
    "title": "AVE, Audio-Visual Event",
    "source": "https://sites.google.com/view/audiovisualresearch",
    "authors": "Y. Tian, J. Shi, B. Li, Z. Duan, C. Xu",
    "licence": "not stated; the videos belong to those who put them on YouTube",
    "citation": ("Tian et al., Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018"),
    "caution": (
        "4,143 events in 4,097 videos: some videos hold two events, and are a sample for each. A "
        "sample is the whole video of 10 s; event_start and event_end say where its event is."
    ),
}


@dataclass(frozen=True)
class AVE(Layout):
    """AVE, audio-visual events: the clips in AVE, Annotations.txt and the three lists of splits.

    The lists are trainSet.txt, valSet.txt and testSet.txt.

    Args:
        source: the folder that holds the four lists and the folder AVE.
        protocol: "listed", or "videos": events of train and val in videos that test has events of
            are left out.
    """

    protocol: Literal["listed", "videos"] = "listed"

    name: ClassVar[str] = "ave"
    # OGM-GE's script: 16 kHz, 10 s, windows of 512 samples that overlap by 353; three frames of
    # those stored once a second. It takes the log of the power and standardises each sample; here
    # it is the log of the magnitude.
    view: ClassVar[View] = View(seconds=10.0, n_fft=512, hop=159, frames=3)

    def listing(self) -> Listing:
        annotated = {_key(row): row for row in _rows(self._list(ANNOTATIONS))}
        classes = sorted({row["Category"] for row in annotated.values()})
        # A video may hold two events; the same row twice is one sample.
        listed: dict[tuple[str, ...], tuple[str, Row]] = {}
        for split, file in LISTS.items():
            for row in _rows(self._list(file)):
                there = listed.setdefault(_key(row), (split, row))
                if there[0] != split:
                    raise SetupError(
                        f"{row.place}: expected every event in one split, found that of "
                        f"{there[1].place}"
                    )
        events = Counter(row["VideoID"] for _, row in listed.values())
        videos = Stems(found(self.source, r".+\.mp4"))
        collected = Collected(self.name, self.source)
        for split, row in listed.values():
            if row["Category"] not in classes:
                raise SetupError(f"{row.place}: {misspelt('category', row['Category'], classes)}")
            path = videos.path(row["VideoID"])
            clip = _clip(row, split, path or f"AVE/{row['VideoID']}.mp4", events)
            if path:
                collected.add(clip, row.place)
            else:
                collected.miss(clip, f"AVE/{row['VideoID']}.mp4", row.place)
        protocol = f"train, val and test as listed{collected.apart(self.protocol)}"
        about = dict(ABOUT)
        if lasting := [row for _, row in listed.values() if not _lasts(row)]:
            about["events without a length"] = some(
                [
                    f"{row['VideoID']} ({row['Category']}, {row['StartTime']} to {row['EndTime']})"
                    for row in lasting
                ]
            )
        if shared := collected.shared(*LISTS):
            protocol += f"; videos with events in two splits ({len(shared)}): {some(shared)}"
        named = {(row["Category"], row["VideoID"]) for _, row in listed.values()}
        if unused := [key for key in annotated if key[:2] not in named]:
            protocol += f"; annotated events in no split: {len(unused)}"
        return collected.listing(classes, protocol, about, videos.left())

    def _list(self, name: str) -> Path:
        path = self.source / name
        if not path.is_file():
            raise SetupError(
                f"{path}: no such file: expected {ANNOTATIONS}, {', '.join(LISTS.values())} and "
                f"the folder AVE in {self.source}"
            )
        return path


def _rows(path: Path) -> list[Row]:
    """Return the rows of a list; some copies have a line of names first."""
    rows = parted(path, COLUMNS, "&")
    return rows[1:] if rows and rows[0]["VideoID"] == "VideoID" else rows


def _lasts(row: Row) -> bool:
    return (row.seconds("EndTime") or 0.0) > (row.seconds("StartTime") or 0.0)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row.filled(name) for name in ("Category", "VideoID", "StartTime", "EndTime"))


def _clip(row: Row, split: str, path: str, events: Counter[str]) -> Clip:
    video = row["VideoID"]
    span = f"{row['Category']}/{row['StartTime']}-{row['EndTime']}"
    return Clip(
        video if events[video] == 1 else f"{video}/{span}",
        row["Category"],
        split,
        {"audio": Sound(path), "visual": Frames(path)},
        video,
        {
            "event_start": row.seconds("StartTime") or 0.0,
            "event_end": row.seconds("EndTime") or 0.0,
        },
    )
