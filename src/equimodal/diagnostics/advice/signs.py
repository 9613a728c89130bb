"""Signs of imbalance in the numbers of a diagnosis."""

from __future__ import annotations

from collections.abc import Iterator

from equimodal.diagnostics.advice.diagnosis import Diagnosis
from equimodal.diagnostics.advice.verdicts import Reason
from equimodal.diagnostics.interval import Interval

# Smaller gaps are no reason to act, however surely they are not 0: five joint runs on `watch` that
# differ in their seed alone are 4 points apart.
LOST = 0.02
# A modality that is read this much below what it could be is called ignored, if it is also used
# less than another: by the interval, so that it is at least as much.
FAR = 0.1


def untold(found: Diagnosis) -> tuple[str, ...]:
    """Return the modalities that tell nothing alone, neither trained alone nor under a probe.

    A slow encoder that was trained alone too briefly is at chance, whatever its modality knows.
    """
    largest = found.accuracy.value - found.above_chance.value  # share of the most frequent class
    probed = {name for name, of in (found.probes or {}).items() if of.low > largest}
    silent = {name for name, tells in (found.alone_tells or {}).items() if not tells}
    return tuple(name for name in found.modalities if name in silent - probed)


def at_chance(found: Diagnosis) -> tuple[str, ...]:
    """Return the modalities from which alone the head reads nothing, though they have something."""
    silent = untold(found)
    return tuple(name for name, of in found.read.items() if not of.tells and name not in silent)


def far_below(found: Diagnosis) -> tuple[str, ...]:
    """Return the modalities that are used less than another and read far below what they could be.

    Both by intervals that are paired over samples. To be read below what they are alone is common
    to all modalities of a joint model, hence the first condition.
    """
    known = found.shortfall or {}
    return tuple(name for name, of in known.items() if of.low > FAR and _used_less(found, name))


def ignored(found: Diagnosis) -> tuple[str, ...]:
    """Return the modalities that are ignored, wholly or in part, in order."""
    either = {*at_chance(found), *far_below(found)}
    return tuple(name for name in found.modalities if name in either)


def held_back(found: Diagnosis) -> tuple[str, ...]:
    """Return the modalities whose encoder is worse than when it is trained alone."""
    silent = untold(found)
    return tuple(
        name
        for name, of in (found.gap or {}).items()
        if of.low > 0 and of.value >= LOST and name not in silent
    )


def in_conflict(found: Diagnosis) -> tuple[str, ...]:
    """Return the modalities on whose encoder joint and unimodal loss pull apart."""
    cosines = (found.gradients or {}).get("cosine", {})
    return tuple(name for name, of in cosines.items() if of is not None and of["high"] < 0)


def signs(found: Diagnosis) -> Iterator[Reason]:
    """Say in words what was seen of each modality."""
    for name in at_chance(found):
        read = found.read[name]
        yield Reason(
            f"{name} is ignored: read alone through the head it is not told from chance.",
            {"read alone": read.accuracy, "beyond no modality": read.beyond},
        )
    for name in far_below(found):
        if name not in at_chance(found):
            yield Reason(
                f"{name} is ignored in part: read alone through the head it is "
                f"{(found.shortfall or {})[name]} points below what its encoder tells, trained "
                "alone or under a probe.",
                {
                    "read alone": found.read[name].accuracy,
                    "shortfall": (found.shortfall or {})[name],
                },
            )
    for name, behind in found.behind.items():
        if behind.low > 0:
            yield Reason(
                f"{name} is used less than {found.leading}: its Shapley value is lower.",
                {"difference": behind},
            )
    for name in held_back(found):
        yield Reason(
            f"The encoder of {name} is worse than when trained alone.",
            {"gap": (found.gap or {})[name], "alone": (found.alone or {})[name]},
        )
    if found.leading in held_back(found):
        yield Reason(
            f"{found.leading} leads, and is held back itself: what slows it down costs more.",
        )
    for name in in_conflict(found):
        yield Reason(
            f"On the encoder of {name} the joint and the unimodal loss pull apart.",
            {"cosine": Interval(**(found.gradients or {})["cosine"][name])},
        )


def percent(of: Interval) -> str:
    """Spell an interval in points, with signs."""
    return f"{of:+}"


def _used_less(found: Diagnosis, name: str) -> bool:
    return name in found.behind and found.behind[name].low > 0
