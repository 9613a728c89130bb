"""UPMC Food-101: a picture of a dish, and the title of the page that it was found on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Frames, Listing, Piece, Text
from equimodal.data.layouts.collected import Collected, some
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import Stems, found
from equimodal.data.layouts.tables import Row, headless
from equimodal.errors import SetupError

COLUMNS = ("image", "title", "class")
SPLITS = ("train", "test")
ABOUT = {
    "title": "UPMC Food-101, dishes and the titles of their recipes",
    "source": "https://visiir.isir.upmc.fr/explore",
    "authors": "X. Wang, D. Kumar, N. Thome, M. Cord, F. Precioso",
    "licence": "for research; pictures and texts belong to those who made them",
    "citation": "Wang et al., Recipe recognition with large multimodal food dataset, ICMEW 2015",
    "caution": (
        "Pictures and titles come from a search for the name of the class, which most titles hold. "
        "Papers use a training list and a validation list of MMBT or ViLT that are not part of the "
        "download: here validation is held out anew."
    ),
}


@dataclass(frozen=True)
class Food101(Layout):
    """UPMC Food-101, dishes with titles: apple_pie/apple_pie_0.jpg, train_titles.csv and others.

    The lists have no head: name of the picture, title, class. So it is read by
    YiLunLee/missing_aware_prompts (`DATA.md`, `vilt/utils/write_food101.py`), whose texts come from
    these two lists.

    Clips of one title are one group: such pictures are mostly of one page.

    Args:
        source: the folder that holds both lists and the pictures, at any depth.
        validation: share of the training clips to hold out for choosing, whole titles.
    """

    validation: float = 0.1

    name: ClassVar[str] = "food-101"
    view: ClassVar[View] = View(frames=1)

    def listing(self) -> Listing:
        pictures = Stems(found(self.source, r".+\.(jpe?g|png|webp|gif|bmp)"))
        collected = Collected(self.name, self.source)
        untitled, classes = [], set()
        for split in SPLITS:
            listed = self._list(split)
            for row in headless(self.source / listed, COLUMNS):
                clip, stem = _clip(row, split, listed)
                classes.add(clip.label)
                if path := pictures.path(stem):
                    collected.add(_at(clip, path), row.place)
                else:
                    collected.miss(clip, f"images/{split}/{clip.label}/{row['image']}", row.place)
                if not row["title"]:
                    untitled.append(clip.id)
        protocol = f"as listed; {collected.validated(self.validation, 'titles')}"
        about = dict(ABOUT)
        if untitled:
            about["clips without a title"] = some(untitled)
        return collected.listing(sorted(classes), protocol, about, pictures.left())

    def _list(self, split: str) -> str:
        name = f"{split}_titles.csv"
        paths = found(self.source, name.replace(".", r"\."))
        if len(paths) != 1:
            raise SetupError(
                f"{self.source}: expected one {name}, found {' and '.join(paths) or 'none'}"
            )
        return paths[0]


def _clip(row: Row, split: str, listed: str) -> tuple[Clip, str]:
    """Return a clip without the place of its picture, and the picture's name."""
    stem, label = PurePosixPath(row.filled("image")).stem, row.filled("class")
    words = " ".join(row["title"].casefold().split())
    pieces: dict[str, Piece] = {"image": Frames(f"{stem}.jpg"), "text": Text(listed, row["title"])}
    return Clip(stem, label, split, pieces, f"{label}: {words}" if words else stem), stem


def _at(clip: Clip, path: str) -> Clip:
    pieces = {**clip.pieces, "image": Frames(path)}
    return Clip(clip.id, clip.label, clip.split, pieces, clip.group)
