"""AV-MNIST: handwritten digits of MNIST with spoken ones of the Free Spoken Digit Dataset."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import PurePosixPath
from typing import ClassVar

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Listing, Picture, Sound
from equimodal.data.layouts.collected import Collected
from equimodal.data.layouts.idx import image_count, labels
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import found
from equimodal.data.layouts.splits import held_out
from equimodal.data.preparing.recipe import Recipe
from equimodal.errors import SetupError, unknown

DIGITS = tuple("0123456789")
IDX = r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?"
RECORDING = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_\d+")
ABOUT = {
    "title": "MNIST digits paired with recordings of the Free Spoken Digit Dataset",
    "source": (
        "http://yann.lecun.com/exdb/mnist/ and https://github.com/Jakobovski/free-spoken-digit-dataset"
    ),
    "authors": "Y. LeCun, C. Cortes, C. Burges (MNIST); Z. Jackson and others (FSDD)",
    "licence": (
        "Creative Commons Attribution-ShareAlike: 3.0 for MNIST, 4.0 for the Free Spoken Digit "
        "Dataset"
    ),
    "citation": (
        "LeCun et al., Gradient-based learning applied to document recognition, Proceedings of the "
        "IEEE 86(11), 1998; Jackson, Free Spoken Digit Dataset, 2016"
    ),
    "caution": (
        "Not the AV-MNIST of Vielzeuf et al. (2018), whose images are reduced by PCA to a quarter "
        "of their energy and whose sounds are of TIDIGITS with noise: numbers do not compare. Here "
        "every image is paired with a recording of its digit, and recordings are used many times."
    ),
}


@dataclass(frozen=True)
class AVMNIST(Layout):
    """AV-MNIST, digits seen and heard: files of MNIST, and recordings such as 7_theo_12.wav.

    The four IDX files of MNIST, packed or not, and the Free Spoken Digit Dataset, in any folders.

    Args:
        source: the folder that holds both.
        test_speakers: those heard in the test split alone.
        validation: share of the training images to validate on; their recordings are of a speaker,
            or several, that is not heard in training.
    """

    test_speakers: tuple[str, ...] = ("theo", "yweweler")
    validation: float = 0.1

    name: ClassVar[str] = "av-mnist"
    # Ours: recordings are of 8 kHz, half a second long on average. Digits are neither mirrored nor
    # cropped.
    recipe: ClassVar[Recipe] = Recipe(rate=8000)
    view: ClassVar[View] = View(
        seconds=1.0,
        spectrogram="log-mel",
        n_fft=256,
        hop=128,
        mels=64,
        size=28,
        scale=(1.0, 1.0),
        flip=0.0,
    )

    def listing(self) -> Listing:
        unlisted: list[str] = []
        recordings = _recordings(self, unlisted)
        speakers = self._speakers(recordings)
        collected = Collected(self.name, self.source)
        spoken = {
            split: _in_turn(split, [recordings[speaker] for speaker in names])
            for split, names in speakers.items()
        }
        for part in ("train", "t10k"):
            path, digits = _images(self, part)
            split_of = dict.fromkeys(range(len(digits)), "test")
            if part == "train":
                members = ((str(number), DIGITS[digit]) for number, digit in enumerate(digits))
                moved = held_out(members, self.validation, "val")
                for number in split_of:
                    split_of[number] = "val" if str(number) in moved else "train"
            for number, digit in enumerate(digits):
                split, image = split_of[number], f"{part}-{number:05d}"
                sound = next(spoken[split][DIGITS[digit]])
                collected.add(_clip(image, DIGITS[digit], split, path, number, sound), path)
        protocol = "; ".join(
            f"{split}: images of the {'test' if split == 'test' else 'training'} files, spoken by "
            f"{', '.join(names)}"
            for split, names in speakers.items()
        )
        protocol += f"; val: {self.validation:.3g} of the training images, by a hash"
        return collected.listing(DIGITS, protocol, ABOUT, unlisted)

    def _speakers(self, recordings: Mapping[str, Mapping[str, list[str]]]) -> dict[str, list[str]]:
        """Return who is heard in which split."""
        if isinstance(self.test_speakers, str) or not self.test_speakers:
            raise SetupError(f"test_speakers: expected names, found {self.test_speakers!r}")
        for speaker in self.test_speakers:
            if speaker not in recordings:
                raise SetupError("test_speakers: " + unknown("speaker", speaker, recordings))
        others = sorted(set(recordings) - set(self.test_speakers))
        if len(others) < 2:
            raise SetupError(
                f"{self.source}: expected two speakers or more beside those of test, for train and "
                f"val, found {', '.join(others) or 'none'}"
            )
        members = [
            (speaker, digit)
            for speaker in others
            for digit, of in recordings[speaker].items()
            for _ in of
        ]
        val = held_out(members, self.validation, "val")
        return {
            "train": [speaker for speaker in others if speaker not in val],
            "val": sorted(val),
            "test": sorted(self.test_speakers),
        }


def _recordings(layout: AVMNIST, unlisted: list[str]) -> dict[str, dict[str, list[str]]]:
    """Return the recordings by speaker and digit; other sounds are added to ``unlisted``."""
    recordings: dict[str, dict[str, list[str]]] = {}
    places: dict[str, str] = {}
    for path in found(layout.source, r".+\.wav"):
        stem = PurePosixPath(path).stem
        match = RECORDING.fullmatch(stem)
        if match is None:
            unlisted.append(path)
            continue
        if stem in places:
            raise SetupError(
                f"{layout.source}: expected one file {stem}.wav, found {places[stem]} and {path}: "
                "remove one"
            )
        places[stem] = path
        by_digit = recordings.setdefault(match["speaker"], {})
        by_digit.setdefault(match["digit"], []).append(path)
    if not recordings:
        raise SetupError(
            f"{layout.source}: expected recordings such as 7_theo_12.wav of the Free Spoken Digit "
            "Dataset, found none"
        )
    return recordings


def _images(layout: AVMNIST, part: str) -> tuple[str, bytes]:
    """Return the file of images of a part of MNIST, and their digits."""
    files: dict[str, str] = {}
    for path in found(layout.source, IDX):
        name = PurePosixPath(path).name
        match = re.fullmatch(IDX, name, re.IGNORECASE)
        if match is None or match[1].lower() != part:
            continue
        kind = match[2].lower()
        # Some programs leave the unpacked file beside the packed one: names are in order, so that
        # the unpacked one comes first.
        if kind in files and path != f"{files[kind]}.gz":
            raise SetupError(
                f"{layout.source}: expected one file of {part} {kind}, found {files[kind]} and "
                f"{path}: remove one"
            )
        files.setdefault(kind, path)
    for kind, axes in (("images", 3), ("labels", 1)):
        if kind not in files:
            raise SetupError(
                f"{layout.source}: expected {part}-{kind}-idx{axes}-ubyte or "
                f"{part}-{kind}-idx{axes}-ubyte.gz, found neither"
            )
    digits = labels(layout.source / files["labels"])
    count = image_count(layout.source / files["images"])
    if count != len(digits) or max(digits, default=0) > 9:
        raise SetupError(
            f"{layout.source / files['labels']}: expected a digit for each of {count} images of "
            f"{files['images']}, found {len(digits)} labels up to {max(digits, default=0)}"
        )
    return files["images"], digits


def _in_turn(split: str, speakers: Sequence[Mapping[str, list[str]]]) -> dict[str, Iterator[str]]:
    """Return the recordings of each digit in the order of a hash, over and over."""
    turns: dict[str, Iterator[str]] = {}
    for digit in DIGITS:
        paths = [path for recordings in speakers for path in recordings.get(digit, [])]
        if not paths:
            raise SetupError(
                f"expected recordings of {digit} by the speakers of {split}, found none"
            )
        turns[digit] = cycle(sorted(paths, key=_rank))
    return turns


def _rank(path: str) -> bytes:
    return hashlib.sha256(PurePosixPath(path).name.encode()).digest()


def _clip(image: str, digit: str, split: str, path: str, number: int, sound: str) -> Clip:
    recording = PurePosixPath(sound).stem
    speaker = recording.split("_")[1]
    return Clip(
        image,
        digit,
        split,
        {"image": Picture(path, number), "audio": Sound(sound)},
        speaker,
        {"recording": recording},
    )
