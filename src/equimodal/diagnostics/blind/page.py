"""What was found as a page of text, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from equimodal.diagnostics.blind.conditions import AS_IS
from equimodal.diagnostics.blind.found import Blind
from equimodal.diagnostics.interval import Interval

WIDTH = 78
NAME = 30  # columns before the first number
LEVEL = 21  # columns of a number with its interval


def page(found: Blind) -> str:
    """Return the page; the verdicts come last, where a terminal shows them."""
    where = f" of {found.data}" if found.data else ""
    lines = [
        *_wrapped(f"{found.model}: {found.samples:,} samples{where}"),
        "In per cent with 95% intervals over samples; what is lost is paired",
    ]
    for metric in found.metrics:
        lines += ["", *_table(found, metric)]
    lines += [*_shapley(found), *_dominance(found), *_conflicts(found)]
    for condition, reason in found.unable.items():
        lines += ["", *_wrapped(f"Not asked: {condition}: {reason}")]
    for note in found.notes:
        lines += ["", *_wrapped(f"Note: {note}")]
    lines.append("")
    for name in found.modalities:
        verdict = found.verdict(name)
        lines += _wrapped(f"{verdict.word.upper()}: {verdict.text}")
    return "\n".join(lines)


def _table(found: Blind, metric: str) -> Iterator[str]:
    yield f"{metric:<{NAME}}{'':<{LEVEL}}{'lost':<{LEVEL}}same"
    for condition in found.values:
        level = format(found.level(condition, metric))
        if condition == AS_IS:
            yield _row(str(condition), level)
            continue
        unchanged = found.unchanged(condition)
        same = "" if unchanged is None else f"{100 * unchanged.value:.0f}"
        lost = format(found.lost(condition, metric), "+")
        yield _row(str(condition), level, lost, same)


def _shapley(found: Blind) -> Iterator[str]:
    values = found.shapley() if found.samples else None
    if values is None or len(found.modalities) < 2:
        return
    yield ""
    yield f"What each adds to {found.metrics[0]} (Shapley value), by fill"
    for fill, by_name in values.intervals.items():
        for name, interval in by_name.items():
            yield _row(f"{name}, {fill}", format(interval, "+"))


def _dominance(found: Blind) -> Iterator[str]:
    if not found.samples:
        return
    known = {fill: found.dominance(fill) for fill in found.plan.fills}
    shown: dict[str, Interval] = {fill: of for fill, of in known.items() if of is not None}
    if shown:
        yield ""
        yield "Text dominance: text alone minus all but the text, by fill"
        for fill, interval in shown.items():
            yield _row(fill, format(interval, "+"))


def _conflicts(found: Blind) -> Iterator[str]:
    shares = found.conflicts.shares
    if shares:
        yield ""
        yield "Where they contradict each other, the model follows"
    for name, share in shares.items():
        yield _row(name, format(share), f"of {found.conflicts.samples[name]} samples")


def _row(name: str, *cells: str) -> str:
    first = name if len(name) < NAME - 3 else textwrap.shorten(name, NAME - 3, placeholder="...")
    return f"  {first:<{NAME - 2}}{''.join(f'{cell:<{LEVEL}}' for cell in cells)}".rstrip()


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
