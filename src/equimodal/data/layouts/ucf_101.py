"""UCF-101 as pictures and optical flow."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Flow, Listing, Stills
from equimodal.data.layouts.collected import Collected
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.tables import Row, parted, text_of
from equimodal.errors import SetupError, unknown

RATE = 25.0
FOLDS = ("1", "2", "3")
DEEP = 4  # folders below the source in which lists and pictures may be
VIDEO = re.compile(r"(?i)(v_\w+_(g\d+)_c\d+)(?:\.avi)?")
ABOUT = {
    "title": "UCF-101, actions as pictures and optical flow",
    "source": "https://www.crcv.ucf.edu/data/UCF101.php; pictures and flow: "
    "https://github.com/feichtenhofer/twostreamfusion",
    "authors": "K. Soomro, A. R. Zamir, M. Shah; flow: C. Feichtenhofer, A. Pinz, A. Zisserman",
    "licence": "not stated; the videos belong to those who made them",
    "citation": "Soomro et al., UCF101, 2012; Feichtenhofer et al., CVPR 2016",
    "caution": (
        "Clips of one group (g01 to g25 of a class) are cut from one video. There are three "
        "published folds; papers mean their mean, or the first alone."
    ),
}


@dataclass(frozen=True)
class UCF101(Layout):
    """UCF-101, frames and flow: pictures as jpegs_256/v_X_g01_c01, and tvl1_flow/u and v.

    These are the folders of the archives that go with feichtenhofer/twostreamfusion
    (`cnn_ucf101_setup_data.m`); jeffreyyihuang/two-stream-action-recognition
    (`dataloader/motion_dataloader.py`) reads them too. The lists are those of the publisher:
    classInd.txt, trainlist01.txt, testlist01.txt. Names are matched in any case, as the lists and
    archives spell HandStandPushups in two ways.

    Args:
        source: the folder that holds pictures, flow and lists, at most four folders deep.
        fold: which of the three published splits.
        validation: share of the training clips to hold out for choosing, whole source videos.
    """

    fold: Literal["1", "2", "3"] = "1"
    validation: float = 0.1

    name: ClassVar[str] = "ucf-101"
    view: ClassVar[View] = View(frames=3)

    def listing(self) -> Listing:
        if self.fold not in FOLDS:
            raise SetupError(unknown("fold", self.fold, FOLDS))
        places = _places(self.source)
        classes = _classes(self.source / _one(self.source, places, "classInd.txt"))
        seen = self._videos(places, "jpegs_256", "")
        across, down = (self._videos(places, "tvl1_flow", f"/{way}") for way in "uv")
        collected = Collected(self.name, self.source)
        for split in ("train", "test"):
            named = _one(self.source, places, f"{split}list0{self.fold}.txt")
            for row in parted(self.source / named, ("video",), "\t"):
                video, group, label = _video(row, classes)
                name = video.lower()
                absent = f"jpegs_256/{video}", f"tvl1_flow/u/{video}", f"tvl1_flow/v/{video}"
                there = [s.get(name, p) for s, p in zip((seen, across, down), absent, strict=True)]
                clip = Clip(
                    video,
                    label,
                    split,
                    {"visual": Stills(there[0], RATE), "flow": Flow(there[1], there[2], RATE)},
                    f"{label}/{group}",
                )
                missing = [path for path in there if path in absent and not _there(self, path)]
                if missing:
                    collected.miss(clip, missing[0], row.place)
                else:
                    collected.add(clip, row.place)
        protocol = f"published fold {self.fold}; {collected.validated(self.validation, 'videos')}"
        return collected.listing(classes, protocol, ABOUT)

    def _videos(self, places: dict[str, list[str]], name: str, below: str) -> dict[str, str]:
        """Return the folders of videos, by their names in lower case."""
        folder = f"{_one(self.source, places, name)}{below}"
        if not (self.source / folder).is_dir():
            raise SetupError(f"{self.source}: expected a folder {folder}, found none")
        names = sorted(entry.name for entry in os.scandir(self.source / folder) if entry.is_dir())
        return {each.lower(): f"{folder}/{each}" for each in names}


def _there(layout: UCF101, path: str) -> bool:
    return (layout.source / path).is_dir()


def _places(root: Path) -> dict[str, list[str]]:
    """Return files and folders by name, but not what is in the folders of videos: millions."""
    if not root.is_dir():
        raise SetupError(f"{root}: no such folder")
    found: dict[str, list[str]] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in sorted(os.scandir(root / folder), key=lambda each: each.name):
            path = f"{folder}{entry.name}"
            found.setdefault(entry.name, []).append(path)
            whole = entry.name in ("jpegs_256", "tvl1_flow") or VIDEO.fullmatch(entry.name)
            if entry.is_dir(follow_symlinks=False) and not whole and path.count("/") < DEEP:
                folders.append(f"{path}/")
    return found


def _one(root: Path, places: dict[str, list[str]], name: str) -> str:
    paths = places.get(name, [])
    if len(paths) != 1:
        raise SetupError(f"{root}: expected one {name}, found {' and '.join(paths) or 'none'}")
    return paths[0]


def _classes(path: Path) -> list[str]:
    """Return the names of the classes: a number and a name on each line."""
    lines = [line.split() for line in text_of(path).splitlines() if line.strip()]
    if odd := [line for line in lines if len(line) != 2]:
        raise SetupError(f"{path}: expected a number and a name on a line, found {odd[0]}")
    return [name for _, name in lines]


def _video(row: Row, classes: list[str]) -> tuple[str, str, str]:
    """Return the name of a video, its group and its class: ApplyEyeMakeup/v_..._g08_c01.avi 1."""
    label, _, file = row["video"].split()[0].partition("/")
    match = VIDEO.fullmatch(file)
    if label not in classes or match is None:
        raise SetupError(
            f"{row.place}: expected CLASS/v_NAME_g01_c01.avi of a class in classInd.txt, found "
            f"{row['video']!r}"
        )
    return match.group(1), match.group(2), label
