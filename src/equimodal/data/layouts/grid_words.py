"""The six words of a sentence of GRID: what its name says, and when its alignment says it."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from equimodal.data.layouts.tables import text_of
from equimodal.errors import SetupError, unknown

UNITS = 25_000  # of an alignment in a second: 1,000 for each of 25 frames
FRAMES = 25  # in a second; copies of the corpus exist whose alignments count these
SILENCE = ("sil", "sp")


def _initials(*words: str) -> dict[str, str]:
    return {word[0]: word for word in words}


# The words of each slot by the character of a name that stands for them.
SLOTS: Mapping[str, Mapping[str, str]] = {
    "command": _initials("bin", "lay", "place", "set"),
    "colour": _initials("blue", "green", "red", "white"),
    "preposition": _initials("at", "by", "in", "with"),
    "letter": _initials(*string.ascii_lowercase.replace("w", "")),
    "digit": {
        "z": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six",
        "7": "seven", "8": "eight", "9": "nine",
    },
    "adverb": _initials("again", "now", "please", "soon"),
}  # fmt: skip


class AlignmentError(Exception):
    """An alignment that does not say when the words of its sentence are spoken."""


@dataclass(frozen=True)
class Word:
    """A word and when it is spoken, in seconds."""

    text: str
    start: float
    end: float


def spoken(sentence: str) -> dict[str, str]:
    """Return the words of a sentence by slot, from its name.

    >>> spoken("bbaf2n")["colour"], spoken("bbaf2n")["digit"]
    ('blue', 'two')
    """
    return {
        slot: known[letter] for (slot, known), letter in zip(SLOTS.items(), sentence, strict=True)
    }


def words(path: Path, sentence: str) -> tuple[dict[str, Word], float]:
    """Return the words of a sentence by slot, and its length in seconds, from its alignment.

    Silence is passed over. An alignment as a whole shorter than a frame counts frames.

    Raises:
        AlignmentError: it does not hold six words with times, or not those of the name.
        SetupError: it cannot be read, or holds a word that is not of GRID.
    """
    timed: dict[int, Word] = {}
    length = 0
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            raise AlignmentError(f"alignment: line {number}: expected start, end and word")
        start, end = int(parts[0]), int(parts[1])
        length = max(length, end)
        if parts[2] in SILENCE:
            continue
        if start >= end:
            raise AlignmentError(f"alignment: line {number}: a word of no length")
        timed[number] = Word(parts[2], start, end)
    if len(timed) != len(SLOTS):
        raise AlignmentError(f"alignment: {len(timed)} words, expected {len(SLOTS)}")
    named = spoken(sentence)
    for (number, word), (slot, known) in zip(timed.items(), SLOTS.items(), strict=True):
        if word.text not in known.values():
            raise SetupError(f"{path}, line {number}: {unknown(slot, word.text, known.values())}")
        if word.text != named[slot]:
            raise AlignmentError(f"alignment: line {number}: {word.text}, expected {named[slot]}")
    unit = FRAMES if length < UNITS / FRAMES else UNITS
    seconds = (Word(word.text, word.start / unit, word.end / unit) for word in timed.values())
    return dict(zip(SLOTS, seconds, strict=True)), length / unit
