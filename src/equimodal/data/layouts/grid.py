"""GRID: spoken sentences of six words, cut into words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar, Literal

from equimodal.data.batches.view import View
from equimodal.data.layouts.clip import Clip, Frames, Listing, Sound
from equimodal.data.layouts.collected import Collected, some
from equimodal.data.layouts.grid_words import SLOTS, AlignmentError, Word, spoken, words
from equimodal.data.layouts.layout import Layout
from equimodal.data.layouts.paths import found
from equimodal.data.preparing.recipe import Recipe
from equimodal.errors import SetupError, unknown

TEST = 0.2
NAME = re.compile(r"[blps][bgrw][abiw][a-vx-z][z1-9][anps]")
PROTOCOLS = ("sentences", "talkers")
ABOUT = {
    "title": "GRID audio-visual sentence corpus",
    "source": "https://spandh.dcs.shef.ac.uk/gridcorpus/",
    "authors": "M. Cooke, J. Barker, S. Cunningham, X. Shao",
    "licence": "free for research, as its authors state",
    "citation": (
        "Cooke et al., An audio-visual corpus for speech perception and automatic speech "
        "recognition, Journal of the Acoustical Society of America 120(5), 2006"
    ),
    "caution": (
        "The splits are of this library; papers cut GRID in many ways. The copy at Zenodo (record "
        "3625687) is said to be CC BY 4.0, which was not verified."
    ),
}


@dataclass(frozen=True)
class GRID(Layout):
    """GRID, words of spoken sentences: s1/bbaf2n.mpg and align/s1/bbaf2n.align.

    Folders above s1 may have any names; videos may be .mpg, .avi or .mp4. Talkers without any
    video are passed over.

    Args:
        source: the folder that holds both.
        slots: which words of a sentence: some of command, colour, preposition, letter, digit and
            adverb; the class is the word.
        margin: seconds of sound and video to keep before and after a word.
        protocol: "sentences": a fifth of the sentences for test; "talkers": whole talkers for test,
            which takes three talkers or more.
        validation: share of the training words to validate on: whole sentences, or whole talkers.
    """

    slots: tuple[str, ...] = ("letter",)
    margin: float = 0.0
    protocol: Literal["sentences", "talkers"] = "sentences"
    validation: float = 0.1

    name: ClassVar[str] = "grid"
    # Ours: a letter lasts a fifth of a second, of which one frame in 25 would be little; hops of
    # 10 ms are usual for speech.
    recipe: ClassVar[Recipe] = Recipe(fps=25.0)
    view: ClassVar[View] = View(
        spectrogram="log-mel", n_fft=512, hop=160, mels=40, frames=3, size=112, scale=(0.5, 1.0)
    )

    def listing(self) -> Listing:
        self._refuse_unknown()
        unlisted: list[str] = []
        videos = _sentences(self, r".+\.(mpg|mpeg|avi|mp4)", unlisted)
        aligned = _sentences(self, r".+\.align", unlisted)
        for files, what in ((videos, "s1/bbaf2n.mpg"), (aligned, "align/s1/bbaf2n.align")):
            if not files:
                raise SetupError(
                    f"{self.source}: expected {what} and others of such names, found none"
                )
        talkers = sorted({talker for talker, _ in videos})
        if self.protocol == "talkers" and len(talkers) < 3:
            raise SetupError(
                f"{self.source}: the protocol talkers needs three talkers or more, one for each of "
                f"train, val and test, found {', '.join(talkers)}: use the protocol sentences"
            )
        # Alignments come in one archive for all talkers, videos in one for each: whose videos were
        # not fetched, or as those of s21 never published, is not wanted.
        unlisted += [path for key, path in aligned.items() if key[0] not in talkers]
        aligned = {key: path for key, path in aligned.items() if key[0] in talkers}
        collected = Collected(self.name, self.source)
        for key in sorted({*videos, *aligned}):
            self._add(collected, key, videos.get(key), aligned.get(key))
        collected.hold_out("test", TEST)
        what = "whole talkers" if self.protocol == "talkers" else "whole sentences"
        protocol = (
            f"{self.protocol}: test: {TEST} of the words, {what}, by a hash of their names; "
            f"{collected.validated(self.validation, what.removeprefix('whole '))}; "
            f"talkers: {some(talkers)}; slots: {', '.join(self.slots)}"
        )
        classes = [word for slot in SLOTS if slot in self.slots for word in SLOTS[slot].values()]
        return collected.listing(classes, protocol, ABOUT, sorted(unlisted))

    def _refuse_unknown(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise SetupError(unknown("protocol", self.protocol, PROTOCOLS))
        if isinstance(self.slots, str) or not self.slots or len(set(self.slots)) < len(self.slots):
            raise SetupError(f"slots: expected names, none twice, found {self.slots!r}")
        for slot in self.slots:
            if slot not in SLOTS:
                raise SetupError("slots: " + unknown("slot", slot, SLOTS))
        if not 0 <= self.margin < 3:
            raise SetupError(f"margin: expected 0 to 3 seconds, found {self.margin}")

    def _add(
        self, collected: Collected, key: tuple[str, str], video: str | None, align: str | None
    ) -> None:
        """Add the wanted words of a sentence."""
        talker, sentence = key
        place = video or align or ""
        reason = "no such file"
        timed, length = dict[str, Word](), 0.0
        try:
            if align:
                timed, length = words(self.source / align, sentence)
        except AlignmentError as error:
            reason = str(error)
        # What lacks its alignment still has its words in its name: it is listed as left out.
        for slot, word in spoken(sentence).items():
            if slot not in self.slots:
                continue
            file = video or f"{talker}/{sentence}.mpg"
            start, end = (timed[slot].start, timed[slot].end) if timed else (0.0, 0.0)
            span = (max(0.0, start - self.margin), min(length, end + self.margin))
            clip = Clip(
                f"{talker}/{sentence}/{slot}",
                word,
                "train",
                {"audio": Sound(file, *span), "visual": Frames(file, *span)},
                talker if self.protocol == "talkers" else f"{talker}/{sentence}",
                {"talker": talker, "slot": slot},
            )
            if video and timed:
                collected.add(clip, place)
            elif video:
                collected.miss(clip, align or f"align/{talker}/{sentence}.align", place, reason)
            else:
                collected.miss(clip, file, place)


def _sentences(layout: GRID, pattern: str, unlisted: list[str]) -> dict[tuple[str, str], str]:
    """Return files by talker and sentence; those with other names are added to ``unlisted``."""
    files: dict[tuple[str, str], str] = {}
    for path in found(layout.source, pattern):
        talkers = [part for part in PurePosixPath(path).parts[:-1] if re.fullmatch(r"s\d+", part)]
        sentence = PurePosixPath(path).stem
        if not talkers or not NAME.fullmatch(sentence):
            unlisted.append(path)
            continue
        key = (talkers[-1], sentence)
        if key in files:
            raise SetupError(
                f"{layout.source}: expected one file of {'/'.join(key)}, found {files[key]} and "
                f"{path}: remove one"
            )
        files[key] = path
    return files
