"""CREMA-D: acted emotions, a face and a voice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Frames, Listing, Sound
from equimodal.data.layouts.collected import Collected
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import found
from equimodal.data.layouts.tables import headless
from equimodal.data.preparing.recipe import Recipe
from equimodal.errors import SetupError, unknown

TEST = 0.1  # of the clips: the published list holds 744 of 7,442
# In the order of the published lists of classes.
EMOTIONS = {
    "NEU": "neutral",
    "HAP": "happy",
    "SAD": "sad",
    "FEA": "fear",
    "DIS": "disgust",
    "ANG": "anger",
}
NAME = re.compile(
    r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>[A-Z]+)"
)
POINTER = b"version https://git-lfs"
ABOUT = {
    "title": "CREMA-D, Crowd-sourced Emotional Multimodal Actors Dataset",
    "source": "https://github.com/CheyneyComputerScience/CREMA-D",
    "authors": "H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma",
    "licence": "Open Database License 1.0",
    "citation": "Cao et al., IEEE Transactions on Affective Computing 5(4), 2014",
    "caution": (
        "Labels are the emotions that actors were asked for, not what raters perceived. With "
        "clips split at random the speakers of the test split are trained on; published results "
        "mostly are of that kind."
    ),
}
PROTOCOLS = ("random", "speakers")


@dataclass(frozen=True)
class CremaD(Layout):
    """CREMA-D, acted emotions: AudioWAV/*.wav and VideoFlash/*.flv.

    Args:
        source: the folder that holds both.
        protocol: "random": a tenth of the clips for test, as the published lists, which have
            speakers of training in test; "speakers": whole actors for test.
        lists: the published lists, used instead of a protocol: a folder with test.csv, and
            train.csv and val.csv if there are, or the file for test alone. Each line is a name
            such as 1001_DFA_ANG_XX, a comma and a label such as ANG. Without train.csv all other
            clips are for training.
        validation: share of the training clips to validate on: whole actors.
    """

    protocol: Literal["random", "speakers"] = "random"
    lists: Path | None = None
    validation: float = 0.1

    name: ClassVar[str] = "crema-d"
    # OGM-GE's loader: sound at 22,050 Hz repeated and cut to 3 s, STFT of 512 and 353 samples, the
    # log of its magnitude; one frame of those taken once a second.
    recipe: ClassVar[Recipe] = Recipe(rate=22_050)
    view: ClassVar[View] = View(seconds=3.0, n_fft=512, hop=353, frames=1)

    def listing(self) -> Listing:
        if self.protocol not in PROTOCOLS:
            raise SetupError(unknown("protocol", self.protocol, PROTOCOLS))
        unlisted: list[str] = []
        sounds = _files(self.source, "AudioWAV", "wav", unlisted)
        films = _files(self.source, "VideoFlash", "flv", unlisted)
        listed = {} if self.lists is None else _published(self.lists)
        complete = any(split == "train" for split, _ in listed.values())
        collected = Collected(self.name, self.source)
        for name in sorted({*sounds, *films, *listed}):
            wav, flv = sounds.get(name), films.get(name)
            there = [path for path in (wav, flv) if path is not None]
            if complete and name not in listed:
                unlisted += there
                continue
            split, place = listed.get(name, ("train", ", ".join(there)))
            pieces = {
                "audio": wav or f"AudioWAV/{name}.wav",
                "visual": flv or f"VideoFlash/{name}.flv",
            }
            clip = _clip(name, split, place, **pieces)
            if wav and flv:
                collected.add(clip, place)
            else:
                collected.miss(clip, pieces["visual" if wav else "audio"], place)
        protocol = f"{self._tested(collected)}; {collected.validated(self.validation, 'actors')}"
        return collected.listing(tuple(EMOTIONS.values()), protocol, ABOUT, sorted(unlisted))

    def _tested(self, collected: Collected) -> str:
        """Hold out the test split if no list gives it, and say how it was made."""
        if self.lists is not None:
            return f"lists: test as listed in {self.lists.name}"
        if self.protocol == "speakers":
            collected.hold_out("test", TEST)
            return f"speakers: test: {TEST} of the clips, whole actors, by a hash of their numbers"
        collected.hold_out("test", TEST, attrgetter("id"))
        return (
            f"random: test: {TEST} of the clips, of every emotion alike, by a hash of their names, "
            "with actors of train"
        )


def _clip(name: str, split: str, place: str, audio: str, visual: str) -> Clip:
    parts = _parts(name, place)
    return Clip(
        name,
        EMOTIONS[parts["emotion"]],
        split,
        {"audio": Sound(audio), "visual": Frames(visual)},
        parts["actor"],
        {key: parts[key] for key in ("actor", "sentence", "level")},
    )


def _spelt(name: str) -> str:
    """Return the name of a clip as all others are: one, in files and in lists, ends in X for XX."""
    return re.sub(r"_X$", "_XX", name)


def _parts(name: str, place: str) -> dict[str, str]:
    """Return what a name such as 1076_MTI_SAD_XX says."""
    match = NAME.fullmatch(name)
    if match is None:
        raise SetupError(f"{place}: expected a name such as 1001_DFA_ANG_XX, found {name!r}")
    if match["emotion"] not in EMOTIONS:
        raise SetupError(f"{place}: " + unknown("emotion", match["emotion"], EMOTIONS))
    return match.groupdict()


def _files(source: Path, folder: str, ending: str, unlisted: list[str]) -> dict[str, str]:
    """Return the files of a folder by name; those with other names are added to ``unlisted``."""
    files: dict[str, str] = {}
    for path in found(source, rf".+\.{ending}"):
        name = _spelt(PurePosixPath(path).stem)
        if PurePosixPath(path).parent.name != folder or not NAME.fullmatch(name):
            unlisted.append(path)
        elif name in files:
            raise SetupError(
                f"{source}: expected one file of {name}, found {files[name]} and {path}: remove one"
            )
        else:
            files[name] = path
    if not files:
        raise SetupError(
            f"{source}: expected {folder}/1001_DFA_ANG_XX.{ending} and others of such names, found "
            "none: give the folder that holds AudioWAV and VideoFlash"
        )
    first = source / min(files.values())
    with first.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise SetupError(
                f"{first}: expected sound or video, found a pointer of Git LFS: the files "
                "themselves come with `git lfs pull`"
            )
    return files


def _published(lists: Path) -> dict[str, tuple[str, str]]:
    """Return split and place of every clip in the lists, by name."""
    files = {"test": lists}
    if lists.is_dir():
        files = {
            split: lists / f"{split}.csv"
            for split in ("train", "val", "test")
            if split == "test" or (lists / f"{split}.csv").is_file()
        }
    listed: dict[str, tuple[str, str]] = {}
    for split, path in files.items():
        for row in headless(path, ("name", "label")):
            name = _spelt(row["name"])
            emotion = _parts(name, row.place)["emotion"]
            if row["label"] != emotion:
                row.one_of("label", "label", EMOTIONS)
                raise SetupError(
                    f"{row.place}: expected the label {emotion} of {name}, found {row['label']}"
                )
            if name in listed:
                raise SetupError(
                    f"{row.place}: expected every clip once, found {name}, which is at "
                    f"{listed[name][1]} too"
                )
            listed[name] = (split, row.place)
    return listed
