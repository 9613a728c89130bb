"""One HTML page about which modalities a model uses."""

from __future__ import annotations

from pathlib import Path

from equimodal.diagnostics.blind import AS_IS, Blind
from equimodal.diagnostics.interval import Interval
from equimodal.report.dots import dotted
from equimodal.report.findings import Measured
from equimodal.report.page import Page, Section, rendered
from equimodal.report.picture import Cell, Picture, Table, joined, share
from equimodal.system.files import write_whole

TERMS = (
    "Every sample is asked with each modality as it is and with something else in its place: blank "
    "(a black picture, silence), the mean over the data, another sample's, or nothing at all. What "
    "is lost is paired by sample. Blank and mean may be unlike anything that the model was trained "
    "on, and what is removed changes the form of the prompt: another sample's is the first to "
    "believe.",
    "A modality is used if the interval of what is lost with another sample's lies above 0. It is "
    "ignored if the interval of how far scores move lies below a hundredth of the score, whatever "
    "stands for it. Intervals are 95% over samples.",
)


def write_page(found: Blind, out: Path) -> Path:
    """Write the page.

    Args:
        found: of `equimodal.diagnostics.blind.blind`.
        out: the file.
    """
    write_whole(out, rendered(page_of(found)))
    return out


def page_of(found: Blind) -> Page:
    """Say all that was found."""
    verdicts = {name: found.verdict(name) for name in found.modalities}
    words = [f"{name} is {verdict.word}" for name, verdict in verdicts.items()]
    unable = [f"Not asked: {name}: {reason}." for name, reason in found.unable.items()]
    data = f" of {found.data}" if found.data else ""
    return Page(
        title=f"{found.model}: which modalities it uses",
        subtitle=f"{found.samples:,} samples{data}. Modalities: {joined(found.modalities)}.",
        verdict=f"{joined(words).capitalize()}.",
        elaboration=" ".join(f"{verdict.text}." for verdict in verdicts.values()),
        notices=[*unable, *(f"{note[:1].upper()}{note[1:]}." for note in found.notes)],
        facts=[(f"{name}, as it is", _share(found.level(AS_IS, name))) for name in found.metrics],
        sections=[
            Section("conditions", "With something else in its place", pictures=_lost(found)),
            *(_levels(found, metric) for metric in found.metrics),
            Section("shapley", "What each modality adds", pictures=_shapley(found)),
            Section("text", "Text against the rest", tables=_text(found)),
        ],
        terms=TERMS,
    )


def _lost(found: Blind) -> list[Picture]:
    if not found.samples:
        return []
    single = {name: found.single(name) for name in found.modalities}
    series = {
        fill: {
            name: _measured(found.lost(condition))
            for name, conditions in single.items()
            for condition in conditions
            if condition.of(name) == fill
        }
        for fill in ("other", "blank", "mean", "removed")
    }
    picture = dotted(
        "lost",
        "What is lost",
        f"Points of {found.metrics[0]} that are lost when one modality is replaced, by what stands "
        "for it; paired, with 95% intervals over samples.",
        series,
        "lost (points)",
        "modality",
        line=0.0,
    )
    return [] if picture is None else [picture]


def _levels(found: Blind, metric: str) -> Section:
    rows = []
    for condition in found.values:
        unchanged = found.unchanged(condition)
        rows.append(
            [
                Cell(str(condition), str(condition)),
                _share(found.level(condition, metric)),
                _share(found.lost(condition, metric), "+"),
                _share(found.moved(condition, metric)),
                Cell("") if unchanged is None else _share(unchanged),
            ]
        )
    columns = ["condition", metric, "lost", "moved, up or down", "same answers"]
    table = Table(f"{metric} under every condition, in per cent", columns, rows, frozenset([0]))
    return Section(f"levels-{metric}", f"All conditions: {metric}", tables=[table])


def _shapley(found: Blind) -> list[Picture]:
    values = found.shapley() if found.samples else None
    if values is None or len(found.modalities) < 2:
        return []
    picture = dotted(
        "shapley",
        "Shapley values",
        f"Points of {found.metrics[0]} that a modality adds, averaged over the orders in which the "
        "modalities can join, by what stands for those that are left out.",
        {
            fill: {name: _measured(of) for name, of in by_name.items()}
            for fill, by_name in values.intervals.items()
        },
        "Shapley value (points)",
        "modality",
        line=0.0,
    )
    return [] if picture is None else [picture]


def _text(found: Blind) -> list[Table]:
    tables = []
    fills = found.plan.fills if found.samples else []
    rows = [
        [Cell(fill, fill), _share(of, "+")]
        for fill in fills
        if (of := found.dominance(fill)) is not None
    ]
    if rows:
        caption = "Text dominance: from text alone minus from all but the text, points"
        tables.append(Table(caption, ["fill", found.metrics[0]], rows))
    shares = found.conflicts.shares
    if shares:
        followed = [
            [
                Cell(name, name),
                _share(of),
                Cell(str(many := found.conflicts.samples[name]), many),
            ]
            for name, of in shares.items()
        ]
        caption = "Where modalities contradict each other, which one is followed, in per cent"
        tables.append(Table(caption, ["modality", "followed", "samples"], followed))
    return tables


def _share(of: Interval, sign: str = "") -> Cell:
    return share(of.value, (of.low, of.high), sign)


def _measured(of: Interval) -> Measured:
    return Measured(of.value, of.low, of.high)
