"""Where each modality leads: which of them is right on its own, class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from equimodal.report.findings import Findings
from equimodal.report.picture import (
    GRID,
    INK,
    PALE,
    QUIET,
    SERIES,
    Cell,
    Key,
    Panel,
    Picture,
    Table,
    number,
    share,
    short,
)  # fmt: skip

MOST_CLASSES = 30  # that a figure shows
WRONG = ("neither", "none")


def classes(findings: Findings) -> Picture | None:
    """Draw, for each class, how often which modality was right."""
    entries = findings.parts("agreement", "per_class")
    if not entries:
        return None
    parts = {name: _parts(entry) for name, entry in entries.items()}
    kinds = list(dict.fromkeys(kind for part in parts.values() for kind in part))
    kinds.sort(key=lambda kind: (kind in WRONG, not kind.startswith("only")))
    only = [kind for kind in kinds if kind.startswith("only")]
    names = [*findings.classes, *(name for name in parts if name not in findings.classes)]
    known = [name for name in names if any(map(math.isfinite, parts.get(name, {}).values()))]
    if not known or not kinds:
        return None
    first = only[0] if only else kinds[0]
    known.sort(key=lambda name: parts[name].get(first, 0) - sum(
        parts[name].get(kind, 0) for kind in only[1:]
    ))  # fmt: skip
    half = MOST_CLASSES // 2
    shown = known if len(known) <= MOST_CLASSES else known[:half] + known[-half:]
    looks = _looks(kinds)

    def draw(axes: Axes) -> None:
        for position, name in enumerate(shown):
            start = 0.0
            for kind in kinds:
                width = 100 * max(0.0, _or_zero(parts[name].get(kind)))
                axes.barh(position, width, 0.72, start, color=looks[kind], ec="#ffffff", lw=0.6)
                start += width
        axes.set_yticks(range(len(shown)), [short(name) for name in shown])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlim(0, 100)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(color=GRID, axis="x")
        axes.set_xlabel("share of the class (%)")

    caption = (
        "Which modality is right on its own, by class; at the top the classes where "
        f"{first.removeprefix('only ')} leads most."
    )
    if len(shown) < len(known):
        caption += f" The {half} classes at either end; the table has all {len(known)}."
    overall = _parts(findings.found.get("agreement") or {})
    body = [("all classes", overall)] if overall else []
    body += [(name, parts.get(name, {})) for name in names]
    said = "; ".join(f"{k} {100 * v:.0f}%" for k, v in overall.items() if math.isfinite(v))
    leads = [f"{name} {100 * parts[name].get(first, 0):.0f}%" for name in known[-3:][::-1]]
    return Picture(
        "classes",
        "Where each modality leads",
        caption,
        f"Shares of right answers by class. Over all: {said}. The classes where most are right by "
        f"{first}: {', '.join(leads)}.",
        [Panel("Right on its own, by class", draw, 0.7 + 0.19 * len(shown), wide=True)],
        [Key(kind, looks[kind], "") for kind in kinds],
        Table(
            "Share of the samples in per cent",
            ["class", *kinds],
            [[Cell(name, name), *(share(part.get(kind)) for kind in kinds)] for name, part in body],
            frozenset([0] if overall else []),
        ),
    )


def _looks(kinds: Sequence[str]) -> dict[str, str]:
    only = [kind for kind in kinds if kind.startswith("only")]
    colours = {kind: SERIES[(0, 5, 2, 4, 1, 3)[n % 6]] for n, kind in enumerate(only)}
    others = {"several, not all": INK, "both": QUIET, "all": QUIET}
    return {kind: colours.get(kind) or others.get(kind, PALE) for kind in kinds}


def _parts(entry: Mapping[str, object]) -> dict[str, float]:
    """Return the shares of an agreement table, those of single modalities as "only NAME".

    What is right by some of several modalities, but not by all, is the rest.
    """
    findings = Findings(dict(entry))
    only = {f"only {name}": m.value for name, m in findings.measured("only").items()}
    whole = {n: m.value for n, m in findings.measured().items() if n in ("both", "neither")}
    rest = 1 - sum(only.values()) - sum(whole.values())
    if len(only) > 2:
        names = {"both": "all", "neither": "none"}
        whole = {names[name]: value for name, value in whole.items()}
        only["several, not all"] = max(0.0, rest)
    return {**only, **whole}


def leads(findings: Findings) -> list[Table]:
    """Return the classes in which a modality leads, where any were found."""
    found = findings.leads()
    if not found:
        return []
    return [
        Table(
            "Classes in which a modality leads the others, in points",
            ["class", "led by", "samples", "lead"],
            [
                [
                    Cell(each.label, each.label),
                    Cell(each.modality, each.modality),
                    number(each.samples, ".0f"),
                    share(each.gap.value, (each.gap.low, each.gap.high), "+"),
                ]
                for each in found
            ],
        )
    ]


def _or_zero(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0
