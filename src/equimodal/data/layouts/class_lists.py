"""Which classes a data set has, where that is a choice: the lists of Kinetics-Sounds."""

from __future__ import annotations

from pathlib import Path

from equimodal.data.layouts.tables import text_of
from equimodal.errors import SetupError, unknown

# The answer of AdaMML's authors to "which categories" (github.com/IBM/AdaMML, issue 3): names of
# the released Kinetics-400, in order. OGM-GE publishes lists of videos with numbers 0 to 30 and no
# names; the two of its videos whose class could be looked up (playing piano 16, tapping pen 29)
# have the places of their names here.
THIRTY_ONE = (
    "blowing nose", "blowing out candles", "bowling", "chopping wood", "dribbling basketball",
    "laughing", "mowing lawn", "playing accordion", "playing bagpipes", "playing bass guitar",
    "playing clarinet", "playing drums", "playing guitar", "playing harmonica", "playing keyboard",
    "playing organ", "playing piano", "playing saxophone", "playing trombone", "playing trumpet",
    "playing violin", "playing xylophone", "ripping paper", "shoveling snow", "shuffling cards",
    "singing", "stomping grapes", "tap dancing", "tapping guitar", "tapping pen", "tickling",
)  # fmt: skip

# The answer of CrissCross's authors (github.com/pritamqu/CrissCross, issue 4): one more.
THIRTY_TWO = tuple(sorted((*THIRTY_ONE, "strumming guitar")))

KINETICS_SOUNDS = {"31": THIRTY_ONE, "32": THIRTY_TWO}

# Sizes in use of which no list can be given, and why.
UNPUBLISHED = {
    "33": "the papers with 33 classes do not say which they are",
    "34": (
        "the 34 names of Arandjelovic and Zisserman (2017, appendix A.1) are older than the "
        "release of Kinetics: seven are not in it (fingerpicking, patting, typing, blowing out, "
        "dribbling ball, stomping, mowing the lawn by pushing lawnmower), and papers replace them "
        "differently"
    ),
}


def kinetics_sounds(choice: str | None) -> tuple[str, ...]:
    """Return a list of classes.

    Args:
        choice: "31" or "32", or the path of a file with one class a line.

    Raises:
        SetupError: nothing was chosen, or the list is not known.
    """
    known = (
        "31 (of AdaMML; OGM-GE has 31 too), 32 (of CrissCross: and strumming guitar), or the path "
        "of a file with one class a line"
    )
    if choice is None:
        raise SetupError(f"classes: Kinetics-Sounds has no one list of classes: choose {known}")
    if choice in KINETICS_SOUNDS:
        return KINETICS_SOUNDS[choice]
    if choice in UNPUBLISHED:
        raise SetupError(f"classes: {choice}: {UNPUBLISHED[choice]}: choose {known}")
    if not Path(choice).is_file():
        raise SetupError(
            f"classes: {unknown('list of classes', choice, KINETICS_SOUNDS)}, or no such file"
        )
    return from_file(Path(choice))


def from_file(path: Path) -> tuple[str, ...]:
    """Return the classes of a file with one a line, in its order.

    Raises:
        SetupError: it cannot be read, has fewer than two, or one twice.
    """
    lines: dict[str, int] = {}
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        name = line.strip()
        if name in lines:
            raise SetupError(
                f"{path}, line {number}: expected every class once, found {name} as in line "
                f"{lines[name]}"
            )
        if name:
            lines[name] = number
    if len(lines) < 2:
        raise SetupError(f"{path}: expected two classes or more, one a line, found {len(lines)}")
    return tuple(lines)
