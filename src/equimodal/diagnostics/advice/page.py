"""A diagnosis as a page of text, at most 80 columns wide but for a command in its last line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from equimodal.diagnostics.advice.diagnosis import Diagnosis
from equimodal.diagnostics.advice.verdicts import Advice
from equimodal.diagnostics.interval import Interval

WIDTH = 78
NAME = 38  # columns before a number


def page(found: Diagnosis) -> str:
    """Return a diagnosis as text; the advice comes last, where a terminal shows it."""
    where = " ".join(each for each in (found.split, found.data) if each)
    head = f"{found.model}: {found.samples:,} samples{f' of {where}' if where else ''}"
    lines = [
        *_wrapped(f"{head}, {len(found.classes)} classes"),
        "Accuracies in per cent with 95% intervals over samples",
        "",
        _line("accuracy", found.accuracy),
        _line("chance", f"{100 * found.chance:.1f}", 0),
    ]
    for name in found.modalities:
        lines += ["", *_wrapped(name), *_modality(found, name)]
    lines += ["", *_agreement(found), *_leads(found), *_together(found), "", *_cost(found.cost)]
    for note in found.notes:
        lines += ["", *_wrapped(note)]
    if found.advice is not None:
        lines += ["", *_advice(found.advice)]
    return "\n".join(lines)


def _modality(found: Diagnosis, name: str) -> Iterator[str]:
    read = found.read[name]
    others = {"zero": "zero", "mean": "the mean", "shuffled": "another sample's"}[read.fill]
    yield _line("read alone through the head", read.accuracy)
    yield f"    (the others are {others}; {'more' if read.tells else 'no more'} than chance)"
    for what, of in (
        ("a linear probe on its encoder", found.probes),
        ("its encoder trained alone", found.alone),
        ("gap, alone minus probe", found.gap),
    ):
        if of is not None:
            yield _line(what, of[name], sign="+" if "gap" in what else "")
    for fill, values in found.shapley.items():
        yield _line(f"Shapley value, fill {fill}", values[name], sign="+")
    drop = found.robustness.get("drop", {}).get("swapped", {}).get(name)
    if drop is not None:
        yield _line("lost with another sample's", _interval(drop), sign="+")


def _agreement(found: Diagnosis) -> Iterator[str]:
    table = found.agreement
    many = len(found.modalities) > 2
    yield "Right alone, through the head, in per cent of the samples"
    yield _line("all of them" if many else "both", f"{100 * table['both']:.1f}", 0)
    for name, share in table["only"].items():
        yield _line(f"only {name}", f"{100 * share:.1f}", 0)
    yield _line("none" if many else "neither", f"{100 * table['neither']:.1f}", 0)


def _together(found: Diagnosis) -> Iterator[str]:
    if found.together is not None:
        yield ""
        yield "One linear head on all features"
        yield _line("of encoders trained alone", found.together.alone)
        yield _line("of the model's encoders", found.together.joint)
        yield _line("better encoders would bring", found.together.promise, sign="+")
    yield ""
    yield _line("calibration error, points", f"{100 * found.calibration['ece']:.1f}", 0)


def _cost(cost: Mapping[str, Any]) -> Iterator[str]:
    yield f"Cost, with a batch of {cost['batch']:,}"
    for name, count in cost["parameters"].items():
        yield _line(f"parameters of {name}", f"{count:,}")
    for name, count in cost["flops"].items():
        yield _line(f"operations a sample, {name}", f"{count:,.0f}")
    yield _line("milliseconds of a forward", f"{1000 * cost['seconds']:,.2f}")
    step = cost.get("seconds_step")  # which earlier diagnoses did not measure
    if step is not None:
        yield _line("milliseconds of a training step", f"{1000 * step:,.2f}")
    elif "untimed" in cost:
        yield from _wrapped(f"no training step was timed: {cost['untimed']}", 2)


def _leads(found: Diagnosis) -> Iterator[str]:
    for name, leads in found.agreement.get("leads", {}).items():
        sure = [each for each in leads if each["gap"]["low"] > 0]
        if sure:
            shown = ", ".join(
                f"{each['class']} ({100 * each['gap']['value']:+.0f})" for each in sure
            )
            yield from _wrapped(f"{name} leads in: {shown}", 2)


def _advice(advice: Advice) -> Iterator[str]:
    yield f"Advice: {advice.verdict}"
    yield from _wrapped(advice.summary, 2)
    if advice.ignored:
        yield from _wrapped(f"Ignored: {', '.join(advice.ignored)}", 2)
    if advice.because:
        yield "Because"
    for reason in advice.because:
        yield from _wrapped(reason.text, 2, "- ")
        for name, of in reason.evidence.items():
            yield _line(f"  {name}", of if isinstance(of, Interval) else f"{of:,}")
    if advice.next:
        yield "Next"
    commands = [each for each in advice.next if each.startswith("equimodal ")]
    for each in advice.next:
        if each not in commands:
            yield from _wrapped(each, 2, "- ")
    yield from commands  # by itself in a line, however long, to be pasted as it stands


def _line(what: str, of: Interval | str, indent: int = 2, sign: str = "") -> str:
    spelt = format(of, sign) if isinstance(of, Interval) else of
    start = (
        f"  {textwrap.shorten(what, NAME - 4, placeholder='...') if len(what) > NAME - 4 else what}"
    )
    return f"{start:<{NAME}}{spelt}"


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(found["value"], found["low"], found["high"])


def _wrapped(text: str, indent: int = 0, mark: str = "") -> list[str]:
    margin = " " * indent
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=margin + mark,
        subsequent_indent=margin + " " * len(mark),
        break_on_hyphens=False,
    )
