"""From what is lost without a modality to whether it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from equimodal.diagnostics.interval import Interval

TOLERANCE = 0.01  # of the score: what moves it by less is not used


@dataclass(frozen=True)
class Verdict:
    """Whether a modality is used.

    Attributes:
        word: "used", "ignored", "harmful" or "undecided".
        text: why.
    """

    word: str
    text: str


def judged(
    name: str, level: float, read: Sequence[tuple[str, Interval, Interval]], samples: int
) -> Verdict:
    """Judge by what stands for a modality: the first decides of use, all of them of none.

    Ignored: the interval of how far scores move, up or down, lies below a hundredth of the score,
    whatever stands for it. Used or harmful: the interval of what is lost lies above or below 0.

    Args:
        name: of the modality.
        level: the score with all as it is.
        read: for each condition its name, what is lost, and how far scores move.
        samples: how many there were.
    """
    if not read or not samples:
        return Verdict("undecided", f"{name}: nothing could stand for it, or there is no sample")
    limit = TOLERANCE * level
    most = max(read, key=lambda each: each[2].high)
    if most[2].high < limit:
        return Verdict(
            "ignored",
            f"{name}: scores move by {_points(most[2].value)} points on average with {most[0]}, "
            f"at most {_points(most[2].high)}: less than a hundredth of {100 * level:.3g}, "
            f"on {samples} samples",
        )
    condition, lost, moved = read[0]
    if lost.low > 0:
        return Verdict("used", f"{name}: {lost:+} points are lost with {condition}")
    if lost.high < 0:
        return Verdict("harmful", f"{name}: {_gained(lost):+} points are gained with {condition}")
    if level <= 0:
        return Verdict("undecided", f"{name}: the model is never right, so nothing can be lost")
    return Verdict(
        "undecided",
        f"{name}: scores move by {_points(moved.value)} points on average with {condition}, up and "
        f"down: {lost:+} are lost. More samples would tell less from nothing",
    )


def _gained(lost: Interval) -> Interval:
    return Interval(-lost.value, -lost.high, -lost.low)


def _points(value: float) -> str:
    return f"{100 * value:.3g}"
