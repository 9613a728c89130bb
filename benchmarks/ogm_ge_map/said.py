"""The map in words and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.ogm_ge_map.design import Design
from benchmarks.ogm_ge_map.trials import Key, Tried
from benchmarks.ogm_ge_map.verdicts import NAMES, Verdict, by_chance, named, region, untuned

from equimodal.compare.statistics import Estimate
from equimodal.data import Synthetic


def answer(found: Sequence[Verdict], further: Sequence[Verdict]) -> str:
    """Return the straight answer, with the second region first.

    Args:
        found: the verdicts of the map.
        further: those with larger learning rates on the cells in which joint training was beaten.
    """
    count, said = len(found), []
    for rival in ("multi-loss", "joint"):
        better, worse = (named(found, rival, where) for where in ("better", "worse"))
        words = f"OGM-GE beats {NAMES[rival]} in {_of(better, count)}"
        if not better:
            words = f"The region in which OGM-GE beats {NAMES[rival]} is empty: {_of([], count)}"
        most = f", by {_points(better, rival)} points" if better else ""
        least = f", by {_points(worse, rival)} points" if worse else ""
        said.append(f"{words}{most}; it is worse in {len(worse)}{least}.")
    again = kept_apart(found, further)
    if again:
        still = len(named(again, "joint", "better"))
        said.append(
            f"With larger learning rates for all methods {still or 'none'} of the {len(again)} "
            "remain."
        )
    return (
        f"{' '.join(said)} If nothing differed, {by_chance(count):.0f} of {count} intervals would "
        "be above 0 by chance, and as many below."
    )


def table(found: Sequence[Verdict]) -> str:
    """Return a row for each cell in Markdown."""
    head = [
        "| cell | best possible | joint | multi-loss | OGM-GE | against joint | against multi-loss "
        "| `--only` |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    return "\n".join([*head, *map(_row, found)])


def chosen(found: Sequence[Verdict]) -> str:
    """Return which trial stood in each cell, in Markdown."""
    head = ["| cell | joint | multi-loss | OGM-GE |", "|---|---|---|---|"]
    body = []
    for each in found:
        cells = [
            f"{of.trial.rate:g}" + ("" if of.trial.knob is None else f", {of.trial.knob:g}")
            for of in each.chosen.values()
        ]
        body.append(f"| {each.cell.name} | {' | '.join(cells)} |")
    return "\n".join([*head, *body])


def regions(found: Sequence[Verdict]) -> str:
    """Return the cells of each region, by name and with their differences."""
    lines = []
    for rival, spelt in NAMES.items():
        for where in ("better", "worse"):
            inside = [f"{of.cell.name} {of.against[rival]:+}" for of in named(found, rival, where)]
            lines.append(f"- **{where.title()} than {spelt}**: {'; '.join(inside) or 'nowhere'}.")
    return "\n".join(lines)


def same_rate(design: Design, found: Mapping[Key, Tried]) -> str:
    """Return what comparisons at one rate, without tuning, would have found, in Markdown."""
    head = ["| learning rate | alpha | better | worse | of |", "|---:|---:|---:|---:|---:|"]
    body = []
    for trial in design.trials["ogm-ge"]:
        sides = [region(each) for each in untuned(design, found, trial)]
        counts = f"{sides.count('better')} | {sides.count('worse')} | {len(sides)}"
        body.append(f"| {trial.rate:g} | {trial.knob:g} | {counts} |")
    return "\n".join([*head, *body])


def at_the_end(found: Sequence[Verdict], largest: float) -> str:
    """Return in how many settings joint training took the largest rate there was."""
    own = [each for each in found if each.cell.shared == each.cell.name]
    ended = sum(each.chosen["joint"].trial.rate == largest for each in own)
    return (
        f"Joint training chose the largest learning rate, {largest:g}, in {ended} of the "
        f"{len(own)} settings that differ for it: it is not tuned to the end there."
    )


def beyond(found: Sequence[Verdict], further: Sequence[Verdict]) -> str:
    """Return what became of the cells in which joint training was beaten, in Markdown."""
    before = {each.cell.name: each for each in found}
    head = [
        "| cell | joint: rate, accuracy | OGM-GE: rate, alpha, accuracy | against joint before "
        "| with larger rates | against multi-loss |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    body = []
    for each in kept_apart(found, further):
        joint, ours = each.chosen["joint"], each.chosen["ogm-ge"]
        cells = [
            spelt(each),
            f"{joint.trial.rate:g}, {100 * joint.test.mean:.1f}",
            f"{ours.trial.rate:g}, {ours.trial.knob:g}, {100 * ours.test.mean:.1f}",
            f"{before[each.cell.name].against['joint']:+}",
            *(_bold(each.against[rival]) for rival in NAMES),
        ]
        body.append(f"| {' | '.join(cells)} |")
    return "\n".join([*head, *body])


def kept_apart(found: Sequence[Verdict], further: Sequence[Verdict]) -> list[Verdict]:
    """Return the further verdicts on those cells in which joint training was beaten."""
    beaten = [each.cell.name for each in named(found, "joint", "better")]
    by_name = {each.cell.name: each for each in further}
    return [by_name[name] for name in beaten]


def spelt(of: Verdict) -> str:
    """Return a cell in words."""
    return f"{of.cell.row}: {of.cell.label}"


def _row(of: Verdict) -> str:
    reached = [f"{each.test.mean * 100:.1f}" for each in of.chosen.values()]
    against = [_bold(each) for each in of.against.values()]
    return " | ".join([f"| {spelt(of)}", _possible(of), *reached, *against, f"`{of.cell.name}` |"])


def _bold(of: Estimate) -> str:
    return f"{of:+}" if region(of) == "open" else f"**{of:+}**"


def _possible(of: Verdict) -> str:
    """Return the accuracy of the best classifier that there can be, where that is known."""
    setting = of.cell.setting
    if setting["data"] != "synthetic":
        return ""
    shares = dict(zip(setting["modalities"], setting["informed"], strict=True))
    truth = Synthetic(shares, redundancy=setting["redundancy"], synergy=setting["synergy"])
    return f"{100 * truth.optimal():.1f}"


def _of(inside: Sequence[Verdict], count: int) -> str:
    return f"{len(inside) or 'none'} of {count} settings"


def _points(inside: Sequence[Verdict], rival: str) -> str:
    sizes = sorted(abs(100 * of.against[rival].mean) for of in inside)
    ends = [f"{sizes[0]:.1f}", f"{sizes[-1]:.1f}"]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
