"""Twitter-15 and Twitter-17: what a tweet with a picture says about somebody or something."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Frames, Listing, Text
from equimodal.data.layouts.collected import Collected
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import found
from equimodal.data.layouts.tables import Row, parted
from equimodal.errors import SetupError

COLUMNS = ("index", "label", "image", "text", "target")
SPLITS = {"train": "train", "dev": "val", "test": "test"}
CLASSES = {"0": "negative", "1": "neutral", "2": "positive"}
ABOUT = {
    "source": "https://github.com/jefferyYu/TomBERT",
    "authors": "J. Yu, J. Jiang; tweets: Q. Zhang et al. (2015), D. Lu et al. (2017)",
    "licence": "not stated; tweets and pictures belong to those who made them",
    "citation": "Yu and Jiang, Adapting BERT for target-oriented multimodal sentiment, IJCAI 2019",
    "caution": (
        "A sample is a target in a tweet: several have one text and one picture. TomBERT's code "
        "puts one certain picture in the place of those that cannot be read; here they are left "
        "out and named."
    ),
}


@dataclass(frozen=True)
class Twitter15(Layout):
    """Twitter-15, sentiment towards a target: twitter2015/train.tsv, twitter2015_images/7.jpg.

    The lists have five columns and a head: index, label (0 negative, 1 neutral, 2 positive),
    picture, tweet with $T$ in the place of the target, target. Established from jefferyYu/TomBERT
    (`absa_data/twitter2015`, `run_multimodal_classifier.py`).

    Args:
        source: the folder that holds the folders of lists and of pictures, at any depth.
    """

    name: ClassVar[str] = "twitter-15"
    view: ClassVar[View] = View(frames=1)
    lists: ClassVar[tuple[str, ...]] = ("twitter2015",)
    images: ClassVar[str] = "twitter2015_images"

    def listing(self) -> Listing:
        pictures = self._pictures()
        collected = Collected(self.name, self.source)
        asked = set()
        for part, split in SPLITS.items():
            listed = self._list(part)
            head, *rows = parted(self.source / listed, COLUMNS, "\t")
            if head["index"] != "index":
                raise SetupError(f"{head.place}: expected a head, index and so on, found {head}")
            for row in rows:
                image = row.filled("image")
                path = pictures.get(image)
                clip = _clip(row, split, listed, path or f"{self.images}/{image}")
                if path:
                    collected.add(clip, row.place)
                    asked.add(path)
                else:
                    collected.miss(clip, clip.pieces["image"].path, row.place)
        left = sorted(set(pictures.values()) - asked)
        about = {"title": f"{self.name.capitalize()}, sentiment towards targets in tweets", **ABOUT}
        protocol = "train, dev (as val) and test as listed"
        return collected.listing(tuple(CLASSES.values()), protocol, about, left)

    def _list(self, part: str) -> str:
        paths = [
            path
            for path in found(self.source, rf"{part}\.tsv")
            if not PurePosixPath(path).parts[:-1] or PurePosixPath(path).parts[-2] in self.lists
        ]
        if len(paths) != 1:
            raise SetupError(
                f"{self.source}: expected one {self.lists[0]}/{part}.tsv, found "
                f"{' and '.join(paths) or 'none'}"
            )
        return paths[0]

    def _pictures(self) -> dict[str, str]:
        """Return pictures by their names; those of the other year are passed over."""
        named: dict[str, str] = {}
        others = {kind.images for kind in (Twitter15, Twitter17)} - {self.images}
        for path in found(self.source, r".+\.(jpe?g|png|gif)"):
            if any(part in others for part in Path(path).parts):
                continue
            name = PurePosixPath(path).name
            if name in named:
                raise SetupError(
                    f"{self.source}: expected one picture {name}, found {named[name]} and {path}: "
                    "remove one"
                )
            named[name] = path
        return named


@dataclass(frozen=True)
class Twitter17(Twitter15):
    """Twitter-17, sentiment towards a target: twitter2017/train.tsv, twitter2017_images/7.jpg.

    As `Twitter15`; TomBERT calls the folder of the lists twitter.

    Args:
        source: the folder that holds the folders of lists and of pictures, at any depth.
    """

    name: ClassVar[str] = "twitter-17"
    lists: ClassVar[tuple[str, ...]] = ("twitter2017", "twitter")
    images: ClassVar[str] = "twitter2017_images"


def _clip(row: Row, split: str, listed: str, path: str) -> Clip:
    target = row.filled("target")
    return Clip(
        f"{split}/{row.filled('index')}",
        row.one_of("label", "label", CLASSES),
        split,
        {"image": Frames(path), "text": Text(listed, f"{row['text']}\n{target}")},
        PurePosixPath(path).stem,
        {"target": target},
    )
