"""Figures of a diagnosis: what each modality contributes, and how it stands disturbance."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from equimodal.report.classes import classes
from equimodal.report.dots import dotted
from equimodal.report.findings import Findings
from equimodal.report.picture import GRID, QUIET, SERIES, Panel, Picture, Table, number

EVERY_SUBSET = 3  # modalities up to which a figure shows all subsets
NONE = "no modality"


def pictures(findings: Findings) -> list[Picture]:
    """Return the figures that a diagnosis has numbers for."""
    found = [
        _shapley(findings),
        _subsets(findings),
        _encoders(findings),
        classes(findings),
        _robustness(findings),
        _calibration(findings),
    ]
    return [picture for picture in found if picture is not None]


def _shapley(findings: Findings) -> Picture | None:
    series = {
        _filled(fill): findings.measured("shapley", fill) for fill in findings.parts("shapley")
    }
    return dotted(
        "shapley",
        "What each modality adds",
        "Shapley value: points of accuracy that a modality adds, averaged over the orders in which "
        "the modalities can join. What is left out is replaced in three ways, because zeros are "
        "unlike anything that the model was trained on.",
        series,
        "Shapley value (points)",
        "modality",
        line=0.0,
    )


def _subsets(findings: Findings) -> Picture | None:
    series = {
        _filled(fill): {
            name or NONE: value for name, value in findings.measured("subsets", fill).items()
        }
        for fill in findings.parts("subsets")
    }
    chance = findings.number("chance")
    names = findings.modalities
    shown = None
    if len(names) > EVERY_SUBSET:
        kept = {frozenset((name,)) for name in names} | {frozenset(names)}
        kept |= {frozenset(names) - {name} for name in names}
        labels = [name for by_name in series.values() for name in by_name]
        shown = [n for n in dict.fromkeys(labels) if frozenset(n.split("+")) in kept]
    caption = "Accuracy in per cent with these modalities alone, the others replaced."
    if chance is not None:
        caption += f" The line is chance, {100 * chance:.1f}."
    if shown is not None:
        caption += " Single ones, all, and all but one; the table has every subset."
    return dotted(
        "subsets", "Accuracy of subsets", caption, series, "accuracy (%)", "modalities",
        line=chance, shown=shown,
    )  # fmt: skip


def _encoders(findings: Findings) -> Picture | None:
    series = {
        "read through the joint head": findings.read(),
        "probe on the frozen encoder": findings.measured("probes"),
        "trained alone": findings.measured("alone"),
        "alone above probe": findings.measured("gap"),
        "alone above reading": findings.measured("shortfall"),
    }
    if not (series["probe on the frozen encoder"] or series["trained alone"]):
        return None
    drawn = {name: values for name, values in series.items() if "above" not in name}
    return dotted(
        "encoders",
        "What joint training left of each encoder",
        "Accuracy in per cent of each modality: read through the joint head, by a linear probe on "
        "its frozen encoder, and by a model trained on it alone. A probe far below the model "
        "trained alone: joint training held the encoder back. A reading far below the probe: the "
        "head does not use what the encoder has.",
        drawn,
        "accuracy (%)",
        "modality",
        line=findings.number("chance"),
        further=series,
    )


def _robustness(findings: Findings) -> Picture | None:
    series = {
        said: findings.measured("robustness", kind)
        for kind, said in (
            ("missing", "missing"),
            ("zeros", "zeros in its place"),
            ("noised", "noised"),
            ("swapped", "another sample's"),
            ("corrupted", "corrupted"),
        )
    }
    whole = findings.number("accuracy")
    caption = "Accuracy in per cent when one modality is disturbed."
    if whole is not None:
        caption += f" The line is the accuracy with all as they are, {100 * whole:.1f}."
    return dotted(
        "robustness", "Robustness", caption, series, "accuracy (%)", "modality", line=whole
    )


def _calibration(findings: Findings) -> Picture | None:
    bins = [b for b in findings.bins() if {"confidence", "accuracy"} <= set(b)]
    if not bins:
        return None
    error = findings.number("calibration", "ece")

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=QUIET, linewidth=0.8)
        known = [b for b in bins if math.isfinite(b["confidence"]) and math.isfinite(b["accuracy"])]
        axes.plot(
            [100 * b["confidence"] for b in known],
            [100 * b["accuracy"] for b in known],
            "o-",
            color=SERIES[5],
            markersize=4,
        )
        axes.set_xlabel("confidence (%)")
        axes.set_ylabel("accuracy (%)")
        axes.grid(color=GRID)

    columns = list(dict.fromkeys(name for b in bins for name in b))
    said = "" if error is None else f" Expected calibration error: {100 * error:.1f} points."
    return Picture(
        "calibration",
        "Calibration",
        "How often predictions of a given confidence are right; on the line if the model knows "
        f"what it knows.{said}",
        f"Accuracy against confidence in {len(bins)} bins.{said}",
        [Panel("Calibration", draw, wide=True)],
        [],
        Table(
            "Bins of confidence",
            columns,
            [[number(b.get(name)) for name in columns] for b in bins],
        ),
    )


def _filled(fill: str) -> str:
    return {
        "zero": "left out: zero",
        "mean": "left out: mean",
        "shuffled": "left out: another sample's",
    }.get(fill, fill)
