"""What the verdicts say, as sentences and tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.record.design import LEFT_OUT, Design
from benchmarks.record.table import Key, Trained, lacking
from benchmarks.record.verdicts import (
    ALONE,
    Verdict,
    by_condition,
    everywhere,
    mean,
    ranks,
    sure,
    within,
)

from equimodal.compare.statistics import Estimate
from equimodal.methods.shortlist import Recommended

Found = Mapping[str, Mapping[str, Verdict]]
FEW = 3.0  # points: a loss above it gets a cause


def answer(found: Found, listed: Sequence[Recommended]) -> str:
    """Return the first sentences: what to take, and whether anything beats the baselines."""
    ranking = ranks(found)
    rows = [row for row in everywhere(found) if row != "joint"]
    beats = {
        rival: [
            row
            for row in rows
            if row != rival
            and ranking.mean[row] < ranking.mean[rival]
            and not ranking.alike(row, rival)
        ]
        for rival in ("joint", "multi-loss")
    }
    first = listed[0] if listed else None
    taken = (
        f"Take {first.name} if you can try one alone: {first.mean:+.1f} points over joint training "
        f"in the mean of {len(found)} data sets, and worse beyond the noise of seeds on none."
        if first
        else "Take joint training: nothing is better on one data set and worse on none."
    )
    told = {
        rival: (
            f"better than {name}: {', '.join(beats[rival])}"
            if beats[rival]
            else f"better than {name}: none"
        )
        for rival, name in (("joint", "tuned joint training"), ("multi-loss", "tuned multi-loss"))
    }
    return (
        f"{taken} Multi-loss, which has one knob, brings "
        f"{mean(found, 'multi-loss'):+.1f}. Of {len(rows)} methods, told apart by their ranks over "
        f"all data sets (critical difference {ranking.critical:.1f} ranks, which is large for "
        f"{len(found)} data sets): {told['joint']}; {told['multi-loss']}. Joint training itself "
        f"has mean rank {ranking.mean['joint']:.1f} of {len(rows) + 1}."
    )


def summary(found: Found) -> str:
    """Return rows by data sets: differences to joint training."""
    ranking = ranks(found)
    rows = sorted(everywhere(found), key=lambda row: (-mean(found, row), row))
    head = ["method", *found, "mean", "rank"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for row in rows:
        cells = [
            f"{100 * of['joint'].test.mean:.1f}" if row == "joint" else _cell(of[row])
            for of in found.values()
        ]
        total = "" if row == "joint" else f"{mean(found, row):+.1f}"
        lines.append(_line([row, *cells, total, f"{ranking.mean[row]:.1f}"]))
    return "\n".join(lines)


def each_set(found: Found, plan: Design) -> str:
    """Return a table of every data set, the best row first."""
    parts = []
    for name, of in found.items():
        setting = plan.sets[name]
        parts += [
            f"### {name}\n",
            f"{setting['title'].capitalize()}; {setting['epochs']} epochs of batches of "
            f"{setting['batch']}.\n",
            _line(["row", "accuracy", "against joint", "against multi-loss", "chosen"]),
            _line(["---", "---:", "---:", "---:", "---"]),
        ]
        for each in sorted(of.values(), key=lambda each: (-each.test.mean, each.row)):
            differences = (
                "" if rival == each.row else _signed(each.against[rival])
                for rival in ("joint", "multi-loss")
            )
            parts.append(_line([each.row, f"{each.test}", *differences, _chosen(each.chosen)]))
        parts.append("")
    return "\n".join(parts).rstrip()


def conditions(plan: Design, table: Mapping[Key, Sequence[Trained]], found: Found) -> str:
    """Return the mean over methods, and some rows, by encoder and optimizer."""
    rows = [row for row in everywhere(found) if row != "joint"]
    by = by_condition(plan, table, rows)
    names = list(next(iter(by.values())))
    lines = [_line(["", *names]), _line(["---", *["---:"] * len(names)])]
    joint = [within(table[name, "joint"]) for name in plan.sets]
    means = (100 * fmean(each[c] for each in joint) for c in names)
    lines.append(_line(["joint training, accuracy", *(f"{mean:.1f}" for mean in means)]))
    middle = [sorted(by[row][c].mean for row in rows) for c in names]
    lines.append(
        _line(["the median method, against it"] + [f"{100 * m[len(m) // 2]:+.1f}" for m in middle])
    )
    for row in ("multi-loss", "ogm", "ogm-ge"):
        lines.append(_line([f"{row}, against it", *(f"{by[row][c]:+}" for c in names)]))
    better = [sum(sure(by[row][c]) > 0 for row in rows) for c in names]
    worse = [sum(sure(by[row][c]) < 0 for row in rows) for c in names]
    lines.append(_line([f"methods that are better, of {len(rows)}", *map(str, better)]))
    lines.append(_line(["methods that are worse", *map(str, worse)]))
    return "\n".join(lines)


def ends(plan: Design, found: Found) -> str:
    """Return how often a row chose the largest or the smallest learning rate there was."""
    chosen = [each.chosen.trial for of in found.values() for each in of.values()]
    parts = []
    for optimizer, rates in plan.rates.items():
        own = [trial.rate for trial in chosen if trial.optimizer == optimizer]
        counts = ", ".join(f"{rate:g} {own.count(rate)} times" for rate in rates)
        parts.append(f"{optimizer} {len(own)} times ({counts})")
    normalised = sum(trial.encoder == "normalised" for trial in chosen)
    return (
        f"Validation chose normalised encoders in {normalised} of {len(chosen)} rows; "
        f"{' and '.join(parts)}."
    )


def losses(found: Found) -> list[tuple[str, str, Estimate]]:
    """Return rows that lost more than three points beyond the noise of seeds, the worst first."""
    lost = [
        (each.row, name, each.against["joint"])
        for name, of in found.items()
        for each in of.values()
        if sure(each.against["joint"]) < 0
        and 100 * each.against["joint"].mean < -FEW
        and not each.row.endswith(ALONE)
    ]
    return sorted(lost, key=lambda each: each[2].mean)


def lost(found: Found) -> str:
    """Return a table of these, by row."""
    by: dict[str, list[str]] = {}
    for row, name, of in losses(found):
        by.setdefault(row, []).append(f"{name} {_signed(of)}")
    lines = [_line(["row", "lost"]), _line(["---", "---"])]
    lines += [_line([row, "; ".join(where)]) for row, where in by.items()]
    return "\n".join(lines) if by else "None did."


def left_out(plan: Design, table: Mapping[Key, Sequence[Trained]]) -> str:
    """Return what is not in the tables, and why."""
    lines = [f"- `{name}` {why}." for name, why in LEFT_OUT.items()]
    for (name, row), of in table.items():
        if name in plan.sets and (why := lacking(of)):
            lines.append(f"- `{row}` on {name}: {why}.")
    return "\n".join(lines)


def shortlist(listed: Sequence[Recommended], rows: int | None, links: str) -> str:
    """Return the shortlist.

    Args:
        listed: of the package.
        rows: the first so many; None for all.
        links: the folder of the methods' pages, from where the table stands.
    """
    head = ["", "method", "mean", "most", "least", "better on", "worse on", "step"]
    lines = [_line(head), _line(["---:", "---", *["---:"] * 6])]
    for place, each in enumerate(listed[:rows], 1):
        of = len(each.on)
        better = sum(on.low > 0 for on in each.on.values())
        means = [on.mean for on in each.on.values()]
        lines.append(
            _line(
                [
                    str(place),
                    f"[{each.name}]({links}{each.name}.md)",
                    f"{each.mean:+.1f}",
                    f"{max(means):+.1f}",
                    f"{min(means):+.1f}",
                    f"{better} of {of}",
                    f"0 of {of}",
                    f"{each.step:.2f}x" if each.step else "",
                ]
            )
        )
    return "\n".join(lines)


def points(of: Estimate) -> list[float]:
    """Return a mean and the ends of its interval in points, as they are recorded everywhere."""
    return [round(100 * each, 6) for each in (of.mean, of.low, of.high)]


def _signed(of: Estimate) -> str:
    mean, low, high = points(of)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _cell(of: Verdict) -> str:
    against = of.against["joint"]
    return f"**{_signed(against)}**" if sure(against) else _signed(against)


def _chosen(of: Trained) -> str:
    options = {
        argument: value
        for given in of.trial.options.values()
        for argument, value in given.items()
        if argument != "modality"
    }
    more = f", {json.dumps(options)[1:-1]}" if options else ""
    return f"{of.trial.condition} {of.trial.rate:g}{more.replace(chr(34), '')}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
