"""VGGSound: ten seconds of a video each, 309 classes of sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Frames, Listing, Sound
from equimodal.data.layouts.collected import Collected
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import Stems, found
from equimodal.data.layouts.splits import SPLITS
from equimodal.data.layouts.tables import headless
from equimodal.errors import SetupError

LIST = "vggsound.csv"
ABOUT = {
    "title": "VGGSound",
    "source": "https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
    "authors": "H. Chen, W. Xie, A. Vedaldi, A. Zisserman",
    "licence": (
        "list: Creative Commons Attribution 4.0; the videos belong to those who put them on YouTube"
    ),
    "citation": "Chen et al., VGGSound: a large-scale audio-visual dataset, ICASSP 2020",
    "caution": (
        "Many videos were taken down, so that everyone has others: compare numbers of the same "
        "fingerprint only."
    ),
}


@dataclass(frozen=True)
class VGGSound(Layout):
    """VGGSound: ID_000034.mp4 in any folders, and vggsound.csv.

    Args:
        source: the folder that holds the videos.
        csv: the published list: YouTube id, start second, label and split in each line;
            vggsound.csv in the source folder if left out.
        protocol: "listed", or "videos": training clips of videos that test has clips of are left
            out.
        validation: share of the training clips to validate on.
    """

    csv: Path | None = None
    protocol: Literal["listed", "videos"] = "listed"
    validation: float = 0.1

    name: ClassVar[str] = "vggsound"
    # OGM-GE's loader: 16 kHz, 5 of the 10 seconds, STFT of 256 and 128 samples, the log of its
    # magnitude; three frames of those stored once a second.
    view: ClassVar[View] = View(seconds=5.0, n_fft=256, hop=128, frames=3)

    def listing(self) -> Listing:
        rows = headless(self._list(), ("id", "start", "label", "split"))
        videos = Stems(found(self.source, r".+\.(mp4|mkv|webm|avi)"))
        collected = Collected(self.name, self.source)
        for row in rows:
            name = f"{row.filled('id')}_{row.stamp('start')}"
            path = videos.path(name)
            file = path or f"{name}.mp4"
            clip = Clip(
                name,
                row.filled("label"),
                row.one_of("split", "split", SPLITS),
                {"audio": Sound(file), "visual": Frames(file)},
                group=row["id"],
            )
            if path:
                collected.add(clip, row.place)
            else:
                collected.miss(clip, file, row.place)
        apart = collected.apart(self.protocol)
        validated = collected.validated(self.validation, "source videos")
        protocol = f"train and test as listed{apart}; {validated}"
        # All that are listed, also those of which someone has no file: targets shall not depend on
        # which files are there.
        classes = sorted({row["label"] for row in rows})
        return collected.listing(classes, protocol, ABOUT, videos.left())

    def _list(self) -> Path:
        path = self.csv or self.source / LIST
        if not path.is_file():
            raise SetupError(
                f"{path}: no such file: expected the published list, {LIST}, in the source folder: "
                "else name it with csv"
            )
        return path
